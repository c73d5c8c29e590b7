"""The small offline world: ray-marched furniture in named surroundings, with exact captions and the whole truth."""

from __future__ import annotations

from miniature.scenes.captions import caption
from miniature.scenes.render import objects, render
from miniature.scenes.scene import Clutter, Scene, from_truth, is_held_out, sample_scene, truth
from miniature.scenes.vocabulary import CLASSES, COLOURS, MATERIALS, PATTERNS, PLACES, SURROUNDINGS

__all__ = [
    "CLASSES",
    "COLOURS",
    "MATERIALS",
    "PATTERNS",
    "PLACES",
    "SURROUNDINGS",
    "Clutter",
    "Scene",
    "caption",
    "from_truth",
    "is_held_out",
    "objects",
    "render",
    "sample_scene",
    "truth",
]
