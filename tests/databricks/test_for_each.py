"""The fleet without Ray: docs/fleet.md's own job, one subject an iteration, carried out by the workspace."""

import json
import re

import mlflow
import pytest
import yaml
from databricks.sdk.errors import InvalidParameterValue
from databricks.sdk.service.jobs import GitProvider, GitSource, JobCluster, Task

from personalize.databricks.snapshot import git
from personalize.databricks.workspace import connect
from tests.databricks.conftest import CLUSTER, ROOT, committed, pushed, results, small_project
from tests.workspace.jobs import can_isolate

PROJECT = """\
name: tiny
entry_points:
  main:
    parameters: {profile: string, token: string, class_noun: string, data: string}
    command: "python entry.py {profile} {token} {class_noun} {data}"
"""
ENTRY = """\
import sys, mlflow
from pathlib import Path
profile, token, noun, data = sys.argv[1:]
tried = Path("/Volumes/main/personalize/files/tried")
with mlflow.start_run():
    mlflow.log_params({"profile": profile, "token": token, "class_noun": noun, "data": data})
    if token == "brksof" and not tried.exists():
        tried.touch()
        raise SystemExit("a machine was lost")
"""


@pytest.fixture
def tasks() -> list[Task]:
    """Those of the page, where the code comes from Git."""
    page = (ROOT / "docs" / "fleet.md").read_text(encoding="utf-8")
    [told] = [
        yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "for_each" in block
    ]
    python = told["tasks"][0]["for_each_task"]["task"]["spark_python_task"]
    python |= {"python_file": python["python_file"].removeprefix("./"), "source": "GIT"}
    return [Task.from_dict(task) for task in told["tasks"]]


def created(tasks: list[Task], commit: str = "0" * 40) -> int:
    source = GitSource("https://github.com/me/personalize.git", GitProvider.GIT_HUB, git_commit=commit)
    clusters = [JobCluster.from_dict({"job_cluster_key": "gpu", **single_node()})]
    job = connect().jobs.create(name="fleet", tasks=tasks, git_source=source, job_clusters=clusters)
    return int(job.job_id)


def single_node() -> dict:
    conf = {"spark.databricks.cluster.profile": "singleNode", "spark.master": "local[*]"}
    return {"new_cluster": CLUSTER["new_cluster"] | {"spark_conf": conf, "data_security_mode": "SINGLE_USER"}}


@pytest.mark.slow
@pytest.mark.skipif(not can_isolate(), reason="JOBS NOT TESTED: this machine allows no mount namespace")
def test_the_pages_job_runs_every_subject_and_tries_one_again_whose_machine_was_lost(
    workspace, tracking, tasks, tmp_path, monkeypatch
):
    project = pushed(committed(small_project(tmp_path / "project", PROJECT, ENTRY)), monkeypatch)
    job = created(tasks, git(project, "rev-parse", "HEAD").strip())
    run = connect().jobs.run_now(job).response.run_id
    assert results(workspace, run)[0] == {"fleet": "SUCCESS"}
    experiment = mlflow.get_experiment_by_name("/Shared/personalize")
    runs = mlflow.search_runs([experiment.experiment_id], output_format="list")
    done = {run.data.params["token"]: run.data.params for run in runs if run.info.status == "FINISHED"}
    assert done["zwvchr"] == {
        "profile": "databricks",
        "token": "zwvchr",
        "class_noun": "chair",
        "data": "/Volumes/main/personalize/files/products/chair/zwvchr",
    }
    assert done["brksof"]["data"].endswith("/sofa/brksof")
    assert len(done) == 2
    assert len(runs) == 3, "one was tried twice"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"inputs": json.dumps(["x" * 10_000])}, "10000 characters"),
        ({"inputs": "chairs"}, "JSON array"),
        ({"concurrency": 101}, "between 1 and 100"),
    ],
)
def test_what_the_workspace_refuses_of_such_a_task(workspace, tasks, change, words):
    for name, value in change.items():
        setattr(tasks[0].for_each_task, name, value)
    with pytest.raises(InvalidParameterValue, match=words):
        created(tasks)
