"""What designs stand on."""

from __future__ import annotations

from math import cos, pi, sin

from miniature.scenes.parts import ACCENT, Board, Dice, turned


def legs(b: Board, d: Dice, w: float, dp: float, h: float, styles: tuple[str, ...]) -> str:
    """Legs under a seat of half width w, half depth dp, whose underside is at height h. Returns the style drawn."""
    style = d.pick(styles)
    r = d.between(0.018, 0.04)
    if style in ("straight", "splayed", "stretcher"):
        out = {"straight": 0.0, "stretcher": 0.02}.get(style, d.between(0.06, 0.14))
        square = style != "splayed" and d.chance(0.5)
        for sx in (-1, 1):
            for sz in (-1, 1):
                x, z = sx * (w - r), sz * (dp - r)
                if square:
                    b.box((x, h / 2, z), (r, h / 2, r), ACCENT, 0.006)
                else:
                    b.rod((x + sx * out, 0.015, z + sz * out), (x - sx * 0.02, h, z - sz * 0.02), r * 0.65, r)
        if style == "stretcher":
            y = h * d.between(0.3, 0.55)
            for s in (-1, 1):
                b.rod((s * (w - r), y, -dp + r), (s * (w - r), y, dp - r), r * 0.6)
            b.rod((-w + r, y, 0), (w - r, y, 0), r * 0.6)
    elif style == "sled":
        r *= 0.8
        for s in (-1, 1):
            x = s * (w - r)
            b.rod((x, r, -dp), (x, r, dp), r)
            b.rod((x, r, dp), (x, h, dp * 0.85), r)
            b.rod((x, r, -dp), (x, h, -dp * 0.85), r)
    elif style == "cantilever":
        r *= 0.8
        for s in (-1, 1):
            x = s * (w - r)
            b.rod((x, r, -dp), (x, r, dp * 1.05), r)
            b.rod((x, r, dp * 1.05), (x, h, dp * 0.95), r)
        b.rod((-w + r, r, -dp), (w - r, r, -dp), r)
    elif style == "pedestal":
        b.rod((0, 0.03, 0), (0, h, 0), d.between(0.025, 0.06), d.between(0.025, 0.05))
        b.cone((0, 0.02, 0), 0.02, min(w, dp) * d.between(0.7, 1.0), min(w, dp) * 0.5, ACCENT)
    elif style == "star":
        b.rod((0, 0.08, 0), (0, h, 0), 0.03)
        n = d.whole(4, 5)
        for k in range(n):
            a = 2 * pi * k / n + 0.4
            b.rod((0, 0.1, 0), (w * 1.05 * cos(a), 0.025, w * 1.05 * sin(a)), 0.028, 0.02)
    elif style == "three":
        out = d.between(0.04, 0.12)
        for k in range(3):
            a = 2 * pi * k / 3 + pi / 2
            q = min(w, dp)
            b.rod(((q + out) * cos(a), 0.015, (q + out) * sin(a)), (q * 0.6 * cos(a), h, q * 0.6 * sin(a)), r * 0.7, r)
    elif style == "hairpin":
        for sx in (-1, 1):
            for sz in (-1, 1):
                x, z = sx * w * 0.95, sz * dp * 0.95
                b.rod((x, 0.012, z), (x - sx * w * 0.3, h, z), 0.012)
                b.rod((x, 0.012, z), (x, h, z - sz * dp * 0.3), 0.012)
    elif style == "crossed":
        for s in (-1, 1):
            x = s * (w - r)
            b.rod((x, r, -dp), (x, h, dp), r)
            b.rod((x, r, dp), (x, h, -dp), r)
        b.rod((-w + r, h / 2, 0), (w - r, h / 2, 0), r * 0.7)
    elif style == "rockers":
        for s in (-1, 1):
            x = s * (w - r)
            b.arch((x, 0.9, 0), 0.88, r * 0.8, 32, ACCENT, turned(180, 90, 0))
            b.rod((x, 0.07, -dp * 0.8), (x, h, -dp * 0.8), r)
            b.rod((x, 0.07, dp * 0.8), (x, h, dp * 0.8), r)
    elif style == "sides":
        for s in (-1, 1):
            b.box((s * (w - 0.02), h / 2, 0), (0.02, h / 2, dp), ACCENT)
    elif style == "blocks":
        for sx in (-1, 1):
            for sz in (-1, 1):
                b.cone((sx * w * 0.85, h / 2, sz * dp * 0.85), h / 2, 0.035, 0.045, ACCENT)
    return str(style)
