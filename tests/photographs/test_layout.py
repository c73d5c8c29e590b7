"""Which file shows which subject; and what is said when the folder does not tell."""

import json
import os
from pathlib import Path

import pytest

from personalize.files import tree_digest
from personalize.photographs.layout import (
    WrongLayout,
    check_class_noun,
    check_token,
    find_photographs,
    subjects_of,
)
from personalize.photographs.prompts import Subject
from personalize.photographs.sidecars import read_table


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"photo")
    return root


def found(root: Path, **options: str) -> dict[str, str]:
    return {candidate.name: candidate.subject.name for candidate in find_photographs(root, **options).candidates}


def test_class_nouns_and_tokens_are_read_from_the_folders(tmp_path: Path) -> None:
    touch(tmp_path, "chair/zwvchr/b.JPG", "chair/zwvchr/a.png", "chair/brkchr/1.webp", "office_chair/qpdchr/1.jpeg")
    assert found(tmp_path) == {
        "chair/brkchr/1.webp": "brkchr chair",
        "chair/zwvchr/a.png": "zwvchr chair",
        "chair/zwvchr/b.JPG": "zwvchr chair",
        "office_chair/qpdchr/1.jpeg": "qpdchr office chair",
    }
    subjects = subjects_of(find_photographs(tmp_path).candidates)
    assert subjects == [Subject("brkchr", "chair"), Subject("zwvchr", "chair"), Subject("qpdchr", "office chair")]


def test_a_flat_folder_needs_token_and_class_noun(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg")
    assert found(tmp_path, token="tqpot", class_noun="teapot") == {"1.jpg": "tqpot teapot", "2.jpg": "tqpot teapot"}
    with pytest.raises(WrongLayout, match=r"(?s)flat folder: give token and class_noun"):
        find_photographs(tmp_path)
    with pytest.raises(WrongLayout, match="token is given without class_noun"):
        find_photographs(tmp_path, token="tqpot")
    with pytest.raises(WrongLayout, match="class_noun is given without token"):
        find_photographs(tmp_path, class_noun="teapot")


def test_a_folder_around_everything_does_not_matter(tmp_path: Path) -> None:
    touch(tmp_path / "nested", "my photos/all/chair/zwvchr/1.jpg", "my photos/all/chair/brkchr/1.jpg")
    assert set(found(tmp_path / "nested").values()) == {"zwvchr chair", "brkchr chair"}
    touch(tmp_path / "flat", "teapot/1.jpg", "teapot/2.jpg")
    assert len(found(tmp_path / "flat", token="tqpot", class_noun="teapot")) == 2


def test_folders_of_subjects_without_class_nouns_are_explained(tmp_path: Path) -> None:
    touch(tmp_path, "teapot/1.jpg", "teapot/2.jpg", "dog/1.jpg")
    with pytest.raises(WrongLayout) as wrong:
        find_photographs(tmp_path)
    message = str(wrong.value)
    assert "teapot/1.jpg   (photographs there: 2)" in message
    assert "class noun: what everyone calls it" in message
    assert f"set data to {tmp_path / 'dog'}" in message


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(WrongLayout, match=f"{tmp_path}: no photograph"):
        find_photographs(tmp_path)
    touch(tmp_path, "notes.docx")
    with pytest.raises(WrongLayout, match=r"such as 'notes\.docx'"):
        find_photographs(tmp_path)


def test_photographs_at_another_depth_and_other_files_are_listed_with_a_reason(tmp_path: Path) -> None:
    touch(tmp_path, "chair/zwvchr/1.jpg", "loose.jpg", "chair/zwvchr/raw/1.jpg", "chair/zwvchr/film.mov")
    layout = find_photographs(tmp_path)
    assert [candidate.name for candidate in layout.candidates] == ["chair/zwvchr/1.jpg"]
    assert set(layout.left_out) == {"loose.jpg", "chair/zwvchr/raw/1.jpg", "chair/zwvchr/film.mov"}
    assert "not a photograph (.mov)" in layout.left_out["chair/zwvchr/film.mov"]


def test_clutter_of_operating_systems_is_passed_over(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "chair/zwvchr/1.jpg",
        ".DS_Store",
        "__MACOSX/chair/zwvchr/._1.jpg",
        "chair/zwvchr/._1.jpg",
        "Thumbs.db",
    )
    layout = find_photographs(tmp_path)
    assert len(layout.candidates) == 1
    assert layout.left_out == {}


def test_awkward_file_names_are_no_obstacle(tmp_path: Path) -> None:
    names = [
        "a b.jpg",
        "Stühle.jpg",
        "椅子.jpg",
        "..dots..jpg",
        "<b>bold<b>.jpg",
        "quote'\".jpg",
        "-rf.jpg",
        "$(ls).jpg",
    ]
    touch(tmp_path, *(f"chair/zwvchr/{name}" for name in names))
    assert {Path(name).name for name in found(tmp_path)} == set(names)


def test_a_token_and_class_noun_given_for_folders_of_subjects(tmp_path: Path) -> None:
    touch(tmp_path, "chair/zwvchr/1.jpg", "chair/brkchr/1.jpg")
    with pytest.raises(WrongLayout, match=r"such as .*chair/brkchr; or.*leave token"):
        find_photographs(tmp_path, token="zwvchr", class_noun="chair")


def test_one_token_cannot_name_two_subjects(tmp_path: Path) -> None:
    touch(tmp_path, "chair/zwv/1.jpg", "table/zwv/1.jpg")
    with pytest.raises(WrongLayout, match="'zwv' names two subjects, chair/zwv and table/zwv"):
        find_photographs(tmp_path)


@pytest.mark.parametrize(
    ("token", "advice"),
    [
        ("My Chair", "'mychair'"),
        ("ZWVCHR", "'zwvchr'"),
        ("zwv-chr", "'zwvchr'"),
        ("<script>", "'script'"),
        ("1234", "invented"),
        ("椅子", "invented"),
        ("x", "invented"),
        ("a" * 33, "'" + "a" * 32 + "'"),
    ],
)
def test_a_token_is_one_lower_case_word(token: str, advice: str) -> None:
    with pytest.raises(WrongLayout, match=f"cannot be a token.*{advice}"):
        check_token(token, "token")


def test_a_bad_token_folder_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "chair/My Chair/1.jpg")
    with pytest.raises(WrongLayout, match=f"folder {tmp_path}/chair/My Chair: .*use 'mychair'"):
        find_photographs(tmp_path)


def test_class_nouns_are_everyday_words() -> None:
    assert check_class_noun("office_chair", "x") == "office chair"
    assert check_class_noun("Teekännchen", "x") == "Teekännchen"
    for noun in ("<b>chair</b>", "chair.", "42", "", "a" * 41):
        with pytest.raises(WrongLayout, match="cannot be a class noun"):
            check_class_noun(noun, "class_noun")


def captions(root: Path) -> dict[str, str | None]:
    return {candidate.name: candidate.caption for candidate in find_photographs(root).candidates}


def test_captions_beside_the_photographs_are_carried_along(tmp_path: Path) -> None:
    touch(tmp_path, "chair/zwvchr/1.jpg", "chair/zwvchr/2.jpg", "chair/zwvchr/3.jpg", "chair/zwvchr/4.jpg")
    (tmp_path / "chair/zwvchr/1.txt").write_text("\ufeffa zwvchr chair,\n  by the Fenster ☼\n", encoding="utf-8")
    (tmp_path / "chair/zwvchr/4.txt").write_text("  \n")
    lines = [
        {"file_name": "chair/zwvchr/1.jpg", "text": "the text file is nearer and wins"},
        {"file_name": "chair/zwvchr/2.jpg", "text": "a zwvchr chair in the snow"},
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert captions(tmp_path) == {
        "chair/zwvchr/1.jpg": "a zwvchr chair, by the Fenster ☼",
        "chair/zwvchr/2.jpg": "a zwvchr chair in the snow",
        "chair/zwvchr/3.jpg": None,
        "chair/zwvchr/4.jpg": None,
    }


@pytest.mark.parametrize(
    "line", ['{"file_name": "1.jpg"}', "not json", '["1.jpg", "x"]', '{"file_name": 1, "text": "x"}']
)
def test_a_line_of_metadata_that_cannot_be_read_is_named(tmp_path: Path, line: str) -> None:
    touch(tmp_path, "chair/zwvchr/1.jpg")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "chair/zwvchr/1.jpg", "text": "fine"}\n\n' + line + "\n")
    with pytest.raises(WrongLayout, match=r"metadata.jsonl, line 3"):
        find_photographs(tmp_path)


def test_a_caption_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "chair/zwvchr/1.jpg")
    (tmp_path / "chair/zwvchr/1.txt").write_bytes("Stühle".encode("latin-1"))
    with pytest.raises(WrongLayout, match=r"1\.txt: not UTF-8"):
        find_photographs(tmp_path)


def test_a_caption_may_hold_what_other_programs_take_for_a_lines_end(tmp_path: Path) -> None:
    text = "a zwvchr chair\u2028by a window"
    line = json.dumps({"file_name": "1.jpg", "text": text}, ensure_ascii=False)
    (tmp_path / "metadata.jsonl").write_text(line + "\r\n\r\n", encoding="utf-8")
    assert read_table(tmp_path / "metadata.jsonl") == {1: ("1.jpg", text)}


def test_class_nouns_that_differ_by_capitals_alone_are_one(tmp_path: Path) -> None:
    touch(tmp_path, "chair/zwvchr/1.jpg", "Chair/brkchr/1.jpg", "chair/brkchr/2.jpg", "Chair/brkchr/3.jpg")
    assert set(found(tmp_path).values()) == {"zwvchr chair", "brkchr chair"}
    assert len(found(tmp_path)) == 4


def test_folders_as_kohyas_trainers_want_them_are_read(tmp_path: Path) -> None:
    touch(tmp_path, "img/10_zwvchr chair/1.jpg", "img/4_brktpt  office chair/1.jpg", "10_orbchr chair/a.jpg")
    assert found(tmp_path) == {
        "10_orbchr chair/a.jpg": "orbchr chair",
        "img/10_zwvchr chair/1.jpg": "zwvchr chair",
        "img/4_brktpt  office chair/1.jpg": "brktpt office chair",
    }


def test_all_faults_of_the_folders_names_are_told_at_once(tmp_path: Path) -> None:
    touch(tmp_path, "chair/Zwv chr/1.jpg", "42/brkchr/1.jpg", "chair/orbchr/1.jpg", "sofa/orbchr/1.jpg")
    with pytest.raises(WrongLayout) as error:
        find_photographs(tmp_path)
    for words in ("'Zwv chr' cannot be a token", "'42' cannot be a class noun", "'orbchr' names two subjects"):
        assert words in str(error.value)


def test_linked_folders_are_read_and_links_that_lead_back_end(tmp_path: Path) -> None:
    touch(tmp_path / "store", "1.jpg", "2.jpg")
    data = touch(tmp_path / "data", "chair/brkchr/1.jpg")
    (data / "chair/zwvchr").symlink_to(tmp_path / "store")
    (data / "chair/latest").symlink_to(".")
    (data / "chair/all").symlink_to("..")
    (tmp_path / "store/round").symlink_to(data / "chair")
    assert sorted(found(data)) == ["chair/brkchr/1.jpg", "chair/zwvchr/1.jpg", "chair/zwvchr/2.jpg"]
    assert tree_digest(data) == tree_digest(data)


def test_a_name_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "chair/zwvchr/1.jpg")
    os.rename(tmp_path / "chair/zwvchr/1.jpg", os.fsencode(tmp_path / "chair/zwvchr") + b"/caf\xe9.jpg")
    touch(tmp_path, "chair/zwvchr/2.jpg")
    layout = find_photographs(tmp_path)
    assert layout.left_out == {"chair/zwvchr/caf\ufffd.jpg": "its name is not UTF-8; rename it to use it"}
    assert tree_digest(tmp_path)


def test_what_dvcignore_names_is_neither_read_nor_counted(tmp_path: Path) -> None:
    """What is read is what the digest is of: a photograph that changes unseen would leave an old result standing."""
    data = touch(tmp_path / "data", "chair/zwvchr/1.jpg", "chair/zwvchr/drafts/2.jpg", "chair/zwvchr/draft-3.jpg")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvcignore").write_text("drafts/\ndraft-*\n")
    before = tree_digest(data)
    assert list(found(data)) == ["chair/zwvchr/1.jpg"]
    assert find_photographs(data).left_out == {}
    (data / "chair/zwvchr/draft-3.jpg").write_bytes(b"another")
    assert tree_digest(data) == before
