"""A labelled contact sheet: one row a class, then one row a surrounding, a material, and the colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from miniature.scenes.render import render
from miniature.scenes.scene import Scene, sample_scene
from miniature.scenes.vocabulary import CLASSES, COLOURS, MATERIALS, SURROUNDINGS

SIZE, LABEL = 128, 96


def write_sheet(out: Path, columns: int, seed: int) -> None:
    """Draw the sheet and save it as PNG."""
    rows: list[tuple[str, list[Scene]]] = []
    for field, names in (("class_name", CLASSES), ("surroundings", SURROUNDINGS), ("colour", COLOURS)):
        for name in names:
            at = seed + 1000 * len(rows)
            rows.append((name, [sample_scene(at + k, **{field: name}) for k in range(columns)]))
    for material in MATERIALS:
        at = seed + 1000 * len(rows)
        soft = [
            sample_scene(at + k, class_name=("chair", "stool", "bench")[k % 3], material=material)
            for k in range(columns)
        ]
        rows.append((material, soft))
    sheet = Image.new("RGB", (LABEL + columns * SIZE, len(rows) * SIZE), "white")
    pen = ImageDraw.Draw(sheet)
    for y, (name, scenes) in enumerate(rows):
        pen.text((6, y * SIZE + SIZE // 2 - 6), name, fill="black")
        sheet.paste(Image.fromarray(np.concatenate([render(s, SIZE, 2) for s in scenes], 1)), (LABEL, y * SIZE))
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, optimize=True)
