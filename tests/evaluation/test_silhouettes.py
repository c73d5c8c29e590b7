"""Subjects are found in pictures by what their photographs have in common, and their width over their height with them.

The pictures are drawn: a two-coloured egg of known width, at some place and of some size, on surroundings that change.
"""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from personalize.evaluation import silhouettes
from personalize.evaluation.silhouettes import SIDE, STRETCH, Subject

ORANGE, CREAM, GREEN = (230, 120, 20), (245, 240, 200), (40, 150, 60)


def surroundings(rng: np.random.Generator) -> Image.Image:
    """Blurred patches of three colours, drawn anew for each picture."""
    colours = rng.integers(30, 226, (3, 3))
    patches = colours[rng.integers(0, 3, (8, 8))].astype(np.uint8)
    return Image.fromarray(patches).resize((128, 128), Image.Resampling.BICUBIC)


def shown(rng: np.random.Generator, width: float = 1.0, outer=ORANGE, inner=CREAM) -> tuple[Image.Image, np.ndarray]:
    """A picture, and which pixels of `SIDE` its subject covers; width: over its height."""
    picture, truth = surroundings(rng), Image.new("L", (128, 128))
    x, y, r = rng.uniform(54, 74), rng.uniform(54, 74), rng.uniform(24, 34)
    w, h = r * width**0.5, r / width**0.5
    draw = ImageDraw.Draw(picture)
    draw.ellipse((x - w, y - h, x + w, y + h), fill=outer)
    draw.ellipse((x - w / 2, y - h / 4, x + w / 2, y + h / 2), fill=inner)
    ImageDraw.Draw(truth).ellipse((x - w, y - h, x + w, y + h), fill=255)
    small = np.asarray(truth.resize((SIDE, SIDE), Image.Resampling.BOX)) > 127
    return picture.filter(ImageFilter.GaussianBlur(1)), small


def seen(seed: int, count: int, **how) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([silhouettes.colours(shown(rng, **how)[0]) for _ in range(count)])


def plain(seed: int = 7, count: int = 12) -> np.ndarray:
    return seen(seed, count, outer=GREEN, inner=GREEN)


def moved(width: float, **how) -> float:
    """What is found of a subject, in the mean, that is drawn so much broader than in its photographs."""
    known = silhouettes.subjects([list(seen(0, 5, **how))], plain())
    return float(silhouettes.proportions(seen(1, 24, width=width, **how).reshape(1, 12, 2, SIDE, SIDE), known).mean())


def test_the_silhouette_is_where_the_subject_is():
    (known,) = silhouettes.subjects([list(seen(0, 5))], plain())
    assert known is not None
    rng = np.random.default_rng(1)
    for _ in range(12):
        picture, truth = shown(rng)
        found = known.silhouette(silhouettes.colours(picture))
        assert (found & truth).sum() / (found | truth).sum() > 0.75


@pytest.mark.parametrize("width", [0.5, 1 / STRETCH, 1.0, STRETCH, 2.0])
def test_a_subject_that_is_drawn_narrower_or_broader_is_found_so_by_as_much(width):
    assert moved(width) == pytest.approx(np.log(width), abs=0.08)


def test_several_subjects_are_told_from_each_other_and_class_nouns_have_none():
    eggs = [{"outer": ORANGE, "inner": CREAM}, {"outer": (90, 40, 160), "inner": (60, 20, 120)}]
    known = silhouettes.subjects([list(seen(s, 5, **how)) for s, how in enumerate(eggs)], plain())
    pictures = [seen(10 + s, 24, width=width, **how) for s, (width, how) in enumerate(zip((1, 0.6), eggs, strict=True))]
    found = silhouettes.proportions(np.stack([*pictures, plain(9, 24)]).reshape(3, 12, 2, SIDE, SIDE), known)
    assert found.shape == (3, 12, 2)
    assert np.isnan(found[2]).all()
    assert found[0].mean() == pytest.approx(0, abs=0.08)
    assert found[1].mean() == pytest.approx(np.log(0.6), abs=0.08)


def test_two_photographs_or_photographs_of_different_things_tell_nothing():
    rng = np.random.default_rng(3)
    different = [silhouettes.colours(surroundings(rng)) for _ in range(5)]
    assert silhouettes.subjects([list(seen(0, 2)), different], plain()) == [None, None]


def test_photographs_that_differ_in_their_proportions_tell_nothing():
    unlike = [
        silhouettes.colours(shown(np.random.default_rng(n), width)[0]) for n, width in enumerate((0.3, 0.5, 1, 2, 3))
    ]
    assert silhouettes.subjects([unlike], plain()) == [None]


@pytest.mark.parametrize("axis", [0, 1])
def test_a_squeezed_photograph_is_narrower_or_lower_by_the_stretch(axis):
    rng = np.random.default_rng(5)
    known = Subject(silhouettes.histogram(seen(0, 1)[0]), silhouettes.histogram(plain()))
    picture = silhouettes.colours(shown(rng)[0])
    change = known.log_aspect(silhouettes.squeezed(picture, axis)) - known.log_aspect(picture)
    assert change == pytest.approx((-1 if axis else 1) * np.log(STRETCH), abs=0.1)


def test_a_photograph_that_is_no_square_is_not_pressed_into_one():
    picture, _ = shown(np.random.default_rng(6))
    wide = Image.new("RGB", (192, 128))
    wide.paste(picture, (32, 0))
    assert (silhouettes.colours(wide) == silhouettes.colours(picture)).all()


@pytest.mark.parametrize("colour", [0, 128, 255])
def test_a_flat_picture_is_no_error(colour):
    (known,) = silhouettes.subjects([list(seen(0, 5))], plain())
    flat = silhouettes.colours(Image.new("RGB", (64, 64), (colour,) * 3))
    assert -1 <= silhouettes.proportions(flat[None, None, None], [known]).item() <= 1
