"""The renderer's inner loop: one ray to one colour, one picture to bytes. All on one thread, in one order."""

from __future__ import annotations

from math import cos, exp, floor, log, sqrt

import numpy as np

from miniature.scenes.compiled import compiled
from miniature.scenes.ground import sky
from miniature.scenes.noise import hashed
from miniature.scenes.sdf import distance, local, nearest, normal, through
from miniature.scenes.surface import FABRIC, METAL, VELVET, appearance
from miniature.scenes.surroundings import backdrop


@compiled
def _hit(shapes, groups, ox, oy, oz, dx, dy, dz, limit, active):
    """First surface along a ray nearer than `limit`: distance and shape (-1: none)."""
    best_t, best_i = limit, -1
    for k in range(len(groups)):
        g = groups[k]
        lx, ly, lz = g[0] - ox, g[1] - oy, g[2] - oz
        along = lx * dx + ly * dy + lz * dz
        if lx * lx + ly * ly + lz * lz - along * along > g[3] * g[3] or along + g[3] < 0.0:
            continue
        count, t, leave = through(shapes, int(g[4]), int(g[5]), ox, oy, oz, dx, dy, dz, 0.002, active)
        leave = min(leave, best_t)
        for _ in range(90):
            if t >= leave:
                break
            d, i = nearest(shapes, active, count, ox + dx * t, oy + dy * t, oz + dz * t)
            if d < 0.0007 * t:
                best_t, best_i = t, i
                break
            t += d * 0.95
    return best_t, best_i


@compiled
def _shadow(shapes, groups, x, y, z, lx, ly, lz, soft, active):
    """How much of the light reaches a point: 0 (all shaded) to 1. Soft shadows after Quilez."""
    light = 1.0
    for k in range(len(groups)):
        g = groups[k]
        cx, cy, cz = g[0] - x, g[1] - y, g[2] - z
        along = cx * lx + cy * ly + cz * lz
        reach = g[3] + 0.15
        if cx * cx + cy * cy + cz * cz - along * along > reach * reach or along + reach < 0.0:
            continue
        count, t, leave = through(shapes, int(g[4]), int(g[5]), x, y, z, lx, ly, lz, 0.12, active)
        t = max(t, 0.012)
        for _ in range(32):
            if t >= leave or light < 0.01:
                break
            d, _i = nearest(shapes, active, count, x + lx * t, y + ly * t, z + lz * t)
            light = min(light, 0.5 + 0.5 * d * soft / t)
            t += min(max(d, 0.018), 0.35)
    light = max(light, 0.0)
    return light * light * (3 - 2 * light)


@compiled
def _open(shapes, groups, x, y, z, nx, ny, nz, active):
    """Ambient openness of a point: 1 in the open, less in corners and near the ground."""
    count = 0
    for k in range(len(groups)):
        g = groups[k]
        cx, cy, cz = g[0] - x, g[1] - y, g[2] - z
        reach = g[3] + 0.4
        if cx * cx + cy * cy + cz * cz > reach * reach:
            continue
        for i in range(int(g[4]), int(g[5])):
            s = shapes[i]
            cx, cy, cz = s[1] - x, s[2] - y, s[3] - z
            reach = s[21] + 0.3
            if cx * cx + cy * cy + cz * cz < reach * reach:
                active[count] = i
                count += 1
    blocked, weight = 0.0, 1.0
    for step in range(4):
        h = 0.02 + 0.085 * step
        py = y + ny * h
        d = py if ny < 0.99 else 1e9
        for k in range(count):
            d = min(d, distance(shapes, active[k], x + nx * h, py, z + nz * h))
        blocked += max(h - d, 0.0) / h * weight
        weight *= 0.75
    return max(1.0 - 0.32 * blocked, 0.1)


@compiled
def _shade(shapes, groups, materials, place, i, px, py, pz, dx, dy, dz, scale, active):
    """Colour of shape i at a point, in linear light."""
    s = shapes[i]
    nx, ny, nz = normal(shapes, i, px, py, pz)
    if nx * dx + ny * dy + nz * dz > 0.0:
        nx, ny, nz = -nx, -ny, -nz
    x, y, z = local(shapes, i, px, py, pz)
    mx = nx * s[4] + ny * s[5] + nz * s[6]
    my = nx * s[7] + ny * s[8] + nz * s[9]
    mz = nx * s[10] + ny * s[11] + nz * s[12]
    material = materials[int(s[22])]
    kind = int(material[0])
    r, g, b, du, dv, shine, glow = appearance(material, int(s[27]), s[23], x, y, z, mx, my, mz, scale)
    r, g, b = min(max(r, 0.0), 1.0) ** 2, min(max(g, 0.0), 1.0) ** 2, min(max(b, 0.0), 1.0) ** 2
    sx, sy, sz = nx, ny, nz
    if du != 0.0 or dv != 0.0:
        if abs(my) >= abs(mx) and abs(my) >= abs(mz):
            ax, bx = 4, 10
        elif abs(mx) >= abs(mz):
            ax, bx = 10, 7
        else:
            ax, bx = 4, 7
        sx += s[ax] * du + s[bx] * dv
        sy += s[ax + 1] * du + s[bx + 1] * dv
        sz += s[ax + 2] * du + s[bx + 2] * dv
        n = sqrt(sx * sx + sy * sy + sz * sz) + 1e-9
        sx, sy, sz = sx / n, sy / n, sz / n
    lx, ly, lz = place[3], place[4], place[5]
    lit = max(sx * lx + sy * ly + sz * lz, 0.0)
    if lit > 0.0:
        lit *= _shadow(shapes, groups, px + nx * 0.006, py + ny * 0.006, pz + nz * 0.006, lx, ly, lz, place[41], active)
    ao = _open(shapes, groups, px, py, pz, nx, ny, nz, active)
    up = 0.5 + 0.5 * sy
    ar = (place[9] * up + place[12] * (1 - up)) * ao
    ag = (place[10] * up + place[13] * (1 - up)) * ao
    ab = (place[11] * up + place[14] * (1 - up)) * ao
    facing = max(-(sx * dx + sy * dy + sz * dz), 0.0)
    fill = 0.10 * facing * ao
    er, eg, eb = place[6] * lit + ar + fill, place[7] * lit + ag + fill, place[8] * lit + ab + fill
    if kind == VELVET:
        rim = (1.0 - facing) ** 2
        k = 0.6 + 1.5 * rim
        r, g, b = r * k + 0.10 * rim * rim, g * k + 0.10 * rim * rim, b * k + 0.10 * rim * rim
    elif kind == FABRIC:
        k = 0.95 + 0.2 * (1.0 - facing)
        r, g, b = r * k, g * k, b * k
    cr, cg, cb = r * er, g * eg, b * eb
    if glow > 0.0:
        return 1.3 * r, 1.3 * g, 1.2 * b
    # Mirror direction, for the highlight of the lamp and what the surface reflects.
    k = 2.0 * (sx * dx + sy * dy + sz * dz)
    rx, ry, rz = dx - k * sx, dy - k * sy, dz - k * sz
    to_light = max(rx * lx + ry * ly + rz * lz, 0.0)
    if kind == METAL:
        hr, hg, hb = sky(place, rx, max(ry, 0.0), rz)
        band = min(max((ry + 0.12) / 0.3, 0.0), 1.0)
        dark = 1.0 - 0.75 * exp(-(((ry - 0.02) / 0.14) ** 2))
        hr = (place[12] * 0.9 * (1 - band) + hr * hr * band) * dark
        hg = (place[13] * 0.9 * (1 - band) + hg * hg * band) * dark
        hb = (place[14] * 0.9 * (1 - band) + hb * hb * band) * dark
        m = 0.75
        cr = cr * (1 - m) + m * hr * 1.5 * (r + 0.06) * ao
        cg = cg * (1 - m) + m * hg * 1.5 * (g + 0.06) * ao
        cb = cb * (1 - m) + m * hb * 1.5 * (b + 0.06) * ao
        gleam = min(lit * 4.0, 1.0) * (to_light**28 * 0.9 + to_light**6 * 0.15)
        cr, cg, cb = cr + gleam * (0.35 + 0.65 * r), cg + gleam * (0.35 + 0.65 * g), cb + gleam * (0.35 + 0.65 * b)
    elif shine > 0.0:
        fresnel = 0.04 + 0.6 * (1.0 - facing) ** 5
        gleam = min(lit * 4.0, 1.0) * shine * 0.85 * to_light ** (12.0 + 70.0 * shine)
        hr, hg, hb = sky(place, rx, max(ry, 0.0), rz)
        f = fresnel * shine * ao * (1.0 if ry > 0 else 0.3)
        cr += gleam + f * hr * hr
        cg += gleam + f * hg * hg
        cb += gleam + f * hb * hb
    return cr, cg, cb


@compiled
def _ray(shapes, groups, materials, place, ox, oy, oz, dx, dy, dz, pixels, active):
    """Linear colour that a ray sees, and the shape (-1: none)."""
    t, i = _hit(shapes, groups, ox, oy, oz, dx, dy, dz, 60.0, active)
    behind = 1e9
    br, bg, bb, is_ground = 0.0, 0.0, 0.0, False
    if i < 0 or i >= groups[0][5]:
        # Only what stands about can be hidden by a wall or a palm.
        br, bg, bb, behind, is_ground = backdrop(place, ox, oy, oz, dx, dy, dz)
    if i >= 0 and t < behind:
        x, y, z = ox + dx * t, oy + dy * t, oz + dz * t
        r, g, b = _shade(shapes, groups, materials, place, i, x, y, z, dx, dy, dz, pixels / t, active)
        return r, g, b, i
    r, g, b = min(max(br, 0.0), 1.0) ** 2, min(max(bg, 0.0), 1.0) ** 2, min(max(bb, 0.0), 1.0) ** 2
    if is_ground:
        x, z = ox + dx * behind, oz + dz * behind
        lx, ly, lz = place[3], place[4], place[5]
        sun = ly * _shadow(shapes, groups, x, 0.002, z, lx, ly, lz, place[41], active)
        ao = _open(shapes, groups, x, 0.0, z, 0.0, 1.0, 0.0, active)
        e = (place[6] * ly + place[9]) + 1e-6
        # The ground's colour is what it looks like in full light; shade takes from it.
        r *= (place[6] * sun + place[9] * ao) / e
        g *= (place[7] * sun + place[10] * ao) / ((place[7] * ly + place[10]) + 1e-6)
        b *= (place[8] * sun + place[11] * ao) / ((place[8] * ly + place[11]) + 1e-6)
    return r, g, b, -1


@compiled
def _encode(c):
    """Linear light to sRGB-like, with a soft shoulder that keeps whites from clipping."""
    c = max(c, 0.0)
    if c > 0.72:
        c = 0.72 + 0.28 * (1.0 - exp(-(c - 0.72) / 0.28))
    return sqrt(c)


@compiled
def paint(shapes, groups, materials, place, camera, size, samples, noise_seed, out):
    """Fill `out` uint8 [size, size, 3]. `camera` [14]: origin, right, up, forward, tangent of half the field, -.

    With samples > 1 the pixels that differ from a neighbour get samples x samples rays.
    """
    active = np.zeros(len(shapes) + 1, np.int64)
    image = np.zeros((size, size, 3))
    seen = np.zeros((size, size), np.int64)
    ox, oy, oz = camera[0], camera[1], camera[2]
    tangent = camera[12]
    pixels = size / (2.0 * tangent)
    for j in range(size):
        for i in range(size):
            u = (2.0 * (i + 0.5) / size - 1.0) * tangent
            v = (1.0 - 2.0 * (j + 0.5) / size) * tangent
            dx = camera[9] + u * camera[3] + v * camera[6]
            dy = camera[10] + u * camera[4] + v * camera[7]
            dz = camera[11] + u * camera[5] + v * camera[8]
            n = sqrt(dx * dx + dy * dy + dz * dz)
            r, g, b, k = _ray(shapes, groups, materials, place, ox, oy, oz, dx / n, dy / n, dz / n, pixels, active)
            seen[j, i] = k
            image[j, i, 0], image[j, i, 1], image[j, i, 2] = _encode(r), _encode(g), _encode(b)
    if samples > 1:
        rough = np.zeros((size, size), np.bool_)
        for j in range(size):
            for i in range(size):
                for a, c in ((0, 1), (1, 0), (1, 1), (1, -1)):
                    q, p = j + a, i + c
                    if q < size and 0 <= p < size:
                        d = 0.0
                        for k in range(3):
                            d = max(d, abs(image[j, i, k] - image[q, p, k]))
                        if d > 0.24 or (d > 0.05 and seen[j, i] != seen[q, p]):
                            rough[j, i] = True
                            rough[q, p] = True
        for j in range(size):
            for i in range(size):
                if not rough[j, i]:
                    continue
                sr, sg, sb = 0.0, 0.0, 0.0
                for k in range(samples * samples):
                    a = (k % samples + 0.5) / samples
                    c = (k // samples + 0.5) / samples
                    u = (2.0 * (i + a) / size - 1.0) * tangent
                    v = (1.0 - 2.0 * (j + c) / size) * tangent
                    dx = camera[9] + u * camera[3] + v * camera[6]
                    dy = camera[10] + u * camera[4] + v * camera[7]
                    dz = camera[11] + u * camera[5] + v * camera[8]
                    n = sqrt(dx * dx + dy * dy + dz * dz)
                    r, g, b, _ = _ray(
                        shapes, groups, materials, place, ox, oy, oz, dx / n, dy / n, dz / n, pixels, active
                    )
                    sr, sg, sb = sr + _encode(r), sg + _encode(g), sb + _encode(b)
                m = 1.0 / (samples * samples)
                image[j, i, 0], image[j, i, 1], image[j, i, 2] = sr * m, sg * m, sb * m
    exposure, warmth, grain, vignette = place[37], place[38], place[39], place[40]
    for j in range(size):
        for i in range(size):
            u, v = 2.0 * (i + 0.5) / size - 1.0, 2.0 * (j + 0.5) / size - 1.0
            fall = (1.0 - vignette * (u * u + v * v) * 0.5) * exposure
            h1 = max(hashed(i, j, noise_seed), 1e-4)
            wave = sqrt(-2.0 * log(h1)) * grain
            shared = wave * cos(6.2831853 * hashed(i, j, noise_seed + 1))
            for k in range(3):
                tint = 1.0 + warmth * (1 - k)
                own = 0.5 * wave * cos(6.2831853 * hashed(i, j, noise_seed + 2 + k))
                c = image[j, i, k] * fall * tint + shared + own
                out[j, i, k] = np.uint8(floor(min(max(c, 0.0), 1.0) * 255.0 + 0.5))


@compiled
def survey(shapes, groups, camera, out):
    """Fill `out` int8 [size, size] with which group a ray through each cell's middle meets first, from 1; 0 for none.

    What a wall or a palm hides is not taken out.
    """
    active = np.zeros(len(shapes) + 1, np.int64)
    size = len(out)
    for j in range(size):
        for i in range(size):
            u = (2.0 * (i + 0.5) / size - 1.0) * camera[12]
            v = (1.0 - 2.0 * (j + 0.5) / size) * camera[12]
            dx = camera[9] + u * camera[3] + v * camera[6]
            dy = camera[10] + u * camera[4] + v * camera[7]
            dz = camera[11] + u * camera[5] + v * camera[8]
            n = sqrt(dx * dx + dy * dy + dz * dz)
            _, shape = _hit(shapes, groups, camera[0], camera[1], camera[2], dx / n, dy / n, dz / n, 60.0, active)
            out[j, i] = 0
            for k in range(len(groups)):
                if groups[k][4] <= shape < groups[k][5]:
                    out[j, i] = k + 1
