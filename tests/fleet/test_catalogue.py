"""Catalogues: what can be used, and what is wrong with the rest, each by its row."""

from __future__ import annotations

import time
from pathlib import Path

import pandas as pd
import pytest

from personalize.fleet import catalogue as catalogues
from personalize.recipe import RecipeError
from tests.fleet.conftest import photographs

HEAD = "token,class_noun,photographs\n"


def table(root: Path, *rows: str, head: str = HEAD) -> str:
    (root / "products.csv").write_text(head + "".join(row + "\n" for row in rows), encoding="utf-8")
    return str(root / "products.csv")


def test_paths_are_relative_to_the_catalogue_and_rows_are_counted_as_an_editor_does(tmp_path: Path) -> None:
    photographs(tmp_path / "pics/a")
    photographs(tmp_path / "pics/b")
    path = table(
        tmp_path,
        '"zwvchr",chair,pics/a,"a\nnote",me',
        "",
        "brkchr,coffee_table,pics/b,,",
        head=HEAD.strip() + ",note,rights\n",
    )
    found = catalogues.read(path)
    assert [(entry.row, entry.name, entry.rights) for entry in found.entries] == [
        (2, "chair/zwvchr", "me"),
        (5, "coffee table/brkchr", ""),
    ]
    assert found.entries[0].photographs == str(tmp_path / "pics/a")
    assert found.unused == ("note",)
    assert not found.faults


def test_a_row_that_a_comma_cuts_is_named_and_stops_no_other(tmp_path: Path) -> None:
    photographs(tmp_path / "a")
    photographs(tmp_path / "b")
    path = table(tmp_path, "zwvchr,chair,a,Meyer, Sons", "brkchr,chair,b,us", head=HEAD.strip() + ",rights\n")
    found = catalogues.read(path)
    assert [entry.token for entry in found.entries] == ["brkchr"]
    assert "row 2: it has 5 fields, the first line names 4 columns" in str(found.faults[0])


@pytest.mark.parametrize("mark", [";", "\t"])
def test_other_separators_and_a_byte_order_mark(tmp_path: Path, mark: str) -> None:
    photographs(tmp_path / "a")
    (tmp_path / "p.csv").write_text(
        "\ufeff" + mark.join(["token", "class_noun", "photographs"]) + f"\nzw{mark}chair{mark}a\n"
    )
    assert catalogues.read(str(tmp_path / "p.csv")).entries[0].name == "chair/zw"


def test_parquet_says_the_same(tmp_path: Path) -> None:
    photographs(tmp_path / "a")
    frame = pd.DataFrame([{"token": "zwvchr", "class_noun": "chair", "photographs": "a", "rights": None}])
    frame.to_parquet(tmp_path / "p.parquet")
    (entry,) = catalogues.read(str(tmp_path / "p.parquet")).entries
    assert (entry.row, entry.name, entry.rights) == (1, "chair/zwvchr", "")


def test_a_folder_is_a_catalogue(tmp_path: Path) -> None:
    photographs(tmp_path / "shop/chair/zwvchr")
    photographs(tmp_path / "shop/chair/Bad Name")
    (tmp_path / "shop/sofa").mkdir()
    found = catalogues.read(str(tmp_path / "shop"))
    assert [entry.name for entry in found.entries] == ["chair/zwvchr"]
    assert [fault.name for fault in found.faults] == ["chair/Bad Name", "sofa"]


BAD = {
    "zwvchr,chair,a": "",
    "zwvchr,chair,b": "row 3: the token 'zwvchr' is in row 2 already",
    "zwvchr,sofa,c": "row 4: the token 'zwvchr' is a chair in row 2 and a sofa here; one word cannot mean both",
    "brkchr,chair,a": "row 5: its photographs are those of chair/zwvchr (row 2)",
    "tomchr,chair,gone": "row 6: its photographs {root}/gone do not exist",
    "<b>x</b>,chair,d": "row 7: token: '<b>x</b>' cannot be a token",
    "tamchr,<script>,d": "row 8: class_noun: '<script>' cannot be a class noun",
    "timchr,,d": "row 9: it has no class_noun",
    "tumchr,chair,few": "row 10: it has 2 photographs, and needs 3: {root}/few",
    "temchr,chair,wrap": "row 11: it has no photograph (they lie in folders below it), and needs 3",
    "okchr,chair,outer": "row 12: the photographs of chair/inchr (row 13) lie inside its folder {root}/outer",
    "inchr,chair,outer/inner": "",
    "zipchr,chair,gone.zip": "row 14: its photographs {root}/gone.zip do not exist",
    "filchr,chair,a/0.png": "row 15: its photographs {root}/a/0.png are one file",
}


def test_each_bad_row_is_named_and_stops_no_other(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d", "outer", "outer/inner", "wrap/below"):
        photographs(tmp_path / name)
    photographs(tmp_path / "few", 2)
    found = catalogues.read(table(tmp_path, *BAD), fewest=3)
    assert [entry.name for entry in found.entries] == ["chair/zwvchr", "chair/inchr"]
    said = [str(fault) for fault in found.faults]
    expected = [words.format(root=tmp_path) for words in BAD.values() if words]
    assert len(said) == len(expected)
    for words, want in zip(said, expected, strict=True):
        assert words.startswith(want), words


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("token,class_noun,Images\n", "no column 'photographs'; is it 'Images'? Rename that to 'photographs'"),
        ("sku,class_noun,photographs\n", "no column 'token'; is it 'sku'?"),
        (
            "token,class_nuon,photographs\n",
            "no column 'class_noun'; did you mean 'class_nuon'?, rename it to 'class_noun'",
        ),
        ("x,y\n", "no column 'token'; no column 'class_noun'; no column 'photographs'. Its columns are x, y"),
        ("token,token,class_noun,photographs\n", "column 'token' is there twice"),
    ],
)
def test_a_column_of_another_name_is_suggested(tmp_path: Path, head: str, words: str) -> None:
    with pytest.raises(RecipeError) as told:
        catalogues.read(table(tmp_path, "a,b,c", head=head))
    assert words in str(told.value)


def test_what_is_no_catalogue_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="does not exist"):
        catalogues.read(str(tmp_path / "none.csv"))
    with pytest.raises(RecipeError, match="has no subject in it"):
        catalogues.read(table(tmp_path))
    (tmp_path / "latin.csv").write_bytes(HEAD.encode() + "zw,châir,a\n".encode("latin-1"))
    with pytest.raises(RecipeError, match="not UTF-8"):
        catalogues.read(str(tmp_path / "latin.csv"))
    with pytest.raises(RecipeError, match="export it as CSV or parquet"):
        catalogues.read("main.shop.products")
    (tmp_path / "broken.parquet").write_text("no")
    with pytest.raises(RecipeError, match="cannot be read as parquet"):
        catalogues.read(str(tmp_path / "broken.parquet"))


def test_a_hundred_thousand_rows_are_read_in_seconds(tmp_path: Path) -> None:
    rows = (f"tok{number},chair,gone/{number}" for number in range(100_000))
    path, began = table(tmp_path, *rows), time.monotonic()
    found = catalogues.read(path)
    assert len(found.faults) == 100_000
    assert time.monotonic() - began < 30
