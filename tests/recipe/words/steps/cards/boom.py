"""The card of boom."""

from pathlib import Path

from personalize.cards import Card
from personalize.recipe import Inputs
from steps.boom import Config


def show(config: Config, inputs: Inputs, outputs: Path, card: Card) -> None:
    if (outputs / "half.txt").exists():
        card.text("so far so good")
