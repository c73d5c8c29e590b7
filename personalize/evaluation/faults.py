"""Pictures at fault, counted one by one: a fault in one picture of five hardly moves a mean, and is seen in a share.

Most are told beside the picture that the base draws for the same prompt from the same noise: a model that learnt a
subject, and nothing else, leaves what surrounds it as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from personalize.evaluation import colours, quality
from personalize.evaluation.quality import LUMINANCE, MARKS_SIDE, TINY, Array

if TYPE_CHECKING:
    from PIL.Image import Image

    from personalize.evaluation.judges import Judge

Flags = NDArray[np.bool_]

FAULTS = ("upside_down", "displaced", "altered", "stamped", "repeats")
LAYOUT_SIDE = 16
"""Side in cells at which it is looked what lies where in a picture."""
MIDDLE = np.zeros((LAYOUT_SIDE, LAYOUT_SIDE), bool)
MIDDLE[LAYOUT_SIDE // 4 : -LAYOUT_SIDE // 4, LAYOUT_SIDE // 4 : -LAYOUT_SIDE // 4] = True
SURROUNDINGS = 24
"""How wide the margin is, in pixels of `MARKS_SIDE`, that counts as what surrounds a subject."""
AROUND = np.ones((MARKS_SIDE, MARKS_SIDE), bool)
AROUND[SURROUNDINGS:-SURROUNDINGS, SURROUNDINGS:-SURROUNDINGS] = False
IN_REGISTER = 0.11
"""Cosine of their edges above which the surroundings of two pictures lie at the same place."""
TINTS = {"light": 0.3, "red or green": 0.33, "blue or yellow": 0.33}
"""How far the surroundings' cells may be from the base's, in their median: logarithms of light and of ratios.

A tint changes every cell's ratios alike, however dark; a subject that reaches into the surroundings changes a few.
"""
TONES = {
    "colourful": 1.25,
    "sharp across": 1.2,
    "sharp down": 1.05,
    "noise": 0.1,
}
"""What surroundings are like, and how much farther than others of that name they may be from the base's: logarithms."""
PALE = 0.02
"""Chroma, in shares of full scale, below which less is no difference."""
DARK = 0.05
"""The same for the light of a cell."""
STAMPED = 0.18
"""Cosine of the finest detail above which two pictures of different prompts carry the same mark."""
NEAR = 2
"""How far pictures are moved to see whether they share something to the pixel, in pixels of `MARKS_SIDE`."""
SHARED = 1 / 12
"""Share of a name's other pictures that must carry a mark before it is one."""
TWICE = 0.75
"""Share of a picture's detail that is in it twice above which it repeats itself: a round subject's at most 0.63."""


class Traces(NamedTuple):
    """What is laid beside the traces of other pictures, of one picture or of many."""

    layout: Array
    """See `layout`: `[..., LAYOUT_SIDE, LAYOUT_SIDE, 3]`."""
    edges: Array
    """See `edges`: `[..., 2, e]`."""
    tints: Array
    """See `tints`: `[..., c, 3]`."""
    tones: Array
    """See `tones`: `[..., 4]`."""
    residual: Array
    """See `quality.residual`: `[..., MARKS_SIDE²]`."""
    colours: Array
    """See `colours.colours`: `[..., SIDE, SIDE]`."""

    def map(self, change: Callable[[Array], Array]) -> Traces:
        return Traces(*(change(values) for values in self))


def traces(images: Sequence[Image]) -> Traces:
    """Of `n` pictures, in their order: `[n, ...]`."""
    looks = layout, edges, tints, tones, quality.residual, colours.colours
    stacked: list[NDArray[Any]] = [np.stack([of(image) for image in images]) for of in looks]
    return Traces(*stacked)


def counted(own: Traces, base: Traces, on_heads: Callable[[Flags], Flags]) -> dict[str, Array]:
    """Of pictures and the base's from the same noise, `[n, p, k, ...]`: 1 where one has a fault of `FAULTS`.

    on_heads: which of those that the layout suspects stand on their heads indeed (`upside_down`).
    """
    found = {
        "upside_down": on_heads(laid_upside_down(own.layout, base.layout)),
        "displaced": register(own.edges, base.edges) < IN_REGISTER,
        "altered": altered(own, base),
        "stamped": stamped(own.residual),
        "repeats": quality.repeats(own.residual) > TWICE,
    }
    return {fault: found[fault].astype(float) for fault in FAULTS}


def layout(image: Image) -> Array:
    """Which colours lie where, the surroundings above all: `[LAYOUT_SIDE, LAYOUT_SIDE, 3]` of length 1, or zeros.

    The middle counts a fifth: there a subject stands in the place of something else of its class.
    """
    cells = _cells(image)
    cells -= cells.mean(axis=(0, 1))
    cells[MIDDLE] /= 5
    length = float(np.linalg.norm(cells))
    return cells / length if length > TINY else np.zeros_like(cells)


def laid_upside_down(layouts: Array, others: Array) -> Flags:
    """Whether layouts `[..., side, side, 3]` fit other pictures' better once these are turned by 180°: `[...]`."""
    return np.asarray((layouts * (others - others[..., ::-1, ::-1, :])).sum(axis=(-1, -2, -3)) < 0)


def edges(image: Image) -> Array:
    """Where edges lie in the surroundings, those that are upright and those that lie: two unit vectors `[2, e]`.

    Signed square roots of the differences between neighbouring pixels: many faint edges outweigh a bold one. Zeros
    where there are none.
    """
    grey = gaussian_filter(_small(image.convert("L")), 0.7)
    steps = np.stack([_around(np.diff(grey, axis=1)[:-1]), _around(np.diff(grey, axis=0)[:, :-1])])
    roots = np.sign(steps) * np.sqrt(np.abs(steps))
    lengths = np.linalg.norm(roots, axis=-1, keepdims=True)
    return np.where(lengths > TINY, roots / np.maximum(lengths, TINY), 0)


def register(edges: Array, others: Array) -> Array:
    """How well surroundings `[..., 2, e]` fit those of other pictures from the same noise: `[...]`, at most 1.

    Stretched across, upright edges are elsewhere, and those that lie are not: the direction that fits less decides.
    """
    return np.asarray((edges * others).sum(axis=-1).min(axis=-1))


def tints(image: Image) -> Array:
    """The light and the colours of the surroundings' cells, in the order of `TINTS`: `[c, 3]` logarithms."""
    red, green, blue = _cells(image)[~MIDDLE].T + DARK
    both = (red + green) / 2
    return np.log([(both * 2 + blue) / 3, red / green, blue / both]).T


def tones(image: Image) -> Array:
    """How colourful, sharp and noisy the surroundings are, in the order of `TONES`: `[4]`.

    How colourful: log of the mean chroma; sharpness in a direction: log of the energy of second differences over that
    of first ones.
    """
    rgb = _small(image.convert("RGB")) / 255
    grey = rgb @ LUMINANCE
    around = _around(rgb)
    chroma = float((around.max(axis=-1) - around.min(axis=-1)).mean())

    def sharp(axis: int) -> float:
        first, second = (float((_around(np.diff(grey, times, axis=axis)) ** 2).mean()) for times in (1, 2))
        return float(np.log((second + TINY**2) / (first + TINY**2)))

    return np.array([np.log(chroma + PALE), sharp(1), sharp(0), quality.noise(_around(quality.grain(grey)))])


def altered(own: Traces, base: Traces) -> Flags:
    """Whether the surroundings have another light, colour, sharpness or noise than in other pictures: `[n, p, k]`.

    Beside the base's from the same noise; what all pictures of a name have in common is taken off, which gates on their
    means see.
    """
    moved = np.concatenate([np.median(own.tints - base.tints, axis=-2), own.tones - base.tones], axis=-1)
    moved -= np.median(moved, axis=(1, 2), keepdims=True)
    return np.asarray((np.abs(moved) > [*TINTS.values(), *TONES.values()]).any(axis=-1))


def stamped(residuals: Array) -> Flags:
    """Whether the finest detail lies where it does in some pictures of other prompts: `[n, p, k, d]` to `[n, p, k]`.

    Of residuals, each among its name's. A watermark, a date or a scratch in one picture of five is in others too, and
    to the pixel: moved, they fit less. A subject that always stands in one place has its outlines near one another,
    some of them on one another, and mostly fits as well or better when moved. Of no use below a dozen pictures of a
    name, where none is found.
    """
    count, prompts, seeds = residuals.shape[:3]
    found = np.zeros((count, prompts * seeds), bool)
    if (prompts - 1) * seeds * SHARED < 1:
        return found.reshape(count, prompts, seeds)
    prompt = np.repeat(np.arange(prompts), seeds)
    elsewhere = prompt[:, None] != prompt
    for name in range(count):
        detail = quality.finest(residuals[name].reshape(prompts * seeds, -1))
        alike = detail @ detail.T
        to_the_pixel = np.where(elsewhere, np.where(alike > _moved(detail), alike, -1), np.nan)
        found[name] = np.nanquantile(to_the_pixel, 1 - SHARED, axis=1) > STAMPED
    return found.reshape(count, prompts, seeds)


def _moved(detail: Array) -> Array:
    """How well pictures fit one another at best when one is moved by up to `NEAR` pixels: `[m, d]` to `[m, m]`."""
    pictures = detail.reshape(-1, MARKS_SIDE, MARKS_SIDE)
    best = np.full((len(detail), len(detail)), -1.0)
    for down, across in np.ndindex(NEAR + 1, 2 * NEAR + 1):
        if (down, across - NEAR) > (0, 0):
            moved = detail @ np.roll(pictures, (down, across - NEAR), axis=(1, 2)).reshape(detail.shape).T
            best = np.maximum(best, np.maximum(moved, moved.T))
    return best


def upside_down(
    laid: Flags,
    picture: Callable[[tuple[int, int, int]], Image],
    upright: Callable[[int], Sequence[Image]],
    reads: Judge,
) -> Flags:
    """Which pictures stand on their heads: `[n, p, k]`.

    laid: whether the layout says so (`laid_upside_down`). Of those the judge of texts is asked as well, which has seen
    the world: whether it finds the picture turned nearer to upright ones of that name (the photographs, or what the
    base draws of a class), and as it is nearer to these turned.
    """
    found = np.zeros(laid.shape, bool)
    for name in np.flatnonzero(laid.any(axis=(1, 2))):
        suspects = [(int(name), int(p), int(k)) for p, k in np.argwhere(laid[name])]
        way_up = _turned_less(reads, upright(int(name))).mean(axis=0)
        for at, less in zip(suspects, _turned_less(reads, [picture(at) for at in suspects]), strict=True):
            found[at] = less @ way_up < 0
    return found


def _turned_less(reads: Judge, images: Sequence[Image]) -> Array:
    """Features of pictures less those of the same pictures turned by 180°: `[n, d]`."""
    return reads.images(images) - reads.images([image.rotate(180) for image in images])


def _cells(image: Image) -> Array:
    """Mean colours of a picture's cells, 0..1: `[LAYOUT_SIDE, LAYOUT_SIDE, 3]`."""
    from PIL import Image as Pillow

    small = image.convert("RGB").resize((LAYOUT_SIDE, LAYOUT_SIDE), Pillow.Resampling.BOX)
    return np.asarray(small, np.float32) / 255


def _small(image: Image) -> Array:
    """Values in 0..255: `[MARKS_SIDE, MARKS_SIDE]`, or with channels."""
    from PIL import Image as Pillow

    return np.asarray(image.resize((MARKS_SIDE, MARKS_SIDE), Pillow.Resampling.LANCZOS), np.float32)


def _around(values: Array) -> Array:
    """Those of the surroundings alone, of pixels or of what lies between them: `[h, w, ...]` to `[m, ...]`."""
    return values[AROUND[: values.shape[0], : values.shape[1]]]
