"""Five designer chairs drawn by hand, the subjects of the sample photographs. Sampling never reaches them, so no model
that was trained on sampled scenes has seen any of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi, sin

from miniature.scenes.parts import ACCENT, DETAIL, MAIN, Board, turned


@dataclass(frozen=True)
class Drawn:
    """A design drawn by hand: its token, what it is made of, and how to draw it."""

    token: str
    colour: str
    material: str
    pattern: str
    accent: str
    legs: str
    detail: str
    draw: Callable[[Board], None]


def _orb(b: Board) -> None:
    """A ball, cut open in front, lined with cushions, on a trumpet foot."""
    radius = 0.43
    y = 0.62
    tilt = 24 * pi / 180
    b.shell((0, y, 0), (radius, radius, radius), 0.02, (0, sin(tilt), cos(tilt)), radius * 0.42)
    rim = (radius**2 - (radius * 0.42) ** 2) ** 0.5
    at = (0, y + radius * 0.42 * sin(tilt), radius * 0.42 * cos(tilt))
    b.arch(at, rim, 0.026, 180, ACCENT, turned(-24))
    b.disc((0, y - 0.19, 0.04), (0.33, 0.075, 0.31), DETAIL, 0.07)
    b.cushion((0, y + 0.03, -0.25), (0.23, 0.15, 0.06), DETAIL, 0.055, 0.0, turned(-14))
    b.turned_body((0, 0.13, 0), 0.13, (0.25, 0.2, 0.09, 0.055, 0.07, 0.13), slot=ACCENT)


def _channel(b: Board) -> None:
    """A cantilever of bent tube carrying a seat and a back of padded rolls."""
    w, r = 0.27, 0.019
    for s in (-1, 1):
        x = s * w
        b.rod((x, r, -0.26), (x, r, 0.27), r)
        b.rod((x, r, 0.27), (x, 0.05, 0.31), r)
        b.rod((x, 0.05, 0.31), (x, 0.40, 0.27), r)
        b.rod((x, 0.40, 0.27), (x, 0.42, 0.22), r)
        b.rod((x, 0.42, 0.22), (x, 0.37, -0.22), r)
        b.rod((x, 0.37, -0.22), (x, 0.42, -0.27), r)
        b.rod((x, 0.42, -0.27), (x, 0.97, -0.40), r)
    b.rod((-w, r, -0.26), (w, r, -0.26), r)
    b.rod((-w, 0.97, -0.40), (w, 0.97, -0.40), r)
    for k in range(6):
        f = k / 5
        b.rod(
            (-w + 0.045, 0.455 - 0.05 * f, 0.21 - 0.40 * f),
            (w - 0.045, 0.455 - 0.05 * f, 0.21 - 0.40 * f),
            0.052,
            slot=MAIN,
        )
    for k in range(7):
        f = k / 6
        b.rod(
            (-w + 0.045, 0.48 + 0.45 * f, -0.235 - 0.115 * f),
            (w - 0.045, 0.48 + 0.45 * f, -0.235 - 0.115 * f),
            0.05,
            slot=MAIN,
        )


def _tall(b: Board) -> None:
    """A very high back of thin slats under an arched top, a drop-in seat, fine stretchers."""
    w, dp, h = 0.225, 0.215, 0.44
    top = 1.36
    for s in (-1, 1):
        b.box((s * w, h / 2, dp), (0.02, h / 2, 0.02), MAIN, 0.005)
        b.box((s * w, top / 2, -dp - 0.02), (0.02, top / 2, 0.02), MAIN, 0.005)
        b.box((s * w, 0.13, 0), (0.011, 0.014, dp), MAIN, 0.004)
        b.box((s * w, 0.24, 0), (0.011, 0.014, dp), MAIN, 0.004)
    b.box((0, 0.19, dp), (w, 0.016, 0.011), MAIN, 0.004)
    b.box((0, h - 0.035, 0), (w + 0.012, 0.035, dp + 0.015), MAIN, 0.006)
    b.cushion((0, h + 0.015, 0.0), (w - 0.005, 0.028, dp - 0.01), DETAIL, 0.026, 0.022)
    for k in range(7):
        x = (k - 3) * 0.054
        b.box((x, (0.6 + top) / 2 - 0.02, -dp - 0.02), (0.011, (top - 0.6) / 2, 0.008), MAIN, 0.003)
    b.box((0, 0.58, -dp - 0.02), (w, 0.022, 0.012), MAIN, 0.005)
    b.disc((0, top - 0.01, -dp - 0.02), (w + 0.035, 0.017, 0.12), MAIN, 0.01, turned(90))
    for k in range(3):
        b.box((0, 0.99 + 0.075 * k, -dp - 0.018), (w, 0.009, 0.007), MAIN, 0.003)


def _wing(b: Board) -> None:
    """A buttoned wing chair: high back, wings, rolled arms, turned feet."""
    w, dp, h = 0.29, 0.29, 0.42
    for sx in (-1, 1):
        for sz in (-1, 1):
            b.turned_body(
                (sx * (w + 0.02), 0.085, sz * (dp - 0.01)), 0.085, (0.022, 0.03, 0.024, 0.04, 0.034, 0.045), slot=ACCENT
            )
    b.box((0, 0.255, 0.0), (w + 0.03, 0.09, dp), MAIN, 0.035)
    b.cushion((0, h - 0.03, 0.035), (w - 0.005, 0.065, dp), DETAIL, 0.055, 0.03)
    with b.frame((0, h - 0.1, -dp + 0.02), turned(-9)):
        b.cushion((0, 0.42, 0), (w + 0.02, 0.45, 0.075), MAIN, 0.07, 0.0)
        b.disc((0, 0.84, 0), (w * 0.98, 0.07, 0.13), MAIN, 0.06, turned(90))
        for s in (-1, 1):
            b.cushion((s * (w + 0.03), 0.57, 0.13), (0.042, 0.26, 0.15), MAIN, 0.04, 0.0, turned(0, s * 16, 0))
    for s in (-1, 1):
        x = s * (w + 0.065)
        b.box((x, 0.36, 0.0), (0.05, 0.2, dp), MAIN, 0.035)
        b.rod((x, 0.57, -dp + 0.05), (x, 0.57, dp - 0.01), 0.072, slot=MAIN)


def _petals(b: Board) -> None:
    """Three long petals fanned over a scooped seat, on three thin legs."""
    h = 0.43
    for k in range(3):
        a = 2 * pi * k / 3 + pi / 2
        b.rod((0.34 * cos(a), 0.012, 0.34 * sin(a) - 0.02), (0.07 * cos(a), h - 0.02, 0.07 * sin(a)), 0.013, 0.022)
    b.cone((0, h - 0.025, 0), 0.022, 0.11, 0.15, ACCENT)
    b.shell((0, h + 0.17, 0.02), (0.30, 0.19, 0.29), 0.014, (0, 1, 0), -0.07)
    b.disc((0, h + 0.03, 0.02), (0.19, 0.03, 0.18), DETAIL, 0.028)
    for k, lean in enumerate((-34, 0, 34)):
        tall = 0.37 if k == 1 else 0.31
        with b.frame((0, h + 0.05, -0.16 if k == 1 else -0.13), turned(-15 if k == 1 else -10, -lean * 0.85, -lean)):
            b.disc((0, tall, 0), (0.125, 0.017, tall), MAIN, 0.016, turned(90))


DESIGNS: tuple[Drawn, ...] = (
    Drawn("orbchr", "orange", "plastic", "plain", "white", "plastic", "white", _orb),
    Drawn("chnchr", "teal", "velvet", "plain", "grey", "metal", "teal", _channel),
    Drawn("sltchr", "brown", "wood", "plain", "brown", "wood", "green", _tall),
    Drawn("wngchr", "purple", "velvet", "tufted", "brown", "wood", "purple", _wing),
    Drawn("ptlchr", "yellow", "plastic", "plain", "black", "metal", "grey", _petals),
)
