"""Features whose truth is known: a picture is its subject, its surroundings and chance, in chosen amounts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from personalize.evaluation.scores import Photographs, Pictures, Scores

Array = NDArray[np.floating]
WIDTH = 64


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
    prompts: int = 8,
    seeds: int = 2,
    noise: float = 0.05,
    shuffled: bool = False,
    identical: bool = False,
    seed: int = 0,
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

    photographs = [
        Photographs(f"token{s}", "chair", *[draw(who[s], np.zeros(WIDTH), (4,)) for _ in range(2)])
        for s in range(subjects)
    ]
    base = draw(np.zeros(WIDTH), where[:, None], shape)
    drawn = np.roll(who, 1, axis=0) if shuffled else who
    tuned = base if identical else draw(likeness * drawn[:, None, None], following * where[:, None], shape)
    plain_shape = (1, prompts, seeds)
    plain_base = draw(np.zeros(WIDTH), where[:, None], plain_shape)
    plain_tuned = plain_base if identical else draw(leak * who[0], where[:, None], plain_shape)
    texts = np.broadcast_to(unit(noun + where), (subjects, prompts, WIDTH))
    return Scores(photographs, texts, Pictures(base, base, plain_base), Pictures(tuned, tuned, plain_tuned))
