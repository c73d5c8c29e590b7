"""What trainings are made from: a base of random weights, drawn photographs and class images."""

from __future__ import annotations

import pytest

from personalize.dreambooth.setup import Base
from tests.dreambooth import training


@pytest.fixture(scope="module")
def base(tiny_models) -> Base:
    return Base(str(tiny_models / "sdxl"), device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> tuple[list, list]:
    folder = tmp_path_factory.mktemp("pictures")
    return training.photographs(folder), training.class_images(folder)
