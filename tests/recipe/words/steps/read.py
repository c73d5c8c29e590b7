"""Read: gather the texts of a folder into one file."""

from pathlib import Path

from pydantic import Field

from personalize.files import tree_digest
from personalize.recipe import Inputs, StepConfig

NEEDS = ()


class Config(StepConfig):
    folder: Path = Field(description="where the texts are", json_schema_extra={"affects_result": False})
    title: str = Field("", description="what the collection is called")
    note: str | None = Field(None, description="anything worth adding", json_schema_extra={"affects_result": False})


def sources(config: Config) -> dict[str, str]:
    return {"texts": tree_digest(config.folder)}


def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    texts = sorted(config.folder.glob("*.txt"))
    if not texts:
        raise ValueError(f"{config.folder} holds no .txt file; put at least one there")
    (outputs / "all.txt").write_text("\n".join(text.read_text(encoding="utf-8") for text in texts), encoding="utf-8")
    (outputs / "title.txt").write_text(config.title, encoding="utf-8")
