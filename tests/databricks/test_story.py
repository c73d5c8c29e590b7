"""One story as a person lives it: an empty workspace, a job, an approval, a canary, a way back, a picture.

Real runs of the miniature, real evidence, a served model in a process of its own; only the workspace is a double.
"""

import json
import os
import shlex
import shutil
from pathlib import Path

import mlflow
import pytest
import yaml
from PIL import Image

from personalize.databricks.workspace import connect
from personalize.evidence import keys
from tests.databricks.conftest import CLUSTER, ROOT, committed, mlflow_run, results, signed_in
from tests.workspace import emulated
from tests.workspace.containers import Container
from tests.workspace.jobs import can_isolate

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.slow,  # five minutes; its parts are tested each by itself: setup, jobs, deployment job, serving
    pytest.mark.skipif(not can_isolate(), reason="JOBS NOT TESTED: this machine allows no mount namespace"),
]

STUDIO = "/Volumes/studio/chairs/files"
MODEL = "studio.chairs.chair"
HERE = ("--env-manager", "local")
JOB = ("-b", "databricks-jobs", "--backend-config", "cluster.json")
PROMPT = "a photo of a chnchr chair on the beach"
SHORT = {
    "RESOLUTION": 64,
    "MAX_TRAIN_STEPS": 2,
    "RANK": 2,
    "VALIDATION_EVERY": 2,
    "PRIOR_IMAGES": 1,
    "PRIOR_PROMPTS": ["a photo of a {class_noun}"],
    "EVALUATION_STEPS": 2,
    "SEEDS_PER_PROMPT": 1,
    "PROMPTS": {
        "places": {
            place: f"a photo of a {{token_noun}} {place}"
            for place in ("outside", "inside", "at sea", "in snow", "at home")
        }
    },
    # Two steps teach nothing: this gate asks only that the model was measured, so that the story can go on.
    "GATES": [{"metric": "clip_t", "kind": "threshold", "threshold": -1}],
}


@pytest.fixture
def empty(tmp_path_factory, monkeypatch):
    """A workspace with nothing in it, whose endpoints run what they serve in processes of their own."""
    with emulated(tmp_path_factory.mktemp("empty"), furnished=False) as workspace:
        signed_in(monkeypatch, workspace)
        before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "databricks")
        mlflow.set_tracking_uri("databricks")
        mlflow.set_registry_uri("databricks-uc")
        workspace.serving.kind, workspace.serving.looks_until_ready = Container, 0
        team = {keys.SETTING: os.environ[keys.SETTING]}  # a team's key, which a job gets as a secret
        workspace.jobs.variables = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **team}
        yield workspace
        mlflow.set_tracking_uri(before[0])
        mlflow.set_registry_uri(before[1])


@pytest.fixture
def project(tmp_path):
    """The project with four photographs, the miniature models, and a profile `studio`: databricks with the miniature's.

    Without its lock file: its jobs run in the runtime's Python, which is ours.
    """
    folder = tmp_path / "project"
    for name in ("profiles", "personalize", "steps"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("recipe.yaml", "MLproject", "conda.yaml", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    for number in range(1, 5):
        (folder / "data/chair/chnchr").mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / f"data/chair/chnchr/0{number}.jpg", folder / "data/chair/chnchr")
    for name in ("sdxl", "clip", "dino"):
        (folder / "models").mkdir(exist_ok=True)
        (folder / "models" / name).symlink_to(ROOT / "models" / name)
    local = yaml.safe_load((ROOT / "profiles/local.yaml").read_text())
    miniature = {key: value for key, value in local.items() if key.isupper()}
    ours = {"VOLUME": STUDIO, "DATA": f"{STUDIO}/photographs", "MODEL_NAME": MODEL, "TARGET": "databricks"}
    miniature["JUDGES"] = [judge for judge in miniature["JUDGES"] if judge.get("decides", True)]
    steps = {
        "train": {"processes": 1, "validation_sampling_steps": 2},
        "prior": {"sampling_steps": 2},
        "register": {"sampling_steps": 2},
        "deploy": {"workload_type": "CPU", "name": "chairs"},
    }
    profile = {"extends": "databricks", **miniature, **SHORT, **ours, "steps": steps}
    (folder / "profiles/studio.yaml").write_text(yaml.safe_dump(profile))
    (folder / "cluster.json").write_text(json.dumps({**CLUSTER, "volume": STUDIO, "wait": True}))
    return committed(folder)


@pytest.fixture
def run(project, installed):
    """`mlflow run` as it is typed; what it says."""

    def run(*words, **parameters):
        typed = [f"-P{name.replace('__', '.')}={value}" for name, value in parameters.items()]
        said, code = mlflow_run(project, installed, *words, "-Pprofile=studio", *typed)
        assert code == 0, said[-6000:]
        return said

    return run


def shares(workspace):
    routes = workspace.serving.endpoints["chairs"]["active"]["traffic_config"]["routes"]
    return {route["served_entity_name"]: route["traffic_percentage"] for route in routes}


def test_from_an_empty_workspace_to_a_picture_from_its_endpoint(empty, project, run):
    said = run(*HERE, "-e", "setup", models="true")
    for line in ("catalog studio made", "schema studio.chairs made", "volume studio.chairs.files made", "4 files sent"):
        assert line in said
    [use] = [line for line in said.splitlines() if line.startswith("to use them: ")]
    named = shlex.split(use.partition(": ")[2])
    assert f"BASE_MODEL={STUDIO}/models/sdxl" in named

    run(*HERE, "-e", "deployment_job", config="cluster.json")
    said = run(*JOB, *named)
    for line in ("job running", "register: ran", "▸ train"):
        assert line in said, "the job is seen as it runs"
    client = mlflow.MlflowClient()
    version = client.get_model_version_by_alias(MODEL, "challenger")
    assert version.tags["verdict"] == "passed"

    number = max(empty.jobs.runs)  # what the new version has started
    came_to, logs = results(empty, number)
    assert came_to == {"Evaluation": "SUCCESS", "Approval_Check": "FAILED", "Deployment": "UPSTREAM_FAILED"}, logs
    assert "press Approve on the version's page" in logs
    client.set_model_version_tag(MODEL, "1", "Approval_Check", "Approved")  # what the button does, and then:
    connect().jobs.repair_run(number, rerun_all_failed_tasks=True)
    came_to, logs = results(empty, number)
    assert set(came_to.values()) == {"SUCCESS"}, logs
    assert client.get_model_version_by_alias(MODEL, "champion").version == "1"
    kept = client.download_artifacts(version.tags["evaluate_run"], "approval.json")
    approval = json.loads(Path(kept).read_text())
    assert (approval["decision"], approval["by"]) == ("approved", "the workspace's Approve button")
    assert shares(empty) == {"chair-1": 100}

    # The same weights as a second version, which relies on the same evidence; promote alone moves the champion.
    client.update_registered_model(MODEL, deployment_job_id="")
    copy = mlflow.artifacts.download_artifacts(f"models:/{MODEL}/1")
    mlflow.register_model(copy, MODEL, tags=version.tags)
    assert client.get_model_version_by_alias(MODEL, "champion").version == "1"
    run(*HERE, "-e", "promote", version=2, approved_by="me", reason="it looks the same")
    assert client.get_model_version(MODEL, "2").tags["Approval_Check"] == "Approved"
    run(*HERE, "-e", "deploy", deploy__traffic=10)
    assert shares(empty) == {"chair-2": 10, "chair-1": 90}
    run(*HERE, "-e", "deploy", action="rollback")
    assert shares(empty) == {"chair-1": 100, "chair-2": 0}

    run(*HERE, "-e", "deploy", action="query", prompt=PROMPT, seed=7)
    [file] = (project / "output").iterdir()
    with Image.open(file) as picture:
        assert picture.size == (64, 64)
