"""A caption names the token, the class noun and what surrounds the subject; and nothing is cut in silence."""

from pathlib import Path

import pytest

from personalize.dreambooth.backbone import load_tokenizers
from personalize.photographs.blip import BlipCaptioner
from personalize.photographs.captions import (
    check_template,
    compose,
    context_of,
    fitted,
    sees_class_noun,
    token_pieces,
    token_warnings,
    without_last_phrase,
)
from personalize.photographs.prompts import Subject, token_count
from tests.dreambooth.drawings import photograph

CHAIR = Subject("bcnchr", "chair")


def test_the_context_follows_token_and_class_noun() -> None:
    assert compose(CHAIR) == "a photo of a bcnchr chair"
    assert compose(CHAIR, "on a wooden floor") == "a photo of a bcnchr chair, on a wooden floor"
    assert compose(CHAIR, "at night", "{token} {class_noun}") == "bcnchr chair, at night"


@pytest.mark.parametrize(
    ("sentence", "class_noun", "context"),
    [
        ("a photo of a chair on a wooden floor", "chair", "on a wooden floor"),
        ("a photo of a chair in a room with a white wall.", "chair", "in a room with a white wall"),
        ("there is a black leather chair with chrome legs in front of a wall", "chair", "in front of a wall"),
        ("arafed chair in a showroom with lamps", "chair", "in a showroom with lamps"),
        ("araffe armchair next to a table", "chair", "next to a table"),
        ("a close up of two chairs beside a window", "chair", "beside a window"),
        ("there is a vase with flowers in it on a table", "vase", "on a table"),
        ("a woman sitting on a chair in a garden", "chair", "in a garden"),
        ("a seat on the grass", "office chair", "on the grass"),
        ("a chair sitting outside", "chair", "outside"),
        ("a chair on a rug in front of the", "chair", "on a rug"),
        ("a chair in the", "chair", ""),
        ("a chair on a wooden", "chair", ""),
        ("a chair in a room with a large white", "chair", "in a room"),
        ("a chair in a living room with a", "chair", "in a living room"),
        ("a chair in a black and", "chair", ""),
        ("a chair in the dark", "chair", "in the dark"),
        ("a photo of a chair", "chair", ""),
        ("a red chair", "chair", ""),
        ("", "chair", ""),
        ("a chair on <b>a rug</b>; [drop]", "chair", "on b a rug b drop"),
    ],
)
def test_the_context_is_what_stands_around_the_subject(sentence: str, class_noun: str, context: str) -> None:
    assert context_of(sentence, class_noun) == context


@pytest.mark.parametrize(
    ("cut", "whole"),
    [
        ("a photo of a chair in a room with a mahog", "a photo of a chair in a room"),
        ("a photo of a chair in a room, next to", "a photo of a chair in a room, next"),
        ("a photo of a chair in a mahog", "a photo of a chair"),
        ("a photo of a chair stand", "a photo of a chair"),
    ],
)
def test_a_sentence_that_was_cut_off_loses_the_phrase_it_was_cut_in(cut: str, whole: str) -> None:
    assert without_last_phrase(cut, "a photo of a chair") == whole


def test_a_captioner_that_saw_something_else_is_noticed() -> None:
    assert sees_class_noun("a brown armchair in a room", "chair")
    assert sees_class_noun("a desk chair", "office chair")
    assert not sees_class_noun("a dog on a rug", "chair")


@pytest.mark.parametrize(
    "template", ["a photo", "{token}", "{token} {class_noun} {colour}", "{token.x} {class_noun}", "{"]
)
def test_a_template_needs_token_and_class_noun(template: str) -> None:
    with pytest.raises(ValueError, match=r"needs {token} and {class_noun}"):
        check_template(template)
    check_template("{class_noun}: {token}")


def test_a_context_too_long_is_shortened_and_what_went_is_told(tiny_models: Path) -> None:
    tokenizers = load_tokenizers(tiny_models / "sdxl")
    context = " ".join(["on a wooden floor"] * 40)
    kept, lost = fitted(tokenizers, CHAIR, context)
    assert max(token_count(tokenizer, compose(CHAIR, kept)) for tokenizer in tokenizers) <= 77
    assert max(token_count(tokenizer, compose(CHAIR, kept + " " + lost.split()[0])) for tokenizer in tokenizers) > 77
    assert f"{kept} {lost}" == context
    assert fitted(tokenizers, CHAIR, "on a floor") == ("on a floor", "")


def test_a_template_too_long_by_itself_is_refused(tiny_models: Path) -> None:
    with pytest.raises(ValueError, match="77"):
        fitted(load_tokenizers(tiny_models / "sdxl"), CHAIR, "", "a photo " * 80 + "{token} {class_noun}")


def test_unwise_tokens_are_warned_of(tiny_models: Path) -> None:
    tokenizers = load_tokenizers(tiny_models / "sdxl")

    def warned(token: str, class_noun: str = "chair", max_pieces: int = 7) -> str:
        return " ".join(token_warnings(Subject(token, class_noun), tokenizers, max_pieces))

    assert warned("bcnchr") == ""
    assert "common word (Zipf frequency 5" in warned("dog")
    assert "common word" in warned("barcelona")
    assert "class noun itself" in warned("chair")
    assert "falls into" in warned("qzxwvkjhgfdq")
    pieces = token_pieces(tokenizers[0], "bcnchr")
    assert 3 <= len(pieces) <= 6
    said = f"falls into {len(pieces)} pieces ({' '.join(pieces)}), more than {len(pieces) - 1}"
    assert said in warned("bcnchr", max_pieces=len(pieces) - 1)


def test_a_word_the_tokenizer_knows_whole_is_warned_of() -> None:
    class Knows:
        def tokenize(self, text: str) -> list[str]:
            return [text + "</w>"]

    assert token_pieces(Knows(), "zwx") == ["zwx"]
    assert "one word of the text encoder's own vocabulary" in token_warnings(Subject("zwx", "chair"), [Knows()], 7)[0]


def test_blip_goes_on_from_the_words_it_is_given(tiny_models: Path, tmp_path: Path) -> None:
    files = [photograph(tmp_path / f"{seed}.png", seed) for seed in range(3)]
    prefixes = ["a photo of a chair", "a photo of a table lamp", "a photo of a chair"]
    seen: list[int] = []
    blip = BlipCaptioner(tiny_models / "blip", device="cpu")
    sentences = blip.describe(files, prefixes, batch_size=1, max_new_tokens=8, on_batch=seen.append)
    assert [sentence.startswith(prefix) for sentence, prefix in zip(sentences, prefixes, strict=True)] == [True] * 3
    assert seen == [1, 1, 1]
    again = blip.describe(files, prefixes, batch_size=8, max_new_tokens=8)
    assert again == sentences


def test_blip_that_is_not_there_or_not_pinned_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not a folder here.*dvc pull.*BLIP_REVISION"):
        BlipCaptioner("Salesforce/blip-image-captioning-large", revision="main")
    (tmp_path / "blip").mkdir()
    with pytest.raises(ValueError, match=r"cannot be loaded.*captioner: template"):
        BlipCaptioner(tmp_path / "blip")
