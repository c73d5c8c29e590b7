"""The places: ground, horizon, walls and sky, as functions of where a ray goes.

Coordinates: `depth` runs away from the camera through the object (which stands at 0), `side` to its right, height up.
`place` is one flat array: 0 kind · 1-2 direction of depth in x, z · 3-5 light · 6-8 light colour · 9-11 sky light ·
12-14 ground light · 15-17, 18-20, 21-23 three colours · 24-26 zenith · 27-29 horizon · 30 seed · 31-36 six free numbers
in [0, 1] · 37 exposure · 38 warmth · 39 noise · 40 vignette · 41 softness of the shadow. Colours are sRGB in [0, 1].
"""

from __future__ import annotations

from math import floor, sin, sqrt

from miniature.scenes.compiled import compiled
from miniature.scenes.noise import clouds, hashed, step, value

BEACH, SNOW, GRASS, WOODEN_FLOOR, LIVING_ROOM, CITY, DESERT, FOREST, RED_RUG, DIRT_ROAD, STUDIO, KITCHEN = range(12)


@compiled
def mix(r, g, b, r2, g2, b2, f):
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
    r, g, b = mix(place[27], place[28], place[29], place[24], place[25], place[26], f)
    cover = place[34]
    if cover > 0.02 and dy > 0.0:
        k = 1.3 / (dy + 0.12)
        c = clouds(dx * k + 50.0, dz * k + 50.0, int(place[30]) + 40)
        a = step(0.62 - 0.3 * cover, 0.80 - 0.2 * cover, c) * step(0.0, 0.12, dy) * 0.9
        r, g, b = mix(r, g, b, 0.97, 0.97, 0.98, a)
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
    tone += (
        0.16 * (value(u * 70.0, v * 3.0, seed + 2) - 0.5)
        + 0.12 * sin(40.0 * (u + 0.05 * value(u * 6, v * 1.5, seed + 3))) * 0.5
    )
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
        r, g, b = mix(r, g, b, r * 0.68, g * 0.66, b * 0.66, wet)
        if depth > shore:
            wave = clouds(side * 0.7, depth * 3.0 / (1 + 0.08 * depth), seed + 9)
            f = step(shore, shore + 9.0, depth)
            r, g, b = mix(place[18], place[19], place[20], place[21], place[22], place[23], f)
            tone = 0.85 + 0.35 * wave
            r, g, b = r * tone, g * tone, b * tone
            foam = step(0.5, 0.0, depth - shore) + 0.8 * step(0.66, 0.74, wave) * step(14.0, 2.0, depth)
            r, g, b = mix(r, g, b, 0.96, 0.98, 0.98, min(foam, 1.0))
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
    elif kind in (WOODEN_FLOOR, RED_RUG):
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
        r, g, b = mix(r, g, b, place[18], place[19], place[20], step(0.35, 0.65, patch))
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
        r, g, b = mix(r, g, b, place[18] * blade, place[19] * blade, place[20] * blade, verge)
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
        r, g, b = mix(r, g, b, place[18], place[19], place[20], f)
    return r, g, b
