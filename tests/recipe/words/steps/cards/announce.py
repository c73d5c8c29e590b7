"""The card of announce."""

from pathlib import Path

from personalize.cards import Card
from personalize.recipe import Inputs
from steps.announce import Config


def show(config: Config, inputs: Inputs, outputs: Path, card: Card) -> None:
    card.text(f"announced by {config.by}")
