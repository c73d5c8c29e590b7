"""A large file whose upload was cut: the next attempt sends what is missing, on every cloud, and no wrong bytes."""

import json
import random
import shutil
import subprocess
import sys

import mlflow
import pytest
from databricks.sdk.config import Config
from mlflow.exceptions import MlflowException
from requests.exceptions import RequestException

from personalize.databricks import registration
from personalize.databricks.uploads import MEMORY
from personalize.databricks.volumes import upload
from personalize.databricks.workspace import WorkspaceError, connect
from tests.databricks.conftest import MIB, PARTS, ROOT, VOLUME
from tests.serving.test_local import SIGNATURE
from tests.steps.conftest import perform, trained  # noqa: F401 - trained is a fixture
from tests.workspace import Fault

SIZE = 6 * MIB + 5
"""Six parts, and a seventh that is smaller."""
REMOTE = f"{VOLUME}/models/unet.safetensors"


@pytest.fixture
def weights(tmp_path, monkeypatch, workspace, small_parts):
    """A folder with one large file; the working directory. Nothing of it is in the volume."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Config, "experimental_files_ext_cloud_api_max_retries", 1)  # what is lost is lost at once
    monkeypatch.setattr(Config, "files_ext_multipart_upload_max_retries", 0)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "unet.safetensors").write_bytes(random.Random(1).randbytes(SIZE))
    yield tmp_path / "models"
    workspace.path(REMOTE).unlink(missing_ok=True)
    workspace.files.taken.clear()
    workspace.files.uploads.clear()
    workspace.files.resumable = False


def send(weights):
    return upload(connect(), weights, f"{VOLUME}/models")


def cut(weights, faults, after):
    """An upload that a cut ends after so many parts."""
    faults += [Fault("PUT /presigned/", 0, times=10**6, spared=after)]
    with pytest.raises((TimeoutError, RequestException)):  # what `explained` knows
        send(weights)
    faults.clear()


@pytest.mark.parametrize("resumable", [False, True], ids=["AWS and Azure", "Google Cloud"])
def test_what_is_there_is_not_sent_again(workspace, faults, weights, resumable):
    workspace.files.resumable = resumable
    cut(weights, faults, after=4)
    [there] = workspace.files.uploads.values()
    there = sum(map(len, there["parts"].values())) + len(there["bytes"])
    assert 0 < there < SIZE
    workspace.files.taken.clear()
    assert send(weights) == [REMOTE]
    assert workspace.files.taken[REMOTE] == SIZE - there, "the second attempt sends the rest and no more"
    assert workspace.path(REMOTE).read_bytes() == (weights / "unet.safetensors").read_bytes()
    assert not list(MEMORY.iterdir()), "what has ended is not remembered"
    assert not workspace.files.uploads


def test_a_process_that_was_killed_is_gone_on_from(workspace, weights):
    parts = {**PARTS, "files_ext_multipart_upload_default_parallelism": 1}
    code = (
        "import os; from pathlib import Path; from databricks.sdk.config import Config\n"
        f"for name, value in {parts}.items(): setattr(Config, name, value)\n"
        "from personalize.databricks import uploads, volumes; from personalize.databricks.workspace import connect\n"
        "add = uploads.Session.add\n"
        "def dies(self, *part):\n"
        "    add(self, *part)\n"
        "    len(self.parts) >= 3 and os._exit(9)\n"
        "uploads.Session.add = dies\n"
        f"volumes.upload(connect(), Path('models'), '{VOLUME}/models')\n"
    )
    died = subprocess.run([sys.executable, "-c", code], cwd=weights.parent, check=False)
    assert died.returncode == 9
    workspace.files.taken.clear()
    assert send(weights) == [REMOTE]
    assert workspace.files.taken[REMOTE] == SIZE - 3 * MIB
    assert workspace.path(REMOTE).read_bytes() == (weights / "unet.safetensors").read_bytes()


def test_a_file_that_has_changed_is_sent_as_it_is_now(workspace, faults, weights):
    cut(weights, faults, after=4)
    with open(weights / "unet.safetensors", "r+b") as file:
        file.seek(5)
        file.write(b"other bytes, and as many")
    workspace.files.taken.clear()
    send(weights)
    assert workspace.path(REMOTE).read_bytes() == (weights / "unet.safetensors").read_bytes()
    assert MIB <= workspace.files.taken[REMOTE] < SIZE, "the part that has changed is sent again, others are not"


def test_a_file_of_another_size_begins_anew(workspace, faults, weights):
    cut(weights, faults, after=4)
    (weights / "unet.safetensors").write_bytes(random.Random(2).randbytes(5 * MIB + 1))
    send(weights)
    assert not workspace.files.uploads, "the parts that are of no use cost no storage"
    assert workspace.path(REMOTE).read_bytes() == (weights / "unet.safetensors").read_bytes()


@pytest.mark.parametrize("resumable", [False, True], ids=["AWS and Azure", "Google Cloud"])
def test_a_session_that_the_workspace_knows_no_more_begins_anew(workspace, faults, weights, resumable):
    workspace.files.resumable = resumable
    cut(weights, faults, after=4)
    workspace.files.uploads.clear()
    workspace.files.taken.clear()
    send(weights)
    assert workspace.files.taken[REMOTE] == SIZE
    assert workspace.path(REMOTE).read_bytes() == (weights / "unet.safetensors").read_bytes()


def test_an_upload_that_had_nothing_yet_leaves_no_session_behind(workspace, faults, weights):
    cut(weights, faults, after=0)
    assert not workspace.files.uploads, "aborted: parts that nobody completes cost storage"
    assert not list(MEMORY.iterdir())


@pytest.fixture
def logged(weights, registry):
    """Address of a logged model with the large file in it."""
    experiment = mlflow.get_experiment_by_name("painting").experiment_id
    with mlflow.start_run(experiment_id=experiment):
        return mlflow.pyfunc.log_model(
            name="large",
            python_model=str(ROOT / "tests" / "serving" / "painter.py"),
            artifacts={"weights": str(weights / "unet.safetensors")},
            signature=SIGNATURE,
            pip_requirements=["mlflow"],
        ).model_uri


@pytest.mark.parametrize("remembers", [True, False], ids=["here", "on another machine"])
def test_a_registration_that_was_cut_goes_on_with_its_version(registry, faults, weights, logged, remembers):
    name = f"main.personalize.large_{remembers}".lower()
    faults += [Fault("PUT /presigned/", 0, times=10**6, spared=4)]
    with pytest.raises(MlflowException, match=r"unet\.safetensors was cut"):
        registration.register(logged, name, {"verdict": "passed"})
    faults.clear()
    [version] = registry.registry.models[name]["versions"].values()
    assert version["status"] == "PENDING_REGISTRATION"
    base, taken = f"/Models/{name.replace('.', '/')}/1", registry.files.taken
    large = f"{base}/artifacts/unet.safetensors"
    small, there = sum(taken.values()) - taken[large], taken[large]
    assert small > 0
    assert 0 < there < SIZE
    taken.clear()
    if not remembers:
        shutil.rmtree(MEMORY)
    made = registration.register(logged, name, {"verdict": "passed"})
    assert (made.version, made.status) == ("1", "READY"), "no second version, of which nobody knows what it is"
    assert taken == {large: SIZE - there if remembers else SIZE}, "whole files are not sent again"
    arrived = registry.registry.folder(name, "1") / "artifacts" / "unet.safetensors"
    assert arrived.read_bytes() == (weights / "unet.safetensors").read_bytes()
    assert registration.register(logged, name, {}).version == "2", "a version that is ready is not taken up"


@pytest.mark.parametrize(
    "remembers",
    [pytest.param(True, id="here", marks=pytest.mark.slow), pytest.param(False, id="in another job")],
)
def test_a_model_whose_first_upload_was_cut_is_gone_on_with(
    workspace, faults, tracking, weights, request, tiny_models, tmp_path, monkeypatch, capsys, remembers
):
    from steps import register

    results = request.getfixturevalue("trained")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", tracking)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "databricks-uc")
    name = f"main.personalize.begun_{remembers}".lower()
    config = register.Config(
        name=name, base_model=str(tiny_models / "sdxl"), resolution=64, sampling_steps=2, device="cpu"
    )

    def made(outputs):
        with mlflow.start_run(tags={"recipe.fingerprint": f"f{remembers:d}" * 32}):
            perform("register", config, results("passed"), tmp_path / outputs)
        return json.loads((tmp_path / outputs / "model_version.json").read_text())

    faults += [Fault("PUT /presigned/", 0, times=10**6, spared=9)]
    with pytest.raises(WorkspaceError, match=r"upload of the model was cut: .*The same command again goes on with it"):
        made("cut")
    faults.clear()
    begun = next(
        one for one in mlflow.search_logged_models([tracking], output_format="list") if one.status == "PENDING"
    )
    below = f"/WorkspaceInternal/Mlflow/Artifacts/{tracking}/LoggedModels/{begun.model_id}/artifacts"

    def whole():
        files = [file for file in workspace.path(below).rglob("*") if file.is_file()]
        return {f"{below}/{file.relative_to(workspace.path(below))}": file.stat().st_size for file in files}

    arrived, taken = whole(), workspace.files.taken
    before = {path: count for path, count in taken.items() if remembers or path in arrived}
    assert any(path not in arrived and count >= MIB for path, count in taken.items()), "of one only some parts"
    taken.clear()
    if not remembers:
        shutil.rmtree(MEMORY)
    told = made("again")
    assert "its upload was cut; it is gone on with" in capsys.readouterr().out
    assert told["model_id"] == begun.model_id
    assert mlflow.get_logged_model(begun.model_id).status == "READY"
    large = {path: size for path, size in whole().items() if size >= 5 * MIB}
    assert len(large) > 1
    assert {path: taken[path] for path in large} == {path: size - before.get(path, 0) for path, size in large.items()}
    assert mlflow.MlflowClient().get_model_version_by_alias(name, "challenger").version == "1"
