"""The card of count."""

import json
from pathlib import Path

from personalize.cards import Card
from personalize.recipe import Inputs
from steps.count import Config


def show(config: Config, inputs: Inputs, outputs: Path, card: Card) -> None:
    counts = json.loads((outputs / "counts.json").read_text(encoding="utf-8"))
    about = json.loads((outputs / "about.json").read_text(encoding="utf-8"))
    card.outcome("rich" if about["words"] > 4 else "poor", words=str(about["words"]), commonest=next(iter(counts)))
    if about["words"] == 1:
        card.warning("One word is not much of a text.")
        card.warning("Nor is its repetition.")
    card.table("Counts", ["word", "count"], [[word, count] for word, count in counts.items()])
