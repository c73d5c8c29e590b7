"""A picture in a file. By itself, so that who looks at pictures does not depend on what is asked for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


def open_rgb(path: Path) -> Image:
    """The picture in a file, read whole. Raises OSError where it is missing or damaged."""
    from PIL import Image

    with Image.open(path) as image:
        return image.convert("RGB")
