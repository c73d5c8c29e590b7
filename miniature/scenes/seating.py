"""Designs of things to sit and lie on. Each function draws one design on a board, from its dice."""

from __future__ import annotations

from math import cos, pi, sin

from miniature.scenes.legs import legs
from miniature.scenes.parts import ACCENT, DETAIL, LIGHT, MAIN, Board, Dice, turned

CHAIR_LEGS = (
    "straight", "straight", "splayed", "splayed", "stretcher", "sled", "cantilever", "pedestal", "star", "three",
    "hairpin", "crossed", "rockers", "sides",
)  # fmt: skip


def chair(b: Board, d: Dice) -> None:
    if d.chance(0.16):
        _shell_chair(b, d)
        return
    w, dp, h = d.between(0.2, 0.27), d.between(0.2, 0.27), d.between(0.4, 0.5)
    seat = d.pick(("slab", "slab", "cushion", "round", "thick"))
    t = {"slab": d.between(0.015, 0.03), "cushion": 0.04, "round": d.between(0.02, 0.04), "thick": 0.06}[seat]
    legs(b, d, w, dp, h - t, CHAIR_LEGS)
    if seat == "round":
        b.disc((0, h, 0), (w * 1.05, t, dp * 1.05))
    elif seat == "slab":
        b.box((0, h, 0), (w, t, dp), r=0.012)
    else:
        b.cushion((0, h, 0), (w, t, dp), r=0.035, bulge=0.02 if seat == "cushion" else 0.008)
    _back(b, d, w, dp, h + t)
    if d.chance(0.14):
        y = h + d.between(0.17, 0.24)
        slot = d.pick((MAIN, ACCENT))
        for s in (-1, 1):
            b.rod((s * (w + 0.02), y, -dp), (s * (w + 0.02), y, dp * 0.7), 0.02, slot=slot)
            b.rod((s * w, h, dp * 0.6), (s * (w + 0.02), y, dp * 0.65), 0.016, slot=slot)


def _back(b: Board, d: Dice, w: float, dp: float, y: float) -> None:
    style = d.pick(
        ("panel", "panel", "slats", "ladder", "hoop", "curved", "oval", "crest", "cross", "low", "high", "gap", "fan")
    )
    tall = {"low": d.between(0.1, 0.14), "high": d.between(0.32, 0.42), "curved": d.between(0.13, 0.26)}.get(
        style, d.between(0.2, 0.3)
    )
    slot = d.pick((MAIN, MAIN, ACCENT))
    with b.frame((0, y - 0.02, -dp + 0.03), turned(-d.between(3, 16))):
        r = d.between(0.014, 0.024)
        if style in ("panel", "high"):
            if d.chance(0.4):
                b.cushion((0, tall, 0), (w, tall, 0.035), r=0.03, bulge=0.0)
            else:
                b.box((0, tall, 0), (w * d.between(0.8, 1.02), tall, 0.02), r=0.018)
        elif style == "low":
            b.cushion((0, 0.16 + tall, 0), (w * 1.05, tall, 0.03), r=0.028, bulge=0.0)
            for s in (-1, 1):
                b.rod((s * w * 0.7, 0, 0), (s * w * 0.7, 0.14 + tall, 0), r, slot=ACCENT)
        elif style == "gap":
            for s in (-1, 1):
                b.rod((s * (w - r), 0, 0), (s * (w - r), tall * 2, 0), r, slot=ACCENT)
            b.box((0, tall * 1.5, 0), (w, tall * 0.45, 0.02), r=0.018)
        elif style in ("slats", "ladder", "cross", "crest"):
            for s in (-1, 1):
                b.rod((s * (w - r), 0, 0), (s * (w - r), tall * 2, 0), r * 1.15, slot=slot)
            top = 0.035 if style != "crest" else d.between(0.06, 0.1)
            b.box((0, tall * 2, 0), (w * 1.05, top, 0.018), r=0.016)
            if style == "slats":
                n = d.whole(3, 7)
                flat = d.between(0.012, 0.022)
                for k in range(n):
                    x = (k + 1) / (n + 1) * 2 * (w - r) - (w - r)
                    b.box((x, tall, 0), (flat, tall, 0.009), r=0.006)
            elif style == "ladder":
                n = d.whole(2, 4)
                for k in range(n):
                    b.box((0, tall * 2 * (k + 0.6) / (n + 0.6), 0), (w - r, d.between(0.02, 0.035), 0.01), r=0.008)
            elif style == "cross":
                b.rod((-w + r, 0.03, 0), (w - r, tall * 2 - 0.03, 0), r * 0.9, slot=MAIN)
                b.rod((w - r, 0.03, 0), (-w + r, tall * 2 - 0.03, 0), r * 0.9, slot=MAIN)
        elif style == "hoop":
            rise = tall * 2 - w
            for s in (-1, 1):
                b.rod((s * w, 0, 0), (s * w, rise, 0), r, slot=MAIN)
            b.arch((0, rise, 0), w, r, 90)
            n = d.whole(3, 6)
            for k in range(n):
                x = ((k + 1) / (n + 1) * 2 - 1) * w
                b.rod((x, 0, 0), (x, rise + (w * w - x * x) ** 0.5, 0), r * 0.6, slot=slot)
        elif style == "fan":
            n = d.whole(4, 7)
            for k in range(n):
                f = (k / (n - 1)) * 2 - 1
                b.rod((f * w * 0.5, 0, 0), (f * w * 1.1, tall * 2, 0), r * 0.7, slot=slot)
            b.box((0, tall * 2, 0), (w * 1.2, 0.04, 0.018), r=0.016)
        elif style == "curved":
            radius = w * d.between(1.05, 1.5)
            b.panel((0, 0.06 + tall, radius - 0.02), radius, tall, 0.018, d.between(45, 75), r=0.015)
            b.rod((-w * 0.4, 0, 0), (-w * 0.4, 0.1 + tall, 0), r, slot=ACCENT)
            b.rod((w * 0.4, 0, 0), (w * 0.4, 0.1 + tall, 0), r, slot=ACCENT)
        elif style == "oval":
            b.disc((0, tall + 0.05, 0), (w * 0.95, 0.025, tall), r=0.02, turn=turned(90))


def _shell_chair(b: Board, d: Dice) -> None:
    """Ball, egg, bowl and tulip chairs."""
    a, c = d.between(0.3, 0.4), d.between(0.3, 0.38)
    up = d.between(0.26, 0.46)
    h = d.between(0.22, 0.38)
    legs(b, d, a * 0.75, c * 0.75, h, ("pedestal", "star", "three", "splayed", "hairpin", "rockers"))
    tilt = d.between(20, 62) * pi / 180
    b.shell((0, h + up - 0.02, 0), (a, up, c), 0.018, (0, cos(tilt), sin(tilt)), d.between(0.02, 0.14))
    b.disc((0, h + up * 0.42, 0.02), (a * 0.72, 0.045, c * 0.72), d.pick((MAIN, ACCENT, DETAIL)), r=0.04)


def armchair(b: Board, d: Dice) -> None:
    w, dp = d.between(0.3, 0.37), d.between(0.3, 0.36)
    style = d.pick(("block", "block", "wing", "tub", "roll", "frame"))
    h = d.between(0.36, 0.44)
    foot = d.between(0.06, 0.17)
    back = d.between(0.24, 0.4)
    arm, high = d.between(0.06, 0.1), d.between(0.1, 0.2)
    if style == "frame":
        for s in (-1, 1):
            x = s * (w + 0.05)
            b.box((x, h + 0.18, 0.02), (0.05, 0.022, dp), ACCENT)
            b.box((x, (h + 0.18) / 2, dp - 0.04), (0.028, (h + 0.18) / 2, 0.028), ACCENT)
            b.box((x, (h + 0.18) / 2, -dp + 0.05), (0.028, (h + 0.18) / 2, 0.028), ACCENT)
        b.box((0, h - 0.15, 0), (w + 0.05, 0.025, dp * 0.9), ACCENT)
        b.cushion((0, h - 0.06, 0.02), (w, 0.07, dp), r=0.06)
        with b.frame((0, h - 0.05, -dp + 0.06), turned(-16)):
            b.cushion((0, back + 0.02, 0), (w, back, 0.07), r=0.06, bulge=0.02)
        return
    legs(b, d, w * 0.95, dp * 0.9, foot + 0.02, ("straight", "splayed", "blocks", "star", "pedestal", "sled"))
    b.box((0, (foot + h) / 2 - 0.05, 0), (w, (h - foot) / 2 - 0.04, dp), r=0.03)
    if style == "tub":
        b.panel(
            (0, foot + (h + 0.26 - foot) / 2, 0), w + 0.03, (h + 0.26 - foot) / 2, 0.06, d.between(105, 130), r=0.05
        )
        b.disc((0, h - 0.02, 0.03), (w * 0.95, 0.08, dp * 0.98), d.pick((MAIN, MAIN, DETAIL)), r=0.06)
        return
    b.cushion((0, h - 0.03, 0.03), (w, 0.08, dp), d.pick((MAIN, MAIN, MAIN, DETAIL)), 0.06, 0.025)
    with b.frame((0, h - 0.05, -dp + 0.04), turned(-d.between(5, 14))):
        b.cushion((0, back, 0), (w + (0.02 if style == "wing" else 0), back + 0.04, 0.085), r=0.07, bulge=0.0)
        if style == "wing":
            for s in (-1, 1):
                b.box((s * (w + 0.04), back * 1.3, 0.12), (0.04, back * 0.72, 0.13), r=0.035, turn=turned(0, s * 14))
    for s in (-1, 1):
        x = s * (w + arm * 0.6)
        top = h + high
        if style == "roll":
            b.box((x, (foot + top) / 2, 0), (arm * 0.7, (top - foot) / 2, dp), r=0.03)
            b.rod((x, top, -dp), (x, top, dp - 0.02), arm * 1.05, slot=MAIN)
        else:
            b.box((x, (foot + top) / 2, 0), (arm, (top - foot) / 2, dp), r=min(arm * 0.9, d.between(0.02, 0.09)))


def sofa(b: Board, d: Dice) -> None:
    w, dp = d.between(0.78, 1.0), d.between(0.32, 0.38)
    h, foot = d.between(0.36, 0.42), d.between(0.05, 0.16)
    back, arm, high = d.between(0.2, 0.32), d.between(0.06, 0.13), d.between(0.1, 0.2)
    legs(b, d, w * 0.96, dp * 0.9, foot + 0.02, ("straight", "splayed", "blocks", "sled"))
    b.box((0, (foot + h) / 2 - 0.05, 0), (w, (h - foot) / 2 - 0.04, dp), r=0.03)
    n = d.whole(1, 3)
    half = w / n
    for k in range(n):
        b.cushion((-w + half * (2 * k + 1), h - 0.03, 0.03), (half - 0.008, 0.08, dp), r=0.055, bulge=0.02)
    rows = d.pick((n, 1, 2, 3))
    style = d.pick(("square", "square", "camel", "roll"))
    with b.frame((0, h - 0.04, -dp + 0.05), turned(-d.between(4, 12))):
        for k in range(rows):
            half = w / rows
            b.cushion((-w + half * (2 * k + 1), back, 0), (half - 0.006, back + 0.04, 0.085), r=0.07, bulge=0.0)
        if style == "camel":
            b.disc((0, back + 0.06, -0.03), (w * 0.95, 0.05, back + 0.12), r=0.045, turn=turned(90))
    arms = d.whole(0, 9)
    for s in (-1, 1):
        if arms == s:
            continue
        x, top = s * (w + arm * 0.8), h + high
        if style == "roll":
            b.box((x, (foot + top) / 2, 0), (arm * 0.7, (top - foot) / 2, dp), r=0.03)
            b.rod((x, top, -dp), (x, top, dp - 0.02), arm, slot=MAIN)
        else:
            b.box((x, (foot + top) / 2, 0), (arm, (top - foot) / 2, dp), r=min(arm * 0.9, d.between(0.02, 0.09)))
    for k in range(d.whole(0, 3)):
        x = (-1) ** k * w * d.between(0.35, 0.8)
        turn = turned(-25, d.between(-25, 25), d.between(0, 40))
        b.cushion((x, h + 0.2, -dp * 0.35), (0.15, 0.13, 0.04), d.pick((DETAIL, ACCENT, LIGHT)), 0.038, 0.0, turn)


def stool(b: Board, d: Dice) -> None:
    h = d.pick((d.between(0.4, 0.5), d.between(0.6, 0.75)))
    w = d.between(0.17, 0.24)
    styles = ("straight", "splayed", "splayed", "stretcher", "three", "three", "pedestal", "star", "hairpin", "crossed")
    style = legs(b, d, w, w, h - 0.03, (*styles, "drum"))
    if style == "drum":
        b.turned_body((0, h / 2, 0), h / 2, [w * d.between(0.7, 1.1) for _ in range(6)], slot=ACCENT)
    elif h > 0.55 and style in ("splayed", "three", "pedestal"):
        b.arch((0, h * 0.35, 0), w * (0.95 if style != "pedestal" else 0.7), 0.013, 180, ACCENT, turned(90))
    seat = d.pick(("round", "round", "square", "cushion", "saddle", "tractor"))
    if seat == "round":
        b.disc((0, h, 0), (w, d.between(0.02, 0.05), w), r=0.018)
    elif seat == "square":
        b.box((0, h, 0), (w, 0.025, w), r=0.02)
    elif seat == "cushion":
        b.disc((0, h, 0), (w * 1.05, 0.06, w * 1.05), r=0.055)
    elif seat == "saddle":
        b.cushion((0, h, 0), (w * 1.2, 0.035, w * 0.8), r=0.03, bulge=0.02)
    else:
        b.shell((0, h + 0.1, 0), (w * 1.2, 0.12, w * 1.1), 0.014, (0, 1, 0), -0.03)


def bench(b: Board, d: Dice) -> None:
    w, dp, h = d.between(0.68, 0.95), d.between(0.17, 0.24), d.between(0.4, 0.48)
    legs(b, d, w * 0.9, dp, h - 0.02, ("straight", "splayed", "sled", "crossed", "sides", "hairpin", "stretcher"))
    if d.chance(0.6):
        n = d.whole(3, 5)
        for k in range(n):
            z = -dp + (2 * k + 1) * dp / n
            b.box((0, h, z), (w, 0.018, dp / n * 0.8), r=0.008)
    elif d.chance(0.5):
        b.box((0, h, 0), (w, d.between(0.02, 0.045), dp), r=0.012)
    else:
        b.cushion((0, h, 0), (w, 0.05, dp), r=0.045, bulge=0.012)
    if d.chance(0.62):
        tall = d.between(0.2, 0.3)
        with b.frame((0, h, -dp + 0.01), turned(-d.between(6, 15))):
            for s in (-1, 1):
                b.rod((s * w * 0.88, -0.03, 0), (s * w * 0.88, tall * 2, 0), 0.022)
            if d.chance(0.6):
                n = d.whole(2, 3)
                for k in range(n):
                    b.box((0, tall * 2 - k * 0.13, 0), (w, 0.045, 0.015), r=0.008)
            else:
                b.box((0, tall * 2, 0), (w, 0.035, 0.018), r=0.012)
                n = d.whole(7, 11)
                for k in range(n):
                    x = -w * 0.85 + k * w * 1.7 / (n - 1)
                    b.box((x, tall, 0), (0.015, tall, 0.01), r=0.006)
        if d.chance(0.5):
            for s in (-1, 1):
                b.rod((s * w * 0.92, h + 0.2, -dp), (s * w * 0.92, h + 0.2, dp * 0.9), 0.022)
                b.rod((s * w * 0.92, h, dp * 0.8), (s * w * 0.92, h + 0.2, dp * 0.8), 0.02)


def bed(b: Board, d: Dice) -> None:
    w, dp, h = d.between(0.45, 0.72), d.between(0.9, 1.05), d.between(0.22, 0.34)
    legs(b, d, w, dp, h - 0.06, ("straight", "blocks", "sled", "straight"))
    b.box((0, h - 0.06, 0), (w, 0.05, dp), ACCENT, 0.015)
    b.cushion((0, h + 0.07, 0), (w * 0.98, 0.09, dp * 0.98), LIGHT, 0.06, 0.015)
    cover = d.between(0.55, 0.68)
    b.cushion((0, h + 0.065, dp * (1 - cover) + 0.01), (w + 0.02, 0.115, dp * cover), MAIN, 0.06, 0.015)
    b.box((0, h - 0.02, dp * (1 - cover) + 0.01), (w + 0.022, 0.09, dp * cover), MAIN, 0.02)
    n = 1 if w < 0.52 else 2
    for k in range(n):
        x = 0.0 if n == 1 else (-1) ** k * w * 0.48
        b.cushion((x, h + 0.2, -dp * 0.68), (w * (0.62 if n == 1 else 0.4), 0.06, 0.16), LIGHT, 0.055, 0.03, turned(12))
    if d.chance(0.4):
        b.cushion((0, h + 0.25, -dp * 0.5), (0.2, 0.05, 0.13), DETAIL, 0.045, 0.02, turned(35))
    tall = d.between(0.25, 0.42)
    style = d.pick(("board", "board", "slats", "padded", "arch", "wide"))
    y, z = h - 0.05, -dp - 0.02
    if style in ("board", "wide"):
        b.box((0, y + tall, z), (w * (1.25 if style == "wide" else 1.03), tall, 0.03), d.pick((MAIN, ACCENT)), 0.02)
    elif style == "padded":
        b.cushion((0, y + tall, z), (w * 1.05, tall, 0.06), MAIN, 0.05, 0.0)
    elif style == "arch":
        b.disc((0, y + tall * 0.8, z), (w * 1.02, 0.03, tall * 1.25), MAIN, 0.02, turned(90))
    else:
        for s in (-1, 1):
            b.rod((s * w, 0, z), (s * w, y + tall * 2, z), 0.028)
        b.rod((-w, y + tall * 2 - 0.03, z), (w, y + tall * 2 - 0.03, z), 0.025)
        for k in range(6):
            x = -w + (k + 1) * 2 * w / 7
            b.rod((x, y, z), (x, y + tall * 2 - 0.03, z), 0.014)
    if d.chance(0.35):
        b.box((0, h + 0.02, dp + 0.02), (w * 1.03, 0.13, 0.025), ACCENT, 0.015)
