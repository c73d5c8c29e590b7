"""Designs of tables, lamps, vessels, shelves and clocks, drawn at the size of furniture so that they fill a picture."""

from __future__ import annotations

from math import cos, pi, sin

from miniature.scenes.legs import legs
from miniature.scenes.parts import ACCENT, DETAIL, LIGHT, MAIN, Board, Dice, turned

BOOKS, FACE, GLOW, STEM = 4, 5, 6, 7  # slots of their own: rows of spines, a clock face, a bulb, stalks


def table(b: Board, d: Dice) -> None:
    shape = d.pick(("long", "long", "square", "round", "round", "oval"))
    h = d.pick((d.between(0.64, 0.76), d.between(0.64, 0.76), d.between(0.36, 0.45)))
    t = d.between(0.018, 0.04)
    w = {"long": d.between(0.6, 0.8), "oval": d.between(0.6, 0.8)}.get(shape, d.between(0.38, 0.5))
    dp = w if shape in ("square", "round") else w * d.between(0.5, 0.62)
    styles = ("straight", "straight", "splayed", "hairpin", "sled", "crossed", "pedestal", "star", "three", "sides")
    k = 0.7 if shape in ("round", "oval") else 0.93
    legs(
        b,
        d,
        w * k,
        dp * k,
        h - t,
        styles if shape != "long" else tuple(s for s in styles if s not in ("three", "star")),
    )
    if shape in ("long", "square"):
        b.box((0, h, 0), (w, t, dp), r=0.012)
        if d.chance(0.4):
            b.box((0, h - t - 0.05, 0), (w * 0.9, 0.05, dp * 0.88), d.pick((MAIN, ACCENT)))
    else:
        b.disc((0, h, 0), (w, t, dp), r=0.014)
    if d.chance(0.2):
        b.disc((0, h * 0.32, 0), (w * 0.62, 0.015, dp * 0.62), r=0.01)


def lamp(b: Board, d: Dice) -> None:
    style = d.pick(("floor", "table", "table", "tripod", "arc", "globe", "desk"))
    tall = d.between(0.9, 1.15) if style in ("floor", "tripod", "arc") else d.between(0.42, 0.6)
    shade_h, wide = d.between(0.12, 0.19), d.between(0.17, 0.26)
    narrow = wide * d.pick((d.between(0.4, 0.7), d.between(0.9, 1.0)))
    x = 0.0
    if style == "tripod":
        for k in range(3):
            a = 2 * pi * k / 3 + 0.5
            b.rod((0.3 * cos(a), 0.015, 0.3 * sin(a)), (0.03 * cos(a), tall * 0.93, 0.03 * sin(a)), 0.018)
        b.rod((0, tall * 0.88, 0), (0, tall, 0), 0.02)
    elif style == "arc":
        b.cone((0, 0.03, 0), 0.03, 0.17, 0.16, ACCENT)
        b.rod((0, 0.03, 0), (0, tall * 0.7, 0), 0.016)
        b.arch((0.27, tall * 0.7, 0), 0.27, 0.016, 90, ACCENT)
        x, tall = 0.54, tall * 0.68
        b.rod((x, tall * 1.03, 0), (x, tall - 0.04, 0), 0.014)
    elif style == "desk":
        b.cone((0, 0.025, 0), 0.025, 0.16, 0.14, ACCENT)
        b.rod((0, 0.03, 0), (-0.16, 0.34, 0), 0.016)
        b.rod((-0.16, 0.34, 0), (0.16, 0.6, 0), 0.016)
        with b.frame((0.21, 0.56, 0), turned(0, 0, 30)):
            b.tube((0, 0, 0), 0.09, 0.16, 0.05, 0.01)
            b.ellipsoid((0, -0.03, 0), (0.06, 0.06, 0.06), GLOW)
        return
    else:
        b.cone((0, 0.02, 0), 0.02, d.between(0.13, 0.18), d.between(0.08, 0.13), ACCENT)
        if style == "table" and d.chance(0.65):
            radii = [d.between(0.05, 0.15) for _ in range(4)]
            b.turned_body(
                (0, tall * 0.42 + 0.02, 0), tall * 0.42, [0.08, *radii, 0.025], slot=d.pick((ACCENT, MAIN, MAIN))
            )
        else:
            b.rod((0, 0.03, 0), (0, tall, 0), d.between(0.014, 0.026))
        b.rod((0, tall * 0.7, 0), (0, tall, 0), 0.014)
    if style == "globe":
        b.ellipsoid((x, tall + wide * 0.6, 0), (wide * 0.8, wide * d.between(0.6, 0.85), wide * 0.8))
        b.cone((x, tall, 0), 0.03, 0.06, 0.05, ACCENT)
    else:
        b.tube((x, tall + shade_h * 0.4, 0), shade_h, wide, narrow, 0.008)
        b.ellipsoid((x, tall + shade_h * 0.2, 0), (0.06, 0.07, 0.06), GLOW)


def vase(b: Board, d: Dice) -> None:
    h = d.between(0.32, 0.48)
    style = d.pick(("bottle", "urn", "bulb", "trumpet", "hourglass", "wavy"))
    j = d.between(0.85, 1.15)
    radii = {
        "bottle": (0.15, 0.21, 0.2, 0.09, 0.055, 0.07),
        "urn": (0.1, 0.19, 0.26, 0.25, 0.13, 0.17),
        "bulb": (0.12, 0.26, 0.27, 0.14, 0.07, 0.1),
        "trumpet": (0.11, 0.1, 0.11, 0.14, 0.19, 0.25),
        "hourglass": (0.19, 0.18, 0.1, 0.1, 0.16, 0.2),
        "wavy": (0.15, 0.2, 0.13, 0.2, 0.12, 0.16),
    }[style]
    radii = tuple(r * j * d.between(0.88, 1.12) for r in radii)
    b.turned_body((0, h, 0), h, radii, 0.018)
    if d.chance(0.3):
        for s in (-1, 1):
            b.arch((s * max(radii) * 0.75, h * 1.25, 0), h * 0.3, 0.02, 130, MAIN, turned(0, 0, -s * 90))
    if d.chance(0.4):
        top = h * 2
        for k in range(d.whole(3, 5)):
            a, lean = d.between(0, 2 * pi), d.between(0.1, 0.32)
            tip = (lean * cos(a), top + d.between(0.2, 0.42), lean * sin(a))
            b.rod((0, top - 0.1, 0), tip, 0.01, slot=STEM)
            b.ellipsoid(tip, (0.065, 0.05, 0.065), (DETAIL, LIGHT, ACCENT)[k % 3])


def bookshelf(b: Board, d: Dice) -> None:
    w, dp, h = d.between(0.3, 0.55), d.between(0.13, 0.18), d.between(0.6, 0.85)
    n = d.whole(3, 5)
    t = d.between(0.016, 0.03)
    for s in (-1, 1):
        if d.chance(0.75) or s < 0:
            b.box((s * (w - t), h, 0), (t, h, dp), r=0.006)
        else:
            b.box((s * (w - t), h, 0), (t, h, dp), ACCENT, r=0.006)
    open_back = d.chance(0.3)
    if not open_back:
        b.box((0, h, -dp + 0.01), (w - t, h - 0.01, 0.01), d.pick((MAIN, MAIN, ACCENT)), 0.004)
    for k in range(n + 1):
        b.box((0, 0.04 + k * (2 * h - 0.04 - t) / n, 0), (w - t, t, dp), r=0.006)
    gap = (2 * h - 0.04 - t) / n
    inner = w - 2 * t
    for k in range(n):
        x = -inner
        y = 0.04 + t + k * gap
        while x < inner - 0.05:
            run = min(d.between(0.08, 0.3), inner - x)
            if d.chance(0.82):
                tall = (gap - 2 * t) * d.between(0.55, 0.9) / 2
                b.box((x + run / 2, y + tall, 0.0), (run / 2, tall, dp * 0.8), BOOKS, 0.003)
            x += run + (0.004 if d.chance(0.7) else 0.06)
    if d.chance(0.4):
        for s in (-1, 1):
            b.box((s * (w - 0.04), -0.0, dp - 0.03), (0.03, 0.05, 0.025), ACCENT, 0.004)


def teapot(b: Board, d: Dice) -> None:
    w, up = d.between(0.27, 0.34), d.between(0.2, 0.33)
    base = 0.03
    y = base + up
    style = d.pick(("round", "round", "faceted", "tall"))
    if style == "round":
        b.ellipsoid((0, y, 0), (w, up, w))
        top = y + up * 0.93
    elif style == "tall":
        b.turned_body((0, up * 1.15, 0), up * 1.15, (w * 0.95, w * 1.0, w * 0.88, w * 0.75, w * 0.6, w * 0.45))
        top = up * 2.28
    else:
        b.turned_body((0, up, 0), up, (w * 0.7, w * 1.0, w * 1.1, w * 1.0, w * 0.75, w * 0.45))
        top = up * 1.98
    b.cone((0, base, 0), 0.03, w * 0.62, w * 0.55)
    b.disc((0, top, 0), (w * 0.46, 0.035, w * 0.46), d.pick((MAIN, ACCENT)), 0.03)
    b.ellipsoid((0, top + 0.07, 0), (0.05, 0.045, 0.05), d.pick((ACCENT, MAIN)))
    lift = d.between(0.5, 0.85)
    b.rod((w * 0.75, y - up * 0.25, 0), (w * 1.35, y + up * 0.25, 0), 0.075, 0.05, MAIN)
    b.rod((w * 1.35, y + up * 0.25, 0), (w * 1.6, y + up * lift, 0), 0.05, 0.035, MAIN)
    if d.chance(0.65):
        b.arch(
            (-w * 0.9, y + up * 0.05, 0),
            up * d.between(0.62, 0.8),
            0.036,
            115,
            d.pick((MAIN, ACCENT)),
            turned(0, 0, 90),
        )
    else:
        b.arch((0, top - 0.06, 0), w * 0.8, 0.026, 90, ACCENT)


def clock(b: Board, d: Dice) -> None:
    style = d.pick(("alarm", "alarm", "mantel", "grandfather", "round"))
    if style == "grandfather":
        w, h = d.between(0.17, 0.22), d.between(0.62, 0.75)
        b.box((0, 0.1, 0), (w * 1.15, 0.1, 0.15), MAIN, 0.012)
        b.box((0, h * 0.75, 0), (w * 0.82, h * 0.7, 0.11), MAIN, 0.012)
        b.box((0, h * 1.55, 0), (w * 1.1, w * 1.12, 0.14), MAIN, 0.015)
        b.disc((0, h * 1.55, 0.142), (w * 0.86, 0.012, w * 0.86), FACE, 0.004, turned(90))
        b.box((0, h * 1.55 + w * 1.15, 0), (w * 1.25, 0.025, 0.17), ACCENT, 0.01)
        b.box((0, h * 0.75, 0.105), (w * 0.5, h * 0.42, 0.012), LIGHT, 0.004)
        b.rod((0, h * 1.05, 0.125), (0, h * 0.6, 0.125), 0.01)
        b.disc((0, h * 0.55, 0.128), (0.06, 0.012, 0.06), DETAIL, 0.005, turned(90))
        return
    r = d.between(0.3, 0.38)
    y = r + d.between(0.08, 0.14)
    t = d.between(0.07, 0.13)
    if style == "mantel":
        y = r + 0.1
        b.box((0, 0.04, 0), (r * 1.5, 0.04, 0.17), ACCENT, 0.015)
        b.box((0, y * 0.62, 0), (r * 1.15, y * 0.6, t), MAIN, 0.03)
        b.disc((0, y, 0), (r * 1.05, t, r * 1.05), MAIN, 0.02, turned(90))
    else:
        b.disc((0, y, 0), (r, t, r), MAIN, 0.03, turned(90))
    b.disc((0, y, t), (r * 0.84, 0.014, r * 0.84), FACE, 0.004, turned(90))
    if style != "mantel":
        for s in (-1, 1):
            b.rod((s * r * 0.5, y - r * 0.7, 0), (s * r * 0.85, 0.02, 0), 0.035, 0.028)
        b.rod((0, y * 0.5, -t), (0, 0.02, -0.2), 0.025)
    if style == "alarm":
        for s in (-1, 1):
            turn = turned(0, 0, -s * 38)
            b.shell((s * r * 0.62, y + r * 0.95, 0), (0.13, 0.1, 0.13), 0.012, (0, -1, 0), 0.0, ACCENT, turn)
        b.arch((0, y + r * 1.02, 0), 0.12, 0.018, 90, ACCENT)
