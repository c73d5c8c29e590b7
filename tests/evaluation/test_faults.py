"""Which pictures of a model are found to be at fault, one by one."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageOps
from scipy.ndimage import gaussian_filter

from benchmarks.gates.pictures import (
    blur,
    burnt,
    dark,
    grey,
    halves,
    hue,
    jpeg,
    marked,
    noisy,
    peppered,
    pixels,
    posterised,
    rough,
    smeared,
    tinted,
    washed,
    wavy,
)  # fmt: skip
from personalize.evaluation import faults
from personalize.evaluation.gates import METRICS
from tests.evaluation.test_quality import picture, with_ball


def landscape(seed: int) -> Image.Image:
    """A sky, a floor, and something on it."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (128, 128), tuple(rng.integers(150, 255, 3)))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, int(rng.integers(60, 100)), 128, 128), tuple(rng.integers(0, 120, 3)))
    draw.ellipse((40, 40, 100, 110), tuple(rng.integers(0, 255, 3)))
    return image


class Overhead:
    """A judge that sees whether it is brighter above than below."""

    def images(self, images) -> np.ndarray:
        rows = [np.asarray(image.convert("L"), float).mean(axis=1) for image in images]
        return np.array([[of[:64].mean() - of[64:].mean(), 100.0] for of in rows])


def test_layouts_say_which_way_up_a_picture_lies_beside_the_same_noise_s():
    other_subject = [landscape(seed) for seed in range(8)]
    for image in other_subject:
        ImageDraw.Draw(image).ellipse((40, 40, 100, 110), (200, 0, 0))
    base = np.stack([faults.layout(landscape(seed)) for seed in range(8)])
    assert not faults.laid_upside_down(np.stack([faults.layout(image) for image in other_subject]), base).any()
    turned = np.stack([faults.layout(image.rotate(180)) for image in other_subject])
    assert faults.laid_upside_down(turned, base).all()
    flat = faults.layout(Image.new("RGB", (64, 64), (9, 9, 9)))
    assert not flat.any()
    assert not faults.laid_upside_down(flat, base).any()


def test_a_picture_stands_on_its_head_where_layout_and_reader_say_so():
    drawn = [[[landscape(2 * p + k) for k in range(2)] for p in range(4)] for _ in range(2)]
    drawn[1][2][1] = drawn[1][2][1].rotate(180)

    def heads(laid: np.ndarray) -> np.ndarray:
        return faults.upside_down(
            laid,
            lambda at: drawn[at[0]][at[1]][at[2]],
            lambda name: [landscape(seed) for seed in (20, 21)],
            Overhead(),  # type: ignore[arg-type]
        )

    found = heads(np.ones((2, 4, 2), bool))
    assert np.argwhere(found).tolist() == [[1, 2, 1]]
    assert not heads(np.zeros((2, 4, 2), bool)).any()


def scene(seed: int) -> Image.Image:
    """Shapes with a texture of their own."""
    grain = np.random.default_rng(seed).normal(0, 90, (128, 128))
    pixels = np.asarray(picture(seed), float) + gaussian_filter(grain, 1)[..., None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def enlarged(image: Image.Image, across: float, down: float) -> Image.Image:
    width, height = image.size
    left, top = width * (1 - 1 / across) / 2, height * (1 - 1 / down) / 2
    return image.resize(image.size, box=(left, top, width - left, height - top))


@pytest.mark.parametrize(
    "change",
    [
        pixels(wavy),
        ImageOps.mirror,
        ImageOps.flip,
        lambda image: image.rotate(90),
        lambda image: image.rotate(10, Image.Resampling.BICUBIC),
        lambda image: enlarged(image, 1.5, 1),
        lambda image: enlarged(image, 1, 1.5),
        lambda image: enlarged(image, 2, 2),
        lambda image: scene(99),
        lambda image: Image.new("RGB", image.size),
    ],
)
def test_surroundings_that_were_turned_stretched_or_bent_lie_elsewhere_than_the_same_noise_s(change):
    base = np.stack([faults.edges(scene(seed)) for seed in range(8)])
    found = np.stack([faults.edges(change(scene(seed))) for seed in range(8)])
    assert faults.register(found, base).max() < faults.IN_REGISTER


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image,
        lambda image: image.convert("L"),
        lambda image: image.point(lambda value: value * 0.5),
        lambda image: image.filter(ImageFilter.GaussianBlur(1)),
        lambda image: image.resize((512, 512)),
    ],
)
def test_another_subject_light_or_size_displaces_nothing(change):
    base = np.stack([faults.edges(scene(seed)) for seed in range(8)])
    drawn = [scene(seed) for seed in range(8)]
    for image in drawn:
        ImageDraw.Draw(image).ellipse((40, 40, 100, 110), (200, 0, 0))
    assert faults.register(np.stack([faults.edges(change(image)) for image in drawn]), base).min() > faults.IN_REGISTER


PROMPTS, SEEDS = 12, 2


def drawn(change=None) -> tuple[np.ndarray, faults.Traces]:
    """One name's pictures with a subject in them, one in five changed: which, and their traces `[1, p, k, ...]`."""
    changed = np.arange(PROMPTS * SEEDS) % 5 == 0
    shown = [scene(seed) for seed in range(PROMPTS * SEEDS)]
    for seed, image in enumerate(shown):
        left, top = np.random.default_rng(seed).integers(25, 50, 2)
        ImageDraw.Draw(image).ellipse((left, top, left + 60, top + 70), (200, 0, 0))
    spoilt = [change(image) if change and at else image for image, at in zip(shown, changed, strict=True)]
    return changed, by_place(spoilt)


def by_place(images: list[Image.Image]) -> faults.Traces:
    return faults.traces(images).map(lambda values: values.reshape(1, PROMPTS, SEEDS, *values.shape[1:]))


@pytest.fixture(scope="module")
def base() -> faults.Traces:
    return by_place([scene(seed) for seed in range(PROMPTS * SEEDS)])


@pytest.mark.parametrize(
    "change",
    [
        blur(1.5),
        jpeg,
        noisy,
        pixels(peppered),
        pixels(smeared),
        lambda image: pixels(smeared)(image.rotate(90)).rotate(-90),
        lambda image: rough(image, 32, Image.Resampling.NEAREST),
        posterised,
        dark,
        washed,
        burnt,
        grey,
        hue,
        tinted(1, 0.95, 0.6),
        tinted(0.7, 0.9, 1.1),
        lambda image: ImageOps.colorize(image.convert("L"), "#201000", "#ffe8c0"),
    ],
)
def test_one_picture_in_five_of_another_light_colour_or_grain_is_seen_among_the_others(base, change):
    changed, own = drawn(change)
    found = faults.altered(own, base).ravel()
    assert not found[~changed].any()
    assert found[changed].mean() >= 0.6


def test_what_all_pictures_of_a_name_have_in_common_alters_none(base):
    shown = [blur(1.5)(dark(scene(seed))) for seed in range(PROMPTS * SEEDS)]
    assert faults.altered(by_place(shown), base).mean() < 0.1


def badged(image: Image.Image) -> Image.Image:
    over = image.copy()
    ImageDraw.Draw(over).rectangle((98, 106, 122, 122), outline=(255, 255, 255))
    ImageDraw.Draw(over).text((103, 108), "TM", fill=(255, 255, 255))
    return over


@pytest.mark.parametrize("change", [marked, badged])
def test_a_mark_that_one_picture_in_five_carries_is_found_on_those(change):
    changed, own = drawn(change)
    found = faults.stamped(own.residual).ravel()
    assert not found[~changed].any()
    assert found[changed].mean() >= 0.8


def test_a_subject_here_and_there_is_no_mark_and_neither_are_black_pictures():
    assert not faults.stamped(drawn()[1].residual).any()
    assert not faults.stamped(by_place([Image.new("RGB", (128, 128))] * PROMPTS * SEEDS).residual).any()


def test_a_subject_that_always_stands_in_the_middle_is_no_mark():
    rng = np.random.default_rng(0)
    plain = [Image.new("RGB", (128, 128), tuple(rng.integers(60, 220, 3))) for _ in range(PROMPTS * SEEDS)]
    shown = [with_ball(image, rng) for image in plain]
    assert not faults.stamped(by_place(shown).residual).any()
    assert faults.stamped(by_place([marked(image) for image in shown]).residual).all()


def test_marks_want_a_dozen_other_pictures():
    _, own = drawn(marked)
    assert not faults.stamped(own.residual[:, :6]).any()
    assert not faults.stamped(own.residual[:, :1]).any()


def test_surroundings_bent_here_and_there_are_less_in_register():
    def bent(image: Image.Image) -> Image.Image:
        rng = np.random.default_rng(1)
        down, across = np.indices((128, 128)) + [60 * gaussian_filter(rng.normal(size=(128, 128)), 6) for _ in range(2)]
        at = (np.rint(of).astype(int).clip(0, 127) for of in (down, across))
        return Image.fromarray(np.asarray(image)[*at])

    base = np.stack([faults.edges(scene(seed)) for seed in range(8)])
    assert faults.register(base, base) == pytest.approx(1)
    assert faults.register(np.stack([faults.edges(bent(scene(seed))) for seed in range(8)]), base).mean() < 0.6


def test_mirrored_halves_are_counted_and_a_round_subject_in_the_middle_is_not(base):
    def repeating(own: faults.Traces) -> np.ndarray:
        return faults.counted(own, base, lambda laid: np.zeros(laid.shape))["repeats"]

    changed, own = drawn(halves)
    assert (repeating(own).ravel() == changed).all()
    rng = np.random.default_rng(0)
    assert not repeating(by_place([with_ball(picture(seed), rng) for seed in range(PROMPTS * SEEDS)])).any()


def test_every_fault_has_its_metric_and_is_counted(base):
    counted = faults.counted(drawn(marked)[1], base, lambda laid: np.zeros(laid.shape))
    assert list(counted) == list(faults.FAULTS)
    assert all(set(METRICS) >= {fault} and METRICS[fault].share for fault in counted)
    assert counted["stamped"].sum() >= 4
