"""Learn: an adapter, unless the token says that it fails, kills its process, waits, or is stuck."""

import os
import signal
import time
from pathlib import Path

from pydantic import Field

from personalize.files import file_digest, read_json, tree_digest, write_json
from personalize.recipe import OUTSIDE_DATA, Inputs, RecipeError, StepConfig

NEEDS = ("ingest", "prior")


class Config(StepConfig):
    captions: str = Field("", json_schema_extra=OUTSIDE_DATA)
    naps: float = 0.0


def sources(config: Config) -> dict[str, str]:
    return {"captions": file_digest(config.captions)} if config.captions else {}


def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    time.sleep(config.naps)
    for noun, token in read_json(inputs["ingest"].path / "subjects.json"):
        tries = Path("tries") / token
        tries.parent.mkdir(exist_ok=True)
        with tries.open("a") as file:
            file.write(f"{os.getpid()}\n")
        if token.startswith("fail"):
            raise RecipeError(f"{token}: loss is nan after {len(token)} steps")
        if token.startswith("kill") or (token.startswith("once") and len(tries.read_text().split()) == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if token.startswith(("wait", "stuck")):
            Path("waiting").touch()
            whole = 120
            for _ in range(whole if token.startswith("wait") else 1):
                time.sleep(1 if token.startswith("wait") else whole)
        digest = tree_digest(inputs["ingest"].path / token)
        write_json(outputs / f"{token}.json", [noun, digest, (inputs["prior"].path / f"{noun}.txt").read_text()])
