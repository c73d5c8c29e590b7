"""What lies behind everything: walls indoors; trees, houses, hills, ground and sky outdoors (see ground.py)."""

from __future__ import annotations

from math import cos, floor, sin

from miniature.scenes.compiled import compiled
from miniature.scenes.ground import (
    BEACH,
    CITY,
    DESERT,
    DIRT_ROAD,
    FOREST,
    GRASS,
    KITCHEN,
    LIVING_ROOM,
    RED_RUG,
    SNOW,
    STUDIO,
    WOODEN_FLOOR,
    ground,
    mix,
    sky,
)
from miniature.scenes.indoors import wall
from miniature.scenes.noise import clouds, hashed, step, value


@compiled
def far_layer(place, layer, u, v):
    """One of three upright cut-outs behind the object (0 is the nearest): whether it covers (u, v), and its colour."""
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
            r, g, b = mix(r, g, b, place[27], place[28], place[29], haze * 0.8)
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
            r, g, b = mix(0.17 * tone, 0.46 * tone, 0.15 * tone, 0.5, 0.68, 0.46, haze * 0.6)
            return True, r, g, b
        if abs(f) < thick:
            bark = 0.7 + 0.45 * value(u * 22, v * 3.5, seed) - 0.5 * abs(f) / thick * 0.5
            r, g, b = mix(0.42 * bark, 0.30 * bark, 0.20 * bark, 0.46, 0.60, 0.44, haze * 0.75)
            return True, r, g, b
        if v < 0.35 + 0.5 * clouds(u * 1.6, 5.0, seed + 8):
            tone = 0.6 + 0.6 * leaf
            r, g, b = mix(0.20 * tone, 0.46 * tone, 0.16 * tone, 0.42, 0.60, 0.40, haze * 0.6)
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
                    r, g, b = mix(0.14, 0.27, 0.24, 0.93, 0.95, 0.98, white)
                    r, g, b = mix(r, g, b, place[27], place[28], place[29], haze)
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
        elif layer > 0 and v < (0.9 + 2.6 * clouds(u * 0.13 + 3.0 * layer, 1.0, seed)) * layer * 0.75:
            edge = clouds(u * 0.13 + 3.0 * layer, 1.0, seed) - clouds(u * 0.13 + 3.0 * layer + 0.05, 1.0, seed)
            tone = (0.92 - 0.08 * layer) + 2.5 * edge + 0.05 * sin(v * 9 + u)
            r, g, b = place[15] * tone, place[16] * tone, place[17] * tone
            r, g, b = mix(r, g, b, place[27], place[28], place[29], 0.12 * layer)
            return True, r, g, b
    elif kind in (GRASS, DIRT_ROAD):
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
            r, g, b = mix(0.3 * tone, 0.52 * tone, 0.28 * tone, place[27], place[28], place[29], 0.45)
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
            r, g, b = mix(0.25 * tone, 0.42 * tone, 0.3 * tone, place[27], place[28], place[29], 0.5)
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
        r, g, b = mix(r, g, b, place[27], place[28], place[29], haze)
        return r, g, b, t_ground, True
    r, g, b = sky(place, dx, dy, dz)
    return r, g, b, 1e9, False
