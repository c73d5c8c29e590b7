"""Pictures as data URIs: bounded in size, encoded once, never linked from outside."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DENSITY = 2  # device pixels for one CSS pixel
QUALITY = 82
MAX_PIXELS = 1600


@dataclass(frozen=True)
class Picture:
    """An encoded picture. width, height: CSS pixels; size: that of the picture it was made from."""

    uri: str
    width: int
    height: int
    size: tuple[int, int]


def is_picture(value: Any) -> bool:
    """A PIL image, without importing PIL to find out."""
    return hasattr(value, "convert") and hasattr(value, "thumbnail") and hasattr(value, "size")


def encode(source: Any, width: int = 160) -> Picture:
    """Encode a PIL image or an image file for showing at `width` CSS pixels. Raises ValueError if unreadable."""
    from PIL import Image, ImageOps

    try:
        if is_picture(source):
            image = source.copy()
        else:
            with Image.open(Path(source)) as opened:
                image = ImageOps.exif_transpose(opened)
                image.load()
        image = image.convert("RGBA" if "A" in image.getbands() or "transparency" in image.info else "RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"a picture for the card cannot be read: {source}: {error}") from error
    size = image.size
    bound = min(width * DENSITY, MAX_PIXELS)
    # Wide strips are bounded by their width; tall ones also by their height, so one picture cannot fill the card.
    image.thumbnail((bound, bound * 2), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=QUALITY, method=4)
    shown = min(width, max(size[0], min(width, 96)))  # small pictures are shown small, but never as a speck
    height = max(1, round(shown * size[1] / size[0]))
    return Picture(f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}", shown, height, size)
