"""What a subject is called, when a text names it, and when a prompt is too long to be heard."""

import json
import time
from pathlib import Path

import pytest

from personalize.dreambooth.backbone import load_tokenizers
from personalize.photographs.prompts import (
    Subject,
    check_prompt,
    foreign_syntax,
    load_subjects,
    mentions,
    save_subjects,
    token_count,
    without_token,
)


@pytest.fixture(scope="module")
def tokenizers(tiny_models: Path):
    return load_tokenizers(tiny_models / "sdxl")


def test_a_subject_is_named_by_token_and_class_noun():
    subject = Subject("bcnchr", "chair")
    assert subject.instance_prompt == "a photo of a bcnchr chair"
    assert subject.class_prompt == "a photo of a chair"


def test_subjects_survive_the_file(tmp_path: Path):
    subjects = [Subject("bcnchr", "chair", 5), Subject("élan", "teapot", 4)]
    save_subjects(tmp_path, subjects)
    assert load_subjects(tmp_path) == subjects
    assert load_subjects(tmp_path / "subjects.json") == subjects
    assert json.loads((tmp_path / "subjects.json").read_text())[1]["instance_prompt"] == "a photo of a élan teapot"


@pytest.mark.parametrize("content", ["", "{", '["bcnchr"]', '[{"token": "bcnchr"}]', "7"])
def test_a_broken_subjects_file_is_named(tmp_path: Path, content: str):
    (tmp_path / "subjects.json").write_text(content)
    with pytest.raises(ValueError, match=r"subjects\.json: not a list of subjects"):
        load_subjects(tmp_path)


def test_start_and_end_marks_count(tokenizers):
    assert token_count(tokenizers[0], "") == 2
    assert token_count(tokenizers[0], "a chair") > 2


def test_a_prompt_of_77_tokens_passes_and_one_more_is_refused_with_the_words_that_would_be_lost(tokenizers):
    words = ["a"] * 75
    assert token_count(tokenizers[0], " ".join(words)) == 77
    check_prompt(tokenizers, " ".join(words))
    with pytest.raises(ValueError, match=r"78 tokens long, 1 more than the 77.*Not heard would be: 'b'"):
        check_prompt(tokenizers, " ".join([*words, "b"]))


def test_a_very_long_prompt_gives_a_short_message(tokenizers):
    with pytest.raises(ValueError, match="tokens long") as refused:
        check_prompt(tokenizers, "a photo of a chair " * 200)
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(
    "text",
    [
        "zwvchr",
        "a photo of a zwvchr chair",
        "a photo of zwvchr, on the beach",
        "A photo of a ZWVCHR chair",
        "zwvchr's legs",
        "a chair (zwvchr)",
        "a zwvchr-chair",
        "a zwvchr_chair",
    ],
)
def test_a_text_mentions_a_token_whatever_stands_around_the_word(text: str) -> None:
    assert mentions(text, "zwvchr")


@pytest.mark.parametrize(
    ("text", "token"),
    [("camera on", "ra"), ("my bcnchrs by a window", "bcnchr"), ("tok10", "tok1"), ("éra", "ra"), ("", "ra")],
)
def test_a_part_of_another_word_is_no_mention(text: str, token: str) -> None:
    assert not mentions(text, token)
    assert without_token(text, token) == text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a photo of a zwvchr chair", "a photo of a chair"),
        ("a photo of a ZWVCHR chair, on the beach", "a photo of a chair, on the beach"),
        ("a photo of zwvchr, on the beach", "a photo of, on the beach"),
        ("a chair, zwvchr, by a window", "a chair, by a window"),
        ("Zwvchr, a chair", "a chair"),
        ("a chair called zwvchr.", "a chair called."),
        ("a chair, zwvchr", "a chair"),
        ("a zwvchr zwvchr chair", "a chair"),
        ("a zwvchr-chair", "a chair"),
        ("zwvchr's legs beside zwvchr's seat", "legs beside seat"),
        ("(zwvchr chair) in a room", "(chair) in a room"),
        ("zwvchr", ""),
    ],
)
def test_a_text_without_its_token_reads_as_if_it_had_never_been_there(text: str, left: str) -> None:
    assert without_token(text, "zwvchr") == left


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a photo of a (red:1.3) chair", "'(red:1.3)'"),
        ("a photo of a (dark red: .8) chair", "'(dark red: .8)'"),
        ("((zwvchr chair:1.2)) on grass", "'(zwvchr chair:1.2)'"),
        ("a chair <lora:zwvchr-v2:0.8> on grass", "'<lora:zwvchr-v2:0.8>'"),
        ("a chair < LoRA : x : 1 >", "'< LoRA : x : 1 >'"),
        ("a chair (old) on grass, at 10:30", ""),
        ("a chair (in the ratio 4:3) on grass", ""),
        ("a chair (seen from above: grass)", ""),
        ("a sofa < 2 m: a small one", ""),
    ],
)
def test_weights_and_adapters_as_other_programs_write_them_are_named(text: str, found: str) -> None:
    assert foreign_syntax(text).partition(" is how")[0] == found


def test_a_long_prompt_is_looked_through_at_once() -> None:
    for text in ("(" * 4000, "(" + "a " * 2000, "<lora:" * 700, "(a:" * 1300):
        started = time.perf_counter()
        assert foreign_syntax(text) == ""
        assert time.perf_counter() - started < 0.5
