"""The deployment job of a new version: its tasks, an approval, a repair, and what promote asks for yet."""

import shutil
import time

import mlflow
import pytest

from personalize.databricks import deployment_job
from personalize.databricks.workspace import connect
from tests.databricks.conftest import MODEL, ROOT, VOLUME, committed
from tests.workspace.jobs import can_isolate

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(not can_isolate(), reason="JOBS NOT TESTED: this machine allows no mount namespace"),
]


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


def test_an_approval_in_the_workspace_does_not_stand_for_an_evaluation(registry, tracking, project):
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
    assert came_to == {"Evaluation": "SUCCESS", "Approval_Check": "SUCCESS", "Deployment": "FAILED"}, logs
    assert "version 2 cannot be promoted: it has no statement of what it is made of" in logs["Deployment"]
    assert "champion" not in client.get_model_version(MODEL, "2").aliases
    registry.registry.models[MODEL]["deployment_job_id"] = ""
