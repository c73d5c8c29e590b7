"""Masks as people's tools leave them: found, never taken for photographs, and kept in step with their photograph."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from personalize.photographs.curation import FOUND, File, Rules, curate
from personalize.photographs.layout import Layout, find_photographs
from personalize.photographs.masks import ALPHA, mask_file
from tests.dreambooth.drawings import drawing, photograph, subject_folder

RULES = Rules(resolution=128, min_side=100, short_side=160)
ROTATED = 6  # EXIF: the camera was held upright, its pixels lie on their side


def laid_out(root: Path, *files: str) -> Layout:
    for number, name in enumerate(files):
        photograph(root / name, number)
    return find_photographs(root)


def masks(layout: Layout) -> dict[str, str | None]:
    return {candidate.name: candidate.mask and candidate.mask.name for candidate in layout.candidates}


@pytest.mark.parametrize(
    "mask",
    [
        "1.mask.png",
        "1-masklabel.png",
        "1-mask.png",
        "1_mask.webp",
        "1.jpg.mask.png",
        "1.MASK.PNG",
        "mask/1.png",
        "masks/1.jpg",
        "../zwvchr_mask/1.png",
        "../zwvchr_masks/1.png",
    ],
)
def test_every_way_in_which_trainers_name_a_mask_is_known(tmp_path: Path, mask: str) -> None:
    layout = laid_out(tmp_path, "chair/zwvchr/1.jpg", "chair/zwvchr/2.jpg", f"chair/zwvchr/{mask}")
    assert masks(layout) == {"chair/zwvchr/1.jpg": Path(mask).name, "chair/zwvchr/2.jpg": None}
    assert layout.left_out == {}


def test_masks_lie_beside_a_flat_folder_and_kohyas_as_well(tmp_path: Path) -> None:
    for name in ("flat/1.jpg", "flat/mask/1.png"):
        photograph(tmp_path / name, 1)
    assert masks(find_photographs(tmp_path / "flat", "zwvchr", "chair")) == {"1.jpg": "1.png"}
    layout = laid_out(tmp_path / "kohya", "10_zwvchr chair/1.jpg", "10_zwvchr chair_mask/1.png")
    assert masks(layout) == {"10_zwvchr chair/1.jpg": "1.png"}


def test_a_mask_without_its_photograph_is_named_and_not_learnt(tmp_path: Path) -> None:
    layout = laid_out(
        tmp_path,
        "chair/zwvchr/1.jpg",
        "chair/zwvchr/1.mask.png",
        "chair/zwvchr/1-masklabel.png",
        "chair/zwvchr/2.mask.png",
        "chair/zwvchr/mask/3.png",
    )
    assert len(layout.candidates) == 1
    assert len(layout.left_out) == 3
    assert sum("second mask of 1.jpg" in reason for reason in layout.left_out.values()) == 1
    assert "no photograph of that name" in layout.left_out["chair/zwvchr/2.mask.png"]
    assert "no photograph of that name" in layout.left_out["chair/zwvchr/mask/3.png"]


def test_a_mask_can_be_the_subject_too(tmp_path: Path) -> None:
    layout = laid_out(tmp_path, "mask/zwvmsk/1.jpg", "mask/zwvmsk/carnival_mask.jpg", "chair/masks/1.jpg")
    assert len(layout.candidates) == 3
    assert set(masks(layout).values()) == {None}


def block(size: tuple[int, int] = (320, 240)) -> Image.Image:
    """The subject is the left quarter, top half."""
    mask = Image.new("L", size, 0)
    mask.paste(255, (0, 0, size[0] // 4, size[1] // 2))
    return mask


def curated(root: Path, **more) -> dict[str, File]:
    files = curate(find_photographs(root).candidates, root.parent / "images", RULES, **more)
    return {Path(file.source).name: file for file in files}


def kept_mask(root: Path, name: str = "0.png") -> Image.Image | None:
    file = mask_file(root.parent / "images", f"chair/zwvchr/{name}")
    return Image.open(file) if file.is_file() else None


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return subject_folder(tmp_path / "data", count=2)


def test_a_mask_is_reduced_with_its_photograph(data: Path) -> None:
    block((640, 480)).save(data / "chair/zwvchr/0.mask.png")  # drawn on a larger copy
    file = curated(data)["0.jpg"]
    assert (file.mask, file.subject_share) == ("0.mask.png", pytest.approx(0.125, abs=0.005))
    mask = kept_mask(data)
    assert mask is not None
    assert mask.size == Image.open(data.parent / "images/chair/zwvchr/0.png").size == (213, 160)
    assert np.asarray(mask)[:75, :50].min() == 255
    assert np.asarray(mask)[85:].max() == np.asarray(mask)[:, 60:].max() == 0
    assert kept_mask(data, "1.png") is None


def test_a_mask_of_rgb_or_of_strokes_on_nothing_is_read(data: Path) -> None:
    block().convert("RGB").save(data / "chair/zwvchr/0.mask.png")
    strokes = Image.new("RGBA", (320, 240), "white")
    strokes.putalpha(block())
    strokes.save(data / "chair/zwvchr/1.mask.png")
    files = curated(data)
    assert files["0.jpg"].subject_share == files["1.jpg"].subject_share == pytest.approx(0.125, abs=0.005)


@pytest.mark.parametrize("drawn_on", ["as it is seen", "as it is stored"])
def test_a_photograph_that_is_turned_upright_takes_its_mask_along(data: Path, drawn_on: str) -> None:
    stored = drawing(7)
    exif = Image.Exif()
    exif[0x0112] = ROTATED
    stored.save(data / "chair/zwvchr/7.jpg", exif=exif, quality=95)
    mask = block(stored.size)
    if drawn_on == "as it is seen":
        mask = mask.transpose(Image.Transpose.ROTATE_270)
    mask.save(data / "chair/zwvchr/7.mask.png")
    assert curated(data)["7.jpg"].mask == "7.mask.png"
    kept = np.asarray(kept_mask(data, "7.png"))
    assert kept.shape == (213, 160)
    assert kept[:45, 90:].min() == 255  # the left quarter of the top half has become the top right
    assert kept[60:].max() == kept[:, :70].max() == 0


def test_an_alpha_channel_is_a_mask(data: Path) -> None:
    cutout = drawing(8)
    alpha = Image.new("L", cutout.size, 0)
    alpha.paste(255, (40, 40, 280, 200))
    cutout.putalpha(alpha)
    cutout.save(data / "chair/zwvchr/8.png")
    file = curated(data)["8.png"]
    assert (file.mask, file.subject_share) == (ALPHA, pytest.approx(0.5, abs=0.01))
    picture, mask = Image.open(data.parent / "images/chair/zwvchr/8.png"), kept_mask(data, "8.png")
    assert mask is not None
    assert picture.getpixel((2, 2)) == (255, 255, 255)
    assert (mask.getpixel((2, 2)), mask.getpixel((100, 80))) == (0, 255)


def test_a_file_says_more_than_the_alpha_channel(data: Path) -> None:
    cutout = drawing(8)
    cutout.putalpha(200)
    cutout.save(data / "chair/zwvchr/8.png")
    block().save(data / "chair/zwvchr/8.mask.png")
    assert curated(data)["8.png"].mask == "8.mask.png"


@pytest.mark.parametrize(
    ("mask", "why"),
    [
        (Image.new("L", (320, 240), 0), "shows no subject"),
        (Image.new("L", (100, 240), 255), "100 x 240 pixels and its photograph 320 x 240"),
    ],
)
def test_a_mask_that_cannot_be_meant_is_a_warning(data: Path, mask: Image.Image, why: str) -> None:
    mask.save(data / "chair/zwvchr/0.mask.png")
    file = curated(data)["0.jpg"]
    assert file.verdict == "warned"
    assert "its mask (0.mask.png) is not used" in file.reasons[0]
    assert why in file.reasons[0]
    assert kept_mask(data) is None


def test_a_damaged_mask_is_a_warning(data: Path) -> None:
    (data / "chair/zwvchr/0.mask.png").write_bytes(b"no picture")
    file = curated(data)["0.jpg"]
    assert file.verdict == "warned"
    assert "it is not an image" in file.reasons[0]


def test_a_mask_of_all_of_it_tells_nothing_apart(data: Path) -> None:
    Image.new("L", (320, 240), 255).save(data / "chair/zwvchr/0.mask.png")
    file = curated(data)["0.jpg"]
    assert (file.verdict, file.mask) == ("kept", "")
    assert kept_mask(data) is None


def test_a_model_is_asked_where_no_mask_was_given(data: Path) -> None:
    asked = []

    def segment(image: Image.Image, noun: str) -> Image.Image:
        asked.append(noun)
        return block(image.size)

    block().save(data / "chair/zwvchr/0.mask.png")
    files = curated(data, segment=segment)
    assert asked == ["chair"]
    assert {name: file.mask for name, file in files.items()} == {"0.jpg": "0.mask.png", "1.jpg": FOUND}


def test_where_the_model_sees_nothing_the_photograph_goes_without(data: Path) -> None:
    files = curated(data, segment=lambda image, noun: Image.new("L", image.size, 0))
    assert "the model saw no chair on it" in files["1.jpg"].reasons[0]
    assert kept_mask(data, "1.png") is None


def test_a_copy_that_goes_takes_its_mask_along(data: Path) -> None:
    photograph(data / "chair/zwvchr/0 again.jpg", 0, quality=70)
    for name in ("0", "0 again"):
        block().save(data / f"chair/zwvchr/{name}.mask.png")
    files = curated(data)
    lost = next(file for file in files.values() if not file.kept)
    assert "nearly the same" in lost.reasons[0]
    assert len(list((data.parent / "masks").rglob("*.png"))) == 1
