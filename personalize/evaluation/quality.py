"""What a picture is like whatever it shows: how sharp, how noisy, how blocky, how stretched, how bright.

No judge of likeness sees these: features of a blurred or stained picture are hardly farther from a photograph. Each is
one number per picture on a scale where a difference means the same everywhere (logarithms of energies, mostly), and is
read against what the base draws for the same questions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, laplace

if TYPE_CHECKING:
    from PIL.Image import Image

Array = NDArray[np.floating]

QUALITIES = (
    "sharpness",
    "middle_sharpness",
    "noise",
    "blockiness",
    "fringes",
    "aspect",
    "brightness",
    "contrast",
    "saturation",
)
MEASURED = (*QUALITIES, "marks")
BLOCK = 8
"""Side of the blocks of JPEG and of a latent diffusion model's VAE, in pixels."""
MARKS_SIDE = 128
"""Side in pixels at which pictures and their colours are laid over one another, and their edges are counted."""
REACH = 3
"""How far apart colours are looked for, in pixels of `MARKS_SIDE`."""
TINY = 1e-3
LUMINANCE = (0.299, 0.587, 0.114)
"""What red, green and blue weigh in it (ITU-R BT.601)."""


def qualities(image: Image) -> Array:
    """The numbers of `QUALITIES`, in their order: `[9]`.

    sharpness, of the middle half each way too: log of the Laplacian's mean square over the gradient's; noise: see
    `noise`; blockiness: log of the steps over block edges, over those elsewhere, worse of both directions and at the
    worst offset; fringes: see `_fringes`; aspect: see `_aspect`; brightness, contrast, saturation: mean and standard
    deviation of the luminance and mean chroma, in shares of full scale.
    """
    rgb = np.asarray(image.convert("RGB"), np.float32) / 255
    grey = rgb @ np.array(LUMINANCE, np.float32)
    across, down = np.diff(grey, axis=1), np.diff(grey, axis=0)
    above, before = grey.shape[0] // 4, grey.shape[1] // 4
    return np.array(
        [
            _sharpness(grey),
            _sharpness(grey[above : grey.shape[0] - above, before : grey.shape[1] - before]),
            noise(grain(grey)),
            max(_steps(np.abs(across).mean(axis=0)), _steps(np.abs(down).mean(axis=1))),
            _fringes(image),
            _aspect(image),
            grey.mean(),
            grey.std(),
            (rgb.max(axis=-1) - rgb.min(axis=-1)).mean(),
        ]
    )


def _sharpness(grey: Array) -> float:
    slopes = sum(float((np.diff(grey, axis=axis) ** 2).mean()) for axis in (0, 1))
    second = grey[1:-1, :-2] + grey[1:-1, 2:] + grey[:-2, 1:-1] + grey[2:, 1:-1] - 4 * grey[1:-1, 1:-1]
    return float(np.log((float((second**2).mean()) + TINY**2) / (slopes + TINY**2)))


def grain(grey: Array) -> Array:
    """What is left of luminances in 0..1 once planes and straight edges are taken out: `[h, w]` to `[h - 2, w - 2]`."""
    corners = grey[:-2, :-2] + grey[:-2, 2:] + grey[2:, :-2] + grey[2:, 2:]
    sides = grey[1:-1, :-2] + grey[1:-1, 2:] + grey[:-2, 1:-1] + grey[2:, 1:-1]
    return corners - 2 * sides + 4 * grey[1:-1, 1:-1]


def noise(grains: Array) -> float:
    """Log of Immerkær's (1996) σ, the median of the grain in place of its mean: drawn detail counts little."""
    return float(np.log(float(np.median(np.abs(grains))) / (6 * 0.6745) + TINY))


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


def finest(residuals: Array) -> Array:
    """Where the finest detail of residuals lies, their Laplacian, as unit vectors or zeros: `[..., d]` to the same."""
    pictures = residuals.reshape(-1, MARKS_SIDE, MARKS_SIDE)
    detail = np.stack([laplace(picture) for picture in pictures]).reshape(residuals.shape)
    return np.asarray(detail / np.maximum(np.linalg.norm(detail, axis=-1, keepdims=True), TINY))


def marks(residuals: Array) -> Array:
    """How much of each picture's detail lies where it lies in pictures of other prompts: `[n, p, k, d]` to `[n, p, k]`.

    Mean cosine of the finest detail to that of the other prompts' pictures of the same name. A watermark, a stain, or
    one picture drawn for everything are in all of them to the pixel. A subject that stands at the same place in all
    has its outlines near one another, and hardly any on one another.
    """
    detail = finest(residuals)
    prompts, seeds = detail.shape[1:3]
    by_prompt = detail.sum(axis=2, keepdims=True)
    others = by_prompt.sum(axis=1, keepdims=True) - by_prompt
    return np.asarray((detail * others).sum(axis=-1) / max(1, (prompts - 1) * seeds))


def repeats(residuals: Array) -> Array:
    """How much of each picture's detail is in it twice: `[..., d]` to `[...]`, 1 where one half is the other.

    Cosine to the picture mirrored, or moved by half its width or its height: the one that fits best.
    """
    detail = residuals.reshape(*residuals.shape[:-1], MARKS_SIDE, MARKS_SIDE)

    def like(moved: Array) -> Array:
        return np.asarray(np.einsum("...yx,...yx->...", detail, moved))

    beside = (like(np.roll(detail, MARKS_SIDE // 2, axis=axis)) for axis in (-1, -2))
    return np.max([like(detail[..., ::-1]), *beside], axis=0)


def by_name(qualities: Array, residuals: Array) -> dict[str, Array]:
    """All of `MEASURED` by name, `[n, p, k]`: of the numbers `[n, p, k, 9]` and the residuals `[n, p, k, d]`."""
    named = dict(zip(QUALITIES, np.moveaxis(qualities, -1, 0), strict=True))
    return {**named, "marks": marks(residuals)}
