"""Sharp photographs pass whatever their light; blurred, empty and repeated ones are found."""

import io
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from personalize.photographs.quality import difference_hash, is_blank, near_duplicates, sharpness
from personalize.photographs.reading import read_photograph
from tests.dreambooth.drawings import drawing

REJECT, WARN, SAME = 20.0, 100.0, 0.08  # the defaults of the ingest step


def blurred(image: Image.Image, sigma_at_512: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(sigma_at_512 * min(image.size) / 512))


def resaved(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def test_blur_lowers_sharpness_step_by_step() -> None:
    image = drawing(1, (800, 600))
    measured = [sharpness(image)] + [sharpness(blurred(image, sigma)) for sigma in (1, 2, 4)]
    assert measured == sorted(measured, reverse=True)
    assert measured[0] > WARN
    assert measured[-1] < REJECT


def test_a_sharp_subject_before_a_blurred_background_is_sharp() -> None:
    background = blurred(drawing(2, (800, 600)), 8)
    background.paste(drawing(3, (240, 240)), (280, 180))
    assert sharpness(background) > WARN


def test_darkness_is_not_blur() -> None:
    image = drawing(4, (800, 600))
    assert sharpness(ImageEnhance.Brightness(image).enhance(0.15)) > WARN


def test_sharpness_does_not_reward_mere_pixels() -> None:
    small = blurred(drawing(5, (640, 480)), 3)
    assert sharpness(small.resize((2560, 1920), Image.Resampling.BICUBIC)) < REJECT


def test_blank_pictures_are_found() -> None:
    assert is_blank(Image.new("RGB", (300, 200), (12, 200, 90)))
    assert not is_blank(drawing(6))


def test_copies_are_found_and_other_pictures_are_not() -> None:
    original = drawing(7, (640, 480))
    copies = [resaved(original, 50), original.resize((320, 240)), original.crop((5, 4, 635, 476))]
    others = [drawing(seed, (640, 480)) for seed in (8, 9)]
    found = near_duplicates([difference_hash(image) for image in (original, *copies, *others)], SAME)
    assert [(near.index, near.like) for near in found] == [(1, 0), (2, 0), (3, 0)]


def test_identical_pictures_alone_are_the_same_at_threshold_zero() -> None:
    hashes = [
        difference_hash(image) for image in (drawing(1), drawing(1), ImageEnhance.Brightness(drawing(1)).enhance(0.5))
    ]
    assert [near.index for near in near_duplicates(hashes[:2], 0.0)] == [1]
    assert near_duplicates([], 0.0) == []


@pytest.mark.real_photographs
def test_no_real_photograph_is_taken_for_blurred_or_repeated(real_photographs: Path) -> None:
    folders = sorted({path.parent for path in real_photographs.rglob("*.jpg")})
    assert len(folders) == 20
    for folder in folders:
        images = [read_photograph(path).image for path in sorted(folder.glob("*.jpg"))]
        assert min(sharpness(image) for image in images) > 5 * WARN, folder
        hashes = [difference_hash(image) for image in images]
        assert min(float(np.mean(a != b)) for a, b in combinations(hashes, 2)) > SAME, folder


@pytest.mark.real_photographs
def test_real_photographs_blurred_and_resaved_are_caught(real_photographs: Path) -> None:
    paths = sorted(real_photographs.rglob("*.jpg"))[::8]
    images = [read_photograph(path).image for path in paths]
    assert all(sharpness(blurred(image, 4)) < 30 for image in images)
    assert np.median([sharpness(blurred(image, 3)) for image in images]) < REJECT
    assert all(np.mean(difference_hash(image) != difference_hash(resaved(image, 60))) < SAME for image in images)
