"""The card of prior: the class images with the words they were asked for."""

from __future__ import annotations

from pathlib import Path

from personalize import hub
from personalize.cards import Card
from personalize.files import read_json, read_rows
from personalize.recipe import Inputs
from steps.prior import Config

SHOWN = 20
"""Pictures of each class."""


def show(config: Config, inputs: Inputs, outputs: Path, card: Card) -> None:
    rows, drawing = read_rows(outputs / "metadata.jsonl"), read_json(outputs / "diagnostics" / "drawing.json")
    card.facts(
        {
            "class images": len(rows),
            "drawn now": drawing["drawn"],
            "taken from earlier runs": len(rows) - drawing["drawn"],
            "seconds": drawing["seconds"],
            "base model": hub.label(config.base_model, config.base_revision),
        }
    )
    if not rows:
        card.warning("images_per_class is 0: training has no class images and may forget what the class looks like.")
    for noun in dict.fromkeys(row["class_noun"] for row in rows):
        own = [row for row in rows if row["class_noun"] == noun]
        pictures = [(path := outputs / row["file_name"], f"{path.stem} {row['text']}") for row in own[:SHOWN]]
        card.images(f"{noun}: {len(own)} class images", pictures)
