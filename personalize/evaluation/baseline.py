"""Baseline: the base model's pictures, which no training changes, kept from one evaluation to the next."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personalize.evaluation.encoders import open_rgb

if TYPE_CHECKING:
    from PIL.Image import Image


def kept(folder: Path, identity: Mapping[str, Any], count: int, draw: Callable[[], Sequence[Image]]) -> list[Image]:
    """`count` RGB pictures: those that lie in `folder` for this very `identity`, else what `draw` gives.

    `identity` (JSON) says everything that decides the pictures. The last set drawn is kept, lossless; an incomplete or
    damaged one is drawn again.
    """
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    names = [f"{number:05}.png" for number in range(count)]
    with contextlib.suppress(OSError):
        return [open_rgb(folder / key / name) for name in names]
    pictures = list(draw())
    fresh = folder / f".{key}-{os.getpid()}"
    fresh.mkdir(parents=True, exist_ok=True)
    for name, picture in zip(names, pictures, strict=True):
        picture.save(fresh / name)
    for old in folder.glob("[!.]*"):
        shutil.rmtree(old, ignore_errors=True)
    fresh.rename(folder / key)
    return pictures
