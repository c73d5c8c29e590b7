"""Workers and drivers killed at any moment: the same command finishes, nothing is made twice and nothing is left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import mlflow
import psutil
import pytest

from personalize.files import read_rows
from tests.fleet.conftest import Catalogue

KILLS = int(os.environ.get("KILLS", "5"))
"""Of each kind."""
SUBJECTS = [f"{noun}/{token}{letter}" for noun, token in (("chair", "chr"), ("sofa", "sof")) for letter in "ampqz"]


def workers_of(driver: int) -> list[psutil.Process]:
    with_work = []
    try:
        for process in psutil.Process(driver).children(recursive=True):
            if "carry_out" in " ".join(process.cmdline()):
                with_work.append(process)
    except psutil.Error:
        pass
    return with_work


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["worker", "driver"])
def test_whatever_is_killed_the_same_command_finishes(
    victim: str, project: Path, catalogue: Catalogue, outside: dict[str, str], store: str
) -> None:
    pytest.importorskip("ray", reason="FLEET NOT TESTED: Ray is not installed")
    chance = random.Random(victim)
    path = catalogue(SUBJECTS)
    words = [
        sys.executable, "-m", "personalize.recipe", "run", "--step", "fleet", "--set", f"fleet.catalogue={path}",
        "--set", "fleet.workers=2", "--set", "fleet.tries=9", "--learn.naps", "1.0",
    ]  # fmt: skip
    killed = 0
    while killed < KILLS:
        process = subprocess.Popen(words, cwd=project, env=outside, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        while process.poll() is None and killed < KILLS:
            if not workers_of(process.pid):
                time.sleep(0.1)
                continue
            time.sleep(chance.uniform(0, 3))
            if victim == "driver":
                process.send_signal(chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
                killed += 1
                break
            for worker in workers_of(process.pid)[:1]:
                worker.kill()
                killed += 1
        said = process.communicate(timeout=180)[0].decode()
        if process.returncode == 0 and victim == "driver" and killed < KILLS:
            break  # it came through before anybody was quick enough
    last = subprocess.run(words, cwd=project, env=outside, capture_output=True, text=True, timeout=300, check=False)
    assert last.returncode == 0, said + last.stdout + last.stderr

    client = mlflow.MlflowClient()
    runs = client.search_runs([os.environ["MLFLOW_EXPERIMENT_ID"]], max_results=5000)
    assert {run.info.status for run in runs} <= {"FINISHED", "FAILED", "KILLED"}
    finished = [run for run in runs if run.info.status == "FINISHED"]
    made = Counter(
        run.data.tags["recipe.fingerprint"]
        for run in finished
        if run.data.tags.get("recipe.step") not in (None, "fleet")
    )
    assert set(made.values()) == {1}, "nothing is made twice"
    by_step = Counter(run.data.tags["recipe.step"] for run in finished if "recipe.step" in run.data.tags)
    assert {step: by_step[step] for step in ("ingest", "prior", "learn", "judge")} == {
        "ingest": 10, "prior": 2, "learn": 10, "judge": 10,
    }  # fmt: skip
    latest = next(run for run in runs if run.data.tags.get("recipe.step") == "fleet" and run.info.status == "FINISHED")
    place = mlflow.artifacts.download_artifacts(run_id=latest.info.run_id, artifact_path="outputs/subjects.jsonl")
    assert sorted(row["subject"] for row in read_rows(place)) == sorted(SUBJECTS)
    assert {row["state"] for row in read_rows(place)} == {"done"}
    assert not list((project / "build/recipe/work").glob("*"))
