"""Exact captions in varied wording. The class is always named; every other fact may be left out, none is ever wrong."""

from __future__ import annotations

from miniature.scenes.parts import Dice
from miniature.scenes.scene import Scene
from miniature.scenes.vocabulary import PLACES

MADE_OF = {"plastic": "plastic", "wood": "wood", "metal": "metal", "fabric": "fabric", "velvet": "velvet"}
ADJECTIVE = {"plastic": "plastic", "wood": "wooden", "metal": "metal", "fabric": "fabric", "velvet": "velvet"}
FRAMES = (
    "a photo of {}", "a photo of {}", "a photo of {}", "a photo of {}", "{}", "{}", "a picture of {}",
    "a photograph of {}", "an image of {}", "a close-up of {}", "a good photo of {}",
)  # fmt: skip


def a(words: str) -> str:
    """The words with their article."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def caption(scene: Scene, seed: int) -> str:
    """One caption of a scene; the same for the same scene and seed."""
    d = Dice("caption", scene.seed, scene.class_name, scene.design_seed, seed)
    noun = scene.class_name
    style = d.between(0, 1)
    if style < 0.04:
        return noun
    colour = scene.colour if d.chance(0.66) else ""
    material = d.chance(0.34)
    pattern = scene.pattern if scene.pattern != "plain" and d.chance(0.5) else ""
    made_of = material and d.chance(0.3)
    words = [pattern, "" if made_of else colour, ADJECTIVE[scene.material] if material and not made_of else "", noun]
    thing = " ".join(w for w in words if w)
    if made_of:
        thing += f" made of {colour + ' ' if colour else ''}{MADE_OF[scene.material]}"
    if d.chance(0.05) and scene.accent != scene.colour and noun in ("chair", "stool", "bench", "table", "armchair"):
        thing += f" with {scene.accent} legs"
    where = d.pick(PLACES[scene.surroundings][: 1 if d.chance(0.4) else None]) if d.chance(0.68) else ""
    if style < 0.10:
        return " ".join(w for w in (thing, where) if w)
    if style < 0.14 and where.startswith(("on", "in ")):
        return f"{where.removeprefix('standing ')}, {a(thing)}"
    whole = " ".join(w for w in (a(thing), where) if w)
    return d.pick(FRAMES).format(whole)
