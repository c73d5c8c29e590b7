"""The row of numbers that describes one surrounding and its light (see ground.py for the columns)."""

from __future__ import annotations

from math import cos, pi, sin

import numpy as np

from miniature.scenes.parts import Dice
from miniature.scenes.scene import Scene
from miniature.scenes.vocabulary import INDOORS, PALETTE, RGB, SURROUNDINGS

COLUMNS = 42
BLUE_SKY = ((0.25, 0.47, 0.82), (0.74, 0.85, 0.95))
WOODS: tuple[RGB, ...] = (
    (0.70, 0.49, 0.29),
    (0.55, 0.35, 0.2),
    (0.80, 0.63, 0.43),
    (0.43, 0.27, 0.16),
    (0.66, 0.52, 0.38),
)
WALLS: tuple[RGB, ...] = (
    (0.90, 0.88, 0.83), (0.86, 0.82, 0.73), (0.80, 0.84, 0.86), (0.84, 0.86, 0.80), (0.93, 0.92, 0.90),
    (0.72, 0.76, 0.78),
)  # fmt: skip


def place_row(scene: Scene, forward: np.ndarray) -> np.ndarray:
    """The place [42] of a scene seen along `forward` (unit, horizontal)."""
    d = Dice("place", scene.surroundings, scene.seed)
    yaw = d.between(-24, 24) * pi / 180
    row = np.zeros(COLUMNS)
    row[0] = SURROUNDINGS.index(scene.surroundings)
    row[1] = forward[0] * cos(yaw) - forward[2] * sin(yaw)
    row[2] = forward[0] * sin(yaw) + forward[2] * cos(yaw)
    # The light's azimuth is told from the camera: 0 stands behind the photographer.
    a = scene.light_azimuth * pi / 180
    e = scene.light_elevation * pi / 180
    bx, bz = -forward[0], -forward[2]
    row[3] = (bx * cos(a) - bz * sin(a)) * cos(e)
    row[4] = sin(e)
    row[5] = (bx * sin(a) + bz * cos(a)) * cos(e)
    row[30] = d.whole(0, 1 << 20)
    row[31:37] = [d.between(0, 1) for _ in range(6)]
    row[37:42] = scene.exposure, scene.warmth, scene.grain, scene.vignette, scene.softness

    def near(colour: RGB, spread: float = 0.05) -> tuple[float, float, float]:
        light = 1 + spread * d.between(-1, 1)
        return tuple(min(c * light + 0.4 * spread * d.between(-1, 1), 1.0) for c in colour)  # type: ignore[return-value]

    def colours(
        first: RGB, second: RGB = (0, 0, 0), third: RGB = (0, 0, 0), top: RGB = BLUE_SKY[0], low: RGB = BLUE_SKY[1]
    ) -> None:
        for at, colour in zip((15, 18, 21, 24, 27), (first, second, third, top, low), strict=True):
            row[at : at + 3] = near(colour)

    any_wall = d.pick(WALLS)
    any_wood = d.pick(WOODS)
    cloudy = d.pick((0.0, 0.2, 0.5, 0.9))
    match scene.surroundings:
        case "beach":
            colours((0.90, 0.80, 0.60), (0.30, 0.70, 0.72), (0.08, 0.36, 0.62), (0.22, 0.50, 0.88), (0.76, 0.89, 0.97))
            row[34] = cloudy
        case "snow":
            colours((0.93, 0.95, 0.99), top=(0.60, 0.72, 0.86), low=(0.86, 0.90, 0.95))
            row[34] = cloudy * 0.6
        case "grass":
            colours(d.pick(((0.30, 0.62, 0.18), (0.38, 0.64, 0.20), (0.24, 0.55, 0.16))))
            row[34] = cloudy
        case "wooden floor":
            colours(any_wood, third=any_wall)
        case "living room":
            floor = d.pick(((0.70, 0.66, 0.60), (0.60, 0.62, 0.66), (0.62, 0.48, 0.36), (0.72, 0.58, 0.42)))
            paper = d.pick((any_wall, (0.62, 0.72, 0.66), (0.56, 0.64, 0.74), (0.80, 0.68, 0.56), (0.88, 0.80, 0.58)))
            curtain = d.pick(((0.62, 0.28, 0.26), (0.30, 0.40, 0.52), (0.78, 0.74, 0.66), (0.32, 0.46, 0.36)))
            colours(floor, curtain, paper)
        case "city":
            colours(d.pick(((0.42, 0.42, 0.44), (0.56, 0.55, 0.53), (0.36, 0.37, 0.40))), low=(0.80, 0.85, 0.90))
            row[34] = cloudy
        case "desert":
            sand = d.pick(((0.86, 0.58, 0.30), (0.82, 0.50, 0.26), (0.90, 0.66, 0.38)))
            colours(sand, top=(0.26, 0.50, 0.82), low=(0.93, 0.84, 0.70))
        case "forest":
            colours((0.29, 0.24, 0.13), (0.20, 0.33, 0.12), top=(0.45, 0.62, 0.45), low=(0.62, 0.76, 0.58))
        case "red rug":
            colours(
                any_wood,
                (0.70, 0.08, 0.10),
                d.pick(((0.88, 0.74, 0.42), (0.92, 0.88, 0.8), (0.12, 0.1, 0.2))),
                any_wall,
            )
        case "dirt road":
            colours(d.pick(((0.58, 0.43, 0.29), (0.64, 0.46, 0.30), (0.54, 0.42, 0.32))), (0.46, 0.56, 0.22))
            row[34] = cloudy
        case "studio":
            paper = d.pick(
                ((0.94, 0.94, 0.94), (0.90, 0.90, 0.91), (0.95, 0.95, 0.96), (0.84, 0.85, 0.87), (0.90, 0.87, 0.83))
            )
            colours(paper, tuple(c * 0.94 for c in paper))  # type: ignore[arg-type]
            row[24:30] = 0.95
        case "kitchen":
            dark = d.pick(
                ((0.16, 0.17, 0.19), (0.36, 0.42, 0.48), (0.52, 0.34, 0.28), (0.30, 0.44, 0.42), (0.6, 0.58, 0.54))
            )
            doors = d.pick(
                ((0.92, 0.92, 0.90), (0.50, 0.62, 0.62), (0.74, 0.58, 0.40), (0.34, 0.42, 0.50), (0.86, 0.80, 0.64))
            )
            top = d.pick(((0.25, 0.25, 0.27), (0.66, 0.48, 0.30), (0.85, 0.84, 0.82)))
            colours(
                (0.92, 0.91, 0.88),
                dark,
                d.pick(((0.92, 0.93, 0.93), (0.72, 0.82, 0.84), (0.90, 0.86, 0.76))),
                doors,
                top,
            )
    indoors = scene.surroundings in INDOORS
    strength = {"forest": 0.72, "snow": 0.82, "studio": 0.66}.get(scene.surroundings, 0.70 if indoors else 0.92)
    tone = d.between(-0.06, 0.06) + (0.03 if indoors else 0.02)
    row[6:9] = strength * (1 + tone), strength, strength * (1 - 1.4 * tone)
    ambient = 0.44 if indoors else 0.36
    tint = (1.0, 0.99, 0.97) if indoors else (0.90, 0.98, 1.10)
    if scene.surroundings == "forest":
        tint = (0.92, 1.05, 0.88)
    row[9:12] = [ambient * t for t in tint]
    row[12:15] = [ambient * (0.25 + 0.55 * c * c) for c in row[15:18]]
    if scene.surroundings == "red rug":
        row[12:15] = [ambient * (0.25 + 0.5 * c * c) for c in PALETTE["red"]]
    return row
