"""Silhouettes: where a subject is in a picture, told by the colours that its photographs have in common.

What no judge in use notices is a subject drawn too narrow or too broad (taught on photographs that something pressed
into squares, say): their features hardly change. Its width over its height is measured here, beside the photographs'.

Cosegmentation by colour histograms, after Rother et al. 2006: what all photographs of a subject show is the subject,
what differs between them its surroundings. It needs no network, and is examined before it is believed: photographs of
which the subject's width is not found to change when they are squeezed say nothing (`Subject.learnt`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, label

from personalize.evaluation.quality import LUMINANCE, TINY, Array

if TYPE_CHECKING:
    from PIL.Image import Image

Colours = NDArray[Any]
"""Which colour each pixel has, of `STEPS`³: `[..., SIDE, SIDE]`."""

SIDE = 64
STEPS = 16
"""Into so many steps light and both differences of colour are told apart."""
MARGIN = 4
"""How wide the edge of a picture is, in pixels of `SIDE`, that is taken for what surrounds its subject."""
EDGE = np.ones((SIDE, SIDE), bool)
EDGE[MARGIN:-MARGIN, MARGIN:-MARGIN] = False
OWN = 0.8
"""How much the picture's own edge counts in what a subject's colours are told from, beside those of other pictures."""
RARE = 1e-5
"""The share of a picture that is as good as none: a colour that one photograph lacks is not in common."""
PART = 0.15
"""A piece of a silhouette, as a share of its greatest piece, below which it is a stain."""
LEAST = 0.02
"""The share of a picture that a silhouette covers at least: the pixels likeliest to be the subject's."""
STRETCH = 1.5
"""By how much photographs are squeezed to see whether that is noticed."""


def colours(image: Image) -> Colours:
    """Of the square in the middle of one picture: `[SIDE, SIDE]`."""
    from PIL import Image as Pillow
    from PIL import ImageOps

    small = ImageOps.fit(image.convert("RGB"), (SIDE, SIDE), Pillow.Resampling.BOX)
    return _colours(np.asarray(small, np.float32) / 255)


def _colours(rgb: Array) -> Colours:
    light = rgb @ np.array(LUMINANCE, np.float32)
    parts = np.stack([0.6 * light, 0.9 * (rgb[..., 0] - light) + 0.5, 0.9 * (rgb[..., 2] - light) + 0.5])
    steps = np.clip((STEPS * parts).astype(np.int64), 0, STEPS - 1)
    return np.asarray((steps[0] * STEPS + steps[1]) * STEPS + steps[2], np.uint16)


def squeezed(colour: Colours, axis: int) -> Colours:
    """A picture pressed to 1 / `STRETCH` across (axis 1) or down (0), its edge drawn out: `[SIDE, SIDE]`."""
    at = np.clip(np.round((np.arange(SIDE) - (SIDE - 1) / 2) * STRETCH + (SIDE - 1) / 2).astype(int), 0, SIDE - 1)
    return np.take(colour, at, axis=axis)


def histogram(pixels: Colours) -> Array:
    """Shares of the colours among any pixels, each a little in its neighbours too: `[STEPS³]`."""
    counts = np.bincount(pixels.ravel(), minlength=STEPS**3).astype(float).reshape((STEPS,) * 3)
    shares = gaussian_filter(counts, 0.7).ravel()
    return np.asarray(shares / shares.sum())


@dataclass(frozen=True)
class Subject:
    """What a subject looks like. shares: its colours, `[STEPS³]`; elsewhere: those of other pictures.

    aspect: log of its width over its height in its photographs, their median.
    """

    shares: Array
    elsewhere: Array
    aspect: float = 0.0

    @classmethod
    def learnt(cls, photographs: Sequence[Colours], elsewhere: Array) -> Subject | None:
        """From photographs, `[m, SIDE, SIDE]`; None where they do not tell its proportions.

        They do where each, told by the others, comes out as narrower or lower by half to one and a half times of what
        it is squeezed by (medians), and where the median of so few is known to half of that.
        """
        if len(photographs) < 3:
            return None
        others = ([*photographs[:i], *photographs[i + 1 :]] for i in range(len(photographs)))
        found = [(cls(_common(rest), elsewhere), shown) for rest, shown in zip(others, photographs, strict=True)]
        aspects = np.array([told.log_aspect(shown) for told, shown in found])
        for axis, sign in ((1, -1), (0, 1)):
            moved = np.array([told.log_aspect(squeezed(shown, axis)) for told, shown in found]) - aspects
            if not 0.5 <= sign * np.median(moved) / np.log(STRETCH) <= 1.5:
                return None
        median = float(np.median(aspects))
        spread = 1.4826 * np.median(np.abs(aspects - median))  # a normal's standard deviation by its median deviation
        error = 1.2533 * spread / np.sqrt(len(aspects))  # of a median, beside a mean's
        return None if error > np.log(STRETCH) / 2 else cls(_common(photographs), elsewhere, median)

    def silhouette(self, shown: Colours) -> NDArray[np.bool_]:
        """Where it is in a picture: `[SIDE, SIDE]`, never empty."""
        around = OWN * histogram(shown[EDGE]) + (1 - OWN) * self.elsewhere
        likely = gaussian_filter((self.shares / (self.shares + around + 3 * RARE))[shown], 1)
        pieces, count = label(likely >= min(0.5, float(np.quantile(likely, 1 - LEAST))))
        weights = np.bincount(pieces.ravel(), likely.ravel(), count + 1)
        weights[0] = 0
        return np.asarray((weights >= PART * weights.max())[pieces] & (pieces > 0))

    def log_aspect(self, shown: Colours) -> float:
        """Log of the width over the height of its silhouette, both as standard deviations of its pixels."""
        down, across = np.nonzero(self.silhouette(shown))
        return float(np.log((across.std() + TINY) / (down.std() + TINY)))


def subjects(photographs: Sequence[Sequence[Colours]], plain: Colours) -> list[Subject | None]:
    """Each subject by its photographs, told from the others' and from `plain`, pictures of its class `[m, ...]`."""
    of_class = np.mean([histogram(one) for one in plain.reshape(-1, SIDE, SIDE)], axis=0)
    of_each = [np.mean([histogram(one) for one in shown], axis=0) for shown in photographs]
    found = []
    for s, shown in enumerate(photographs):
        others = [one for i, one in enumerate(of_each) if i != s]
        found.append(Subject.learnt(shown, np.mean([of_class, *([np.mean(others, axis=0)] if others else [])], axis=0)))
    return found


def proportions(pictures: Colours, known: Sequence[Subject | None]) -> Array:
    """How much broader, over its height, a subject is than in its photographs: `[n, p, k, ...]` to `[n, p, k]`.

    Differences of logarithms, at most 1 either way; NaN for names that are no subject, or one that cannot be told.
    """
    found = np.full(pictures.shape[:3], np.nan)
    for n, subject in enumerate(known):
        if subject is not None:
            for at in np.ndindex(found.shape[1:]):
                found[n, *at] = subject.log_aspect(pictures[n, *at]) - subject.aspect
    return np.clip(found, -1, 1)


def _common(photographs: Sequence[Colours]) -> Array:
    """The colours that all have, as their geometric mean: `[STEPS³]`."""
    return np.exp(np.mean(np.log(np.stack([histogram(one) for one in photographs]) + RARE), axis=0))
