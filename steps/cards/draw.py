"""What the tuned model drew, subject by subject."""

from __future__ import annotations

from pathlib import Path

from personalize.cards import Card
from personalize.recipe import Inputs
from steps.cards.baseline import answers
from steps.draw import Config


def show(config: Config, inputs: Inputs, outputs: Path, card: Card) -> None:
    card.text("The base with the adapter, asked the same from the same noise. How good it is the evaluation card says.")
    answers("tuned", outputs, card)
