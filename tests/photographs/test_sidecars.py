"""Captions in all the ways in which people write them beside their photographs: used, or named with the reason."""

import json
import unicodedata
from pathlib import Path

import pytest

from personalize.photographs.layout import WrongLayout, find_photographs

PLACE = "chair/zwvchr/"


def laid_out(root: Path, files: dict[str, str], photographs: tuple[str, ...] = ("1.jpg", "2.jpg", "3.jpg")):
    """What is found: captions by the photograph's file name, and what was left out."""
    (root / PLACE).mkdir(parents=True)
    for name in photographs:
        (root / PLACE / name).write_bytes(b"photo")
    for name, text in files.items():
        (root / name).write_text(text, encoding="utf-8")
    layout = find_photographs(root)
    return {one.path.name: one.caption for one in layout.candidates if one.caption}, dict(layout.left_out)


@pytest.mark.parametrize("name", ["1.txt", "1.TXT", "1.jpg.txt", "1.caption", "1.JPG.Caption"])
def test_a_sidecar_is_read_however_it_is_called(tmp_path: Path, name: str) -> None:
    assert laid_out(tmp_path, {PLACE + name: "a chair,\n by a window"}) == ({"1.jpg": "a chair, by a window"}, {})


def test_a_caption_without_a_photograph_and_a_second_one_are_named(tmp_path: Path) -> None:
    used, unused = laid_out(
        tmp_path, {PLACE + "gone.txt": "x", PLACE + "1.txt": "first", PLACE + "1.caption": "second"}
    )
    assert used == {"1.jpg": "first"}
    assert unused == {
        PLACE + "gone.txt": "a caption for which there is no photograph of that name",
        PLACE + "1.caption": "a second caption of 1.jpg",
    }


def test_twins_that_differ_by_capitals_have_their_own(tmp_path: Path) -> None:
    used, unused = laid_out(
        tmp_path, {PLACE + "Photo.txt": "large", PLACE + "photo.txt": "small"}, ("Photo.jpg", "photo.jpg")
    )
    assert (used, unused) == ({"Photo.jpg": "large", "photo.jpg": "small"}, {})


def rows(*of: tuple[str, str]) -> str:
    return "".join(json.dumps({"file_name": name, "text": text}, ensure_ascii=False) + "\n" for name, text in of)


@pytest.mark.parametrize(
    "called",
    ["2.jpg", "chair/zwvchr/2.jpg", "images/2.jpg", "2.png", "2.JPG", ".\\images\\2.jpg", "photos/zwvchr/2.jpeg"],
)
def test_a_row_is_met_where_only_one_photograph_can_be_meant(tmp_path: Path, called: str) -> None:
    assert laid_out(tmp_path, {"metadata.jsonl": rows((called, "a chair"))}) == ({"2.jpg": "a chair"}, {})


def test_composed_and_decomposed_letters_are_the_same(tmp_path: Path) -> None:
    name = unicodedata.normalize("NFD", "stühle.jpg")
    used, _ = laid_out(tmp_path, {"metadata.jsonl": rows((unicodedata.normalize("NFC", name), "chairs"))}, (name,))
    assert used == {name: "chairs"}


def test_a_row_of_no_photograph_or_of_several_is_named_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "chair/brkchr").mkdir(parents=True)
    (tmp_path / "chair/brkchr/1.jpg").write_bytes(b"photo")
    used, unused = laid_out(tmp_path, {"metadata.jsonl": rows(("2.jpg", "two"), ("9.jpg", "nine"), ("1.jpg", "which"))})
    assert used == {"2.jpg": "two"}
    assert unused == {
        "metadata.jsonl, line 2": "a caption for '9.jpg', which is not there",
        "metadata.jsonl, line 3": "a caption for '1.jpg', which is not there",
    }


def test_a_table_may_be_csv_and_the_nearer_one_wins(tmp_path: Path) -> None:
    files = {
        "metadata.csv": 'file_name,text\n1.jpg,"a chair, far"\n2.jpg,"two\nlines"\n',
        PLACE + "metadata.jsonl": rows(("1.jpg", "a chair, near")),
    }
    assert laid_out(tmp_path, files) == ({"1.jpg": "a chair, near", "2.jpg": "two lines"}, {})


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("metadata.csv", "name,caption\n1.jpg,x\n", "not the columns file_name and text"),
        ("metadata.csv", "file_name,text\n1.jpg,a chair, by a window\n", "line 2: it has 3 fields"),
        ("metadata.csv", 'file_name,text\n1.jpg,"a chair\n', "line 2: unexpected end of data"),
        ("metadata.jsonl", "[" * 100_000 + "\n", "line 1: TooDeep"),
        ("metadata.jsonl", rows(("1.jpg", "x")) + "null\n", "line 2: TypeError"),
    ],
)
def test_a_table_that_cannot_be_read_is_named(tmp_path: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(WrongLayout, match=words):
        laid_out(tmp_path, {name: text})
