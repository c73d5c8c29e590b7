"""The same clients against a double that is not ours: minilake (PyPI, MIT), in an environment of its own.

It has catalogs, schemas, volumes, files, grants and jobs; no models, no serving. What our code asks of both is answered
alike by both (`either`). Where they disagree the documentation decides:

- minilake has no /.well-known/databricks-config, where the SDK looks for a sign-in (oauth.py); ours has.
- It records grants and enforces none, and lists those on what is not there; ours refuses (docs, manage-privileges).
- Its list of jobs takes no name, which the documentation does, whatever its case; our code reads the names itself.
- It drops a job's `trigger` and `budget_policy_id`; ours keeps what is documented.
- It runs a task in a container of Spark, and says FAILED where it has none; ours runs it here.
"""

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest
from databricks.sdk.errors import NotFound
from databricks.sdk.service.catalog import PermissionsChange, Privilege

from personalize.databricks import deployment_job, governance, setup
from personalize.databricks.backend import submit
from personalize.databricks.compute import check_config
from personalize.databricks.job import JobRun
from personalize.databricks.volumes import download
from personalize.databricks.workspace import connect
from tests.databricks.conftest import CLUSTER, ROOT, committed, small_project
from tests.databricks.conftest import signed_in as signed_in_to
from tests.workspace import emulated

MINILAKE = "minilake==1.9.0"
STUDIO = "/Volumes/studio/chairs/files"


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """Its address. uv keeps its environment apart, so that nothing of it is seen by ours."""
    folder = tmp_path_factory.mktemp("lake")
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tool = [uv, "tool", "run", "--quiet", "--python", sys.executable, "--from", MINILAKE, "minilake"]
    had = subprocess.run([*tool, "--help"], capture_output=True, text=True, check=False)
    if had.returncode:
        pytest.skip(f"NOT TESTED against {MINILAKE}, which cannot be had here: {had.stderr.strip()[-200:]}")
    with open(folder / "log", "wb") as log, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINILAKE_DATA_DIR", str(folder / "data"))
        process = subprocess.Popen([*tool, "--port", str(port)], cwd=folder, stdout=log, stderr=log)
        try:
            begun = time.monotonic()
            while socket.socket().connect_ex(("127.0.0.1", port)):
                assert process.poll() is None, (folder / "log").read_text()[-2000:]
                assert time.monotonic() - begun < 120, "it does not answer"
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


@pytest.fixture
def signed_in(lake, monkeypatch, tmp_path):
    """The environment leads there; the working directory is a project with a photograph."""
    signed_in_to(monkeypatch, SimpleNamespace(url=lake))
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    (tmp_path / "data" / "chair" / "zwvchr").mkdir(parents=True)
    (tmp_path / "data" / "chair" / "zwvchr" / "front.jpg").write_bytes(b"front")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_setup_makes_and_fills_a_workspace_that_others_wrote(signed_in, capsys):
    words = ["--profile", "databricks", "--VOLUME", STUDIO, "--DATA", f"{STUDIO}/photographs"]
    assert setup.main([*words, "--MODEL_NAME", "studio.chairs.chair"]) == 0
    assert "volume studio.chairs.files made" in capsys.readouterr().out
    assert setup.main([*words, "--MODEL_NAME", "studio.chairs.chair"]) == 0
    assert "0 files sent" in capsys.readouterr().out
    client = connect()
    [back] = download(client, f"{STUDIO}/photographs", signed_in / "back")
    assert back.read_bytes() == b"front"
    with pytest.raises(NotFound):
        client.catalogs.get("nothing")


@pytest.fixture(params=["minilake", "ours"])
def either(request, monkeypatch, tmp_path_factory):
    """Signed in to either double, with the studio's catalog, schema and volume made; its name."""
    if request.param == "ours":
        with emulated(tmp_path_factory.mktemp("ours"), furnished=False) as workspace:
            signed_in_to(monkeypatch, workspace)
            setup.make_ready(connect(), STUDIO, "studio.chairs.chair", print)
            yield request.param
    else:
        signed_in_to(monkeypatch, SimpleNamespace(url=request.getfixturevalue("lake")))
        setup.make_ready(connect(), STUDIO, "studio.chairs.chair", print)
        yield request.param


def test_what_is_lacking_to_register_a_model_is_what_was_not_granted(either):
    client, somebody = connect(), "designer@example.com"
    designer = {somebody}

    def grant(kind, name, *privileges):
        client.grants.update(kind, name, changes=[PermissionsChange(add=[*privileges], principal=somebody)])

    wanted = [
        "USE CATALOG ON CATALOG studio",
        "USE SCHEMA ON SCHEMA studio.chairs",
        "CREATE MODEL ON SCHEMA studio.chairs",
    ]
    assert governance.lacking(client, "studio.chairs", designer) == wanted
    grant("schema", "studio.chairs", Privilege.USE_SCHEMA)
    assert governance.lacking(client, "studio.chairs", designer) == [wanted[0], wanted[2]]
    grant("catalog", "studio", Privilege.USE_CATALOG, Privilege.CREATE_MODEL)
    assert governance.lacking(client, "studio.chairs", designer) == [], "what a catalog grants its schemas have"
    change = PermissionsChange(remove=[Privilege.CREATE_MODEL], principal=somebody)
    client.grants.update("catalog", "studio", changes=[change])
    assert governance.lacking(client, "studio.chairs", designer) == [wanted[2]]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A small project that is not pushed, and a run to fill in a store of this disk."""
    monkeypatch.setattr(JobRun.__init__, "__defaults__", (0.1,))
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    command = "name: tiny\nentry_points:\n  main:\n    command: exit 1\n"
    yield committed(small_project(tmp_path / "project", command, ""))
    mlflow.set_tracking_uri(before)


def test_a_job_is_submitted_once_told_of_and_ends(either, project, caplog):
    run, client = mlflow.MlflowClient().create_run("0").info.run_id, connect()
    config = check_config({**CLUSTER, "volume": STUDIO})
    arguments = ["--entry-point", "main", "--run-id", run, "--tracking-uri", mlflow.get_tracking_uri()]
    job = submit(client, config, project, arguments, run)
    assert submit(client, config, project, arguments, run).job_run_id == job.job_run_id, "the same token, the same job"
    assert mlflow.get_run(run).data.tags["mlflow.databricks.runURL"].startswith(client.config.host)
    assert job.wait() is False
    assert "The job ended as FAILED" in caplog.text
    assert "task personalize: " in caplog.text
    assert mlflow.get_run(run).info.status == "FAILED"
    with pytest.raises(NotFound):
        client.jobs.get_run(10**9)


def test_a_deployment_job_is_made_once_and_brought_up_to_date(either, project, monkeypatch):
    monkeypatch.setattr(deployment_job, "link", lambda *_: None)  # neither MLflow's registry nor its models are here
    client, config = connect(), check_config({**CLUSTER, "volume": STUDIO})
    others = client.jobs.create(name="somebody's", tasks=[]).job_id if either == "minilake" else 0
    number = deployment_job.make(client, project, config, "studio.chairs.chair", "databricks", "/a", "version")
    (project / "new.py").write_text("1")
    again = deployment_job.make(client, project, config, "studio.chairs.chair", "databricks", "/a", "version")
    assert number == again != others
    settings = client.jobs.get(number).settings
    assert [task.task_key for task in settings.tasks] == ["Evaluation", "Approval_Check", "Deployment"]
    assert settings.tasks[2].depends_on[0].task_key == "Approval_Check"
    assert "model_version={{job.parameters.model_version}}" in settings.tasks[0].spark_python_task.parameters
