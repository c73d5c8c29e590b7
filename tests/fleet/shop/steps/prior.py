"""Prior: what a class looks like, whoever its subject is."""

from pathlib import Path

from personalize.files import read_json, write_text
from personalize.recipe import Inputs, StepConfig

NEEDS = ("ingest",)
READS = {"ingest": ("nouns.json",)}


class Config(StepConfig):
    shade: int = 3


def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    place = inputs["ingest"].path
    assert sorted(path.name for path in place.iterdir()) == ["nouns.json"], "it is given no other file"
    for noun in read_json(place / "nouns.json"):
        write_text(outputs / f"{noun}.txt", f"{noun} {config.shade}")
