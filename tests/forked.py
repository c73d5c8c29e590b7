"""MLflow's own command line in a process forked from one that has imported it: five seconds less a command.

The command is the one that a person types, read by MLflow's own parser, in a folder and an environment of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["mlflow.cli"])


def mlflow(
    words: Sequence[str], cwd: Path, environment: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """`mlflow <words>`: what it printed, and how it ended. Raises subprocess.TimeoutExpired where it does not end."""
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder) / name for name in ("stdout", "stderr")]
        process = FORKS.Process(target=_cli, args=(list(words), str(cwd), dict(environment), *map(str, said)))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(["mlflow", *words], timeout)
        return subprocess.CompletedProcess(list(words), process.exitcode, *(path.read_text() for path in said))


def _cli(words: list[str], cwd: str, environment: dict[str, str], stdout: str, stderr: str) -> None:
    for number, name in ((1, stdout), (2, stderr)):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    from mlflow.cli import cli

    sys.argv = ["mlflow", *words]
    cli(words, prog_name="mlflow")
