"""What a material looks like at a point: its colour, its shine, and the bumps of its cloth.

A material is one row of `materials` [m, 12]: 0 kind · 1 pattern · 2-4 colour · 5-7 second colour · 8 pattern
frequency · 9 seed · 10 shine · 11 size of the face. Colours are sRGB in [0, 1].
"""

from __future__ import annotations

from math import atan2, cos, floor, pi, sin, sqrt

from miniature.scenes.compiled import compiled
from miniature.scenes.noise import clouds, hashed, step, value

PLASTIC, WOOD, METAL, FABRIC, VELVET, BOOKS, FACE, GLOW = range(8)
PLAIN, STRIPED, CHECKED, DOTTED, TUFTED = range(5)


@compiled
def _cloth_axes(x, y, z, nx, ny, nz):
    """Two coordinates along the surface: the box projection of the local point."""
    ax, ay, az = abs(nx), abs(ny), abs(nz)
    if ay >= ax and ay >= az:
        return x, z
    if ax >= az:
        return z, y
    return x, y


@compiled
def appearance(material, grain, phase, x, y, z, nx, ny, nz, far):
    """Colour (r, g, b), bump (du, dv), shine and glow at the local point; `far`, pixels per metre, fades detail."""
    kind, pattern = int(material[0]), int(material[1])
    r, g, b = material[2], material[3], material[4]
    seed = int(material[9])
    u, v = _cloth_axes(x, y, z, nx, ny, nz)
    du, dv, shine, glow = 0.0, 0.0, material[10], 0.0
    if kind == FACE:
        q = sqrt(x * x + z * z) / material[11]
        r, g, b = 0.95, 0.94, 0.89
        a = atan2(x, -z)
        if q > 0.9:
            r, g, b = 0.1, 0.1, 0.1
        elif q > 0.68 and abs(a * 6 / pi - floor(a * 6 / pi + 0.5)) < 0.16:
            r, g, b = 0.1, 0.1, 0.12
        for hand in range(2):
            turn = 2 * pi * hashed(hand, seed, 5)
            along = (x * sin(turn) - z * cos(turn)) / material[11]
            across = abs(x * cos(turn) + z * sin(turn)) / material[11]
            if -0.08 < along < (0.45 if hand == 0 else 0.7) and across < (0.07 if hand == 0 else 0.045):
                r, g, b = 0.05, 0.05, 0.06
        return r, g, b, 0.0, 0.0, 0.2, 0.0
    if kind == GLOW:
        return 1.0, 0.95, 0.8, 0.0, 0.0, 0.0, 1.0
    if kind == BOOKS:
        k = floor((x + phase * 3.0) * 28.0)
        f = (x + phase * 3.0) * 28.0 - k
        hue = hashed(k, seed, 3)
        light = 0.35 + 0.55 * hashed(k, seed, 4)
        r = light * (0.5 + 0.5 * cos(2 * pi * hue))
        g = light * (0.45 + 0.4 * cos(2 * pi * (hue - 0.36)))
        b = light * (0.45 + 0.45 * cos(2 * pi * (hue - 0.68)))
        if f < 0.1:
            r, g, b = r * 0.4, g * 0.4, b * 0.4
        elif hashed(k, seed, 6) < 0.5 and abs(y - 0.02) < 0.012:
            r, g, b = 0.9, 0.85, 0.7
        return r, g, b, 0.0, 0.0, 0.1, 0.0
    second = 0.0
    freq = material[8]
    if pattern == STRIPED:
        w = u * freq + 0.25
        second = 1.0 if w - floor(w) < 0.5 else 0.0
    elif pattern == CHECKED:
        w, q = u * freq, v * freq
        second = 0.5 * (1.0 if w - floor(w) < 0.5 else 0.0) + 0.5 * (1.0 if q - floor(q) < 0.5 else 0.0)
    elif pattern == DOTTED:
        w, q = u * freq, v * freq
        w += 0.5 * (floor(q) % 2)
        fx, fy = w - floor(w) - 0.5, q - floor(q) - 0.5
        second = 1.0 if fx * fx + fy * fy < 0.085 else 0.0
    elif pattern == TUFTED:
        p, q = (u + v) * freq * 0.7, (u - v) * freq * 0.7
        fp, fq = p - floor(p) - 0.5, q - floor(q) - 0.5
        du = -(fp + fq) * 1.1
        dv = -(fp - fq) * 1.1
        crease = max(abs(fp), abs(fq)) * 2.0
        shade = 1.0 - 0.5 * step(0.72, 1.0, crease)
        corner = (0.5 - abs(fp)) ** 2 + (0.5 - abs(fq)) ** 2
        if corner < 0.012:
            shade = 0.45
        r, g, b = r * shade, g * shade, b * shade
    if second > 0.0:
        r += (material[5] - r) * second
        g += (material[6] - g) * second
        b += (material[7] - b) * second
    if kind == WOOD:
        if grain == 0:
            along, p, q = x, y, z
        elif grain == 1:
            along, p, q = y, x, z
        else:
            along, p, q = z, x, y
        warp = value(along * 2.2 + phase * 17.0, (p - q) * 9.0, seed)
        rings = sin(((p + 0.63 * q) * 21.0 + warp * 1.9 + phase * 6.0) * 2 * pi)
        fine = value(along * 6.0, (p + q * 1.3) * 90.0 + phase * 50.0, seed + 7)
        tone = 0.86 + 0.17 * rings + 0.2 * (fine - 0.5)
        warm = 0.06 * (1.0 - rings)
        light = r * 0.4 + g * 0.4 + b * 0.2
        lift = 0.10 * step(0.25, 0.0, light)
        r, g, b = (r + lift * 1.2) * tone + warm * 0.6, (g + lift * 0.85) * tone + warm * 0.25, (b + lift * 0.6) * tone
    elif kind == FABRIC:
        weave = (0.5 - abs(u * 42.0 - floor(u * 42.0) - 0.5)) * (0.5 - abs(v * 42.0 - floor(v * 42.0) - 0.5)) * 4.0
        knots = hashed(floor(u * 84.0), floor(v * 84.0), seed)
        strength = min(far / 110.0, 1.0)
        tone = (
            0.93 + strength * (0.42 * (weave - 0.3) + 0.3 * (knots - 0.5)) + 0.12 * (clouds(u * 9, v * 9, seed) - 0.5)
        )
        lift = 0.03 * knots
        r, g, b = r * tone + lift, g * tone + lift, b * tone + lift
    elif kind == VELVET:
        nap = clouds(u * 6.0, v * 9.0, seed)
        tone = 0.62 + 0.75 * nap
        r, g, b = r * tone, g * tone, b * tone
    elif kind == METAL:
        brushed = value(u * 3.0, v * 160.0, seed) - 0.5
        du, dv = du, dv + 0.12 * brushed
    return r, g, b, du, dv, shine, glow
