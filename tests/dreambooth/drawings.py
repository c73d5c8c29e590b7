"""Stand-ins for photographs: sharp, distinct, quick to make, the same for the same seed."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


def drawing(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Coloured boxes and lines on a gradient, with a little grain."""
    rng = np.random.default_rng(seed)
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    tilt = rng.uniform(-0.3, 0.3, (2, 3))
    pixels = (
        rng.uniform(60, 200, 3) + tilt[0] * x[..., None] + tilt[1] * y[..., None] + rng.normal(0, 4, (height, width, 3))
    )
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(14):
        left, top = int(rng.integers(0, width * 3 // 4)), int(rng.integers(0, height * 3 // 4))
        right, bottom = left + int(rng.integers(20, width // 2)), top + int(rng.integers(20, height // 2))
        colour = tuple(int(value) for value in rng.integers(0, 255, 3))
        draw.rectangle((left, top, right, bottom), fill=colour, outline="black", width=2)
    return image


def photograph(path: Path, seed: int, size: tuple[int, int] = (320, 240), **options: object) -> Path:
    """Saves `drawing(seed)` as `path`, in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing(seed, size).save(path, **options)
    return path


def subject_folder(root: Path, class_noun: str = "chair", token: str = "zwvchr", count: int = 4, seed: int = 0) -> Path:
    """`root`/<class noun>/<token>/ with `count` photographs; returns `root`."""
    for index in range(count):
        photograph(root / class_noun / token / f"{index}.jpg", seed + index, quality=92)
    return root
