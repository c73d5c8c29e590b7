"""Runs in a workspace's own MLflow: what they leave goes to the workspace, and comes back from it."""

from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from tests.workspace import Fault


def test_what_a_run_leaves_lies_in_the_workspace(workspace, tracking, tmp_path):
    (tmp_path / "card.html").write_text("a chair")
    with mlflow.start_run(experiment_id=tracking) as run:
        mlflow.log_artifacts(str(tmp_path), "outputs")
    client, run_id = mlflow.MlflowClient(), run.info.run_id
    assert run.info.artifact_uri.startswith("dbfs:/databricks/mlflow-tracking/")
    assert [one.path for one in client.list_artifacts(run_id, "outputs")] == ["outputs/card.html"]
    there = workspace.path(f"/WorkspaceInternal/Mlflow/Artifacts/{tracking}/Runs/{run_id}/artifacts/outputs/card.html")
    there.write_text("a red chair")
    fetched = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="outputs/card.html")
    assert Path(fetched).read_text() == "a red chair"
    with pytest.raises(MlflowException, match="other\\.html"):
        mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="other.html")


def test_an_artifact_outlives_a_storm(workspace, tracking, faults):
    run_id = mlflow.MlflowClient().create_run(tracking).info.run_id
    faults += [Fault("PUT /api/2.0/fs/files", 429, times=2), Fault("PUT /api/2.0/fs/files", 503)]
    mlflow.MlflowClient().log_text(run_id, "a chair", "card.html")
    assert not any(fault.times for fault in faults)
    assert mlflow.artifacts.load_text(f"runs:/{run_id}/card.html") == "a chair"


def test_what_a_workspace_refuses_and_a_server_of_ones_own_does_not(tracking):
    with pytest.raises(MlflowException, match="must be an absolute path"):
        mlflow.create_experiment("chairs")
    model = mlflow.create_external_model(
        name="chair", source_run_id=mlflow.MlflowClient().create_run(tracking).info.run_id
    )
    with pytest.raises(MlflowException, match="finalized cannot be updated"):
        mlflow.MlflowClient().finalize_logged_model(model.model_id, "FAILED")
