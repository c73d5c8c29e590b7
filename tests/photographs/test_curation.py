"""Every file gets a verdict and a reason; what is kept is written clean, what is not leaves no trace."""

from pathlib import Path

import pytest
from PIL import Image, ImageFilter

from personalize.photographs.curation import File, Rules, contact_sheet, curate
from personalize.photographs.layout import find_photographs
from tests.dreambooth.drawings import drawing, photograph, subject_folder

RULES = Rules(resolution=128, min_side=100, short_side=160)


def curated(root: Path, rules: Rules = RULES) -> dict[str, File]:
    files = curate(find_photographs(root).candidates, root.parent / "images", rules)
    return {Path(file.source).name: file for file in files}


def written(root: Path) -> list[str]:
    return sorted(
        path.relative_to(root.parent / "images").as_posix() for path in (root.parent / "images").rglob("*.png")
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return subject_folder(tmp_path / "data", count=2)


def test_good_photographs_are_kept_reduced_and_named_by_subject(data: Path) -> None:
    files = curated(data)
    assert [file.verdict for file in files.values()] == ["kept", "kept"]
    assert written(data) == ["chair/zwvchr/0.png", "chair/zwvchr/1.png"]
    assert Image.open(data.parent / "images/chair/zwvchr/0.png").size == (213, 160)
    assert (files["0.jpg"].width, files["0.jpg"].height, files["0.jpg"].written) == (320, 240, (213, 160))


def test_each_bad_file_is_rejected_with_its_own_reason(data: Path) -> None:
    folder = data / "chair" / "zwvchr"
    photograph(folder / "tiny.jpg", 10, (90, 120))
    drawing(11).filter(ImageFilter.GaussianBlur(6)).save(folder / "shaky.jpg")
    Image.new("RGB", (300, 300), "red").save(folder / "lens cap.jpg")
    (folder / "shopping.jpg").write_text("milk, bread")
    (folder / "empty.jpg").touch()
    photograph(folder / "0 again.jpg", 0, quality=70)
    files = curated(data)
    rejected = {name: " ".join(file.reasons) for name, file in files.items() if not file.kept}
    assert set(rejected) == {"tiny.jpg", "shaky.jpg", "lens cap.jpg", "shopping.jpg", "empty.jpg", "0.jpg"}
    assert "too small: 90 x 120" in rejected["tiny.jpg"]
    assert "blurred" in rejected["shaky.jpg"]
    assert "one colour" in rejected["lens cap.jpg"]
    assert "text file" in rejected["shopping.jpg"]
    assert "0 bytes" in rejected["empty.jpg"]
    assert "nearly the same as chair/zwvchr/0 again.jpg" in rejected["0.jpg"]
    assert written(data) == ["chair/zwvchr/0-again.png", "chair/zwvchr/1.png"]


def test_of_two_copies_the_larger_one_stays(data: Path) -> None:
    drawing(0).resize((160, 120)).save(data / "chair/zwvchr/a-thumbnail.png")
    files = curated(data)
    assert files["0.jpg"].verdict == "kept"
    assert "nearly the same as chair/zwvchr/0.jpg" in files["a-thumbnail.png"].reasons[0]


def test_of_two_copies_a_sharp_one_stays_before_a_larger_soft_one(data: Path) -> None:
    drawing(0).resize((640, 480)).filter(ImageFilter.GaussianBlur(2)).save(data / "chair/zwvchr/big and soft.png")
    files = curated(data)
    assert files["0.jpg"].verdict == "kept"
    assert files["big and soft.png"].verdict == "rejected"
    assert "nearly the same" in files["big and soft.png"].reasons[0]


def test_one_photograph_under_two_subjects_is_warned_of(data: Path) -> None:
    photograph(data / "table/qpdtbl/same.jpg", 0, quality=92)
    files = curated(data)
    assert {files["0.jpg"].verdict, files["same.jpg"].verdict} == {"kept", "warned"}
    assert "cannot show two subjects" in " ".join(files["0.jpg"].reasons + files["same.jpg"].reasons)


def test_soft_and_small_photographs_are_kept_with_a_warning(data: Path) -> None:
    photograph(data / "chair/zwvchr/small.jpg", 20, (120, 110))
    drawing(21).filter(ImageFilter.GaussianBlur(0.9)).save(data / "chair/zwvchr/soft.jpg")
    files = curated(data, Rules(resolution=128, min_side=100, short_side=160, blur_warn=1e6))
    assert files["small.jpg"].verdict == "warned"
    assert "enlarged to 128" in files["small.jpg"].reasons[1]
    assert "soft" in files["soft.jpg"].reasons[0]


def test_names_that_become_one_are_numbered(data: Path) -> None:
    for seed, name in enumerate(["ü.jpg", "u.jpg", "U.png"], start=30):
        photograph(data / "chair/zwvchr" / name, seed)
    curated(data)
    names = {name.lower() for name in written(data)}
    assert {"chair/zwvchr/u.png", "chair/zwvchr/u-2.png", "chair/zwvchr/u-3.png"} < names


def test_nothing_of_the_users_is_changed(data: Path) -> None:
    (data / "chair/zwvchr/bad.jpg").touch()
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    curated(data)
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before


def test_the_contact_sheet_shows_what_was_kept(data: Path) -> None:
    sheet = contact_sheet(list(curated(data).values()), columns=5, cell=100)
    assert sheet.size == (200, 100)
    assert contact_sheet([]).size == (200, 200)
