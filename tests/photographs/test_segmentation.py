"""A segmentation model on photographs, with random weights: what goes in and out, and what is said without one."""

from pathlib import Path

import pytest
from PIL import Image

from personalize.photographs.segmentation import Segmenter
from tests.dreambooth.drawings import drawing
from tests.photographs.models import write_clipseg


@pytest.fixture(scope="module")
def clipseg(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clipseg(tmp_path_factory.mktemp("clipseg"), tiny_models / "clip")


def test_a_photograph_and_a_class_noun_make_a_mask_of_its_size(clipseg: Path) -> None:
    segment = Segmenter(clipseg, device="cpu")
    mask = segment(drawing(0), "chair")
    assert (mask.mode, mask.size) == ("L", drawing(0).size)
    assert mask.tobytes() == segment(drawing(0), "chair").tobytes()
    assert mask.tobytes() != segment(drawing(0), "lamp").tobytes()  # it hears the noun
    assert mask.tobytes() != segment(Image.new("RGB", mask.size), "chair").tobytes()  # and sees the picture


def test_another_kind_of_model_is_refused(tiny_models: Path) -> None:
    with pytest.raises(ValueError, match="has to be a CLIPSeg"):
        Segmenter(tiny_models / "dino", device="cpu")


def test_a_hub_model_wants_its_commit() -> None:
    with pytest.raises(ValueError, match="MASK_REVISION"):
        Segmenter("CIDAS/clipseg-rd64-refined", "main")
