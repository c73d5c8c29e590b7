"""The card of read."""

from pathlib import Path

from personalize.cards import Card
from personalize.recipe import Inputs
from steps.read import Config


def show(config: Config, inputs: Inputs, outputs: Path, card: Card) -> None:
    card.facts({"texts": len((outputs / "all.txt").read_text(encoding="utf-8").splitlines()), "title": config.title})
    if config.note:
        card.text(config.note)
