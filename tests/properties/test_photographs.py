# ruff: noqa: PT017  (a refusal is one of two good ends)
"""Names, captions and archives: what holds of them whatever somebody's files are called and whatever they say."""

from __future__ import annotations

import csv
import io
import json
import tarfile
import tempfile
import unicodedata
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from personalize.files import tree_digest
from personalize.photographs.captions import check_template, compose
from personalize.photographs.layout import WrongLayout, check_class_noun, check_token, find_photographs
from personalize.photographs.prompts import MAX_CHARACTERS, Subject, mentions, without_token
from personalize.photographs.reading import safe_stem
from personalize.photographs.sidecars import read_table
from personalize.photographs.unpacking import Refused, inner_path, unpack

anything = st.text(max_size=300)
words = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40).filter(str.strip)
on_disk = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/\\"), min_size=1, max_size=30
).filter(lambda name: name.strip(". ") and not name.startswith("."))
tokens = st.from_regex(r"[a-z][a-z0-9]{1,31}", fullmatch=True)
pieces = st.sampled_from(["a", "b", "..", ".", "", "/", "\\", "C:", "\0", "é", "x" * 300, "\ud800", "chair"])
paths = st.lists(pieces, min_size=1, max_size=8).map("/".join) | anything


@contextmanager
def place() -> Iterator[Path]:
    """A folder for one example: a fixture's is shared by all of them."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder).resolve()


def inside(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@given(anything)
@example("..")
@example("<b>..jpg")
def test_a_file_stem_is_plain_ascii_that_every_file_system_takes(name: str) -> None:
    stem = safe_stem(name.replace("\0", ""))
    assert stem
    assert len(stem) <= 60
    assert stem.isascii()
    assert all(char.isalnum() or char in "-_" for char in stem)


@given(anything)
def test_a_word_is_taken_for_a_token_as_it_is_or_refused_by_name(word: str) -> None:
    try:
        assert check_token(word, "token") == word
    except WrongLayout as error:
        assert "cannot be a token" in str(error)
    else:
        assert word.isascii()
        assert word == word.lower()
        assert 2 <= len(word) <= 32


@given(anything)
def test_a_class_noun_that_was_taken_is_taken_again_and_never_has_markup_or_a_path_in_it(noun: str) -> None:
    try:
        taken = check_class_noun(noun, "class_noun")
    except WrongLayout:
        return
    assert check_class_noun(taken, "class_noun") == taken
    assert not set(taken) & set('<>&/\\{}"\n\0')


@given(paths)
def test_a_member_of_an_archive_lies_below_its_folder_or_is_refused(name: str) -> None:
    try:
        path = inner_path(name)
    except Refused:
        return
    assert not path.is_absolute()
    assert ".." not in path.parts
    with place() as root:
        assert (root / path).resolve().is_relative_to(root)


@given(st.lists(st.tuples(paths, st.binary(max_size=50)), max_size=6), st.booleans())
def test_an_archive_writes_below_its_folder_or_leaves_nothing_at_all(
    members: list[tuple[str, bytes]], zipped: bool
) -> None:
    with place() as root:
        archive = root / ("given.zip" if zipped else "given.tar")
        try:
            pack(archive, members)
        except (ValueError, OSError, tarfile.TarError):  # what cannot be packed cannot be sent
            assume(False)
        before = archive.read_bytes()
        try:
            unpack(archive, root / "out")
        except Refused:
            assert list((root / "out").iterdir()) == []
        assert {path.name for path in root.iterdir()} <= {archive.name, "out"}
        assert archive.read_bytes() == before


def pack(archive: Path, members: list[tuple[str, bytes]]) -> None:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as opened:
            for name, content in members:
                opened.writestr(zipfile.ZipInfo(name), content)
    else:
        with tarfile.open(archive, "w") as tar:
            for name, content in members:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


@given(st.binary(max_size=3000))
@example(b"PK\5\6" + bytes(18))
@example(b"\x1f\x8b" + bytes(40))
def test_whatever_bytes_are_called_an_archive_are_unpacked_or_refused_in_words(content: bytes) -> None:
    with place() as root:
        (root / "given.tar").write_bytes(content)
        try:
            unpack(root / "given.tar", root / "out")
        except Refused as error:
            assert str(error).startswith("given.tar: ")


@given(st.dictionaries(on_disk, st.tuples(tokens, on_disk), max_size=4), st.lists(on_disk, max_size=3))
def test_every_file_of_a_folder_is_a_photograph_or_left_out_with_a_reason_or_the_folder_is_refused(
    classes: dict[str, tuple[str, str]], strays: list[str]
) -> None:
    with place() as root:
        data = root / "data"
        names = [f"{noun}/{token}/{name}.jpg" for noun, (token, name) in classes.items()] + strays
        for name in names:
            if len(name.encode()) < 200 and not (data / name).exists() and not (data / name).parent.is_file():
                (data / name).parent.mkdir(parents=True, exist_ok=True)
                (data / name).write_bytes(b"x")
        data.mkdir(exist_ok=True)
        before = inside(data)
        try:
            found = find_photographs(data)
        except WrongLayout as error:
            assert str(error).strip()
        else:
            seen = {candidate.path for candidate in found.candidates}
            assert all(path.is_file() and path.is_relative_to(data) for path in seen)
            assert all(reason for reason in found.left_out.values())
        assert inside(data) == before


@given(words.filter(lambda text: len(text) < MAX_CHARACTERS), st.booleans())
def test_a_caption_in_a_table_comes_out_as_it_went_in(text: str, as_csv: bool) -> None:
    with place() as root:
        if as_csv:
            file, buffer = root / "metadata.csv", io.StringIO(newline="")
            csv.writer(buffer).writerows([["file_name", "text"], ["1.jpg", text]])
            file.write_text(buffer.getvalue(), encoding="utf-8", newline="")
        else:
            file = root / "metadata.jsonl"
            file.write_text(json.dumps({"file_name": "1.jpg", "text": text}), encoding="utf-8")
        assert list(read_table(file).values()) == [("1.jpg", text)]


@given(st.binary(max_size=500), st.sampled_from(["metadata.csv", "metadata.jsonl"]))
@example(b"[" * 500, "metadata.jsonl")
@example(b'file_name,text\n"', "metadata.csv")
def test_a_table_of_any_bytes_is_read_or_refused_by_its_name(content: bytes, name: str) -> None:
    with place() as root:
        (root / name).write_bytes(content)
        try:
            rows = read_table(root / name)
        except ValueError as error:
            assert name in str(error)
        else:
            assert all(isinstance(part, str) for row in rows.values() for part in row)


@given(on_disk)
def test_a_caption_is_that_of_its_photograph_however_its_accents_are_written(stem: str) -> None:
    composed, decomposed = (unicodedata.normalize(form, stem) for form in ("NFC", "NFD"))
    assume(max(len(name.encode()) for name in (composed, decomposed)) < 200)
    assume(unicodedata.normalize("NFC", decomposed) == composed)
    with place() as root:
        data = root / "chair" / "zwvchr"
        data.mkdir(parents=True)
        (data / f"{composed}.jpg").write_bytes(b"x")
        (data / f"{decomposed}.txt").write_text("a zwvchr chair", encoding="utf-8")
        assert [each.caption for each in find_photographs(root).candidates] == ["a zwvchr chair"]


@given(anything, tokens)
def test_a_text_without_its_token_mentions_it_no_more(text: str, token: str) -> None:
    assert not mentions(without_token(f"{text} {token}, {text}", token), token)


@given(tokens, st.sampled_from(["chair", "office chair", "tea pot"]), words)
def test_a_caption_mentions_its_token_whatever_its_context(token: str, noun: str, context: str) -> None:
    assert mentions(compose(Subject(token, noun), context), token)


@given(anything)
def test_a_template_that_is_taken_can_be_filled_in(template: str) -> None:
    for text in (template, f"{template}{{token}} {{class_noun}}"):
        try:
            check_template(text)
        except ValueError as error:
            assert "needs {token} and {class_noun}" in str(error)
        else:
            assert "zwvchr" in compose(Subject("zwvchr", "chair"), template=text)


@given(st.dictionaries(on_disk, st.binary(max_size=20), min_size=1, max_size=5))
def test_a_folders_digest_is_that_of_its_contents_wherever_it_lies(contents: dict[str, bytes]) -> None:
    with place() as root:
        for top in ("one", "two"):
            (root / top).mkdir()
            for name, content in sorted(contents.items(), reverse=top == "two"):
                assume(len(name.encode()) < 200)
                (root / top / name).write_bytes(content)
        assert tree_digest(root / "one") == tree_digest(root / "two")
        changed = next(iter(inside(root / "one")), None)
        assume(changed is not None)
        (root / "one" / str(changed)).write_bytes(b"something else of a length that was not there")
        assert tree_digest(root / "one") != tree_digest(root / "two")


@pytest.mark.parametrize("kind", [".zip", ".tar"])
def test_what_is_packed_whole_comes_out_whole(kind: str, tmp_path: Path) -> None:
    """So that the properties above are not kept by refusing everything."""
    pack(tmp_path / f"given{kind}", [("chair/a/1.jpg", b"one"), ("chair/a/é.jpg", b"two")])
    unpack(tmp_path / f"given{kind}", tmp_path / "out")
    assert inside(tmp_path / "out") == {"chair/a/1.jpg": b"one", "chair/a/é.jpg": b"two"}
