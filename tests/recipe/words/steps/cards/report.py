"""The card of report."""

import json
from pathlib import Path

from personalize.cards import Card
from personalize.recipe import Inputs
from steps.report import Config


def show(config: Config, inputs: Inputs, outputs: Path, card: Card) -> None:
    counts = json.loads((inputs["count"].path / "counts.json").read_text(encoding="utf-8"))
    card.verdict("passed", f"{sum(counts.values())} words, {inputs['count'].metrics['words']:.0f} in all")
