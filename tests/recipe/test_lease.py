"""A run whose process died is ended by the next; one that somebody works on is left alone."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from personalize.recipe import lease
from tests.recipe.conftest import Run
from tests.waiting import wait_for


@pytest.fixture
def waiting(project: Path, outside: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The recipe in a process of its own, in the middle of a step."""
    words = [sys.executable, "-m", "personalize.recipe", "run", "--step", "boom", "--boom.how", "wait"]
    process = subprocess.Popen(words, cwd=project, env=outside, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for((project / "waiting").exists, 120)
    yield process
    process.kill()
    process.wait()


def states() -> dict[str, str]:
    client = mlflow.MlflowClient()
    runs = client.search_runs([os.environ["MLFLOW_EXPERIMENT_ID"]], max_results=100)
    return {run.info.run_name: run.info.status for run in runs}


def test_the_next_run_ends_those_of_a_killed_process(run: Run, waiting: subprocess.Popen[bytes]) -> None:
    waiting.kill()
    waiting.wait()
    before = states()
    assert sorted(before.values()) == ["FINISHED", "RUNNING", "RUNNING"]
    status, said = run("run", "--step", "read")
    assert status == 0
    assert "marked as killed, for nobody works on them any more: " in said
    assert "RUNNING" not in states().values()
    assert states()["boom"] == "KILLED"
    assert "marked as killed" not in run("run", "--step", "read")[1]


def test_a_living_process_keeps_its_runs(run: Run, waiting: subprocess.Popen[bytes]) -> None:
    assert "marked as killed" not in run("run", "--step", "read")[1]
    assert list(states().values()).count("RUNNING") == 2
    assert waiting.poll() is None


def test_what_others_log_is_theirs_to_end(run: Run, store: str) -> None:
    client = mlflow.MlflowClient()
    stranger = client.create_run(os.environ["MLFLOW_EXPERIMENT_ID"], run_name="somebody's own")
    run("run", "--step", "read")
    assert client.get_run(stranger.info.run_id).info.status == "RUNNING"


def test_a_step_outlives_no_project_run(run: Run, waiting: subprocess.Popen[bytes]) -> None:
    """As where `mlflow run` itself has lived to end the run that it opened."""
    client = mlflow.MlflowClient()
    (above,) = [r for r in client.search_runs([os.environ["MLFLOW_EXPERIMENT_ID"]]) if lease.TAG in r.data.tags]
    waiting.kill()
    waiting.wait()
    client.set_terminated(above.info.run_id, "FAILED")
    run("run", "--step", "read")
    assert states()["boom"] == "KILLED"
    assert client.get_run(above.info.run_id).info.status == "FAILED"


def test_a_run_that_mlflow_has_opened_is_leased_before_anything_is_asked_of_a_step(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = mlflow.MlflowClient().create_run(os.environ["MLFLOW_EXPERIMENT_ID"]).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", opened)
    code = project / "steps" / "count.py"
    code.write_text(code.read_text() + "\n\ndef check(config):\n    raise ValueError('not today')\n")
    assert run("run")[0] == 2
    assert lease.TAG in mlflow.MlflowClient().get_run(opened).data.tags


def test_a_project_run_is_leased_from_its_first_moment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(store: object, run_id: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("personalize.recipe.runner.lease", killed)
    assert run("run")[0] == 130
    (found,) = mlflow.MlflowClient().search_runs([os.environ["MLFLOW_EXPERIMENT_ID"]])
    assert lease.TAG in found.data.tags


def test_another_machines_lease_holds_until_it_has_run_out() -> None:
    held = json.loads(lease._written())
    there = {**held, "place": "elsewhere", "pid": 1}
    assert not lease._is_gone(json.dumps(there))
    assert lease._is_gone(json.dumps({**there, "until": time.time() - 1}))
    assert not lease._is_gone(json.dumps(held)), "this very process"
    assert lease._is_gone(json.dumps({**held, "began": 1.0})), "another had its number before"
    assert not lease._is_gone("what a later version writes")


def test_a_lease_is_renewed_while_the_block_lasts(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEWED_S", 0.05)
    client = mlflow.MlflowClient()
    run = client.create_run(os.environ["MLFLOW_EXPERIMENT_ID"])
    place = lease.Store(client, run.info.experiment_id, [run.info.experiment_id], Path.cwd())
    with lease.lease(place, run.info.run_id):
        first = client.get_run(run.info.run_id).data.tags[lease.TAG]
        monkeypatch.setattr(lease, "LASTS_S", 9000)
        wait_for(lambda: client.get_run(run.info.run_id).data.tags[lease.TAG] != first, 30)
    assert json.loads(client.get_run(run.info.run_id).data.tags[lease.TAG])["until"] > json.loads(first)["until"]
