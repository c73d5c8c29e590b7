"""A subject in a picture, told by the colours that its photographs have in common: how broad it is, of which colour.

What no judge in use notices is a subject drawn too narrow or too broad (taught on photographs that something pressed
into squares, say): their features hardly change. Its width over its height is measured here, beside the photographs',
and how far its colours are from theirs.

Silhouettes are found by cosegmentation with colour histograms, after Rother et al. 2006: what all photographs of a
subject show is the subject, what differs between them its surroundings. It needs no network, and is examined before it
is believed: photographs of which the subject's width is not found to change when they are squeezed say nothing of
width, and those whose colours are not found to change when they are turned and darkened nothing of colour
(`Subject.learnt`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, label

from personalize.evaluation.colours import PIXELS, SIDE, Colours, darkened, difference, histogram, palette, turned
from personalize.evaluation.quality import TINY, Array

MEASURES = ("proportions", "colour_difference")
"""What is found of each picture of a subject: see `measured`."""

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
PLAIN_TO_SEE = 10.0
"""ΔE*ab, seen at a glance: what a turned hue and less light bring at least, on average, and photographs at most."""
PRESENT = 0.5
"""Share of a subject, as large as in photographs, whose colours are looked for: it may be smaller or half hidden."""

ENOUGH = 30
"""Photographs of one subject that are looked at: what they tell grows no better, and each is told by all others."""


def squeezed(colour: Colours, axis: int) -> Colours:
    """A picture pressed to 1 / `STRETCH` across (axis 1) or down (0), its edge drawn out: `[SIDE, SIDE]`."""
    at = np.clip(np.round((np.arange(SIDE) - (SIDE - 1) / 2) * STRETCH + (SIDE - 1) / 2).astype(int), 0, SIDE - 1)
    return np.take(colour, at, axis=axis)


@dataclass(frozen=True)
class Subject:
    """What a subject looks like. shares: its colours, `[STEPS³]`; elsewhere: those of other pictures.

    aspect: log of its width over its height in its photographs, their median; palette: colours of it, `[count, 3]`, and
    apart: how far those of a photograph are from the others', their median. NaN where photographs do not tell.
    """

    shares: Array
    elsewhere: Array
    palette: Array = field(default_factory=lambda: np.zeros((0, 3)))
    aspect: float = np.nan
    apart: float = np.nan

    @classmethod
    def of(cls, photographs: Sequence[Colours], elsewhere: Array) -> Subject:
        """Its colours, from photographs `[m, SIDE, SIDE]`."""
        subject = cls(_common(photographs), elsewhere)
        found = [subject.silhouette(shown) for shown in photographs]
        count = round(PRESENT * PIXELS * float(np.median([each.mean() for each in found])))
        own = np.concatenate([shown[each] for shown, each in zip(photographs, found, strict=True)])
        return replace(subject, palette=palette(own, max(count, 1)))

    @classmethod
    def learnt(cls, photographs: Sequence[Colours], elsewhere: Array) -> Subject:
        """From photographs, `[m, SIDE, SIDE]`: each is told by the others, to see what they tell.

        Of width, where each comes out as narrower or lower by half to one and a half times of what it is squeezed by;
        of colour, where it is no more than `PLAIN_TO_SEE` off, and comes out as that much farther off when its hue is
        turned or it is darkened (the mean of both). All are medians, which must be known to half of what is looked for.
        """
        learnt = cls.of(photographs, elsewhere)
        if len(photographs) < 3:
            return learnt
        others = ([*photographs[:i], *photographs[i + 1 :]] for i in range(len(photographs)))
        told = [(cls.of(rest, elsewhere), shown) for rest, shown in zip(others, photographs, strict=True)]

        def found(measure: Callable[[Subject, Colours], float], of: Callable[[Colours], Colours] = np.asarray) -> Array:
            return np.array([measure(subject, of(shown)) for subject, shown in told])

        aspects, off = found(cls.log_aspect), found(cls.off)
        narrower, lower = (np.median(found(cls.log_aspect, partial(squeezed, axis=axis)) - aspects) for axis in (1, 0))
        if all(0.5 <= by / np.log(STRETCH) <= 1.5 for by in (-narrower, lower)):
            learnt = replace(learnt, aspect=_median(aspects, within=np.log(STRETCH) / 2))
        farther = np.mean([np.median(found(cls.off, change) - off) for change in (turned, darkened)])
        if np.median(off) <= PLAIN_TO_SEE <= farther:
            learnt = replace(learnt, apart=_median(off, within=PLAIN_TO_SEE / 2))
        return learnt

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

    def off(self, shown: Colours) -> float:
        """How far colours of a picture are from its own: ΔE*ab, see `colours.difference`."""
        return difference(self.palette, shown)


def subjects(photographs: Sequence[Sequence[Colours]], plain: Colours) -> list[Subject]:
    """Each subject by its photographs, told from the others' and from `plain`, pictures of its class `[m, ...]`."""
    of_class = np.mean([histogram(one) for one in plain.reshape(-1, SIDE, SIDE)], axis=0)
    of_each = [np.mean([histogram(one) for one in shown], axis=0) for shown in photographs]
    found = []
    for s, shown in enumerate(photographs):
        others = [one for i, one in enumerate(of_each) if i != s]
        some = shown[:: -(-len(shown) // ENOUGH)]
        found.append(Subject.learnt(some, np.mean([of_class, *([np.mean(others, axis=0)] if others else [])], axis=0)))
    return found


def measured(pictures: Colours, known: Sequence[Subject]) -> dict[str, Array]:
    """How each picture of a subject differs from its photographs, by `MEASURES`: `[n, p, k, ...]` to `[n, p, k]`.

    proportions: how much broader it is over its height, as a difference of logarithms, at most 1 either way;
    colour_difference: how much farther off its colours are than a photograph's are from the others', in ΔE*ab. NaN for
    names that are no subject, or one of which its photographs do not tell.
    """
    broader, off = (np.full(pictures.shape[:3], np.nan) for _ in MEASURES)
    for n, subject in enumerate(known):
        for at in np.ndindex(broader.shape[1:]):
            broader[n, *at] = subject.log_aspect(pictures[n, *at]) - subject.aspect
            off[n, *at] = subject.off(pictures[n, *at]) - subject.apart
    return dict(zip(MEASURES, (np.clip(broader, -1, 1), off), strict=True))


def _common(photographs: Sequence[Colours]) -> Array:
    """The colours that all have, as their geometric mean: `[STEPS³]`."""
    return np.exp(np.mean(np.log(np.stack([histogram(one) for one in photographs]) + RARE), axis=0))


def _median(values: Array, within: float) -> float:
    """NaN where its standard error is greater."""
    median = float(np.median(values))
    spread = 1.4826 * np.median(np.abs(values - median))  # a normal's standard deviation by its median deviation
    error = 1.2533 * spread / np.sqrt(len(values))  # of a median, beside a mean's
    return np.nan if error > within else median
