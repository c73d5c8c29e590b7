"""What each fault does to the numbers that look at the picture itself."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageOps
from scipy.ndimage import gaussian_filter

from benchmarks.gates.edits import apart, halves, jpeg, pixels, twice, wavy
from personalize.evaluation import quality
from personalize.evaluation.measure import upside_down
from personalize.evaluation.quality import QUALITIES


def picture(seed: int, side: int = 128) -> Image.Image:
    """A few soft shapes: an everyday picture's spectrum, and nothing at a place of its own."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (side, side), tuple(rng.integers(60, 200, 3)))
    draw = ImageDraw.Draw(image)
    for _ in range(25):
        x, y, r = rng.integers(0, side, 3)
        draw.ellipse((x, y, x + r / 3, y + r / 3), tuple(rng.integers(0, 255, 3)))
    return image.filter(ImageFilter.GaussianBlur(0.7))


def noisy(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image, float) + np.random.default_rng(0).normal(0, 8, (*image.size, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def stretched(image: Image.Image) -> Image.Image:
    wide = image.resize((image.width * 3 // 2, image.height))
    return wide.crop((image.width // 4, 0, image.width // 4 + image.width, image.height))


def change(spoil) -> dict[str, float]:
    moved = [quality.qualities(spoil(p)) - quality.qualities(p) for p in map(picture, range(12))]
    return dict(zip(QUALITIES, np.mean(moved, axis=0), strict=True))


@pytest.mark.parametrize(
    ("spoil", "which", "least"),
    [
        (lambda p: p.filter(ImageFilter.GaussianBlur(1.5)), "sharpness", -0.7),
        (noisy, "noise", 1.0),
        (jpeg, "blockiness", 0.5),
        (apart, "fringes", 1.9),
        (stretched, "aspect", -0.3),
        (lambda p: p.point(lambda v: v * 0.5), "brightness", -0.15),
        (lambda p: p.point(lambda v: 100 + v * 0.3), "contrast", -0.05),
        (lambda p: p.convert("L").convert("RGB"), "saturation", -0.1),
    ],
)
def test_a_fault_moves_its_own_number_far(spoil, which, least):
    found = change(spoil)[which]
    assert found < least if least < 0 else found > least


def test_a_copy_without_loss_moves_nothing():
    assert all(value == 0 for value in change(lambda p: p.copy()).values())


def test_black_pictures_have_finite_numbers():
    assert np.isfinite(quality.qualities(Image.new("RGB", (64, 64)))).all()


def marks_of(pictures: list[list[Image.Image]]) -> float:
    residuals = np.array([[[quality.residual(p)] for p in row] for row in pictures])
    return float(quality.marks(residuals).mean())


def test_a_mark_on_every_picture_and_one_picture_for_every_prompt_are_found():
    def marked(image: Image.Image) -> Image.Image:
        draw = ImageDraw.Draw(image)
        draw.text((20, 50), "SAMPLE SHOP", fill=(255, 255, 255))
        return image

    clean = [[picture(p) for p in range(8)]]
    assert abs(marks_of(clean)) < 0.02
    assert marks_of([[marked(picture(p)) for p in range(8)]]) > 0.1
    assert marks_of([[picture(0)] * 8]) > 0.9


def repeats_of(spoil) -> float:
    return float(quality.repeats(np.stack([quality.residual(spoil(p)) for p in map(picture, range(8))])).mean())


def test_mirrored_halves_and_tiles_are_found():
    def stacked(image: Image.Image) -> Image.Image:
        return twice(image.rotate(90)).rotate(90)

    assert repeats_of(lambda p: p) < 0.15
    assert all(repeats_of(spoil) > 0.8 for spoil in (halves, twice, stacked))


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
    base = np.stack([quality.layout(landscape(seed)) for seed in range(8)])
    assert not quality.laid_upside_down(np.stack([quality.layout(image) for image in other_subject]), base).any()
    turned = np.stack([quality.layout(image.rotate(180)) for image in other_subject])
    assert quality.laid_upside_down(turned, base).all()
    flat = quality.layout(Image.new("RGB", (64, 64), (9, 9, 9)))
    assert not flat.any()
    assert not quality.laid_upside_down(flat, base).any()


def test_a_picture_stands_on_its_head_where_layout_and_reader_say_so():
    drawn = [[[landscape(2 * p + k) for k in range(2)] for p in range(4)] for _ in range(2)]
    drawn[1][2][1] = drawn[1][2][1].rotate(180)

    def heads(laid: np.ndarray) -> np.ndarray:
        return upside_down(
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
    base = np.stack([quality.edges(scene(seed)) for seed in range(8)])
    found = quality.displaced(np.stack([quality.edges(change(scene(seed))) for seed in range(8)]), base)
    assert found.all()


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
    base = np.stack([quality.edges(scene(seed)) for seed in range(8)])
    drawn = [scene(seed) for seed in range(8)]
    for image in drawn:
        ImageDraw.Draw(image).ellipse((40, 40, 100, 110), (200, 0, 0))
    assert not quality.displaced(np.stack([quality.edges(change(image)) for image in drawn]), base).any()
