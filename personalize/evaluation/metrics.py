"""Likeness, prompt following, copying, confusion, drift and variety, from unit vectors. NumPy only.

The unit of every metric is one picture: one prompt with one seed. Similarities to several photographs are averaged
into one number per picture first, because the pairs share pictures and are not independent. A photograph is never
compared with itself. Cosines are plain: neither times 100 (torchmetrics) nor times 2.5 (Hessel et al. 2021).

Symbols: `d` features, `m` photographs of one subject, `n` pictures; leading axes `...` are kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

SAME_TEXT = 0.97
"""Cosine of two prompts above which they ask for the same: "on the beach" and "on a beach", not "in the snow"."""
ALIKE = 0.2
"""Photographs that are this share of their subject's usual distance apart are two prints of one."""


def similarity(pictures: Array, photographs: Array) -> Array:
    """Mean cosine of each picture `[..., d]` to the photographs `[m, d]`: `[...]`.

    With DINO features this is the subject fidelity of Ruiz et al. 2023 (Sec. 4.2), with CLIP's it is CLIP-I.
    """
    return (pictures @ photographs.T).mean(axis=-1)


def ceiling(photographs: Array) -> Array:
    """What each real photograph scores against the others of its subject, itself left out: `[m]`.

    A tuned model can hardly be asked for more than the likeness that the photographs have among themselves.
    """
    m = len(photographs)
    if m < 2:
        return np.full(m, np.nan)
    cosines = photographs @ photographs.T
    return (cosines.sum(axis=1) - np.diag(cosines)) / (m - 1)


def way(likeness: Array, base: Array, goal: float) -> tuple[Array, Array]:
    """Numerator and denominator of the share of the way from the base's likeness to the photographs'.

    (tuned `[...]`, base `[...]`) to two of `[...]`: their means' ratio is 0 for the base and 1 for the photographs.
    """
    return likeness - base, goal - base


def prompt_following(pictures: Array, texts: Array) -> Array:
    """CLIP-T: cosine of each picture `[..., d]` with its own text `[..., d]`: `[...]`.

    The text names the subject by its class noun. CLIP never learnt the token, and would score it as noise.
    """
    return (pictures * texts).sum(axis=-1)


def r_precision(pictures: Array, texts: Array) -> NDArray[np.bool_]:
    """Whether each picture `[p, k, d]` fits its own prompt better than all others of `texts` `[p, d]`: `[p, k]`.

    CLIP R-precision (Park et al. 2021): which place was meant, apart from how far the subject is from its class. A
    prompt that says the same in other words, to the text encoder itself, is not another one.
    """
    same = texts @ texts.T > SAME_TEXT
    best = (pictures @ texts.T).argmax(axis=-1)
    return np.asarray(same[np.arange(len(texts))[:, None], best])


def prompt_contrast(pictures: Array, texts: Array) -> Array:
    """How much better each picture `[p, k, d]` fits its own prompt than the others of `texts` `[p, d]`: `[p, k]`.

    Its cosine (CLIP-T) less its mean cosine to the other prompts. That a subject looks less like its class than others
    do lowers all of them alike and cancels; a prompt that is not heard leaves nothing. As in `r_precision`, what says
    the same in other words is not another prompt. NaN where there is no other.
    """
    same = texts @ texts.T > SAME_TEXT
    cosines = pictures @ texts.T
    own = np.take_along_axis(cosines, np.arange(len(texts))[:, None, None], axis=-1)[..., 0]
    with np.errstate(invalid="ignore"):
        others = (cosines * ~same[:, None]).sum(axis=-1) / (~same).sum(axis=-1)[:, None]
    return np.asarray(own - others)


def nearest(pictures: Array, photographs: Array, among: NDArray[np.bool_]) -> tuple[NDArray[np.intp], Array]:
    """The photograph that each picture resembles most and the cosine: two arrays `[...]`.

    among: `[..., m]`, of which photographs; of all for a picture for which there is none.
    """
    cosines = pictures @ photographs.T
    cosines = np.where(among | ~among.any(axis=-1, keepdims=True), cosines, -np.inf)
    return cosines.argmax(axis=-1), cosines.max(axis=-1)


def closest_pair(photographs: Array) -> float:
    """The greatest cosine between two different photographs `[m, d]`; NaN where there is one."""
    cosines = photographs @ photographs.T
    return (
        float(cosines[~np.eye(len(photographs), dtype=bool)].max(initial=-np.inf)) if len(photographs) > 1 else np.nan
    )


def prints(photographs: Array) -> NDArray[np.bool_]:
    """Whether two photographs `[m, d]` are nearly the same picture, judged by how far the others are apart: `[m, m]`.

    One such pair would make every copy look like no copy. With fewer than three there is nothing to judge it by.
    """
    m = len(photographs)
    if m < 3:
        return np.zeros((m, m), bool)
    apart = 1 - photographs @ photographs.T
    return np.asarray((apart < ALIKE * np.median(apart[~np.eye(m, dtype=bool)])) & ~np.eye(m, dtype=bool))


def nearest_gallery(pictures: Array, galleries: Sequence[Array]) -> NDArray[np.intp]:
    """The gallery that each picture resembles most on average: indices `[...]` into `galleries`, each `[m, d]`."""
    return np.stack([similarity(pictures, each) for each in galleries], axis=-1).argmax(axis=-1)


def strangers(galleries: Sequence[Array], others: Sequence[Array]) -> list[NDArray[np.bool_]]:
    """Whether each photograph resembles another gallery (or one of `others`) more than the rest of its own: `[m]` each.

    The rule for a picture, applied to the photographs themselves.
    """
    found = []
    for g, own in enumerate(galleries):
        rivals = [each for i, each in enumerate(galleries) if i != g] + list(others)
        rest = ceiling(own)
        found.append(np.max([similarity(own, each) for each in rivals], axis=0) > rest if rivals else rest < -1)
    return found


def confusion(asked: NDArray[np.intp], found: NDArray[np.intp], shape: tuple[int, int]) -> Array:
    """Row: the subject asked for; column: the gallery found; shares that sum to 1 along a row."""
    counts = np.zeros(shape)
    np.add.at(counts, (asked.ravel(), found.ravel()), 1)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def variety(pictures: Array) -> Array:
    """One minus the mean cosine between different seeds of a prompt, `[..., k, d]` to `[...]`: 0 is all the same.

    DIV of Ruiz et al. 2023 (Sec. 4.4) with these features in LPIPS' place. NaN for a single seed.
    """
    k = pictures.shape[-2]
    if k < 2:
        return np.full(pictures.shape[:-2], np.nan)
    cosines = pictures @ np.swapaxes(pictures, -1, -2)
    return 1 - (cosines.sum(axis=(-1, -2)) - np.trace(cosines, axis1=-2, axis2=-1)) / (k * (k - 1))


def retention(pictures: Array, base: Array) -> Array:
    """Mean cosine of class pictures `[p, k, d]` to the base's of the same prompt and *other* seeds: `[p, k]`.

    Given the base's own pictures it says how alike these are among themselves: what an unharmed class word scores.
    """
    k = base.shape[1]
    if k < 2:
        return np.full(pictures.shape[:-1], np.nan)
    cosines = pictures @ np.swapaxes(base, -1, -2)
    return (cosines.sum(axis=-1) - np.diagonal(cosines, axis1=-2, axis2=-1)) / (k - 1)
