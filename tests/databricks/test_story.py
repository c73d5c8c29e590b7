"""From a new version to a picture: the deployment job's tasks, an approval, a repair, a canary and a way back."""

import shutil
import time

import mlflow
import pytest

from personalize.databricks import deployment_job
from personalize.databricks.serving import DatabricksEndpoint
from personalize.databricks.workspace import connect
from personalize.serving.registry import resolve
from tests.databricks.conftest import MODEL, ROOT, VOLUME, committed
from tests.workspace.jobs import can_isolate

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(not can_isolate(), reason="JOBS NOT TESTED: this machine allows no mount namespace"),
]
SMOKE = {"prompt": "a chair", "width": 24, "height": 16}


@pytest.fixture
def project(tmp_path):
    """The project itself, without its lock file: its jobs run in the runtime's Python, which is ours."""
    folder = tmp_path / "project"
    for name in ("profiles", "personalize", "steps"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("recipe.yaml", "MLproject", "conda.yaml"):
        shutil.copy(ROOT / name, folder)
    return committed(folder)


def results(workspace, number):
    """What each task came to, once the run has ended."""
    while workspace.jobs.run(number)["alive"]:
        time.sleep(0.2)
    tasks = workspace.jobs.run(number)["tasks"]
    logs = {task["task"]["task_key"]: task["output"].read_text()[-3000:] for task in tasks if task["output"].is_file()}
    return {task["task"]["task_key"]: task["result"] for task in tasks}, logs


def test_a_version_is_approved_in_the_workspace_and_ends_as_a_picture(registry, tracking, project):
    client = mlflow.MlflowClient(registry_uri="databricks-uc")
    run = client.create_run(tracking)
    client.log_text(run.info.run_id, "<html>", "card.html")
    for version in ("1", "2"):
        client.set_model_version_tag(MODEL, version, "card", f"runs:/{run.info.run_id}/card.html")
        client.set_model_version_tag(MODEL, version, "verdict", "passed")
    config = {"accelerator": "GPU_1xA10", "volume": VOLUME}
    job = deployment_job.make(connect(), project, config, MODEL, "databricks", "/Users/a/personalize", "version")
    registry.new_version(str(job), MODEL, "2")
    number = max(registry.jobs.runs)

    came_to, logs = results(registry, number)
    assert came_to == {"Evaluation": "SUCCESS", "Approval_Check": "FAILED", "Deployment": "UPSTREAM_FAILED"}, logs
    assert "press Approve on the version's page" in logs["Approval_Check"]

    client.set_model_version_tag(MODEL, "2", "Approval_Check", "Approved")  # what the button does, and then:
    connect().jobs.repair_run(number, rerun_all_failed_tasks=True)
    came_to, logs = results(registry, number)
    assert set(came_to.values()) == {"SUCCESS"}, logs
    assert client.get_model_version_by_alias(MODEL, "champion").version == "2"
    assert client.get_model_version(MODEL, "2").tags["approval_by"] == "the workspace's Approve button"

    endpoint = DatabricksEndpoint("personalize", poll_s=0.01, report=lambda _: None)
    try:
        assert endpoint.query(SMOKE)[0].open().size == (24, 16)
        endpoint.traffic = 10
        assert endpoint.deploy(resolve(f"models:/{MODEL}/1"), SMOKE).version == "2", "a tenth is not the most"
        assert endpoint.rollback().version == "2"
        assert endpoint.status().note == ""
    finally:
        endpoint.delete()
        client.set_registered_model_alias(MODEL, "champion", "1")
        registry.registry.models[MODEL]["deployment_job_id"] = ""
