"""What a subject is called, and when a prompt is too long to be heard."""

import json
from pathlib import Path

import pytest

from personalize.dreambooth.backbone import load_tokenizers
from personalize.photographs.prompts import Subject, check_prompt, load_subjects, save_subjects, token_count


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
        check_prompt(tokenizers, "a photo of a chair " * 500)
    assert len(str(refused.value)) < 500
