"""A workspace on loopback, and models registered in it through MLflow's own `databricks-uc` client."""

import os
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from personalize.databricks.snapshot import git
from tests.workspace import TOKEN, emulated

ROOT = Path(__file__).resolve().parents[2]
MODEL = "main.personalize.painter"
VOLUME = "/Volumes/main/personalize/files"
CLUSTER = {"new_cluster": {"spark_version": "17.3.x-gpu-ml-scala2.13", "node_type_id": "g5.4xlarge"}}


MIB = 2**20
PARTS = {"files_ext_multipart_upload_min_stream_size": 5 * MIB, "files_ext_multipart_upload_part_size_options": [MIB]}
"""Of the SDK's configuration: parts of 1 MiB from 5 MiB on, where they are of 10 from 50 on."""


@pytest.fixture
def small_parts(monkeypatch):
    """Files are large from 5 MiB on."""
    from databricks.sdk.config import Config

    for name, value in PARTS.items():
        monkeypatch.setattr(Config, name, value)


def signed_in(patch, workspace):
    """The environment's credentials lead to this workspace."""
    for stale in ("DATABRICKS_CONFIG_PROFILE", "DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET"):
        patch.delenv(stale, raising=False)
    patch.setenv("DATABRICKS_HOST", workspace.url)
    patch.setenv("DATABRICKS_TOKEN", TOKEN)
    patch.setenv("DATABRICKS_CONFIG_FILE", "/dev/null")
    patch.setenv("NO_PROXY", "*")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """The workspace that the environment's credentials lead to."""
    with pytest.MonkeyPatch.context() as patch, emulated(tmp_path_factory.mktemp("workspace")) as workspace:
        signed_in(patch, workspace)
        yield workspace


@pytest.fixture
def faults(workspace):
    """What the workspace's next calls meet; forgotten after the test."""
    yield workspace.faults
    workspace.faults.clear()


@pytest.fixture(scope="session")
def painters(tmp_path_factory):
    """A store with two logged models, a good one and one that cannot load: its address, and theirs."""
    import mlflow

    from tests.serving.test_local import SIGNATURE

    folder, before = tmp_path_factory.mktemp("tracking"), mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    (folder / "broken").write_text("x")
    painter = Path(__file__).parents[1] / "serving" / "painter.py"
    # a path, not file://: what lies at such an address MLflow takes for a copy of its own, and removes once it is sent
    experiment = mlflow.create_experiment("painting", artifact_location=str(folder / "artifacts"))
    with mlflow.start_run(experiment_id=experiment):
        logged = [
            mlflow.pyfunc.log_model(
                name="painter",
                python_model=str(painter),
                artifacts=artifacts,
                signature=SIGNATURE,
                pip_requirements=["mlflow"],
            ).model_uri
            for artifacts in (None, {"broken": str(folder / "broken")})
        ]
    mlflow.set_tracking_uri(before)
    return f"sqlite:///{folder}/mlflow.db", *logged


@pytest.fixture(scope="module")
def registry(workspace, painters):
    """Versions 1 and 2 of a good model, and version 3, which cannot load; version 1 is the champion."""
    import mlflow

    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    store, good, broken = painters
    mlflow.set_tracking_uri(store)
    mlflow.set_registry_uri("databricks-uc")
    for logged in (good, good, broken):
        mlflow.register_model(logged, MODEL)
    mlflow.MlflowClient().set_registered_model_alias(MODEL, "champion", "1")
    yield workspace
    mlflow.set_tracking_uri(before[0])
    mlflow.set_registry_uri(before[1])


@pytest.fixture
def tracking(workspace, monkeypatch):
    """The workspace's own tracking server, and an experiment in it."""
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri("databricks")
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    found = mlflow.get_experiment_by_name("/Users/a/personalize")
    yield found.experiment_id if found else mlflow.create_experiment("/Users/a/personalize")
    mlflow.set_tracking_uri(before)


def committed(folder, message="first"):
    """The folder as a Git repository with everything in it committed."""
    if not (folder / ".git").is_dir():
        git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", message)
    return folder


def small_project(folder, mlproject, entry):
    """A folder with this project's driver, an MLproject and its `entry.py`."""
    (folder / "personalize" / "databricks").mkdir(parents=True)
    for name in ("__init__.py", "databricks/__init__.py", "databricks/driver.py", "databricks/renewal.py"):
        shutil.copy(ROOT / "personalize" / name, folder / "personalize" / name)
    (folder / "MLproject").write_text(mlproject)
    (folder / "entry.py").write_text(entry)
    return folder


def results(workspace, number):
    """What each task of a job's run came to, once it has ended, and what they said."""
    while workspace.jobs.run(number)["alive"]:
        time.sleep(0.2)
    tasks = workspace.jobs.run(number)["tasks"]
    logs = [task["output"].read_text()[-3000:] for task in tasks if task["output"].is_file()]
    return {task["task"]["task_key"]: task["result"] for task in tasks}, "\n".join(logs)


def pushed(folder, monkeypatch):
    """A remote has the commit, under an address that looks like GitHub's and leads to this disk."""
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{folder.as_uri()}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "https://github.com/me/personalize.git")
    if "origin" not in git(folder, "remote"):
        git(folder, "remote", "add", "origin", "git@github.com:me/personalize.git")
    git(folder, "update-ref", "refs/remotes/origin/main", "HEAD")
    return folder


@pytest.fixture
def installed(tmp_path):
    """PYTHONPATH with what `make setup` installs of the project: its entry points."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    distribution = tmp_path / "site" / "personalize-0.dist-info"
    distribution.mkdir(parents=True)
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: personalize\nVersion: 0\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (distribution / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return f"{tmp_path / 'site'}:{ROOT}"


def mlflow_run(project, installed, *words, **variables):
    """`mlflow run` in a process of its own, as a person types it; its output and how it ended."""
    environment = {**os.environ, "PYTHONPATH": installed, **variables}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    command = [sys.executable, "-m", "mlflow", "run", str(project), *words]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=900)
    return done.stdout + done.stderr, done.returncode
