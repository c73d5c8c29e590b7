"""Workers, drivers, nodes and the tracking server killed at any moment: the same command finishes.

Nothing is made twice and nothing is left. Nodes are a cluster's on one machine (`ray.cluster_utils`), which every
process of it reaches by the network as it would others.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import mlflow
import psutil
import pytest

from personalize.files import read_rows
from tests.fleet.conftest import Catalogue
from tests.postgres import postgres
from tests.tracking import Tracking

KILLS = int(os.environ.get("KILLS", "5"))
"""Of each kind."""
SUBJECTS = [f"{noun}/{token}{letter}" for noun, token in (("chair", "chr"), ("sofa", "sof")) for letter in "ampqz"]


def command(path: str) -> list[str]:
    return [
        sys.executable, "-m", "personalize.recipe", "run", "--step", "fleet", "--set", f"fleet.catalogue={path}",
        "--set", "fleet.workers=2", "--set", "fleet.tries=9", "--learn.naps", "1.0",
    ]  # fmt: skip


def workers_of(driver: int) -> list[psutil.Process]:
    with_work = []
    try:
        for process in psutil.Process(driver).children(recursive=True):
            if "carry_out" in " ".join(process.cmdline()):
                with_work.append(process)
    except psutil.Error:
        pass
    return with_work


class Nodes:
    """A cluster of two nodes that carry subjects out, and a head that does not."""

    def __init__(self) -> None:
        cluster_utils = importlib.import_module("ray.cluster_utils")
        self.cluster = cluster_utils.Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
        )
        self.nodes = [self.cluster.add_node(num_cpus=1) for _ in range(2)]

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def lose(self, which: int) -> None:
        """One goes without a word, and another comes."""
        self.cluster.remove_node(self.nodes.pop(which), allow_graceful=False)
        self.nodes.append(self.cluster.add_node(num_cpus=1))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, outside: dict[str, str]) -> Iterator[Nodes]:
    pytest.importorskip("ray", reason="FLEET NOT TESTED: Ray is not installed")
    monkeypatch.setenv("PYTHONPATH", outside["PYTHONPATH"])  # a cluster's processes have the environment of its start
    nodes = Nodes()
    yield nodes
    nodes.cluster.shutdown()


@pytest.fixture
def tracking(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outside: dict[str, str]
) -> Iterator[Tracking]:
    """On PostgreSQL, where there is one."""
    with contextlib.ExitStack() as stack:
        try:
            database = stack.enter_context(postgres())
        except pytest.skip.Exception as why:
            print(f"mind: {why}; the server keeps its runs in a file")
            database = store
        server = Tracking(database, tmp_path)
        stack.callback(server.kill)
        server.wait()
        for name, value in {
            "MLFLOW_TRACKING_URI": server.uri,
            "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
            "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
        }.items():
            monkeypatch.setenv(name, value)
            outside[name] = value
        outside["MLFLOW_EXPERIMENT_ID"] = mlflow.MlflowClient().create_experiment("killed")
        monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", outside["MLFLOW_EXPERIMENT_ID"])
        yield server


@pytest.mark.slow
def test_a_tracking_server_that_is_killed_again_and_again_costs_a_fleet_nothing(
    project: Path, catalogue: Catalogue, outside: dict[str, str], tracking: Tracking
) -> None:
    chance, killed, words = random.Random("server"), 0, command(catalogue(SUBJECTS))
    while killed < KILLS:
        process = subprocess.Popen(words, cwd=project, env=outside, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        while process.poll() is None and killed < KILLS:
            time.sleep(chance.uniform(0, 6))
            tracking.kill()
            killed += 1
            time.sleep(chance.uniform(0, 2))
            tracking.start()
            tracking.wait()
        process.communicate(timeout=600)
        if process.returncode == 0:
            break
    settled(project, words, outside)


@pytest.mark.slow
def test_a_node_that_is_lost_again_and_again_costs_a_fleet_nothing(
    project: Path, catalogue: Catalogue, outside: dict[str, str], cluster: Nodes, tracking: Tracking
) -> None:
    chance, killed, words = random.Random("node"), 0, command(catalogue(SUBJECTS))
    outside["RAY_ADDRESS"] = cluster.address
    while killed < KILLS:
        process = subprocess.Popen(words, cwd=project, env=outside, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        while process.poll() is None and killed < KILLS:
            time.sleep(chance.uniform(4, 10))
            cluster.lose(chance.randrange(2))
            killed += 1
        said = process.communicate(timeout=600)[0].decode()
        if process.returncode == 0:
            break
    print(said[-1000:])
    settled(project, words, outside)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["worker", "driver"])
def test_whatever_is_killed_the_same_command_finishes(
    victim: str, project: Path, catalogue: Catalogue, outside: dict[str, str], store: str
) -> None:
    pytest.importorskip("ray", reason="FLEET NOT TESTED: Ray is not installed")
    chance = random.Random(victim)
    words = command(catalogue(SUBJECTS))
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
        process.communicate(timeout=180)
        if process.returncode == 0 and victim == "driver" and killed < KILLS:
            break  # it came through before anybody was quick enough
    settled(project, words, outside)


def settled(project: Path, words: list[str], environment: dict[str, str]) -> None:
    """The same command finishes, and what there is then is what an undisturbed fleet leaves."""
    last = subprocess.run(words, cwd=project, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert last.returncode == 0, last.stdout + last.stderr

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
