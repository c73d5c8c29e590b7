"""Boom: fails in the way it is told to."""

import os
import signal
import time
from pathlib import Path

from personalize.recipe import Inputs, StepConfig

NEEDS = ("read",)


class Config(StepConfig):
    how: str = "error"


def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    (outputs / "half.txt").write_text("half")
    if config.how == "error":
        raise RuntimeError("<b>boom</b>")
    if config.how == "full":
        raise OSError(28, "No space left on device", str(outputs / "big.bin"))
    if config.how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if config.how == "wait":
        (Path.cwd() / "waiting").touch()
        time.sleep(60)
