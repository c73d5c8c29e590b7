"""A workspace on loopback, and models registered in it through MLflow's own `databricks-uc` client."""

from pathlib import Path

import pytest

from personalize.databricks.snapshot import git
from tests.workspace import TOKEN, emulated

ROOT = Path(__file__).resolve().parents[2]
MODEL = "main.personalize.painter"
VOLUME = "/Volumes/main/personalize/files"
CLUSTER = {"new_cluster": {"spark_version": "17.3.x-gpu-ml-scala2.13", "node_type_id": "g5.4xlarge"}}


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


@pytest.fixture(scope="module")
def registry(workspace, tmp_path_factory):
    """Versions 1 and 2 of a good model, and version 3, which cannot load; version 1 is the champion."""
    import mlflow

    from tests.serving.test_local import SIGNATURE

    folder = tmp_path_factory.mktemp("tracking")
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.set_registry_uri("databricks-uc")
    (folder / "broken").write_text("x")
    painter = Path(__file__).parents[1] / "serving" / "painter.py"
    experiment = mlflow.create_experiment("painting", artifact_location=(folder / "artifacts").as_uri())
    with mlflow.start_run(experiment_id=experiment):
        for artifacts in (None, None, {"broken": str(folder / "broken")}):
            mlflow.pyfunc.log_model(
                name="painter",
                python_model=str(painter),
                artifacts=artifacts,
                signature=SIGNATURE,
                pip_requirements=["mlflow"],
                registered_model_name=MODEL,
            )
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


def pushed(folder, monkeypatch):
    """A remote has the commit, under an address that looks like GitHub's and leads to this disk."""
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{folder.as_uri()}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "https://github.com/me/personalize.git")
    if "origin" not in git(folder, "remote"):
        git(folder, "remote", "add", "origin", "git@github.com:me/personalize.git")
    git(folder, "update-ref", "refs/remotes/origin/main", "HEAD")
    return folder
