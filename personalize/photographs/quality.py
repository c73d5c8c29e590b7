"""Quality: is a photograph sharp enough to teach from, and has it been given twice?

Measured on 103 real photographs (25 of chairs, 78 of DreamBooth's subjects): sharpness is 778 or more as taken;
blurred with a Gaussian of sigma 1, 1.5, 2 and 3 pixels at 512 its median is 202, 64, 31 and 13. Two photographs of
one subject differ in 0.125 or more of their hash bits; saved again as JPEG, halved, or cropped by 1 % a photograph
differs from itself in at most 0.09.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from personalize.photographs.reading import reduced

SHARPNESS_SIDE = 512
"""Short side in pixels at which sharpness is measured, so that a large photograph is not judged by its grain."""


@dataclass(frozen=True)
class Near:
    """Photograph `index` looks like the earlier photograph `like`; `distance` is the share of hash bits that differ."""

    index: int
    like: int
    distance: float


def sharpness(image: Image.Image) -> float:
    """Variance of the Laplacian (Pech-Pacheco et al. 2000) in the sharpest part of the picture, contrast evened out.

    The 95th percentile over 8 x 8 tiles, not the mean: a subject before a plain wall or a blurred background is sharp.
    """
    from scipy.ndimage import laplace  # cards import this file, and a plan should not wait for scipy.ndimage

    grey = np.asarray(ImageOps.autocontrast(reduced(image.convert("L"), SHARPNESS_SIDE), cutoff=1), dtype=np.float32)
    laplacian = laplace(grey)
    tiles = [tile for band in np.array_split(laplacian, 8, axis=0) for tile in np.array_split(band, 8, axis=1)]
    return float(np.percentile([tile.var() for tile in tiles if tile.size], 95))


def is_blank(image: Image.Image) -> bool:
    """True when there is nothing to see: all pixels within a few grey levels of each other."""
    grey = np.asarray(reduced(image.convert("L"), 64), dtype=np.float32)
    return float(grey.std()) < 2.0


def difference_hash(image: Image.Image, size: int = 16) -> npt.NDArray[np.bool_]:
    """dHash (Krawetz 2013) along rows and columns: 2 * size**2 bits, `is this cell brighter than the one before it`."""
    grey = image.convert("L")
    rows = np.asarray(grey.resize((size + 1, size), Image.Resampling.LANCZOS), dtype=np.int16)
    columns = np.asarray(grey.resize((size, size + 1), Image.Resampling.LANCZOS), dtype=np.int16)
    return np.concatenate([(np.diff(rows, axis=1) > 0).ravel(), (np.diff(columns, axis=0) > 0).ravel()])


def near_duplicates(hashes: Sequence[npt.NDArray[np.bool_]], threshold: float) -> list[Near]:
    """The photographs within `threshold` of an earlier one that is no repetition itself, each with the nearest such."""
    found: list[Near] = []
    originals: list[int] = []
    for index, bits in enumerate(hashes):
        distances = [(float(np.mean(bits != hashes[other])), other) for other in originals]
        distance, like = min(distances, default=(1.0, -1))
        if distance <= threshold:
            found.append(Near(index, like, distance))
        else:
            originals.append(index)
    return found
