"""A scene as data: what stands where, of what, in which light. Sampled from a seed, exact and hashable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from miniature.scenes.drawn import DESIGNS
from miniature.scenes.parts import Dice
from miniature.scenes.vocabulary import (
    CLASSES,
    COLOURS,
    HARD,
    INDOORS,
    MATERIALS,
    MATERIALS_OF,
    SURROUNDINGS,
)

Split = Literal["train", "heldout"]

# Design seeds below HELD_OUT are for training; from HELD_OUT on never. From DRAWN on they name designs drawn by hand
# (the sample photographs), which sampling never reaches at all.
HELD_OUT = 1 << 30
DRAWN = 1 << 31


# Seen from behind, these show nothing of what they are: how far they may turn from the camera.
FACING = {"clock": 75, "bookshelf": 72, "bed": 115}


@dataclass(frozen=True)
class Clutter:
    """Another object of the scene, standing about: where (metres to the right and behind), how turned."""

    class_name: str
    design_seed: int
    colour: str
    material: str
    side: float
    depth: float
    turn: float


@dataclass(frozen=True)
class Scene:
    """One picture's whole truth. Angles in degrees; `fill` is the share of the frame that the object spans."""

    seed: int
    class_name: str
    design_seed: int
    colour: str
    accent: str
    material: str
    pattern: str
    surroundings: str
    azimuth: float
    elevation: float
    field: float
    fill: float
    shift_x: float
    shift_y: float
    light_azimuth: float
    light_elevation: float
    softness: float
    exposure: float
    warmth: float
    grain: float
    vignette: float
    clutter: tuple[Clutter, ...]


def is_held_out(design_seed: int) -> bool:
    """Whether a design may never be seen in training."""
    return design_seed >= HELD_OUT


def dress(class_name: str, design_seed: int) -> dict[str, str]:
    """The colour, accent, material and pattern that belong to a design."""
    if design_seed >= DRAWN:
        drawn = DESIGNS[design_seed - DRAWN]
        return {"colour": drawn.colour, "material": drawn.material, "accent": drawn.accent, "pattern": drawn.pattern}
    d = Dice("dress", class_name, design_seed)
    colour = d.pick(COLOURS)
    material = d.pick(MATERIALS_OF.get(class_name, MATERIALS))
    accent = d.pick(("black", "brown", "grey", "white", "brown", "black", d.pick(COLOURS)))
    if accent == colour:
        accent = "black" if colour != "black" else "brown"
    return {
        "colour": colour,
        "material": material,
        "accent": accent,
        "pattern": _pattern(d, material),
    }


def _pattern(d: Dice, material: str) -> str:
    chances = {
        "fabric": (("striped", 0.14), ("checked", 0.12), ("dotted", 0.1), ("tufted", 0.1)),
        "velvet": (("tufted", 0.42),),
        "plastic": (("striped", 0.06), ("dotted", 0.06), ("checked", 0.04)),
    }
    throw = d.between(0, 1)
    for pattern, share in chances.get(material, ()):
        throw -= share
        if throw < 0:
            return pattern
    return "plain"


def sample_scene(seed: int, split: Split = "train", **fixed: Any) -> Scene:
    """A scene from a seed. `fixed` sets any field of Scene; the rest is drawn around it.

    A design wears its own colour, accent, material and pattern, so the same `class_name` and `design_seed` are the
    same piece of furniture whatever the seed. Raises ValueError for an unknown split, field, class or place.
    """
    if split not in ("train", "heldout"):
        raise ValueError(f"split {split!r} is unknown: train or heldout")
    unknown = set(fixed) - set(Scene.__dataclass_fields__)
    if unknown:
        raise ValueError(f"a scene has no field {sorted(unknown)}; its fields: {', '.join(Scene.__dataclass_fields__)}")
    for field, known in (
        ("class_name", CLASSES), ("colour", COLOURS), ("accent", COLOURS), ("material", MATERIALS),
        ("surroundings", SURROUNDINGS),
    ):  # fmt: skip
        if field in fixed and fixed[field] not in known:
            raise ValueError(f"{field} {fixed[field]!r} is not in the small world; known: {', '.join(known)}")
    d = Dice("scene", split, seed)
    low, high = (0, HELD_OUT - 1) if split == "train" else (HELD_OUT, DRAWN - 1)
    drawn: dict[str, Any] = {
        "seed": seed,
        "class_name": d.pick(CLASSES),
        "design_seed": d.whole(low, high),
        "surroundings": d.pick(SURROUNDINGS),
    }
    drawn.update(fixed)
    drawn = {**drawn, **dress(drawn["class_name"], drawn["design_seed"]), **fixed}
    outdoors = drawn["surroundings"] not in INDOORS
    front = d.chance(0.72)
    drawn |= {
        "azimuth": d.between(-65, 65) if front else d.between(-1, 1) * FACING.get(drawn["class_name"], 180),
        "elevation": 4 + 23 * d.between(0, 1) ** 1.4,
        "field": d.between(28, 52),
        "fill": d.between(0.5, 0.8),
        "shift_x": 0.05 * d.spread(),
        "shift_y": 0.03 * d.spread(),
        "light_azimuth": d.between(-75, 75) if d.chance(0.85) else d.between(75, 285),
        "light_elevation": d.between(28, 70),
        "softness": d.between(5, 16) if outdoors else d.between(2.5, 8),
        "exposure": d.between(0.9, 1.08),
        "warmth": 0.035 * d.spread(),
        "grain": max(d.between(-0.006, 0.016), 0.0),
        "vignette": max(d.between(-0.12, 0.2), 0.0),
        "clutter": _clutter(d, drawn["surroundings"], low, high),
    }
    drawn |= fixed
    return Scene(**drawn)


def _clutter(d: Dice, surroundings: str, low: int, high: int) -> tuple[Clutter, ...]:
    chance = {"studio": 0.08, "living room": 0.6, "kitchen": 0.45, "wooden floor": 0.35}.get(surroundings, 0.25)
    if not d.chance(chance):
        return ()
    things = []
    for k in range(d.pick((1, 1, 2, 3))):
        class_name = d.pick(CLASSES)
        sign = 1 if (k % 2 == 0) == d.chance(0.5) else -1
        things.append(
            Clutter(
                class_name=class_name,
                design_seed=d.whole(low, high),
                colour=d.pick(COLOURS),
                material=d.pick(MATERIALS_OF.get(class_name, MATERIALS) if d.chance(0.8) else HARD),
                side=sign * d.between(0.75, 1.9),
                depth=d.between(0.5, 1.5),
                turn=d.between(-180, 180),
            )
        )
    return tuple(things)


def truth(scene: Scene) -> dict[str, Any]:
    """The scene as plain data for a JSON line, with whether its design is held out."""
    return {**asdict(scene), "clutter": [asdict(c) for c in scene.clutter], "held_out": is_held_out(scene.design_seed)}


def from_truth(row: Mapping[str, Any]) -> Scene:
    """The scene that a row of truth tells of: the inverse of `truth`; what else the row holds is passed over."""
    clutter = tuple(Clutter(**thing) for thing in row["clutter"])
    return Scene(**{name: row[name] for name in Scene.__dataclass_fields__ if name != "clutter"}, clutter=clutter)
