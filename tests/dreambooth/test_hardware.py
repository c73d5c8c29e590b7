"""Which memory level a card gets, for SDXL's UNet in bfloat16 (5.2 GB) at 1024 px unless it says otherwise."""

import pytest
import torch

from personalize.dreambooth import backbone, hardware
from personalize.dreambooth.setup import memory_level
from tests.dreambooth import training


def level(total: float | None, samples: int, pixels: int = 1024**2, width: int = 2, asked: str = "auto") -> str:
    size = None if total is None else int(total * 1e9)
    return hardware.choose_memory(asked, size, 2_600_000_000 * width, samples, pixels, width)


@pytest.mark.parametrize(
    ("card", "samples", "expected"),
    [
        (141.0, 8, "fast"),  # H200, 4 + 4
        (85.0, 8, "fast"),  # H100
        (42.4, 8, "balanced"),  # A100, 40 GB
        (23.7, 2, "fast"),  # A10, 1 + 1
        (23.7, 8, "balanced"),
        (15.8, 8, "balanced"),  # T4
        (8.3, 2, "low"),
    ],
)
def test_auto_is_the_fastest_level_at_which_the_batch_fits_the_card(card, samples, expected):
    assert level(card, samples) == expected


def test_pictures_size_and_precision_count():
    assert level(23.7, 8, pixels=512**2) == "fast"
    assert level(23.7, 2, width=4) == "balanced"


def test_what_is_asked_for_is_given_and_a_cpu_keeps_activations():
    assert level(8.3, 8, asked="fast") == "fast"
    assert level(None, 8) == "fast"


def test_dora_is_never_given_a_quantised_base(monkeypatch):
    monkeypatch.setattr(backbone, "card_bytes", lambda device: 1_000_000_000)
    unet = torch.nn.Linear(2, 2)
    card = torch.device("cuda")
    assert memory_level(training.settings(), unet, card) == "low"
    assert memory_level(training.settings(use_dora=True), unet, card) == "balanced"
