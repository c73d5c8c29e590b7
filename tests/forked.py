"""Command lines in processes forked from one that has imported MLflow: five seconds less each.

The command is the one that a person types, read by the same parser, in a folder and an environment of its own. The
project's modules are not imported before: they are those of the folder that it runs in.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["mlflow.cli"])


def mlflow(
    words: Sequence[str], cwd: Path, environment: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """`mlflow <words>`: what it printed, and how it ended. Raises subprocess.TimeoutExpired where it does not end."""
    return _called(_mlflow, words, cwd, environment, timeout)


def recipe(
    words: Sequence[str], cwd: Path, environment: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """`python -m personalize.recipe <words>` of the project in `cwd`, in the same way."""
    return _called(recipe_command, words, cwd, environment, timeout)


def begin(
    cli: Callable[[list[str]], None], words: Sequence[str], cwd: Path, environment: Mapping[str, str], said: Path
) -> BaseProcess:
    """A command in a session of its own, for whoever kills it; what it prints is appended to the file `said`."""
    process = FORKS.Process(target=_apart, args=(cli, list(words), str(cwd), dict(environment), str(said)))
    process.start()
    return process


def _called(
    cli: Callable[[list[str]], None], words: Sequence[str], cwd: Path, environment: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder) / name for name in ("stdout", "stderr")]
        process = FORKS.Process(target=_call, args=(cli, list(words), str(cwd), dict(environment), *map(str, said)))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(list(words), timeout)
        return subprocess.CompletedProcess(list(words), process.exitcode, *(path.read_text() for path in said))


def _apart(
    cli: Callable[[list[str]], None], words: list[str], cwd: str, environment: dict[str, str], said: str
) -> None:
    os.setsid()
    _call(cli, words, cwd, environment, said, said)


def _call(
    cli: Callable[[list[str]], None],
    words: list[str],
    cwd: str,
    environment: dict[str, str],
    stdout: str,
    stderr: str,
) -> None:
    for number, name in ((1, stdout), (2, stderr)):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.chdir(cwd)
    sys.path.insert(0, cwd)
    os.environ.clear()
    os.environ.update(environment)
    cli(words)


def _mlflow(words: list[str]) -> None:
    from mlflow.cli import cli

    sys.argv = ["mlflow", *words]
    cli(words, prog_name="mlflow")


def tracking_server(words: list[str]) -> None:
    """What `mlflow server --backend-store-uri <store> --artifacts-destination <place> --port <port>` runs."""
    store, place, port = words
    from mlflow.server import constants

    os.environ[constants.BACKEND_STORE_URI_ENV_VAR] = os.environ[constants.REGISTRY_STORE_URI_ENV_VAR] = store
    os.environ[constants.ARTIFACTS_DESTINATION_ENV_VAR] = place
    os.environ[constants.ARTIFACT_ROOT_ENV_VAR] = "mlflow-artifacts:/"
    os.environ[constants.SERVE_ARTIFACTS_ENV_VAR] = "true"
    import uvicorn

    uvicorn.run("mlflow.server.fastapi_app:app", host="127.0.0.1", port=int(port), log_level="warning")


def recipe_command(words: list[str]) -> None:
    from personalize.recipe.__main__ import main

    sys.argv = ["personalize.recipe", *words]
    sys.exit(main(words))
