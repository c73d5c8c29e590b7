"""Pictures as data URIs: bounded in size, one by one or all together, never loaded from outside."""

import base64
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DENSITY = 2  # device pixels for one CSS pixel
QUALITY = 82
MAX_PIXELS = 1600
LEAST = 88  # CSS pixels: where room is scarce, sharpness goes before size


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
    return _encoded(source, width, min(width * DENSITY, MAX_PIXELS))


def encode_all(sources: Sequence[Any], budget: int, sides: Sequence[int], width: int = 0) -> list[Picture]:
    """Encode many pictures so that all together stay within `budget` bytes of the page, as large as that allows.

    sides: bounds in pixels to choose from, largest first; the last is used whatever it costs. width: CSS pixels that
    they are shown at, by default half their side unless that is tiny. A few of them tell how much room all will need.
    """
    few = [sources[i] for i in range(0, len(sources), max(1, len(sources) // 12))]
    sides = [side for side in sides if _cost(_side_by_side(few, width, side)) * len(sources) <= budget * len(few)] or [
        sides[-1]
    ]
    for side in sides:
        found = _side_by_side(sources, width, side)
        if _cost(found) <= budget:
            break
    return found


def _side_by_side(sources: Sequence[Any], width: int, side: int) -> list[Picture]:
    """Each once, however often it is shown. PIL lets go of Python while it decodes, shrinks and encodes."""
    once = {_key(source): source for source in sources}
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = threads.map(
            lambda source: _encoded(source, width or max(side // DENSITY, min(side, LEAST)), side), once.values()
        )
        encoded = dict(zip(once, found, strict=True))
    return [encoded[_key(source)] for source in sources]


def _key(source: Any) -> Any:
    return id(source) if is_picture(source) else source


def _cost(found: Sequence[Picture]) -> int:
    return sum(len(picture.uri) for picture in found)


def _encoded(source: Any, width: int, bound: int) -> Picture:
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
    # Wide strips are bounded by their width; tall ones also by their height, so one picture cannot fill the card.
    image.thumbnail((bound, bound * 2), Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=QUALITY, method=4)
    shown = min(width, max(size[0], min(width, 96)))  # small pictures are shown small, but never as a speck
    height = max(1, round(shown * size[1] / size[0]))
    return Picture(f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}", shown, height, size)
