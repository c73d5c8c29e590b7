"""Building an object from shapes: a small drawing board in metres, y up, the front of the object towards +z."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import cos, pi, sin, sqrt

import numpy as np

from miniature.scenes import sdf

Vector = tuple[float, float, float]
Axes = tuple[Vector, Vector, Vector]
MAIN, ACCENT, DETAIL, LIGHT = range(4)  # material slots: the body, the legs, a third colour, a pale one
IDENTITY: Axes = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def turned(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Axes:
    """Axes after turning about x, then y, then z (degrees)."""
    a, b, c = x * pi / 180, y * pi / 180, z * pi / 180

    def turn(v: Vector) -> Vector:
        px, py, pz = v
        py, pz = py * cos(a) - pz * sin(a), py * sin(a) + pz * cos(a)
        px, pz = px * cos(b) + pz * sin(b), -px * sin(b) + pz * cos(b)
        px, py = px * cos(c) - py * sin(c), px * sin(c) + py * cos(c)
        return (px, py, pz)

    return (turn(IDENTITY[0]), turn(IDENTITY[1]), turn(IDENTITY[2]))


def _apply(axes: Axes, v: Vector) -> Vector:
    (a, b, c), (x, y, z) = axes, v
    return (
        a[0] * x + b[0] * y + c[0] * z,
        a[1] * x + b[1] * y + c[1] * z,
        a[2] * x + b[2] * y + c[2] * z,
    )


class Board:
    """Collects shapes. Every method adds one (or a family) at a place in the current frame."""

    def __init__(self) -> None:
        self.rows: list[list[float]] = []
        self._axes: Axes = IDENTITY
        self._origin: Vector = (0.0, 0.0, 0.0)

    @contextmanager
    def frame(self, at: Vector = (0.0, 0.0, 0.0), turn: Axes = IDENTITY) -> Iterator[None]:
        """Shapes drawn inside are placed in a frame at `at`, turned by `turn`."""
        axes, origin = self._axes, self._origin
        self._origin = self._place(at)
        self._axes = tuple(_apply(axes, v) for v in turn)  # type: ignore[assignment]
        yield
        self._axes, self._origin = axes, origin

    def _place(self, at: Vector) -> Vector:
        x, y, z = _apply(self._axes, at)
        return (x + self._origin[0], y + self._origin[1], z + self._origin[2])

    def _add(
        self, kind: int, at: Vector, parameters: Sequence[float], half: Vector, slot: int, turn: Axes, grain: int = 1
    ) -> None:
        axes = [_apply(self._axes, v) for v in turn] if turn is not IDENTITY else list(self._axes)
        row = [float(kind), *self._place(at), *axes[0], *axes[1], *axes[2]]
        row += [*parameters, *([0.0] * (8 - len(parameters)))]
        phase = (len(self.rows) * 0.618) % 1.0
        row += [sqrt(half[0] ** 2 + half[1] ** 2 + half[2] ** 2), float(slot), phase, *half, float(grain)]
        self.rows.append(row)

    def box(self, at: Vector, half: Vector, slot: int = MAIN, r: float = 0.012, turn: Axes = IDENTITY) -> None:
        r = min(r, min(half) * 0.98)
        self._add(sdf.BOX, at, (*half, r), half, slot, turn, max(range(3), key=lambda k: half[k]))

    def cushion(
        self, at: Vector, half: Vector, slot: int = MAIN, r: float = 0.05, bulge: float = 0.03, turn: Axes = IDENTITY
    ) -> None:
        r = min(r, min(half) * 0.95)
        self._add(sdf.CUSHION, at, (*half, r, bulge), (half[0], half[1] + bulge, half[2]), slot, turn, 0)

    def rod(self, a: Vector, b: Vector, r1: float, r2: float | None = None, slot: int = ACCENT) -> None:
        """A round bar from a to b whose radius runs from r1 to r2."""
        r2 = r1 if r2 is None else r2
        d = (b[0] - a[0], b[1] - a[1], b[2] - a[2])
        length = sqrt(d[0] ** 2 + d[1] ** 2 + d[2] ** 2) + 1e-6
        v = (d[0] / length, d[1] / length, d[2] / length)
        other = (1.0, 0.0, 0.0) if abs(v[0]) < 0.8 else (0.0, 0.0, 1.0)
        k = sum(p * q for p, q in zip(v, other, strict=True))
        u = tuple(o - k * p for p, o in zip(v, other, strict=True))
        n = sqrt(sum(p * p for p in u))
        ux = (u[0] / n, u[1] / n, u[2] / n)
        w = (ux[1] * v[2] - ux[2] * v[1], ux[2] * v[0] - ux[0] * v[2], ux[0] * v[1] - ux[1] * v[0])
        mid = ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2, (a[2] + b[2]) / 2)
        r = max(r1, r2)
        self._add(sdf.CAPSULE, mid, (length / 2, r1, r2), (r, length / 2 + r, r), slot, (ux, v, w))

    def cone(self, at: Vector, h: float, r1: float, r2: float, slot: int = MAIN, r: float = 0.008) -> None:
        """An upright solid cylinder or cone of half height h, radius r1 below and r2 above."""
        r = min(r, r1 * 0.9, r2 * 0.9, h * 0.9)
        big = max(r1, r2)
        self._add(sdf.CONE, at, (h, r1, r2, r), (big, h, big), slot, IDENTITY)

    def ellipsoid(self, at: Vector, half: Vector, slot: int = MAIN, turn: Axes = IDENTITY) -> None:
        self._add(sdf.ELLIPSOID, at, half, half, slot, turn)

    def shell(
        self, at: Vector, half: Vector, t: float, cut: Vector, offset: float, slot: int = MAIN, turn: Axes = IDENTITY
    ) -> None:
        """A hollow ellipsoid of half thickness t, cut away where cut . p > offset."""
        grown = (half[0] + t, half[1] + t, half[2] + t)
        self._add(sdf.SHELL, at, (*half, t, *cut, offset), grown, slot, turn)

    def arch(
        self, at: Vector, radius: float, r: float, angle: float = 90.0, slot: int = MAIN, turn: Axes = IDENTITY
    ) -> None:
        """A bent bar: part of a ring in the x-y plane, `angle` degrees to each side of the top (180: a whole ring)."""
        a = angle * pi / 180
        self._add(sdf.ARCH, at, (radius, r, sin(a), cos(a)), (radius + r, radius + r, r), slot, turn)

    def disc(self, at: Vector, half: Vector, slot: int = MAIN, r: float = 0.012, turn: Axes = IDENTITY) -> None:
        """A flat body with an elliptical outline (half: x, thickness, z)."""
        self._add(sdf.DISC, at, (*half, min(r, half[1] * 0.95)), half, slot, turn, 0)

    def tube(self, at: Vector, h: float, r1: float, r2: float, t: float, slot: int = MAIN) -> None:
        """An open cone wall (a lamp shade)."""
        big = max(r1, r2) + t
        self._add(sdf.TUBE, at, (h, r1, r2, t), (big, h + t, big), slot, IDENTITY)

    def panel(
        self,
        at: Vector,
        radius: float,
        h: float,
        t: float,
        angle: float,
        slot: int = MAIN,
        r: float = 0.01,
        turn: Axes = IDENTITY,
    ) -> None:
        """A wall bent about the y axis, `angle` degrees to each side of the back (-z); h and t are halves."""
        big = radius + t
        self._add(sdf.PANEL, at, (radius, h, t, angle * pi / 180, min(r, t * 0.9)), (big, h, big), slot, turn, 1)

    def turned_body(self, at: Vector, h: float, radii: Sequence[float], wall: float = 0.0, slot: int = MAIN) -> None:
        """A lathe-turned body of half height h through six radii; hollow from above where `wall` > 0."""
        big = max(radii) * 1.12
        self._add(sdf.REVOLVED, at, (*radii, h, wall), (big, h, big), slot, IDENTITY)

    def shapes(self) -> np.ndarray:
        """The rows as float64 [n, 28]."""
        return np.array(self.rows, np.float64).reshape(-1, sdf.COLUMNS)


class Dice:
    """Named random choices from one integer: `Dice("design", 7)` always throws the same."""

    def __init__(self, *name: object) -> None:
        digest = hashlib.sha256(":".join(map(str, name)).encode()).digest()
        self._random = random.Random(int.from_bytes(digest[:8], "big")).random

    def between(self, a: float, b: float) -> float:
        return a + (b - a) * self._random()

    def chance(self, p: float) -> bool:
        return self._random() < p

    def whole(self, a: int, b: int) -> int:
        """A whole number from a to b, both included."""
        return min(a + int(self._random() * (b - a + 1)), b)

    def pick(self, options: Sequence):  # type: ignore[no-untyped-def, type-arg]
        return options[min(int(self._random() * len(options)), len(options) - 1)]

    def spread(self) -> float:
        """Roughly normal with mean 0 and deviation 1, never beyond 3.5."""
        return (sum(self._random() for _ in range(4)) - 2.0) * sqrt(3.0)
