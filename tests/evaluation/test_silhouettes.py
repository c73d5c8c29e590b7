"""Subjects are found in pictures by what their photographs have in common, their width and their colours with them.

The pictures are drawn: a two-coloured egg of known width, at some place and of some size, on surroundings that change.
"""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from personalize.evaluation import colours, silhouettes
from personalize.evaluation.colours import SIDE
from personalize.evaluation.silhouettes import STRETCH, Subject

ORANGE, CREAM, GREEN = (230, 120, 20), (245, 240, 200), (40, 150, 60)


def surroundings(rng: np.random.Generator) -> Image.Image:
    """Blurred patches of three colours, drawn anew for each picture."""
    three = rng.integers(30, 226, (3, 3))
    patches = three[rng.integers(0, 3, (8, 8))].astype(np.uint8)
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
    return np.stack([colours.colours(shown(rng, **how)[0]) for _ in range(count)])


def plain(seed: int = 7, count: int = 12) -> np.ndarray:
    return seen(seed, count, outer=GREEN, inner=GREEN)


def moved(width: float, **how) -> float:
    """What is found of a subject, in the mean, that is drawn so much broader than in its photographs."""
    known = silhouettes.subjects([list(seen(0, 5, **how))], plain())
    pictures = seen(1, 24, width=width, **how).reshape(1, 12, 2, SIDE, SIDE)
    return float(silhouettes.measured(pictures, known)["proportions"].mean())


def off(**how) -> float:
    """What is found of a subject's colours, in the mean, that is drawn otherwise than in its photographs."""
    known = silhouettes.subjects([list(seen(0, 5))], plain())
    pictures = seen(1, 24, **how).reshape(1, 12, 2, SIDE, SIDE)
    return float(silhouettes.measured(pictures, known)["colour_difference"].mean())


def test_the_silhouette_is_where_the_subject_is():
    (known,) = silhouettes.subjects([list(seen(0, 5))], plain())
    rng = np.random.default_rng(1)
    for _ in range(12):
        picture, truth = shown(rng)
        found = known.silhouette(colours.colours(picture))
        assert (found & truth).sum() / (found | truth).sum() > 0.75


@pytest.mark.parametrize("width", [0.5, 1 / STRETCH, 1.0, STRETCH, 2.0])
def test_a_subject_that_is_drawn_narrower_or_broader_is_found_so_by_as_much(width):
    assert moved(width) == pytest.approx(np.log(width), abs=0.08)


def test_several_subjects_are_told_from_each_other_and_class_nouns_have_none():
    eggs = [{"outer": ORANGE, "inner": CREAM}, {"outer": (90, 40, 160), "inner": (60, 20, 120)}]
    known = silhouettes.subjects([list(seen(s, 5, **how)) for s, how in enumerate(eggs)], plain())
    pictures = [seen(10 + s, 24, width=width, **how) for s, (width, how) in enumerate(zip((1, 0.6), eggs, strict=True))]
    found = silhouettes.measured(np.stack([*pictures, plain(9, 24)]).reshape(3, 12, 2, SIDE, SIDE), known)
    for values in found.values():
        assert values.shape == (3, 12, 2)
        assert np.isnan(values[2]).all()
    assert found["proportions"][0].mean() == pytest.approx(0, abs=0.08)
    assert found["proportions"][1].mean() == pytest.approx(np.log(0.6), abs=0.08)
    assert np.abs(found["colour_difference"][:2].mean(axis=(1, 2))).max() < 3


def test_two_photographs_or_photographs_of_different_things_tell_nothing():
    rng = np.random.default_rng(3)
    different = [colours.colours(surroundings(rng)) for _ in range(5)]
    for known in silhouettes.subjects([list(seen(0, 2)), different], plain()):
        assert np.isnan([known.aspect, known.apart]).all()


def test_photographs_that_differ_in_their_proportions_tell_nothing():
    unlike = [colours.colours(shown(np.random.default_rng(n), width)[0]) for n, width in enumerate((0.3, 0.5, 1, 2, 3))]
    (known,) = silhouettes.subjects([unlike], plain())
    assert np.isnan(known.aspect)
    assert known.apart < 5


def test_of_very_many_photographs_some_are_enough():
    shown = list(seen(0, 70))
    (of_all,), (of_some,) = (silhouettes.subjects([of], plain()) for of in (shown, shown[::3]))
    assert (of_all.aspect, of_all.apart) == (of_some.aspect, of_some.apart)


def test_photographs_in_other_light_each_tell_no_colour():
    unlike = [seen(n, 1, outer=one, inner=one)[0] for n, one in enumerate((ORANGE, CREAM, GREEN, (60, 20, 120)))]
    (known,) = silhouettes.subjects([unlike], plain())
    assert np.isnan(known.apart)


def test_a_subject_of_its_own_colours_is_no_farther_off_than_its_photographs_whatever_its_size():
    assert abs(off()) < 3
    assert abs(off(width=0.5)) < 3


@pytest.mark.parametrize(
    ("how", "least"),
    [
        ({"outer": (200, 190, 20)}, 8),
        ({"outer": (120, 60, 10), "inner": (130, 125, 105)}, 8),
        ({"inner": (90, 120, 220)}, 4),  # a sixth of it
    ],
)
def test_a_subject_of_another_hue_or_darker_or_with_another_part_is_farther_off(how, least):
    assert off(**how) > least


def test_a_turned_hue_stays_as_light_and_a_dark_one_keeps_its_hue():
    one = colours.colours(Image.new("RGB", (64, 64), ORANGE))
    lab, light_as, dark = (colours.palette(of, 1)[0] for of in (one, colours.turned(one), colours.darkened(one)))
    hue = lambda of: np.degrees(np.arctan2(of[2], of[1]))  # noqa: E731
    assert light_as[0] == pytest.approx(lab[0], abs=12)
    assert abs(hue(light_as) - hue(lab)) > 45
    assert dark[0] < 0.75 * lab[0]
    assert hue(dark) == pytest.approx(hue(lab), abs=15)


def test_the_difference_of_two_flat_colours_is_cie_1976():
    red, blue = (colours.colours(Image.new("RGB", (64, 64), of)) for of in ((180, 80, 70), (70, 90, 170)))
    # In CIELAB these sRGB values are (46.8, 39.9, 25.8) and (40.4, 17.2, -45.4). The steps are coarse.
    assert colours.difference(colours.palette(red, 64), blue) == pytest.approx(74.9, rel=0.15)
    assert colours.difference(colours.palette(red, 64), red) == 0


@pytest.mark.parametrize("axis", [0, 1])
def test_a_squeezed_photograph_is_narrower_or_lower_by_the_stretch(axis):
    rng = np.random.default_rng(5)
    known = Subject(colours.histogram(seen(0, 1)[0]), colours.histogram(plain()))
    picture = colours.colours(shown(rng)[0])
    change = known.log_aspect(silhouettes.squeezed(picture, axis)) - known.log_aspect(picture)
    assert change == pytest.approx((-1 if axis else 1) * np.log(STRETCH), abs=0.1)


def test_a_photograph_that_is_no_square_is_not_pressed_into_one():
    picture, _ = shown(np.random.default_rng(6))
    wide = Image.new("RGB", (192, 128))
    wide.paste(picture, (32, 0))
    assert (colours.colours(wide) == colours.colours(picture)).all()


@pytest.mark.parametrize("colour", [0, 128, 255])
def test_a_flat_picture_is_no_error(colour):
    (known,) = silhouettes.subjects([list(seen(0, 5))], plain())
    flat = colours.colours(Image.new("RGB", (64, 64), (colour,) * 3))
    found = silhouettes.measured(flat[None, None, None], [known])
    assert -1 <= found["proportions"].item() <= 1
    assert found["colour_difference"].item() > 8
