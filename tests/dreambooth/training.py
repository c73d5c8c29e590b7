"""Small photographs and short settings for the tests of training."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import DDPMScheduler
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from personalize.dreambooth.examples import Example
from personalize.dreambooth.settings import TrainSettings
from personalize.dreambooth.shapes import Size

SCHEDULER = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
"""SDXL's."""


def picture(path: Path, seed: int, width: int = 72, height: int = 72) -> Path:
    """A patchwork of colours that no other seed has."""
    rng = np.random.default_rng(seed)
    patches = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    patches.resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path


def photographs(folder: Path, count: int = 3, **size: int) -> list[Example]:
    return [
        Example(
            picture(folder / "chair" / "bcnchr" / f"{i}.png", i, **size),
            Size(size.get("height", 72), size.get("width", 72)),
            f"a photo of a bcnchr chair, {i}",
            "chair",
            "bcnchr",
        )
        for i in range(count)
    ]


def class_images(folder: Path, count: int = 3) -> list[Example]:
    return [
        Example(picture(folder / "class" / "chair" / f"{i}.png", 100 + i), Size(72, 72), "a photo of a chair", "chair")
        for i in range(count)
    ]


def settings(**changed: Any) -> TrainSettings:
    """Five steps at 64 pixels; nothing is scored unless asked for."""
    short: dict[str, Any] = {
        "resolution": 64,
        "max_train_steps": 5,
        "batch_size": 2,
        "rank": 4,
        "alpha": 1.0,
        "learning_rate": 1e-3,
        "validation_every": 0,
        "resume_every": 0,
        "log_every": 1,
        "variants": 2,
        "caption_dropout": 0.2,
        "noise_offset": 0.05,
    }
    return TrainSettings(**short | changed)


def read_adapter(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and LoRA configuration of a diffusers file."""
    with safe_open(str(file), framework="pt") as tensors:
        found = {key: tensors.get_tensor(key) for key in tensors.keys()}  # noqa: SIM118  (not a dict)
        return found, json.loads(tensors.metadata()["lora_adapter_metadata"])
