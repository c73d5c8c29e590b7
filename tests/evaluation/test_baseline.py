"""The base's pictures are drawn once for all evaluations that ask the same."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from personalize.evaluation.baseline import kept


@pytest.fixture
def artist() -> Callable[[], list[Image.Image]]:
    """Draws two pictures, in another colour each time."""
    times = iter(range(100))

    def draw() -> list[Image.Image]:
        colour = next(times)
        return [Image.new("RGB", (4, 4), (colour, n, 0)) for n in range(2)]

    return draw


def colours(pictures: list[Image.Image]) -> list[int]:
    return [picture.getpixel((0, 0))[0] for picture in pictures]


def test_the_same_question_is_answered_by_the_pictures_that_lie_there(tmp_path: Path, artist):
    assert colours(kept(tmp_path / "work", {"seeds": [1, 2]}, 2, artist)) == [0, 0]
    assert colours(kept(tmp_path / "work", {"seeds": [1, 2]}, 2, artist)) == [0, 0]


def test_another_question_is_drawn_and_takes_the_place_of_the_last(tmp_path: Path, artist):
    kept(tmp_path, {"seeds": [1, 2]}, 2, artist)
    assert colours(kept(tmp_path, {"seeds": [1, 3]}, 2, artist)) == [1, 1]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_damaged_or_missing_picture_has_all_drawn_again(tmp_path: Path, artist):
    kept(tmp_path, {}, 2, artist)
    (picture,) = tmp_path.rglob("00001.png")
    picture.write_bytes(picture.read_bytes()[:40])
    assert colours(kept(tmp_path, {}, 2, artist)) == [1, 1]
    picture.unlink()
    assert colours(kept(tmp_path, {}, 2, artist)) == [2, 2]
    assert colours(kept(tmp_path, {}, 2, artist)) == [2, 2]


def test_nothing_half_drawn_is_left_as_if_whole(tmp_path: Path, artist):
    def interrupted() -> list[Image.Image]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept(tmp_path, {}, 2, interrupted)
    assert colours(kept(tmp_path, {}, 2, artist)) == [0, 0]
