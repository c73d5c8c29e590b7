"""Judge: likeness by the token's last letter; those below c do not pass."""

from pathlib import Path

from pydantic import Field

from personalize.files import read_json, write_json
from personalize.recipe import HOW_NOT_WHAT, Inputs, StepConfig

NEEDS = ("learn",)


class Config(StepConfig):
    rights: str = Field("", json_schema_extra=HOW_NOT_WHAT)


def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    import mlflow
    from PIL import Image

    tokens = sorted(path.stem for path in inputs["learn"].path.glob("*.json"))
    likeness = (ord(tokens[0][-1]) - ord("a")) / 25
    write_json(outputs / "scores.json", {"likeness": likeness, "tokens": tokens})
    for token in tokens:
        assert read_json(inputs["learn"].path / f"{token}.json")
    Image.new("RGB", (64, 64), (int(255 * likeness), 80, 80)).save(outputs / "sample.png")
    mlflow.log_metrics({"gap_closed": likeness, "clip_t": 0.5 + likeness / 4})
