"""What a picture is like whatever it shows: how sharp, how noisy, how blocky, how stretched, how bright.

No judge of likeness sees these: features of a blurred or stained picture are hardly farther from a photograph. Each is
one number per picture on a scale where a difference means the same everywhere (logarithms of energies, mostly), and is
read against what the base draws for the same questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

if TYPE_CHECKING:
    from PIL.Image import Image

Array = NDArray[np.floating]

QUALITIES = ("sharpness", "noise", "blockiness", "fringes", "aspect", "brightness", "contrast", "saturation")
MEASURED = (*QUALITIES, "marks", "repeats")
BLOCK = 8
"""Side of the blocks of JPEG and of a latent diffusion model's VAE, in pixels."""
MARKS_SIDE = 128
"""Side in pixels at which pictures and their colours are laid over one another, and their edges are counted."""
REACH = 3
"""How far apart colours are looked for, in pixels of `MARKS_SIDE`."""
LAYOUT_SIDE = 16
"""Side in cells at which it is looked what lies where in a picture."""
SURROUNDINGS = 24
"""How wide the margin is, in pixels of `MARKS_SIDE`, that counts as what surrounds a subject."""
IN_REGISTER = 0.13
"""Cosine of their edges above which the surroundings of two pictures lie at the same place."""
TINY = 1e-3


def qualities(image: Image) -> Array:
    """The eight numbers of `QUALITIES`: `[8]`.

    sharpness: log of the Laplacian's mean square over the gradient's; noise: log of Immerkær's (1996) σ, its median in
    place of the mean, so that drawn detail counts little; blockiness: log of the steps over block edges, over those
    elsewhere, worse of both directions and at the worst offset; fringes: see `_fringes`; aspect: see `_aspect`;
    brightness, contrast, saturation: mean and standard deviation of the luminance and mean chroma, in shares of full
    scale.
    """
    rgb = np.asarray(image.convert("RGB"), np.float32) / 255
    grey = rgb @ np.array([0.299, 0.587, 0.114], np.float32)
    across, down = np.diff(grey, axis=1), np.diff(grey, axis=0)
    level, upright = float((down**2).mean()), float((across**2).mean())
    second = grey[1:-1, :-2] + grey[1:-1, 2:] + grey[:-2, 1:-1] + grey[2:, 1:-1] - 4 * grey[1:-1, 1:-1]
    mask = (
        grey[:-2, :-2] + grey[:-2, 2:] + grey[2:, :-2] + grey[2:, 2:]
        - 2 * (grey[1:-1, :-2] + grey[1:-1, 2:] + grey[:-2, 1:-1] + grey[2:, 1:-1])
        + 4 * grey[1:-1, 1:-1]
    )  # fmt: skip
    floor = TINY**2
    return np.array(
        [
            np.log((float((second**2).mean()) + floor) / (level + upright + floor)),
            np.log(float(np.median(np.abs(mask))) / (6 * 0.6745) + TINY),
            max(_steps(np.abs(across).mean(axis=0)), _steps(np.abs(down).mean(axis=1))),
            _fringes(image),
            _aspect(image),
            grey.mean(),
            grey.std(),
            (rgb.max(axis=-1) - rgb.min(axis=-1)).mean(),
        ]
    )


def _aspect(image: Image) -> float:
    """Log of how often detail changes its sign across, over how often down.

    Zero crossings of a difference of Gaussians (Marr and Hildreth 1980) count edges, whatever their contrast: a stretch
    makes them rarer by its factor, while a leg that is drawn more boldly leaves their number as it was.
    """
    from PIL import Image as Pillow

    small = image.convert("L").resize((MARKS_SIDE, MARKS_SIDE), Pillow.Resampling.LANCZOS)
    grey = np.asarray(small, np.float32) / 255
    above = gaussian_filter(grey, 1) > gaussian_filter(grey, 3)
    across, down = (above[:, 1:] != above[:, :-1]).sum(), (above[1:] != above[:-1]).sum()
    return float(np.log((across + 1) / (down + 1)))


def _fringes(image: Image) -> float:
    """How far the edges of red lie from those of blue, in pixels of `MARKS_SIDE`: 0 where colours are in register.

    The shift, of at most `REACH` each way, at which the lengths of both channels' gradients correlate most.
    """
    from PIL import Image as Pillow

    small = image.convert("RGB").resize((MARKS_SIDE, MARKS_SIDE), Pillow.Resampling.LANCZOS)
    red, _, blue = np.moveaxis(np.asarray(small, np.float32), -1, 0)
    edges = [np.hypot(*np.gradient(channel)) for channel in (red, blue)]
    seen = [np.fft.rfft2(lengths - lengths.mean()) for lengths in edges]
    alike = np.fft.irfft2(seen[0] * seen[1].conj(), s=red.shape)
    shifts = np.arange(-REACH, REACH + 1)
    near = alike[np.ix_(shifts, shifts)]
    down, across = np.unravel_index(near.argmax(), near.shape)
    return float(np.hypot(shifts[down], shifts[across])) if near.max() > near[REACH, REACH] + TINY else 0.0


def _steps(edges: Array) -> float:
    """How much greater the differences at every eighth place are than the rest, at the offset where they are most."""
    of_offset = np.array([edges[offset::BLOCK].mean() for offset in range(BLOCK)])
    rest = (of_offset.sum() - of_offset) / (BLOCK - 1)
    return float(np.log((of_offset + TINY) / (rest + TINY)).max())


def residual(image: Image) -> Array:
    """What is finer than a few pixels, as a unit vector: `[MARKS_SIDE²]`. A flat picture gives zeros."""
    from PIL import Image as Pillow
    from PIL import ImageFilter

    small = image.convert("L").resize((MARKS_SIDE, MARKS_SIDE), Pillow.Resampling.LANCZOS)
    fine = np.asarray(small, np.float32) - np.asarray(small.filter(ImageFilter.GaussianBlur(3)), np.float32)
    length = float(np.linalg.norm(fine))
    return fine.ravel() / length if length > 1 else np.zeros(fine.size, np.float32)


def marks(residuals: Array) -> Array:
    """How much of each picture's detail lies where it lies in pictures of other prompts: `[n, p, k, d]` to `[n, p, k]`.

    Mean cosine to the residuals of the other prompts' pictures of the same name. A watermark, a stain, or one picture
    drawn for everything are in all of them; independent pictures have nothing in common.
    """
    prompts, seeds = residuals.shape[1:3]
    by_prompt = residuals.sum(axis=2, keepdims=True)
    others = by_prompt.sum(axis=1, keepdims=True) - by_prompt
    return (residuals * others).sum(axis=-1) / max(1, (prompts - 1) * seeds)


def repeats(residuals: Array) -> Array:
    """How much of each picture's detail is in it twice: `[..., d]` to `[...]`, 1 where one half is the other.

    Cosine to the picture mirrored, or moved by half its width or its height: the one that fits best.
    """
    detail = residuals.reshape(*residuals.shape[:-1], MARKS_SIDE, MARKS_SIDE)

    def like(moved: Array) -> Array:
        return np.asarray(np.einsum("...yx,...yx->...", detail, moved))

    beside = (like(np.roll(detail, MARKS_SIDE // 2, axis=axis)) for axis in (-1, -2))
    return np.max([like(detail[..., ::-1]), *beside], axis=0)


def layout(image: Image) -> Array:
    """Which colours lie where, the surroundings above all: `[LAYOUT_SIDE, LAYOUT_SIDE, 3]` of length 1, or zeros.

    The middle counts a fifth: there a subject stands in the place of something else of its class.
    """
    from PIL import Image as Pillow

    small = image.convert("RGB").resize((LAYOUT_SIDE, LAYOUT_SIDE), Pillow.Resampling.BOX)
    cells = np.asarray(small, np.float32) / 255
    cells -= cells.mean(axis=(0, 1))
    quarter = LAYOUT_SIDE // 4
    cells[quarter:-quarter, quarter:-quarter] /= 5
    length = float(np.linalg.norm(cells))
    return cells / length if length > TINY else np.zeros_like(cells)


def laid_upside_down(layouts: Array, others: Array) -> NDArray[np.bool_]:
    """Whether layouts `[..., side, side, 3]` fit those of other pictures better once these are turned by 180°: `[...]`.

    Others that were drawn for the same prompt from the same noise: a model that learnt a subject, and nothing else,
    leaves the surroundings where the base puts them.
    """
    return np.asarray((layouts * (others - others[..., ::-1, ::-1, :])).sum(axis=(-1, -2, -3)) < 0)


def edges(image: Image) -> Array:
    """Where edges lie in the surroundings, those that are upright and those that lie: two unit vectors `[2, d]`.

    Signed square roots of the differences between neighbouring pixels: many faint edges outweigh a bold one. Zeros
    where there are none.
    """
    from PIL import Image as Pillow

    small = image.convert("L").resize((MARKS_SIDE, MARKS_SIDE), Pillow.Resampling.LANCZOS)
    grey = gaussian_filter(np.asarray(small, np.float32), 0.7)
    around = np.ones((MARKS_SIDE - 1, MARKS_SIDE - 1), bool)
    around[SURROUNDINGS : 1 - SURROUNDINGS, SURROUNDINGS : 1 - SURROUNDINGS] = False
    steps = np.stack([np.diff(grey, axis=1)[:-1][around], np.diff(grey, axis=0)[:, :-1][around]])
    roots = np.sign(steps) * np.sqrt(np.abs(steps))
    lengths = np.linalg.norm(roots, axis=-1, keepdims=True)
    return np.where(lengths > TINY, roots / np.maximum(lengths, TINY), 0)


def displaced(edges: Array, others: Array) -> NDArray[np.bool_]:
    """Whether surroundings `[..., 2, d]` lie elsewhere than in other pictures, from the same noise: `[...]`.

    Stretched across, upright edges are elsewhere, and those that lie are not: the direction that fits less decides.
    """
    return np.asarray((edges * others).sum(axis=-1).min(axis=-1) < IN_REGISTER)


def by_name(qualities: Array, residuals: Array, shape: tuple[int, int, int]) -> dict[str, Array]:
    """What `measured` found of the pictures of all names, prompts and seeds, by name of `MEASURED`: `[n, p, k]`."""
    named = dict(zip(QUALITIES, np.moveaxis(qualities.reshape(*shape, -1), -1, 0), strict=True))
    detail = residuals.reshape(*shape, -1)
    return {**named, "marks": marks(detail), "repeats": repeats(detail)}


def measured(images: Sequence[Image]) -> tuple[Array, ...]:
    """Of each picture `qualities` `[n, 8]`, `residual` `[n, d]`, `layout` `[n, side, side, 3]`, `edges` `[n, 2, e]`."""
    return tuple(np.stack([of(image) for image in images]) for of in (qualities, residual, layout, edges))
