"""What each fault does to the numbers that look at the picture itself."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.gates.pictures import apart, blur, halves, in_middle, jpeg, twice
from personalize.evaluation import quality
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
        (in_middle(blur(2)), "middle_sharpness", -1),
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


def with_ball(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """As a model draws a subject: round the middle within three pixels, of about the same size, with soft outlines."""
    large = image.resize((512, 512))
    x, y, r = (4 * v for v in np.array([64, 64, 32]) + rng.uniform(-3, 3, 3))
    draw = ImageDraw.Draw(large)
    draw.ellipse((x - r, y - r, x + r, y + r), fill=(230, 120, 20))
    draw.ellipse((x - r / 2, y, x + r / 2, y + r / 2), fill=(245, 240, 235))
    return large.filter(ImageFilter.GaussianBlur(4)).resize((128, 128))


def test_a_subject_at_the_same_place_in_every_picture_is_no_mark():
    rng = np.random.default_rng(0)
    assert marks_of([[with_ball(picture(p), rng) for p in range(12)]]) < 0.03


def repeats_of(spoil) -> float:
    return float(quality.repeats(np.stack([quality.residual(spoil(p)) for p in map(picture, range(8))])).mean())


def test_mirrored_halves_and_tiles_are_found():
    def stacked(image: Image.Image) -> Image.Image:
        return twice(image.rotate(90)).rotate(90)

    assert repeats_of(lambda p: p) < 0.15
    assert all(repeats_of(spoil) > 0.8 for spoil in (halves, twice, stacked))
