"""Which photographs are trained on, and which are kept for scoring."""

import json
from collections import Counter
from pathlib import Path

import pytest

from personalize.dreambooth.examples import Example, about_subjects, hold_out, read_class_images, read_photographs
from personalize.dreambooth.shapes import Size
from tests.dreambooth import training


def photographs(**counts: int) -> list[Example]:
    return [
        Example(Path(f"chair/{token}/{i}.png"), Size(1, 1), f"{token} {i}", "chair", token)
        for token in counts
        for i in range(counts[token])
    ]


def test_one_photograph_of_each_subject_with_four_is_kept_for_scoring():
    trained, held = hold_out(photographs(aa=5, bb=4, cc=3), count=1, seed=0)
    assert Counter(e.token for e in held) == {"aa": 1, "bb": 1}
    assert Counter(e.token for e in trained) == {"aa": 4, "bb": 3, "cc": 3}


def test_at_least_three_photographs_are_always_trained_on():
    trained, held = hold_out(photographs(aa=5), count=4, seed=0)
    assert (len(trained), len(held)) == (3, 2)


def test_no_photograph_is_kept_when_none_is_asked_for():
    assert hold_out(photographs(aa=9), count=0, seed=0)[1] == []


def test_photographs_are_read_with_their_own_captions(tmp_path):
    for number, name in enumerate(("b.png", "a.png")):
        training.picture(tmp_path / "chair" / "aa" / name, number, width=60 + number, height=40)
    rows = [
        {"file_name": f"chair/aa/{n}", "token": "aa", "class_noun": "chair", "text": f"a photo of a aa chair, {n}"}
        for n in ("b.png", "a.png")
    ]
    captions = tmp_path / "metadata.jsonl"
    captions.write_text("\n".join(map(json.dumps, rows)))
    found = read_photographs(tmp_path, captions)
    assert [e.caption for e in found] == ["a photo of a aa chair, a.png", "a photo of a aa chair, b.png"]
    assert [e.size for e in found] == [(40, 61), (40, 60)]
    (tmp_path / "chair" / "aa" / "a.png").unlink()
    with pytest.raises(ValueError, match=r"a\.png"):
        read_photographs(tmp_path, captions)


def test_a_folder_without_class_images_gives_none(tmp_path):
    assert read_class_images(tmp_path) == []


def test_captions_of_class_images_are_asked_about_each_subject_of_their_class():
    def example(caption: str, noun: str, token: str = "") -> Example:
        return Example(Path("0.png"), Size(64, 64), caption, noun, token)

    class_images = [
        example("a photo of a chair in an armchair shop", "chair"),
        example("somewhere", "chair"),
        example("a photo of a lamp", "lamp"),
        example("a photo of a dining table", "dining table"),
    ]
    photographs = [
        example("", noun, token) for token, noun in (("bt", "chair"), ("at", "chair"), ("dt", "dining table"))
    ]
    assert about_subjects(class_images, photographs) == {
        "a photo of a chair in an armchair shop": [
            "a photo of a at chair in an armchair shop",
            "a photo of a bt chair in an armchair shop",
        ],
        "a photo of a dining table": ["a photo of a dt dining table"],
    }
