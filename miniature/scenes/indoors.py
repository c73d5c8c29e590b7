"""The walls of the rooms: paper, plaster, bricks, pictures, windows and kitchen cupboards."""

from __future__ import annotations

from math import cos, floor, sin

from miniature.scenes.compiled import compiled
from miniature.scenes.ground import KITCHEN, LIVING_ROOM, RED_RUG, STUDIO, WOODEN_FLOOR
from miniature.scenes.noise import clouds, hashed


@compiled
def _framed(u, v, cu, cv, w, h, seed, r, g, b):
    """A framed picture on a wall: (r, g, b) outside it, its own colours inside."""
    au, av = abs(u - cu), abs(v - cv)
    if au < w and av < h:
        if au > w - 0.035 or av > h - 0.035:
            return (0.12, 0.09, 0.07) if hashed(3, 1, seed) < 0.5 else (0.8, 0.68, 0.42)
        if au > w - 0.09 or av > h - 0.09:
            return 0.94, 0.93, 0.9
        k = clouds((u - cu) * 5 + 9, (v - cv) * 5 + 9, seed)
        hue = 6.283 * hashed(7, 2, seed) + k * 3.0
        return 0.5 + 0.35 * cos(hue), 0.5 + 0.3 * cos(hue - 2.1), 0.5 + 0.35 * cos(hue + 2.1)
    return r, g, b


@compiled
def wall(place, u, v, side_wall):
    """Colour of an indoor wall at u along it and height v."""
    kind, seed = int(place[0]), int(place[30])
    r, g, b = place[21], place[22], place[23]
    if kind == RED_RUG:
        r, g, b = place[24], place[25], place[26]
    rough = 0.97 + 0.07 * (clouds(u * 3, v * 3, seed + 20) - 0.5)
    style = hashed(1, 1, seed)
    if kind == LIVING_ROOM:
        if style < 0.35:
            w = u * 4.0
            rough *= 1.0 if w - floor(w) < 0.5 else 0.88
        elif style < 0.55:
            p, q = u * 5.0, v * 5.0
            q += 0.5 * (floor(p) % 2)
            if (p - floor(p) - 0.5) ** 2 + (q - floor(q) - 0.5) ** 2 < 0.06:
                rough *= 0.78
        elif style < 0.7 and v < 0.85:
            r, g, b = 0.9, 0.88, 0.84
            w = u * 2.5
            if w - floor(w) < 0.04 or v > 0.81:
                rough *= 0.75
    elif kind != KITCHEN and style < 0.18:
        p, q = u * 3.3, v * 8.0
        p += 0.5 * (floor(q) % 2)
        rough *= 0.86 + 0.2 * hashed(floor(p), floor(q), seed)
        if p - floor(p) < 0.05 or q - floor(q) < 0.1:
            rough *= 0.8
    r, g, b = r * rough, g * rough, b * rough
    if kind == KITCHEN:
        if v < 0.9:
            r, g, b = place[24], place[25], place[26]
            w = u * 1.6 + place[33]
            f = w - floor(w)
            if f < 0.02 or v < 0.1:
                r, g, b = r * 0.5, g * 0.5, b * 0.5
            elif v > 0.68 and abs(f - 0.5) < 0.12 and abs(v - 0.76) < 0.015:
                r, g, b = 0.35, 0.35, 0.36
            elif 0.64 < v < 0.66:
                r, g, b = r * 0.7, g * 0.7, b * 0.7
            elif hashed(floor(w), 2, seed) < 0.22 and v < 0.62:
                r, g, b = (0.1, 0.1, 0.11) if (0.1 < f < 0.9 and 0.18 < v < 0.5) else (0.7, 0.71, 0.72)
        elif v < 0.96:
            r, g, b = place[27], place[28], place[29]
        elif v < 1.5:
            p, q = u * 6.0, v * 9.0
            p += 0.5 * (floor(q) % 2)
            tone = 0.93 + 0.09 * hashed(floor(p), floor(q), seed)
            if p - floor(p) < 0.05 or q - floor(q) < 0.07:
                tone *= 0.84
            r, g, b = place[21] * tone, place[22] * tone, place[23] * tone
            k = floor(u * 3)
            f = u * 3 - k - 0.5
            tall = 0.1 + 0.18 * hashed(k, 5, seed)
            if hashed(k, 6, seed) < 0.3 and abs(f) < 0.28 and v < 0.96 + tall:
                hue = 6.283 * hashed(k, 7, seed)
                r, g, b = 0.5 + 0.3 * cos(hue), 0.48 + 0.25 * cos(hue - 2.1), 0.45 + 0.3 * cos(hue + 2.1)
        else:
            r, g, b = place[24], place[25], place[26]
            w = u * 1.6 + place[33]
            if w - floor(w) < 0.02 or v < 1.53:
                r, g, b = r * 0.6, g * 0.6, b * 0.6
        return r, g, b
    if v < 0.11 and kind != STUDIO:
        tone = 0.93 if v < 0.1 else 0.7
        return tone, tone, tone * 0.97
    if kind == LIVING_ROOM and side_wall < 0.5:
        centre = (place[32] - 0.5) * 3.4
        w = abs(u - centre)
        if place[33] < 0.62 and w < 0.95 and 0.55 < v < 2.1:
            if w > 0.62:
                fold = 0.86 + 0.14 * sin(u * 46.0)
                return place[18] * fold, place[19] * fold, place[20] * fold
            if w > 0.57 or w < 0.025 or v < 0.62 or abs(v - 1.3) < 0.025:
                return 0.95, 0.95, 0.94
            f = (v - 0.6) / 1.5
            leaf = clouds(u * 4, v * 4, seed + 30)
            if leaf > 0.42 + 0.7 * f:
                return 0.35, 0.55, 0.3
            return 0.72, 0.84, 0.96
        for k in range(2):
            cu = centre + (1.55 if place[33] < 0.62 else 0.0) * (1 if k == 0 else -1) + 0.3 * k
            size = 0.2 + 0.16 * hashed(k, 12, seed)
            r, g, b = _framed(u, v, cu, 1.25 + 0.2 * hashed(k, 13, seed), size, size * 1.2, seed + k, r, g, b)
    elif kind in (WOODEN_FLOOR, RED_RUG) and side_wall < 0.5:
        if hashed(2, 2, seed) < 0.35:
            cu = (hashed(2, 3, seed) - 0.5) * 2.4
            r, g, b = _framed(u, v, cu, 1.35, 0.3, 0.26, seed, r, g, b)
        if hashed(2, 4, seed) < 0.2 and abs(u - 1.9) < 0.45 and v < 1.95:
            r, g, b = (0.88, 0.87, 0.85) if abs(u - 1.9) < 0.4 and v < 1.9 else (0.7, 0.68, 0.66)
    return r, g, b
