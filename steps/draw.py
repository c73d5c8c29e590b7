"""Draw: the tuned model answers what the base was asked, from the same noise.   needs: caption, train   gives: images/

The Config extends baseline's, and recipe.yaml names no question for this step: what `baseline:` says there holds for
both, so that the adapter is the only difference between their pictures.
"""

from __future__ import annotations

from pathlib import Path

from personalize.recipe import Inputs
from steps import baseline

NEEDS = ("caption", "train")

sources = baseline.sources


class Config(baseline.Config):
    """What baseline is asked."""


def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    baseline.draw(config, inputs["caption"].path, outputs, lora=inputs["train"].path / "lora")
