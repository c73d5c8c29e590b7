"""Report: say which word is the commonest.   needs: read, count   gives: report.txt"""

import json
from pathlib import Path

from pydantic import Field

from personalize.recipe import Inputs, StepConfig

NEEDS = ("read", "count")


class Config(StepConfig):
    heading: str = Field(description="the first line")


def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    counts = json.loads((inputs["count"].path / "counts.json").read_text(encoding="utf-8"))
    (outputs / "nested").mkdir()
    (outputs / "nested" / "report.txt").write_text(f"{config.heading}: {max(counts, key=counts.get)}", encoding="utf-8")
