"""What goes wrong in a workspace: nothing is lost, and the same command again finishes.

Elsewhere: an upload that is cut, a storm of 429, a volume that is full (test_setup); a build that fails, an update that
is refused, Ctrl-C while one waits (test_serving); a token that ends during a training, Ctrl-C while a job runs
(test_backend). Here: a job that is killed, Ctrl-C while it is being submitted, a workspace that is away for a while, an
alias that belongs to somebody else, a large model's upload that loses some of its parts; one that is cut: test_uploads.
"""

import threading
import time

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from personalize.databricks import backend
from personalize.databricks.backend import JobsBackend
from personalize.databricks.job import JobRun
from personalize.databricks.serving import DatabricksEndpoint
from personalize.serving import registry as versions
from personalize.serving.endpoint import EndpointError
from tests.databricks.conftest import CLUSTER, MODEL, ROOT, VOLUME, committed, small_project
from tests.serving.test_local import SIGNATURE
from tests.workspace import ME, Fault
from tests.workspace.jobs import can_isolate

CONFIG = {**CLUSTER, "volume": VOLUME}
PROJECT = """\
name: tiny
entry_points:
  main:
    parameters: {marker: string}
    command: "python entry.py {marker}"
"""
ENTRY = """\
import sys, time, mlflow
from pathlib import Path
with mlflow.start_run():
    done = Path(sys.argv[1])
    begun = done.exists()
    done.touch()
    for step in range(600 if not begun else 3):
        mlflow.log_metric("step", step)
        time.sleep(0.5)
    mlflow.set_tag("finished", "yes")
"""

needs_mounts = pytest.mark.skipif(not can_isolate(), reason="JOBS NOT TESTED: this machine allows no mount namespace")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project that trains for minutes, and goes on from where it was when it is run again."""
    folder = small_project(tmp_path / "project", PROJECT, ENTRY)
    monkeypatch.setattr(JobRun.__init__, "__defaults__", (0.1,))
    return committed(folder)


@pytest.fixture
def submit(project, tracking, tmp_path):
    def submit(**more):
        marker = {"marker": str(tmp_path / "begun")}
        return JobsBackend().run(str(project), "main", marker, None, {**CONFIG, **more}, "databricks", tracking)

    return submit


def until(seen, seconds=120):
    begun = time.monotonic()
    while not seen():
        assert time.monotonic() - begun < seconds
        time.sleep(0.1)


@needs_mounts
@pytest.mark.slow
def test_a_job_that_was_killed_says_so_and_the_next_goes_on_from_it(workspace, submit, tmp_path, caplog):
    job = submit()
    until((tmp_path / "begun").exists)
    [task] = workspace.jobs.runs[job.job_run_id]["tasks"]
    workspace.jobs.kill(task, grace_s=0)
    assert job.wait() is False
    assert "task personalize: " in caplog.text
    assert mlflow.get_run(job.run_id).info.status == "FAILED", "no run is left running"
    again = submit()
    assert again.wait(), again.why(again.look())
    assert mlflow.get_run(again.run_id).data.tags["finished"] == "yes"


@needs_mounts
@pytest.mark.slow
def test_a_workspace_that_is_away_for_a_while_costs_neither_job_nor_wait(workspace, faults, submit, tmp_path):
    (tmp_path / "begun").touch()
    job = submit()
    until(lambda: "step" in mlflow.get_run(job.run_id).data.metrics)
    faults += [Fault("* /", 0, times=10**6)]
    threading.Timer(4, faults.clear).start()
    assert job.wait()
    told = mlflow.get_run(job.run_id)
    assert (told.data.tags["finished"], told.data.metrics["step"]) == ("yes", 2)


def test_ctrl_c_while_a_job_is_being_submitted_leaves_none_behind(workspace, submit, tracking, monkeypatch):
    real, calls = backend._submitted, []

    def interrupted(client, request):
        number = real(client, request)
        calls.append(number)
        if len(calls) == 1:  # it has arrived, and nobody has heard its number
            raise KeyboardInterrupt
        return number

    monkeypatch.setattr(backend, "_submitted", interrupted)
    with pytest.raises(KeyboardInterrupt):
        submit()
    assert calls[0] == calls[1], "the same token gives the same job"
    assert workspace.jobs.runs[calls[0]]["canceled"]
    [run] = mlflow.MlflowClient().search_runs([tracking], max_results=1)
    assert run.info.status == "KILLED"


def test_a_deployment_outlives_a_workspace_that_is_away(registry, monkeypatch, faults):
    monkeypatch.setattr("personalize.databricks.workspace.RETRY_S", 1)
    endpoint = DatabricksEndpoint("chairs", poll_s=0.01, report=lambda _: None)
    endpoint.deploy(versions.resolve(f"models:/{MODEL}/1"), {"prompt": "a chair"})
    faults.append(Fault("GET /api/2.0/serving-endpoints", 503, times=10**6))
    with pytest.raises(EndpointError, match=r"did not answer while deploying.*Try again"):
        endpoint.deploy(versions.resolve(f"models:/{MODEL}/2"), {"prompt": "a chair"})
    faults.clear()
    assert endpoint.status().version == "1"
    assert endpoint.deploy(versions.resolve(f"models:/{MODEL}/2"), {"prompt": "a chair"}).version == "2"
    endpoint.delete()


def test_an_alias_of_somebody_elses_model_leaves_the_version_and_a_second_try_sets_it(registry, monkeypatch):
    client, catalog = mlflow.MlflowClient(), registry.catalog
    monkeypatch.setitem(catalog.owners, MODEL, "owner@example.com")
    monkeypatch.setitem(catalog.owners, "main", "owner@example.com")
    monkeypatch.setitem(catalog.owners, "main.personalize", "owner@example.com")
    monkeypatch.setattr(catalog, "grants", {})
    catalog.grant("main", ME, "USE_CATALOG", "USE_SCHEMA", "EXECUTE")
    before = client.get_model_version_by_alias(MODEL, "champion").version
    with pytest.raises(MlflowException, match=r"not an owner of 'main\.personalize\.painter'"):
        client.set_registered_model_alias(MODEL, "champion", "2")
    assert client.get_model_version_by_alias(MODEL, "champion").version == before, "what serves goes on serving"
    catalog.owners[MODEL] = "designers"
    client.set_registered_model_alias(MODEL, "champion", "2")
    assert client.get_model_version_by_alias(MODEL, "champion").version == "2"
    client.set_registered_model_alias(MODEL, "champion", before)


def test_a_model_with_a_large_file_arrives_whole_in_parts_of_which_some_are_lost(
    registry, faults, tmp_path, small_parts
):
    big = tmp_path / "model" / "weights"
    big.parent.mkdir()
    big.write_bytes(bytes(range(256)) * (21 * 1024))  # above the size from which the SDK sends parts
    painter = ROOT / "tests" / "serving" / "painter.py"
    mlflow.pyfunc.save_model(
        str(tmp_path / "saved"),
        python_model=str(painter),
        artifacts={"weights": str(big)},
        signature=SIGNATURE,
        pip_requirements=["mlflow"],
    )
    faults += [Fault("PUT /presigned/", 503), Fault("PUT /presigned/", 0)]
    made = mlflow.register_model(str(tmp_path / "saved"), "main.personalize.large")
    arrived = registry.registry.folder("main.personalize.large", made.version)
    assert (arrived / "artifacts" / "weights").read_bytes() == big.read_bytes()
    assert ("POST", "/api/2.0/fs/create-upload-part-urls") in registry.requests
