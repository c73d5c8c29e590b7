"""Which photographs are trained on, which are kept for scoring, and in which order they are shown."""

import json
from collections import Counter
from pathlib import Path

import pytest

from personalize.dreambooth.examples import Example, Order, hold_out, read_class_images, read_photographs


def photographs(**counts: int) -> list[Example]:
    return [
        Example(Path(f"chair/{token}/{i}.png"), f"{token} {i}", "chair", token)
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


def test_every_picture_is_shown_equally_often():
    order = Order(((0, 1, 2), (3, 4, 5, 6, 7, 8, 9)), samples_a_step=4, steps=100, seed=0)
    shown = Counter(i for _, pictures in order.plan() for i in pictures)
    for group in order.groups:
        counts = [shown[i] for i in group]
        assert max(counts) - min(counts) <= 1
    assert sum(shown[i] for i in order.groups[0]) == pytest.approx(120, abs=4)


def test_a_step_shows_pictures_of_one_bucket():
    order = Order(((0, 1), (2, 3, 4)), samples_a_step=3, steps=30, seed=1)
    assert all(set(pictures) <= set(order.groups[bucket]) for bucket, pictures in order.plan())


def test_a_longer_run_begins_like_a_shorter_one():
    short, long = (Order(((0, 1, 2),), 2, steps, seed=5).plan() for steps in (10, 40))
    assert long[:10] == short


def test_another_seed_shows_another_order():
    assert Order((tuple(range(20)),), 4, 5, seed=1).plan() != Order((tuple(range(20)),), 4, 5, seed=2).plan()


def test_photographs_are_read_with_their_own_captions(tmp_path):
    (tmp_path / "chair" / "aa").mkdir(parents=True)
    for name in ("b.png", "a.png"):
        (tmp_path / "chair" / "aa" / name).touch()
    rows = [
        {"file_name": f"chair/aa/{n}", "token": "aa", "class_noun": "chair", "text": f"a photo of a aa chair, {n}"}
        for n in ("b.png", "a.png")
    ]
    captions = tmp_path / "metadata.jsonl"
    captions.write_text("\n".join(map(json.dumps, rows)))
    found = read_photographs(tmp_path, captions)
    assert [e.caption for e in found] == ["a photo of a aa chair, a.png", "a photo of a aa chair, b.png"]
    (tmp_path / "chair" / "aa" / "a.png").unlink()
    with pytest.raises(ValueError, match=r"a\.png"):
        read_photographs(tmp_path, captions)


def test_a_folder_without_class_images_gives_none(tmp_path):
    assert read_class_images(tmp_path) == []
