"""Killed again and again at any moment, a recipe loses nothing and leaves nothing: `KILLS=500` for a long night."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest

from personalize import files
from personalize.recipe import Recipe

KILLS = int(os.environ.get("KILLS", "60"))


def results(root: Path) -> dict[str, str]:
    """What each step made, by digest."""
    recipe = Recipe("local", root=root)
    return {step: files.tree_digest(recipe.get_artifact(step)) for step in ("read", "count", "report")}


@pytest.mark.slow
def test_whatever_is_killed_the_same_command_finishes_and_nothing_is_left(
    project: Path, outside: dict[str, str], store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(0)
    monkeypatch.chdir(project)
    words = [sys.executable, "-m", "personalize.recipe", "run"]
    started = time.monotonic()
    subprocess.run(words, cwd=project, env=outside, check=True, capture_output=True)
    whole = time.monotonic() - started
    expected, finished = results(project), 0
    for number in range(KILLS):
        text = project / "texts" / "a.txt"
        if number % 4 == 0:  # something new to do; in between, the same is gone on with
            text.write_text(f"the cat and the dog {number}")
        process = subprocess.Popen(words, cwd=project, env=outside, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        time.sleep(chance.uniform(0, whole))
        process.send_signal(chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        said = process.communicate(timeout=120)[0].decode()
        finished += process.returncode == 0
        assert "disk I/O" not in said and "malformed" not in said, said  # noqa: PT018
    text.write_text("the cat and the dog")
    last = subprocess.run(words, cwd=project, env=outside, capture_output=True, text=True, check=True)
    assert results(project) == expected, last.stdout
    assert finished < KILLS, "somebody was killed"
    client = mlflow.MlflowClient()
    runs = client.search_runs([os.environ["MLFLOW_EXPERIMENT_ID"]], max_results=5000)
    assert {run.info.status for run in runs} <= {"FINISHED", "FAILED", "KILLED"}
    assert not list((project / "build" / "recipe" / "work").glob("*"))
    again = subprocess.run(words, cwd=project, env=outside, capture_output=True, text=True, check=True)
    assert "run    " not in again.stdout, "everything is reused"
