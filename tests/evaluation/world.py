"""Features whose truth is known: a picture is its subject, its surroundings and chance, in chosen amounts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from personalize.evaluation.faults import FAULTS
from personalize.evaluation.quality import MEASURED
from personalize.evaluation.scores import UNTOLD, Photographs, Pictures, Scores

Array = NDArray[np.floating]
WIDTH = 64
JUDGES = ("dino", "clip")


def unit(vectors: Array) -> Array:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def directions(rng: np.random.Generator, count: int) -> Array:
    """Orthonormal, so that what a picture is made of can be read back from it."""
    return np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0][:count]


def evaluation(
    likeness: float = 0.8,
    following: float = 1.0,
    leak: float = 0.0,
    subjects: int = 5,
    prompts: int = 24,
    seeds: int = 2,
    noise: float = 0.05,
    shuffled: bool = False,
    identical: bool = False,
    seed: int = 0,
    photographs: int = 4,
) -> Scores:
    """An evaluation in which the tuned model has that much of each subject, of each prompt and of leakage.

    The base draws a class without any subject in it. `shuffled` draws each subject in its neighbour's place.
    """
    rng = np.random.default_rng(seed)
    axes = directions(rng, 1 + subjects + prompts)
    noun, who, where = axes[0], axes[1 : 1 + subjects], axes[1 + subjects :]
    shape = (subjects, prompts, seeds)

    def draw(subject: Array, surroundings: Array, size: tuple[int, ...]) -> Array:
        return unit(noun + subject + surroundings + noise * rng.normal(size=(*size, WIDTH)))

    nowhere = np.zeros(WIDTH)
    photos = [
        Photographs(f"token{s}", "chair", {name: draw(who[s], nowhere, (photographs,)) for name in JUDGES})
        for s in range(subjects)
    ]
    base = draw(nowhere, where[:, None], shape)
    drawn = np.roll(who, 1, axis=0) if shuffled else who
    tuned = base if identical else draw(likeness * drawn[:, None, None], following * where[:, None], shape)
    plain_base = draw(nowhere, where[:, None], (1, prompts, seeds))
    plain_tuned = plain_base if identical else draw(leak * who[0], where[:, None], (1, prompts, seeds))
    texts = np.broadcast_to(unit(noun + where), (1, prompts, WIDTH))
    qualities = {name: rng.normal(size=(subjects + 1, prompts, seeds)) for name in MEASURED}

    def pictures(own: Array, plain: Array, wobble: float) -> Pictures:
        both = np.concatenate([own, plain])
        moved = {name: values + wobble * rng.normal(size=values.shape) for name, values in qualities.items()}
        counted = dict.fromkeys((*FAULTS, *UNTOLD, "register"), np.zeros(both.shape[:3]))
        return Pictures(dict.fromkeys(JUDGES, both), {**moved, **counted})

    sides = {"base": pictures(base, plain_base, 0), "tuned": pictures(tuned, plain_tuned, 0 if identical else 0.02)}
    return Scores(photos, sides, texts, "clip", ["dino"])


def with_tuned(scores: Scores, features: dict[str, Array] | None = None, **qualities: Array) -> Scores:
    """The same evaluation with other features or qualities of the tuned model."""
    tuned = scores.drawn["tuned"]
    other = Pictures({**tuned.features, **(features or {})}, {**tuned.qualities, **qualities})
    return replace(scores, drawn={**scores.drawn, "tuned": other})


def own(scores: Scores, pictures: Array) -> Array:
    """All of the tuned model's features with the subjects' `[s, p, k, d]` replaced."""
    old: Any = scores.drawn["tuned"].features["dino"]
    return np.concatenate([pictures, old[len(pictures) :]])
