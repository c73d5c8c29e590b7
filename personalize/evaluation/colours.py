"""Colours of a picture, in steps: their shares, and how far those of two pictures are apart as people see it.

The difference is the earth mover's distance (Rubner, Tomasi, Guibas 2000) with the CIE 1976 colour difference ΔE*ab as
the ground distance: 2.3 is just noticed side by side (Mahy et al. 1994), 10 is seen at a glance.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from personalize.evaluation.quality import LUMINANCE, Array

if TYPE_CHECKING:
    from PIL.Image import Image

Colours = NDArray[Any]
"""Which colour each pixel has, of `STEPS`³: `[..., SIDE, SIDE]`."""

SIDE = 64
STEPS = 16
"""Into so many steps light and both differences of colour are told apart."""
SPREAD = np.array([0.6, 0.9, 0.9])
"""Steps of light, of red less light and of blue less light, as shares of their range: few pictures reach its ends."""
PIXELS = 1024
"""Of a picture, among which those of a palette are looked for."""


def colours(image: Image) -> Colours:
    """Of the square in the middle of one picture: `[SIDE, SIDE]`."""
    from PIL import Image as Pillow
    from PIL import ImageOps

    small = ImageOps.fit(image.convert("RGB"), (SIDE, SIDE), Pillow.Resampling.BOX)
    rgb = np.asarray(small, np.float32) / 255
    light = rgb @ np.array(LUMINANCE, np.float32)
    parts = np.stack([light, rgb[..., 0] - light, rgb[..., 2] - light], axis=-1) * SPREAD + (0, 0.5, 0.5)
    return _joined(parts * STEPS)


def darkened(colour: Colours, share: float = 0.6) -> Colours:
    """Every colour with that share of its light: of the shape of `colour`."""
    middle = np.array([0, STEPS / 2, STEPS / 2])
    return _joined((_steps(colour) + 0.5 - middle) * share + middle)


def turned(colour: Colours) -> Colours:
    """Every colour with its hue turned by a quarter, as light as before: of the shape of `colour`."""
    light, red, blue = np.moveaxis(_steps(colour), -1, 0)
    return _joined(np.stack([light, STEPS - 1 - blue, red], axis=-1))


def histogram(pixels: Colours) -> Array:
    """Shares of the colours among any pixels, each a little in its neighbours too: `[STEPS³]`."""
    counts = np.bincount(pixels.ravel(), minlength=STEPS**3).astype(float).reshape((STEPS,) * 3)
    shares = gaussian_filter(counts, 0.7).ravel()
    return np.asarray(shares / shares.sum())


def palette(pixels: Colours, count: int) -> Array:
    """So many of any pixels, evenly from all their colours, in CIELAB: `[count, 3]`."""
    in_order = np.sort(pixels.ravel())
    return np.asarray(_lab()[in_order[((np.arange(count) + 0.5) / count * len(in_order)).astype(int)]])


def difference(wanted: Array, shown: Colours) -> float:
    """ΔE*ab of the colours of a palette `[count, 3]` from those of a picture that come nearest to them, on average.

    Each is given other pixels of the picture, so that a colour must be there as often as it is wanted.
    """
    apart = cdist(wanted, palette(shown, PIXELS))
    return float(apart[linear_sum_assignment(apart)].mean())


def _joined(steps: Array) -> Colours:
    whole = np.clip(np.asarray(steps).astype(np.int64), 0, STEPS - 1)
    return np.asarray((whole[..., 0] * STEPS + whole[..., 1]) * STEPS + whole[..., 2], np.uint16)


def _steps(colour: Colours) -> Array:
    """Of light, red and blue: `[..., 3]`."""
    return np.stack(np.unravel_index(colour.astype(np.int64), (STEPS,) * 3), axis=-1)


@functools.cache
def _lab() -> Array:
    """Every colour in CIELAB: `[STEPS³, 3]`."""
    from PIL import Image, ImageCms

    light, red, blue = ((_steps(np.arange(STEPS**3)) + 0.5) / STEPS - (0, 0.5, 0.5)).T / SPREAD[:, None]
    others = LUMINANCE[0] * red + LUMINANCE[2] * blue
    rgb = np.stack([light + red, light - others / LUMINANCE[1], light + blue], axis=-1)
    image = Image.fromarray((255 * rgb.clip(0, 1)).round().astype(np.uint8)[None])
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = np.asarray(ImageCms.profileToProfile(image, *profiles, outputMode="LAB"))[0]
    return np.stack([lab[:, 0] / 2.55, *lab[:, 1:].astype(np.int8).T], axis=-1)
