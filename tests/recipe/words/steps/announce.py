"""Announce: always runs, as asking someone does."""

from pathlib import Path

from pydantic import Field

from personalize.cards import Card
from personalize.recipe import Inputs, RecipeError, StepConfig

NEEDS = ("report",)
REUSE = False


class Config(StepConfig):
    by: str = Field(description="who announces")


def run(config: Config, inputs: Inputs, outputs: Path, card: Card) -> None:
    if config.by == "nobody":
        raise RecipeError("nobody cannot announce; give announce.by a name")
    card.text(f"announced by {config.by}")
