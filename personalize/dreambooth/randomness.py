"""Randomness: one seed decides everything, through generators named after what they are for.

A training run draws its noise, timesteps, captions and crops as pure functions of (seed, purpose, step, sample). So a
resumed run needs no generator state, ranks of a distributed run cannot draw the same noise, and how a batch is split
over devices or accumulated over micro-batches does not change what is in it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit seed for one purpose: the first bytes of sha256 over `seed` and the names. Stable across versions."""
    text = "\x1f".join([str(seed), *(f"{type(name).__name__}:{name}" for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator of its own for one purpose. CPU whatever the device, so that a seed means the same everywhere."""
    import torch

    return torch.Generator("cpu").manual_seed(derive(seed, *names))


def permutation(n: int, seed: int, *names: str | int) -> list[int]:
    """A shuffled 0..n-1."""
    return [int(i) for i in np.random.default_rng(derive(seed, *names)).permutation(n)]


def uniform(seed: int, *names: str | int) -> float:
    """One number in [0, 1)."""
    return derive(seed, *names) / 2.0**63
