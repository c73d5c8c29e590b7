"""Announce: always runs, as asking someone does."""

from pathlib import Path

from pydantic import Field

from personalize.recipe import Inputs, RecipeError, StepConfig

NEEDS = ("report",)
REUSE = False
ACTS = True


class Config(StepConfig):
    by: str = Field(description="who announces")


def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    if config.by == "nobody":
        raise RecipeError("nobody cannot announce; give announce.by a name")
