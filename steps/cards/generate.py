"""The card of generate: the pictures, each with its prompt and seed."""

from __future__ import annotations

from pathlib import Path

from personalize.cards import Card
from personalize.files import read_json
from personalize.recipe import Inputs
from steps.generate import Config


def show(config: Config, inputs: Inputs, outputs: Path, card: Card) -> None:
    made, speed = read_json(outputs / "pictures.json"), read_json(outputs / "diagnostics/speed.json")
    card.facts({"model": made[0]["model"], "pictures": len(made), "seconds": speed["seconds"], "folder": config.output})
    pictures = [(outputs / row["file_name"], f"{row['prompt']} · seed {row['seed']}") for row in made]
    card.images("Pictures", pictures, columns=min(4, len(pictures)), width=320)
