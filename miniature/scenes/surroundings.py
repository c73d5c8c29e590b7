"""The places: ground, horizon, walls and sky, as functions of where a ray goes.

Coordinates: `depth` runs away from the camera through the object (which stands at 0), `side` to its right, height up.
`place` is one flat array: 0 kind · 1-2 direction of depth in x, z · 3-5 light · 6-8 light colour · 9-11 sky light ·
12-14 ground light · 15-17, 18-20, 21-23 three colours · 24-26 zenith · 27-29 horizon · 30 seed · 31-36 six free numbers in
[0, 1] · 37 exposure · 38 warmth · 39 noise · 40 vignette · 41 softness of the shadow. Colours are sRGB in [0, 1].
"""

from __future__ import annotations

from math import cos, floor, sin, sqrt

from miniature.scenes.compiled import compiled
from miniature.scenes.noise import clouds, hashed, step, value

BEACH, SNOW, GRASS, WOODEN_FLOOR, LIVING_ROOM, CITY, DESERT, FOREST, RED_RUG, DIRT_ROAD, STUDIO, KITCHEN = range(12)


@compiled
def _mix(r, g, b, r2, g2, b2, f):
    return r + (r2 - r) * f, g + (g2 - g) * f, b + (b2 - b) * f


@compiled
def sky(place, dx, dy, dz):
    """Sky in the direction (dx, dy, dz), with clouds outdoors; indoors a bright ceiling over dimmer walls."""
    up = max(dy, 0.0)
    kind = int(place[0])
    if kind in (WOODEN_FLOOR, LIVING_ROOM, RED_RUG, KITCHEN, STUDIO):
        f = 0.55 + 0.43 * step(0.1, 0.7, up)
        return f, f, f
    f = 1.0 - (1.0 - min(up * 1.6, 1.0)) ** 2
    r, g, b = _mix(place[27], place[28], place[29], place[24], place[25], place[26], f)
    cover = place[34]
    if cover > 0.02 and dy > 0.0:
        k = 1.3 / (dy + 0.12)
        c = clouds(dx * k + 50.0, dz * k + 50.0, int(place[30]) + 40)
        a = step(0.62 - 0.3 * cover, 0.80 - 0.2 * cover, c) * step(0.0, 0.12, dy) * 0.9
        r, g, b = _mix(r, g, b, 0.97, 0.97, 0.98, a)
    return r, g, b


@compiled
def _planks(u, v, place, seed):
    wide = 0.11 + 0.09 * place[31]
    row = floor(u / wide)
    fu = u / wide - row
    shift = hashed(row, 3, seed) * 2.0
    column = floor(v / 1.7 + shift)
    fv = v / 1.7 + shift - column
    tone = 0.78 + 0.34 * hashed(row, column, seed)
    tone += 0.16 * (value(u * 70.0, v * 3.0, seed + 2) - 0.5) + 0.12 * sin(
        40.0 * (u + 0.05 * value(u * 6, v * 1.5, seed + 3))
    ) * 0.5
    if fu < 0.035 or fv < 0.006:
        tone *= 0.5
    return place[15] * tone, place[16] * tone, place[17] * tone


@compiled
def ground(place, side, depth, far):
    """Colour of the ground at (side, depth); `far` is the distance from the camera, which fades fine detail."""
    kind, seed = int(place[0]), int(place[30])
    fine = 1.0 / (1.0 + 0.05 * far * far)
    r, g, b = place[15], place[16], place[17]
    if kind == BEACH:
        shore = 1.3 + 2.2 * place[31] + 0.5 * (value(side * 0.5, 3.0, seed) - 0.5)
        grit = hashed(floor(side * 70), floor(depth * 70), seed) - 0.5
        tone = 1.0 + 0.16 * grit * fine + 0.14 * (clouds(side * 2.5, depth * 2.5, seed) - 0.5)
        r, g, b = r * tone, g * tone, b * tone
        wet = step(shore - 0.8, shore, depth)
        r, g, b = _mix(r, g, b, r * 0.68, g * 0.66, b * 0.66, wet)
        if depth > shore:
            wave = clouds(side * 0.7, depth * 3.0 / (1 + 0.08 * depth), seed + 9)
            f = step(shore, shore + 9.0, depth)
            r, g, b = _mix(place[18], place[19], place[20], place[21], place[22], place[23], f)
            tone = 0.85 + 0.35 * wave
            r, g, b = r * tone, g * tone, b * tone
            foam = step(0.5, 0.0, depth - shore) + 0.8 * step(0.66, 0.74, wave) * step(14.0, 2.0, depth)
            r, g, b = _mix(r, g, b, 0.96, 0.98, 0.98, min(foam, 1.0))
    elif kind == SNOW:
        mound = clouds(side * 1.1, depth * 1.1, seed)
        slope = clouds(side * 1.1 + 0.12, depth * 1.1 + 0.06, seed) - mound
        tone = 0.97 + 0.55 * slope + 0.03 * (hashed(floor(side * 60), floor(depth * 60), seed) - 0.5) * fine
        r, g, b = r * tone, g * tone, b * min(tone * 1.02, 1.1)
    elif kind == GRASS:
        blade = value(side * 55, depth * 26, seed) - 0.5
        patch = clouds(side * 1.3, depth * 1.3, seed + 4)
        tone = 0.78 + 0.75 * blade * (0.35 + 0.65 * fine) + 0.45 * (patch - 0.3)
        if place[31] > 0.6:
            tone *= 1.07 if (floor(side * 0.9 + 100) % 2) == 0 else 0.93
        r, g, b = r * tone, g * tone, b * tone
        cell = hashed(floor(side * 9), floor(depth * 9), seed + 5)
        if place[32] > 0.5 and cell > 0.955:
            fx, fz = side * 9 - floor(side * 9) - 0.5, depth * 9 - floor(depth * 9) - 0.5
            if fx * fx + fz * fz < 0.05:
                r, g, b = (0.98, 0.95, 0.9) if cell > 0.978 else (0.98, 0.85, 0.2)
    elif kind == WOODEN_FLOOR or kind == RED_RUG:
        if place[33] > 0.5:
            r, g, b = _planks(side, depth, place, seed)
        else:
            r, g, b = _planks(depth, side, place, seed)
        if kind == RED_RUG:
            a, c = 1.15 + 0.35 * place[31], 0.95 + 0.35 * place[32]
            if place[34] > 0.5:
                inside = 1.0 - sqrt((side / a) ** 2 + (depth / c) ** 2)
            else:
                inside = min(1.0 - abs(side) / a, 1.0 - abs(depth) / c)
            if inside > 0.0:
                pile = 0.86 + 0.3 * hashed(floor(side * 60), floor(depth * 60), seed) * fine
                pile += 0.12 * (clouds(side * 5, depth * 5, seed) - 0.5)
                r, g, b = place[18] * pile, place[19] * pile, place[20] * pile
                if 0.07 < inside < 0.12 or (place[35] > 0.5 and 0.16 < inside < 0.185):
                    r, g, b = place[21] * pile, place[22] * pile, place[23] * pile
                elif place[36] > 0.55 and inside > 0.25:
                    p, q = side * 3.2, depth * 3.2
                    if abs(p - floor(p) - 0.5) + abs(q - floor(q) - 0.5) < 0.22:
                        r, g, b = r * 0.62, g * 0.62, b * 0.62
    elif kind == LIVING_ROOM:
        if place[31] < 0.5:
            pile = 0.9 + 0.22 * hashed(floor(side * 50), floor(depth * 50), seed) * fine
            pile += 0.12 * (clouds(side * 2, depth * 2, seed) - 0.5)
            r, g, b = r * pile, g * pile, b * pile
        else:
            p, q = (side + depth) * 4.0, (side - depth) * 4.0
            block = (floor(p) + floor(q)) % 2
            tone = (0.85 if block == 0 else 1.02) + 0.1 * (value(p * (1 if block == 0 else 9), q * 5, seed) - 0.5)
            r, g, b = r * tone, g * tone, b * tone
    elif kind == CITY:
        road = 0.9 + 0.28 * (hashed(floor(side * 60), floor(depth * 60), seed) - 0.5) * fine
        road += 0.2 * (clouds(side * 1.5, depth * 1.5, seed) - 0.5)
        r, g, b = r * road, g * road, b * road
        if place[31] < 0.55:
            p, q = side * 1.6, depth * 1.6
            q += 0.5 * (floor(p) % 2)
            if p - floor(p) < 0.035 or q - floor(q) < 0.035:
                r, g, b = r * 0.6, g * 0.6, b * 0.6
            else:
                tone = 0.93 + 0.14 * hashed(floor(p), floor(q), seed)
                r, g, b = r * tone, g * tone, b * tone
        elif abs(side - 1.35) < 0.07 and (depth * 0.6 - floor(depth * 0.6)) < 0.6:
            r, g, b = 0.9, 0.88, 0.8
        if 2.6 < depth < 3.1:
            r, g, b = 0.66, 0.65, 0.63
    elif kind == DESERT:
        ripple = sin((depth * 1.0 + 0.4 * side + 0.9 * clouds(side * 0.8, depth * 0.8, seed)) * 17.0)
        tone = 0.95 + 0.09 * ripple * fine + 0.3 * (clouds(side * 0.5, depth * 0.5, seed + 2) - 0.45)
        tone += 0.08 * (hashed(floor(side * 70), floor(depth * 70), seed) - 0.5) * fine
        r, g, b = r * tone, g * tone, b * tone
    elif kind == FOREST:
        leaf = hashed(floor(side * 22), floor(depth * 22), seed)
        patch = clouds(side * 1.4, depth * 1.4, seed + 3)
        r, g, b = _mix(r, g, b, place[18], place[19], place[20], step(0.35, 0.65, patch))
        tone = 0.75 + 0.5 * leaf * (0.4 + 0.6 * fine) + 0.25 * (value(side * 9, depth * 9, seed) - 0.5)
        spot = step(0.56, 0.66, clouds(side * 0.9 + 7, depth * 0.9, seed + 11))
        tone *= 0.95 + 0.75 * spot
        r, g, b = r * tone, g * tone, b * tone
    elif kind == DIRT_ROAD:
        edge = 1.25 + 0.35 * place[31] + 0.25 * (clouds(depth * 1.2, side * 0.5, seed) - 0.5)
        stone = hashed(floor(side * 26), floor(depth * 26), seed)
        tone = 0.9 + 0.3 * (clouds(side * 3.0, depth * 1.2, seed) - 0.5) + 0.2 * (stone - 0.5) * fine
        rut = step(0.22, 0.05, abs(abs(side) - 0.7)) * (0.5 + place[32])
        r, g, b = r * tone * (1 - 0.22 * rut), g * tone * (1 - 0.24 * rut), b * tone * (1 - 0.26 * rut)
        verge = step(edge, edge + 0.18, abs(side))
        blade = 0.75 + 0.6 * (value(side * 45, depth * 22, seed) - 0.4) + 0.4 * (clouds(side, depth, seed + 4) - 0.5)
        r, g, b = _mix(r, g, b, place[18] * blade, place[19] * blade, place[20] * blade, verge)
    elif kind == KITCHEN:
        p, q = side * (1.9 + 1.2 * place[31]), depth * (1.9 + 1.2 * place[31])
        if place[32] > 0.75:
            p, q = (p + q) * 0.7, (p - q) * 0.7
        tone = 0.95 + 0.08 * hashed(floor(p), floor(q), seed)
        if (floor(p) + floor(q)) % 2 == 0:
            r, g, b = place[18], place[19], place[20]
        r, g, b = r * tone, g * tone, b * tone
        if min(p - floor(p), q - floor(q)) < 0.03:
            r, g, b = 0.55, 0.54, 0.52
    elif kind == STUDIO:
        f = step(-0.5, 5.0, depth)
        r, g, b = _mix(r, g, b, place[18], place[19], place[20], f)
    return r, g, b


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


@compiled
def far_layer(place, layer, u, v):
    """One of three upright cut-outs far behind the object (0 is the nearest): whether it covers (u, v), and its colour."""
    kind, seed = int(place[0]), int(place[30]) + 17 * layer
    haze = 0.22 * (layer + 1)
    if kind == CITY:
        wide = 2.9 + 1.2 * layer
        k = floor(u / wide + 0.37 * layer)
        f = u / wide + 0.37 * layer - k
        tall = (1.3 + 3.4 * hashed(k, 1, seed) ** 2) * (1.0 + 0.8 * layer)
        if v < tall and f < 0.9 + 0.1 * hashed(k, 7, seed) and (layer > 0 or hashed(k, 8, seed) < 0.8):
            tint = hashed(k, 2, seed)
            r, g, b = 0.40 + 0.28 * tint, 0.38 + 0.2 * tint, 0.40 + 0.12 * hashed(k, 3, seed)
            if tint > 0.72:
                r, g, b = 0.62, 0.36, 0.28
            nu, nv = 4 + floor(3 * hashed(k, 6, seed)), 0.55 + 0.2 * layer
            p, q = f * nu, v / nv
            fp, fq = p - floor(p), q - floor(q)
            if 0.22 < fp < 0.8 and 0.3 < fq < 0.8:
                lit = hashed(floor(p) + 31 * k, floor(q), seed)
                r, g, b = (0.98, 0.88, 0.55) if lit > 0.72 else (0.55, 0.68, 0.8) if lit > 0.4 else (0.2, 0.25, 0.32)
            r, g, b = _mix(r, g, b, place[27], place[28], place[29], haze * 0.8)
            return True, r, g, b
    elif kind == FOREST:
        wide = 0.75 + 0.3 * layer
        k = floor(u / wide)
        f = (u / wide - k) - 0.25 - 0.5 * hashed(k, 1, seed)
        thick = (0.09 + 0.13 * hashed(k, 2, seed)) * (1.0 - 0.02 * v)
        crown = 1.9 + 0.9 * clouds(u * 0.8, 2.0 * layer, seed) + 0.7 * layer
        leaf = clouds(u * 3.0, v * 3.0, seed + 3)
        if v > crown - 0.6 * leaf and leaf > 0.36:
            tone = 0.55 + 0.9 * leaf
            r, g, b = _mix(0.17 * tone, 0.46 * tone, 0.15 * tone, 0.5, 0.68, 0.46, haze * 0.6)
            return True, r, g, b
        if abs(f) < thick:
            bark = 0.7 + 0.45 * value(u * 22, v * 3.5, seed) - 0.5 * abs(f) / thick * 0.5
            r, g, b = _mix(0.42 * bark, 0.30 * bark, 0.20 * bark, 0.46, 0.60, 0.44, haze * 0.75)
            return True, r, g, b
        if v < 0.35 + 0.5 * clouds(u * 1.6, 5.0, seed + 8):
            tone = 0.6 + 0.6 * leaf
            r, g, b = _mix(0.20 * tone, 0.46 * tone, 0.16 * tone, 0.42, 0.60, 0.40, haze * 0.6)
            return True, r, g, b
        if layer == 2 and v < 9.0:
            tone = 0.6 + 0.5 * leaf
            return True, 0.30 * tone, 0.54 * tone, 0.28 * tone
    elif kind == SNOW:
        if layer < 2:
            wide = 1.3 + 0.5 * layer
            k = floor(u / wide)
            f = abs((u / wide - k) - 0.35 - 0.3 * hashed(k, 1, seed)) * wide
            tall = (1.5 + 1.6 * hashed(k, 2, seed)) * (1 + 0.4 * layer)
            if hashed(k, 4, seed) < 0.35 + 0.5 * place[31] and 0.0 < v < tall:
                saw = (v / tall * 5.0) % 1.0
                if f < (1 - v / tall) * tall * 0.3 * (1.12 - 0.3 * saw):
                    white = step(0.35, 0.62, clouds(u * 6, v * 6, seed) + 0.25 * (1 - saw))
                    r, g, b = _mix(0.14, 0.27, 0.24, 0.93, 0.95, 0.98, white)
                    r, g, b = _mix(r, g, b, place[27], place[28], place[29], haze)
                    return True, r, g, b
        else:
            if v < 1.2 + 3.4 * clouds(u * 0.12, 1.0, seed) * (0.5 + place[32]):
                tone = 0.9 + 0.1 * clouds(u * 0.6, v * 0.8, seed)
                return True, 0.84 * tone, 0.89 * tone, 0.96 * tone
    elif kind == DESERT:
        if layer == 0 and place[31] > 0.35:
            k = floor(u / 3.1)
            f = (u / 3.1 - k - 0.3 - 0.4 * hashed(k, 1, seed)) * 3.1
            tall = 0.8 + 0.9 * hashed(k, 2, seed)
            if hashed(k, 3, seed) < 0.4:
                trunk = abs(f) < 0.11 and v < tall
                arm = 0.42 * tall < v < 0.8 * tall and abs(abs(f) - 0.34) < 0.075
                elbow = abs(v - 0.46 * tall) < 0.075 and abs(f) < 0.36
                if trunk or arm or elbow:
                    tone = 0.8 + 0.3 * cos(f * 80.0)
                    return True, 0.2 * tone, 0.42 * tone, 0.2 * tone
        elif layer > 0:
            if v < (0.9 + 2.6 * clouds(u * 0.13 + 3.0 * layer, 1.0, seed)) * layer * 0.75:
                edge = clouds(u * 0.13 + 3.0 * layer, 1.0, seed) - clouds(u * 0.13 + 3.0 * layer + 0.05, 1.0, seed)
                tone = (0.92 - 0.08 * layer) + 2.5 * edge + 0.05 * sin(v * 9 + u)
                r, g, b = place[15] * tone, place[16] * tone, place[17] * tone
                r, g, b = _mix(r, g, b, place[27], place[28], place[29], 0.12 * layer)
                return True, r, g, b
    elif kind == GRASS or kind == DIRT_ROAD:
        if layer == 0:
            if place[33] > 0.5 and kind == DIRT_ROAD:
                w = u / 1.1
                post = abs(w - floor(w) - 0.5) < 0.045 and v < 0.75
                rail = abs(v - 0.6) < 0.035 or abs(v - 0.32) < 0.035
                if (post or rail) and abs(u) > 2.0:
                    return True, 0.45, 0.33, 0.22
            elif place[33] > 0.55:
                if v < 0.75 + 0.35 * clouds(u * 1.5, 1.0, seed):
                    tone = 0.5 + 0.8 * clouds(u * 7, v * 7, seed)
                    return True, 0.14 * tone, 0.38 * tone, 0.13 * tone
            elif place[33] < 0.2 and abs(v - 0.5) < 0.5:
                w = u / 0.16
                if w - floor(w) < 0.68 or abs(v - 0.3) < 0.05 or abs(v - 0.75) < 0.05:
                    return True, 0.93, 0.93, 0.9
        elif layer == 1:
            k = floor(u / 3.4)
            f = (u / 3.4 - k - 0.3 - 0.4 * hashed(k, 1, seed)) * 3.4
            tall = 2.0 + 1.8 * hashed(k, 2, seed)
            if hashed(k, 3, seed) < 0.5:
                if abs(f) < 0.13 and v < tall:
                    return True, 0.36, 0.26, 0.18
                crown = (f / 1.25) ** 2 + ((v - tall) / 1.2) ** 2 + 0.5 * (clouds(u * 2, v * 2, seed) - 0.5)
                if crown < 1.0:
                    tone = 0.55 + 0.75 * clouds(u * 4, v * 4, seed + 1)
                    return True, 0.2 * tone, 0.46 * tone, 0.17 * tone
        elif v < 0.6 + 3.0 * clouds(u * 0.1, 1.0, seed) * (0.4 + place[32]):
            tone = 0.75 + 0.3 * clouds(u * 0.8, v * 1.2, seed)
            r, g, b = _mix(0.3 * tone, 0.52 * tone, 0.28 * tone, place[27], place[28], place[29], 0.45)
            return True, r, g, b
    elif kind == BEACH:
        if layer == 0 and place[33] > 0.72:
            # A palm to one side: a leaning trunk and drooping leaves.
            x = u - (2.6 if place[32] > 0.5 else -2.6)
            if abs(x - 0.07 * v * v) < 0.1 and v < 2.7:
                tone = 0.85 + 0.15 * sin(v * 22.0)
                return True, 0.5 * tone, 0.38 * tone, 0.26 * tone
            px, py = x - 0.5, v - 2.75
            reach = abs(px)
            for k in range(3):
                droop = py - (0.55 - 0.5 * k) * reach + 0.55 * reach * reach
                if reach < 1.35 and abs(droop) < 0.11 * (1.5 - reach):
                    tone = 0.7 + 0.4 * value(px * 20, py * 20, seed)
                    return True, 0.16 * tone, 0.48 * tone, 0.18 * tone
        elif layer == 2 and place[35] > 0.55 and v < (2.4 * clouds(u * 0.07, 2.0, seed) - 1.0) * 2.0:
            tone = 0.8 + 0.3 * clouds(u * 0.5, v, seed)
            r, g, b = _mix(0.25 * tone, 0.42 * tone, 0.3 * tone, place[27], place[28], place[29], 0.5)
            return True, r, g, b
    return False, 0.0, 0.0, 0.0


@compiled
def backdrop(place, ox, oy, oz, dx, dy, dz):
    """What a ray sees behind all objects: colour, distance along the ray, and whether it is ground."""
    kind = int(place[0])
    fx, fz = place[1], place[2]
    o_depth, d_depth = ox * fx + oz * fz, dx * fx + dz * fz
    o_side, d_side = ox * fz - oz * fx, dx * fz - dz * fx
    t_ground = -oy / dy if dy < -1e-6 else 1e9
    if kind in (WOODEN_FLOOR, LIVING_ROOM, RED_RUG, KITCHEN):
        back = 1.5 + 1.3 * place[36]
        t_wall, u, from_side = 1e9, 0.0, 0.0
        if d_depth > 1e-6:
            t_wall = (back - o_depth) / d_depth
            u = o_side + t_wall * d_side
        corner = 1.5 + 2.2 * hashed(5, 5, int(place[30]))
        if hashed(6, 5, int(place[30])) < 0.5:
            corner = -corner
        if d_side * corner > 1e-6:
            t = (corner - o_side) / d_side
            if 0.0 < t < t_wall:
                t_wall, u, from_side = t, o_depth + t * d_depth, 1.0
        if t_wall < t_ground and t_wall > 0.0:
            v = oy + t_wall * dy
            r, g, b = wall(place, u, v, from_side)
            shade = (0.86 if from_side > 0.5 else 1.0) * (0.8 + 0.2 * step(0.0, 0.5, v))
            return r * shade, g * shade, b * shade, t_wall, False
    elif kind == STUDIO:
        if t_ground < 30.0:
            depth = o_depth + t_ground * d_depth
            r, g, b = ground(place, o_side + t_ground * d_side, depth, t_ground)
            return r, g, b, t_ground, True
        return place[18], place[19], place[20], 1e9, False
    else:
        for layer in range(3):
            away = 4.5 + 3.0 * layer + (5.0 if kind == CITY else 0.0) + (6.0 * layer if kind != FOREST else 0.0)
            if kind == BEACH and layer == 0:
                away = 1.2
            if d_depth > 1e-6:
                t = (away - o_depth) / d_depth
                if 0.0 < t < t_ground:
                    covered, r, g, b = far_layer(place, layer, o_side + t * d_side, oy + t * dy)
                    if covered:
                        return r, g, b, t, False
    if t_ground < 400.0:
        r, g, b = ground(place, o_side + t_ground * d_side, o_depth + t_ground * d_depth, t_ground)
        haze = 1.0 - 1.0 / (1.0 + (t_ground / 60.0) ** 2)
        r, g, b = _mix(r, g, b, place[27], place[28], place[29], haze)
        return r, g, b, t_ground, True
    r, g, b = sky(place, dx, dy, dz)
    return r, g, b, 1e9, False
