"""Ingest: a subject's photographs, or several subjects' in folders."""

import json
import shutil
from pathlib import Path

from pydantic import Field

from personalize.files import tree_digest, write_json
from personalize.recipe import OUTSIDE_DATA, Inputs, RecipeError, StepConfig

NEEDS = ()


class Config(StepConfig):
    data: str = Field(json_schema_extra=OUTSIDE_DATA)
    token: str = ""
    class_noun: str = ""
    min_photographs: int = 3


def sources(config: Config) -> dict[str, str]:
    return {"data": tree_digest(config.data)}


def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    root = Path(config.data)
    if config.token:
        found = {(config.class_noun, config.token): root}
    else:
        found = {(place.parent.name, place.name): place for place in sorted(root.glob("*/*"))}
    for (_, token), place in found.items():
        shutil.copytree(place, outputs / token)
    if not any(outputs.rglob("*.png")):
        raise RecipeError(f"data: {config.data} has no photograph")
    write_json(outputs / "subjects.json", [list(pair) for pair in found])
    write_json(outputs / "nouns.json", sorted({noun for noun, _ in found}))
    assert json.loads((outputs / "nouns.json").read_text())
