"""Deterministic noise: integer hashes, value noise and its sums, the same on every machine."""

from __future__ import annotations

from math import floor

from miniature.scenes.compiled import compiled


@compiled
def hashed(ix, iy, seed):
    """A number in [0, 1] from two integers and a seed."""
    n = (int(ix) * 374761393 + int(iy) * 668265263 + int(seed) * 974711) & 0xFFFFFFFF
    n = ((n ^ (n >> 13)) * 1274126177) & 0xFFFFFFFF
    n = ((n ^ (n >> 15)) * 668265263) & 0xFFFFFFFF
    return ((n ^ (n >> 16)) & 0xFFFF) / 65535.0


@compiled
def value(x, y, seed):
    """Smooth noise in [0, 1] with features of size one."""
    ix, iy = floor(x), floor(y)
    fx, fy = x - ix, y - iy
    fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
    a, b = hashed(ix, iy, seed), hashed(ix + 1, iy, seed)
    c, d = hashed(ix, iy + 1, seed), hashed(ix + 1, iy + 1, seed)
    return (a + (b - a) * fx) * (1 - fy) + (c + (d - c) * fx) * fy


@compiled
def clouds(x, y, seed):
    """Three octaves of value noise in [0, 1]."""
    return (
        0.55 * value(x, y, seed)
        + 0.29 * value(2.03 * x + 5.1, 2.03 * y + 1.7, seed + 1)
        + 0.16 * value(4.1 * x + 9.3, 4.1 * y + 3.3, seed + 2)
    )


@compiled
def step(a, b, x):
    """Smooth step from 0 at a to 1 at b."""
    f = min(max((x - a) / (b - a), 0.0), 1.0)
    return f * f * (3 - 2 * f)
