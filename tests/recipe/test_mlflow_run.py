"""The real `mlflow run`: parameters arrive as they were typed, and the project run is the parent."""

import signal
import subprocess
import sys
from pathlib import Path

import mlflow
import psutil
import pytest

from personalize.recipe import Recipe
from tests.waiting import wait_for

TITLES = 'it\'s "quoted" {braces} $HOME `date` \\n; ünï 日本 --yes'


def mlflow_run(project: Path, environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mlflow", "run", ".", "--env-manager", "local", *words]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def environment(outside: dict[str, str]) -> dict[str, str]:
    return {**outside, "PATH": f"{Path(sys.executable).parent}:{outside['PATH']}"}


def test_parameters_arrive_as_typed_and_steps_are_nested(
    project: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = mlflow_run(project, environment, "-P", f"text={TITLES}", "-P", "count.seed=3", "-P", "read.note=-0 'x'")
    assert done.returncode == 0, done.stderr
    (parent,) = mlflow.search_runs(filter_string="tags.`recipe.target` != ''", output_format="list")
    assert parent.data.tags["mlflow.source.type"] == "PROJECT"
    assert parent.info.status == "FINISHED"
    (read,) = mlflow.search_runs(filter_string="tags.`recipe.step` = 'read'", output_format="list")
    assert read.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert read.data.params["read.title"] == TITLES
    assert read.data.params["read.note"] == "-0 'x'"
    monkeypatch.chdir(project)
    same = Recipe(overrides={"read.title": TITLES, "count.seed": 3, "read.note": "-0 'x'"})
    assert same.get_artifact("read/title.txt").read_text() == TITLES


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_it_started_ends_with_it(project: Path, environment: dict[str, str], number: int) -> None:
    words = ["-e", "boom", "--env-manager", "local", "-P", "boom.how=wait"]
    command = [sys.executable, "-m", "mlflow", "run", ".", *words]
    started = subprocess.Popen(command, cwd=project, env=environment, stdout=subprocess.DEVNULL)
    try:
        assert wait_for((project / "waiting").exists, 120)
        ours = psutil.Process(started.pid).children(recursive=True)
        assert ours
        started.send_signal(number)
        assert not psutil.wait_procs(ours, timeout=30)[1]
    finally:
        started.kill()
        started.wait()
    runs = mlflow.search_runs(output_format="list")
    statuses = {run.data.tags.get("recipe.step", "parent"): run.info.status for run in runs}
    assert statuses == {"parent": "KILLED", "read": "FINISHED", "boom": "KILLED"}


def test_the_run_of_a_plan_says_that_it_is_one(project: Path, environment: dict[str, str]) -> None:
    done = mlflow_run(project, environment, "-P", "plan=true")
    assert done.returncode == 0, done.stderr
    assert "words · profile local · until report" in done.stdout
    (planned,) = mlflow.search_runs(output_format="list")
    assert (planned.info.run_name, planned.info.status) == ("plan", "FINISHED")
    assert "count   run" in planned.data.tags["recipe.plan"]
    assert "nothing was run" in planned.data.tags["mlflow.note.content"]


def test_a_plan_inside_a_run_of_somebodys_own_leaves_that_alone(run, monkeypatch: pytest.MonkeyPatch) -> None:
    with mlflow.start_run() as own:
        monkeypatch.setenv("MLFLOW_RUN_ID", own.info.run_id)
        assert run("run", "--plan")[0] == 0
        now = mlflow.get_run(own.info.run_id)
    assert now.info.run_name == own.info.run_name
    assert "recipe.plan" not in now.data.tags


def test_an_unknown_parameter_fails_and_names_the_nearest(project: Path, environment: dict[str, str]) -> None:
    done = mlflow_run(project, environment, "-P", "topp=3")
    assert done.returncode != 0
    assert "-P topp=3: unknown parameter 'topp'; did you mean 'top'?" in done.stderr
    assert "personalize/recipe" not in done.stderr  # no traceback of ours
