"""Count: how often each word occurs.   needs: read   gives: counts.json"""

import json
from pathlib import Path

from pydantic import Field

from personalize.recipe import Inputs, StepConfig

NEEDS = ("read",)


class Config(StepConfig):
    top: int = Field(10, ge=1, description="how many words to keep")
    share: float = Field(0.0, description="the smallest share kept")
    seed: int = Field(0, description="seed")


def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    import mlflow
    from counting.tally import tally

    counts = tally((inputs["read"].path / "all.txt").read_text(encoding="utf-8"))
    (outputs / "counts.json").write_text(json.dumps(dict(counts.most_common(config.top))), encoding="utf-8")
    (outputs / "about.json").write_text(json.dumps({"words": len(counts)}), encoding="utf-8")
    mlflow.log_metric("words", sum(counts.values()))
