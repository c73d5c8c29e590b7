"""From a scene to a picture: draw the objects on the board, light the place, set up the camera, march."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi, sin, tan

import numpy as np

from miniature.scenes import household, sdf, seating, surface
from miniature.scenes.drawn import DESIGNS
from miniature.scenes.parts import Board, Dice
from miniature.scenes.place import place_row
from miniature.scenes.scene import DRAWN, Scene, dress
from miniature.scenes.vocabulary import PALETTE, PATTERNS, RGB

DESIGNERS: dict[str, Callable[[Board, Dice], None]] = {
    "chair": seating.chair,
    "armchair": seating.armchair,
    "stool": seating.stool,
    "sofa": seating.sofa,
    "bench": seating.bench,
    "bed": seating.bed,
    "table": household.table,
    "lamp": household.lamp,
    "vase": household.vase,
    "bookshelf": household.bookshelf,
    "teapot": household.teapot,
    "clock": household.clock,
}
KINDS = {
    "plastic": surface.PLASTIC,
    "wood": surface.WOOD,
    "metal": surface.METAL,
    "fabric": surface.FABRIC,
    "velvet": surface.VELVET,
}
SHINE = {"plastic": 0.9, "wood": 0.12, "metal": 1.0, "fabric": 0.0, "velvet": 0.0}
SLOTS = 8


def draw(class_name: str, design_seed: int) -> np.ndarray:
    """The shapes [n, 28] of a design, standing on the ground at the origin."""
    board = Board()
    if design_seed >= DRAWN:
        DESIGNS[design_seed - DRAWN].draw(board)
    else:
        DESIGNERS[class_name](board, Dice("design", class_name, design_seed))
    return board.shapes()


def _shade_of(colour: str, d: Dice) -> RGB:
    """A colour's own shade for one design: a little off the palette."""
    r, g, b = PALETTE[colour]
    light = 1.0 + 0.09 * d.between(-1, 1)
    return tuple(min(max(c * light + 0.015 * d.between(-1, 1), 0.0), 1.0) for c in (r, g, b))  # type: ignore[return-value]


def _materials(class_name: str, design_seed: int, colour: str, accent: str, material: str, pattern: str) -> np.ndarray:
    """The material rows [8, 12] of one object."""
    d = Dice("materials", class_name, design_seed)
    rows = np.zeros((SLOTS, 12))
    body = _shade_of(colour, d)
    light = 0.4 * body[0] + 0.4 * body[1] + 0.2 * body[2]
    second = (0.93, 0.92, 0.88) if light < 0.55 else d.pick(((0.13, 0.13, 0.16), tuple(c * 0.45 for c in body)))
    seed = d.whole(0, 9999)
    frequency = d.between(7, 14) if pattern != "tufted" else d.between(7.5, 10.5)
    rows[:, 8], rows[:, 9] = frequency, seed
    legs = d.pick(("wood", "metal", "metal", "plastic")) if accent in ("black", "white", "grey") else "wood"
    if accent not in ("black", "white", "grey", "brown"):
        legs = d.pick(("plastic", "metal", "wood"))
    detail = _shade_of(d.pick(("white", "grey", "yellow", "teal", "pink", "black", "blue")), d)
    if design_seed >= DRAWN:
        drawn = DESIGNS[design_seed - DRAWN]
        legs, detail = drawn.legs, PALETTE[drawn.detail]
    soft = material if material in ("fabric", "velvet") else "fabric"
    for slot, kind, colour_of, shine in (
        (0, KINDS[material], body, SHINE[material]),
        (1, KINDS[legs], _shade_of(accent, d), SHINE[legs]),
        (2, KINDS[soft], detail, 0.0),
        (3, surface.FABRIC, (0.92, 0.91, 0.88), 0.0),
        (household.BOOKS, surface.BOOKS, (0.5, 0.4, 0.3), 0.1),
        (household.FACE, surface.FACE, (0.95, 0.94, 0.9), 0.2),
        (household.GLOW, surface.GLOW, (1.0, 0.95, 0.8), 0.0),
        (household.STEM, surface.FABRIC, (0.2, 0.45, 0.15), 0.0),
    ):
        rows[slot, 0], rows[slot, 2:5], rows[slot, 10] = kind, colour_of, shine
    rows[0, 1], rows[0, 5:8] = PATTERNS.index(pattern), second
    return rows


def _face_size(shapes: np.ndarray, materials: np.ndarray) -> None:
    faces = shapes[shapes[:, 22] == household.FACE]
    materials[household.FACE, 11] = faces[0, 24] if len(faces) else 1.0


def _corners(shapes: np.ndarray) -> np.ndarray:
    """The corners [8 n, 3] of the boxes around the shapes."""
    # A short arc spans far less than the ring it is part of.
    shapes = shapes[~((shapes[:, 0] == sdf.ARCH) & (shapes[:, 16] > 0.5))]
    signs = np.array([(a, b, c) for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)], float)
    axes = shapes[:, 4:13].reshape(-1, 3, 3)
    offsets = (signs[None, :, :] * shapes[:, None, 24:27]) @ axes
    return (shapes[:, None, 1:4] + offsets).reshape(-1, 3)


def _camera(scene: Scene, shapes: np.ndarray) -> np.ndarray:
    """Camera [14] placed so that the object spans `fill` of the frame, a little off its centre."""
    a, e = scene.azimuth * pi / 180, scene.elevation * pi / 180
    back = np.array((sin(a) * cos(e), sin(e), cos(a) * cos(e)))
    right = np.array((cos(a), 0.0, -sin(a)))
    up = np.cross(back, right)
    tangent = tan(scene.field * pi / 360)
    points = _corners(shapes)
    points = points[points[:, 1] > -0.3]
    points[:, 1] = np.maximum(points[:, 1], 0.0)
    x, y, z = points @ right, points @ up, points @ back
    cx, cy, distance = 0.0, float(y.mean()), 4.0
    for _ in range(6):
        depth = np.maximum(distance - z, 0.2)
        u, v = (x - cx) / depth, (y - cy) / depth
        span = max(u.max() - u.min(), v.max() - v.min()) / (2 * tangent)
        distance *= 0.3 + 0.7 * span / scene.fill
        cx += (u.max() + u.min()) / 2 * distance * 0.8
        cy += (v.max() + v.min()) / 2 * distance * 0.8
    cx -= scene.shift_x * 2 * tangent * distance
    cy -= scene.shift_y * 2 * tangent * distance
    origin = right * cx + up * cy + back * distance
    origin[1] = max(origin[1], 0.12)
    return np.concatenate([origin, right, up, -back, [tangent, 0.0]])


def _turn(shapes: np.ndarray, angle: float, side: float, depth: float, forward: np.ndarray) -> None:
    """Turn about y and move an object, in place. `forward` is the direction of depth."""
    c, s = cos(angle * pi / 180), sin(angle * pi / 180)
    m = np.array([(c, 0.0, s), (0.0, 1.0, 0.0), (-s, 0.0, c)])
    shapes[:, 1:4] = shapes[:, 1:4] @ m.T
    shapes[:, 4:13] = (shapes[:, 4:13].reshape(-1, 3, 3) @ m.T).reshape(-1, 9)
    shapes[:, 1:4] += forward * depth + np.array((forward[2], 0.0, -forward[0])) * -side


def world(
    scene: Scene, shapes: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What the ray-marcher needs: shapes, groups [k, 6] (centre, radius, first, last), materials, place, camera.

    shapes: the thing itself, as `draw` gives it, where it is not the scene's own design.
    """
    main = draw(scene.class_name, scene.design_seed) if shapes is None else shapes.copy()
    rows = _materials(scene.class_name, scene.design_seed, scene.colour, scene.accent, scene.material, scene.pattern)
    _face_size(main, rows)
    camera = _camera(scene, main)
    forward = np.array((camera[9], 0.0, camera[11]))
    forward /= np.linalg.norm(forward) + 1e-12
    all_shapes, all_rows = [main], [rows]
    reach = float(np.abs(main[:, 1:4]).max()) + 0.25
    for thing in scene.clutter:
        shapes = draw(thing.class_name, thing.design_seed)
        clothes = dress(thing.class_name, thing.design_seed)
        rows = _materials(thing.class_name, thing.design_seed, thing.colour, clothes["accent"], thing.material, "plain")
        _face_size(shapes, rows)
        side = thing.side * max(reach, 0.6)
        _turn(shapes, thing.turn, side, max(reach, 0.6) * thing.depth + 0.4, forward)
        shapes[:, 22] += SLOTS * len(all_rows)
        all_shapes.append(shapes)
        all_rows.append(rows)
    groups, first = [], 0
    for shapes in all_shapes:
        low = (shapes[:, 1:4] - shapes[:, 21:22]).min(0)
        high = (shapes[:, 1:4] + shapes[:, 21:22]).max(0)
        centre = (low + high) / 2
        radius = (np.linalg.norm(shapes[:, 1:4] - centre, axis=1) + shapes[:, 21]).max()
        groups.append([*centre, radius, first, first + len(shapes)])
        first += len(shapes)
    return np.concatenate(all_shapes), np.array(groups), np.concatenate(all_rows), place_row(scene, forward), camera


def render(scene: Scene, size: int, samples: int = 1, shapes: np.ndarray | None = None) -> np.ndarray:
    """The picture uint8 [size, size, 3] of a scene, the same bytes every time; `samples` > 1 smooths edges.

    shapes: as for `world`.
    """
    from miniature.scenes.march import paint

    out = np.empty((size, size, 3), np.uint8)
    noise_seed = Dice("noise", scene.seed, scene.design_seed).whole(0, 1 << 20)
    paint(*world(scene, shapes), size, samples, noise_seed, out)
    return out


def objects(scene: Scene, size: int) -> np.ndarray:
    """What stands where, int8 [size, size]: 0 nothing, 1 the thing itself, from 2 on the clutter in its order."""
    from miniature.scenes.march import survey

    shapes, groups, _, _, camera = world(scene)
    out = np.zeros((size, size), np.int8)
    survey(shapes, groups, camera, out)
    return out
