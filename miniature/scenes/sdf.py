"""Signed distance fields of the shapes that furniture is made of.

A shape is one row of the array `shapes` [n, 28]:
    0 kind · 1-3 centre · 4-12 its three axes in the world · 13-20 parameters · 21 bounding radius · 22 material row ·
    23 phase of its pattern · 24-26 half extents · 27 grain axis
Distances are exact or a lower bound (Quilez, "Distance functions", is the source of the exact ones).
"""

from __future__ import annotations

from math import atan2, cos, sin, sqrt

import numpy as np

from miniature.scenes.compiled import compiled

BOX, CONE, CAPSULE, ELLIPSOID, SHELL, ARCH, DISC, TUBE, PANEL, REVOLVED, CUSHION = range(11)
COLUMNS = 28


@compiled
def local(shapes, i, x, y, z):
    """The world point (x, y, z) in the axes of shape i."""
    s = shapes[i]
    dx, dy, dz = x - s[1], y - s[2], z - s[3]
    return (
        dx * s[4] + dy * s[5] + dz * s[6],
        dx * s[7] + dy * s[8] + dz * s[9],
        dx * s[10] + dy * s[11] + dz * s[12],
    )


@compiled
def _box(x, y, z, a, b, c, r):
    qx, qy, qz = abs(x) - a + r, abs(y) - b + r, abs(z) - c + r
    inside = min(max(qx, max(qy, qz)), 0.0)
    ox, oy, oz = max(qx, 0.0), max(qy, 0.0), max(qz, 0.0)
    return sqrt(ox * ox + oy * oy + oz * oz) + inside - r


@compiled
def _plate(d, y, half, r):
    """A flat body: `d` is the distance to its outline, extruded over |y| <= half with edges rounded by r."""
    qx, qy = d + r, abs(y) - half + r
    ox, oy = max(qx, 0.0), max(qy, 0.0)
    return sqrt(ox * ox + oy * oy) + min(max(qx, qy), 0.0) - r


@compiled
def _ellipsoid(x, y, z, a, b, c):
    ux, uy, uz = x / a, y / b, z / c
    k0 = sqrt(ux * ux + uy * uy + uz * uz)
    vx, vy, vz = ux / a, uy / b, uz / c
    k1 = sqrt(vx * vx + vy * vy + vz * vz)
    if k1 < 1e-9:
        return -min(a, min(b, c))
    return k0 * (k0 - 1.0) / k1


@compiled
def _profile(s, y):
    """Radius of a turned body at height y in [-1, 1]: six radii (columns 13-18), joined smoothly."""
    u = min(max((y + 1.0) * 2.5, 0.0), 4.999)
    k = int(u)
    f = u - k
    p1, p2 = s[13 + k], s[14 + k]
    p0 = s[12 + k] if k > 0 else p1
    p3 = s[15 + k] if k < 4 else p2
    m1, m2 = 0.5 * (p2 - p0), 0.5 * (p3 - p1)
    f2, f3 = f * f, f * f * f
    return max((2 * f3 - 3 * f2 + 1) * p1 + (f3 - 2 * f2 + f) * m1 + (3 * f2 - 2 * f3) * p2 + (f3 - f2) * m2, 0.012)


@compiled
def distance(shapes, i, wx, wy, wz):
    """Signed distance from a world point to shape i."""
    s = shapes[i]
    x, y, z = local(shapes, i, wx, wy, wz)
    kind = int(s[0])
    if kind == BOX:
        return _box(x, y, z, s[13], s[14], s[15], s[16])
    if kind == CAPSULE:
        h = s[13]
        q = min(max(y, -h), h)
        f = (q + h) / (2.0 * h)
        return (sqrt(x * x + (y - q) * (y - q) + z * z) - (s[14] + (s[15] - s[14]) * f)) * 0.96
    if kind == CONE:
        h, r1, r2, r = s[13], s[14] - s[16], s[15] - s[16], s[16]
        hh = h - r
        qx = sqrt(x * x + z * z)
        k1x, k1y = r2, hh
        k2x, k2y = r2 - r1, 2.0 * hh
        cax = qx - min(qx, r1 if y < 0.0 else r2)
        cay = abs(y) - hh
        f = ((k1x - qx) * k2x + (k1y - y) * k2y) / (k2x * k2x + k2y * k2y)
        f = min(max(f, 0.0), 1.0)
        cbx, cby = qx - k1x + k2x * f, y - k1y + k2y * f
        sign = -1.0 if (cbx < 0.0 and cay < 0.0) else 1.0
        return sign * sqrt(min(cax * cax + cay * cay, cbx * cbx + cby * cby)) - r
    if kind == ELLIPSOID:
        return _ellipsoid(x, y, z, s[13], s[14], s[15])
    if kind == SHELL:
        d = abs(_ellipsoid(x, y, z, s[13], s[14], s[15])) - s[16]
        return max(d, x * s[17] + y * s[18] + z * s[19] - s[20]) * 0.85
    if kind == ARCH:
        # Ring of radius s[13] in the x-y plane, open below; s[15], s[16] = sin, cos of half its angle about +y.
        ax = abs(x)
        if s[16] * ax > s[15] * y:
            k = ax * s[15] + y * s[16]
        else:
            k = sqrt(ax * ax + y * y)
        return sqrt(max(ax * ax + y * y + z * z + s[13] * s[13] - 2.0 * s[13] * k, 0.0)) - s[14]
    if kind == DISC:
        a, c = s[13], s[15]
        k = sqrt((x / a) ** 2 + (z / c) ** 2)
        return _plate((k - 1.0) * min(a, c), y, s[14], s[16])
    if kind == TUBE:
        h, r1, r2 = s[13], s[14], s[15]
        q = sqrt(x * x + z * z)
        ex, ey = r2 - r1, 2.0 * h
        f = min(max(((q - r1) * ex + (y + h) * ey) / (ex * ex + ey * ey), 0.0), 1.0)
        dx, dy = q - r1 - ex * f, y + h - ey * f
        return sqrt(dx * dx + dy * dy) - s[16]
    if kind == PANEL:
        # A wall bent about y: radius s[13], half height s[14], half thickness s[15], half angle s[16] about -z.
        ax, bz = abs(x), -z
        angle = atan2(ax, bz)
        if angle <= s[16]:
            d = abs(sqrt(ax * ax + bz * bz) - s[13])
        else:
            ex, ez = ax - s[13] * sin(s[16]), bz - s[13] * cos(s[16])
            d = sqrt(ex * ex + ez * ez)
        return _plate(d - s[15], y, s[14], s[17])
    if kind == REVOLVED:
        h = s[19]
        q = sqrt(x * x + z * z)
        outer = max((q - _profile(s, y / h)) * 0.6, abs(y) - h)
        hollow = max((q - _profile(s, y / h) + s[20]) * 0.6, -(y + h - 2.0 * s[20]))
        return max(outer, -hollow) if s[20] > 0.0 else outer
    # CUSHION: a box that bulges in the middle by s[17].
    bulge = s[17] * max(1.0 - (x / s[13]) ** 2, 0.0) * max(1.0 - (z / s[15]) ** 2, 0.0)
    return _box(x, y, z, s[13], s[14] + bulge, s[15], s[16]) * 0.8


@compiled
def normal(shapes, i, x, y, z):
    """Outward unit normal of shape i at a point of its surface."""
    e = 0.0008
    a = distance(shapes, i, x + e, y - e, z - e)
    b = distance(shapes, i, x - e, y - e, z + e)
    c = distance(shapes, i, x - e, y + e, z - e)
    d = distance(shapes, i, x + e, y + e, z + e)
    nx, ny, nz = a - b - c + d, -a - b + c + d, -a + b - c + d
    n = sqrt(nx * nx + ny * ny + nz * nz) + 1e-12
    return nx / n, ny / n, nz / n


@compiled
def through(shapes, first, last, ox, oy, oz, dx, dy, dz, pad, active):
    """Fill `active` with the shapes whose bounding spheres (grown by `pad`) the ray meets: their number, and where the
    ray enters and leaves them."""
    count = 0
    enter, leave = 1e9, 0.0
    for i in range(first, last):
        s = shapes[i]
        lx, ly, lz = s[1] - ox, s[2] - oy, s[3] - oz
        along = lx * dx + ly * dy + lz * dz
        radius = s[21] + pad
        miss = lx * lx + ly * ly + lz * lz - along * along
        if miss < radius * radius:
            half = sqrt(radius * radius - miss)
            if along + half > 0.0:
                active[count] = i
                count += 1
                enter = min(enter, along - half)
                leave = max(leave, along + half)
    return count, max(enter, 0.0), leave


@compiled
def nearest(shapes, active, count, x, y, z):
    """Distance to the nearest of the active shapes, and which it is."""
    best, which = 1e9, -1
    for k in range(count):
        i = active[k]
        d = distance(shapes, i, x, y, z)
        if d < best:
            best, which = d, i
    return best, which


def empty_active(shapes: np.ndarray) -> np.ndarray:
    """Room for the indices of all shapes."""
    return np.zeros(len(shapes) + 1, np.int64)
