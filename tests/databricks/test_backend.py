"""`mlflow run --backend databricks-jobs`: the code that lies here runs as a job, in the run that was opened for it."""

import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import ExecutionException

from personalize.databricks.backend import JobRun, JobsBackend, check_config, pinned
from personalize.databricks.snapshot import Commit, git, pushed_commit, snapshot
from personalize.databricks.workspace import WorkspaceError

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = {"new_cluster": {"spark_version": "17.3.x-gpu-ml-scala2.13", "node_type_id": "g5.4xlarge"}, "libraries": []}
VOLUME = "/Volumes/main/personalize/files"
PROJECT = """\
name: tiny
entry_points:
  main:
    parameters:
      prompt: {type: string, default: nothing}
    command: "python entry.py {prompt}"
  fails:
    command: "python -c 'raise SystemExit(\\"no such chair\\")'"
"""
ENTRY = """\
import sys, mlflow
with mlflow.start_run():
    mlflow.set_tag("painted", sys.argv[1])
    mlflow.set_tag("where", __file__)
"""


@pytest.fixture
def project(tmp_path):
    """A small project under Git, with this project's driver in it."""
    folder = tmp_path / "project"
    (folder / "personalize" / "databricks").mkdir(parents=True)
    shutil.copy(ROOT / "personalize" / "databricks" / "driver.py", folder / "personalize" / "databricks")
    (folder / "MLproject").write_text(PROJECT)
    (folder / "entry.py").write_text(ENTRY)
    (folder / ".gitignore").write_text("secret.env\n")
    (folder / "secret.env").write_text("TOKEN=1")
    for arguments in (
        ("init", "-q", "-b", "main"),
        ("add", "."),
        ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first"),
    ):
        git(folder, *arguments)
    return folder


@pytest.fixture
def tracking(workspace, monkeypatch):
    """The workspace's own tracking server, and an experiment in it."""
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri("databricks")
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    found = mlflow.get_experiment_by_name("/Users/a/personalize")
    yield found.experiment_id if found else mlflow.create_experiment("/Users/a/personalize")
    mlflow.set_tracking_uri(before)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """What `pip install -e .` leaves behind for MLflow to find the backend by."""
    distribution = tmp_path / "site" / "personalize-0.dist-info"
    distribution.mkdir(parents=True)
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: personalize\nVersion: 0\n")
    point = "databricks-jobs = personalize.databricks.backend:JobsBackend"
    (distribution / "entry_points.txt").write_text(f"[mlflow.project_backend]\n{point}\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


def submit(project, experiment, config, entry_point="main", **params):
    job = JobsBackend().run(str(project), entry_point, params, None, dict(config), "databricks", experiment)
    job.poll_s = 0.1
    return job


def test_an_uncommitted_change_runs_as_a_snapshot_and_fills_the_run(
    workspace, tracking, installed, project, monkeypatch
):
    (project / "entry.py").write_text(ENTRY + "# not committed\n")
    monkeypatch.setattr(JobRun.__init__, "__defaults__", (0.1,))
    prompt = 'it\'s a "büro" chair; $(touch oops)'
    run = mlflow.projects.run(
        str(project),
        backend="databricks-jobs",
        backend_config={**CLUSTER, "volume": VOLUME},
        parameters={"prompt": prompt},
        experiment_id=tracking,
    )
    told = mlflow.get_run(run.run_id)
    assert told.data.tags["painted"] == prompt
    assert told.info.status == "FINISHED"
    assert told.data.tags["mlflow.databricks.runURL"].startswith("http://emulator/run/")
    [task] = workspace.jobs[max(workspace.jobs)]["body"]["tasks"]
    assert task["new_cluster"]["node_type_id"] == "g5.4xlarge"

    archive = next(workspace.path(VOLUME).rglob("project.tar.gz"))
    with tarfile.open(archive) as packed:
        names = packed.getnames()
    assert "MLproject" in names
    assert "secret.env" not in names, "what Git ignores does not leave this machine"


def test_a_clean_pushed_commit_runs_from_git(workspace, tracking, project, tmp_path):
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(tmp_path / "remote.git")], check=True)
    git(project, "remote", "add", "origin", str(tmp_path / "remote.git"))
    git(project, "push", "-q", "origin", "main")
    job = submit(project, tracking, {**CLUSTER, "git_provider": "gitHub"}, prompt="a chair")
    body = workspace.jobs[job.job_run_id]["body"]
    assert body["git_source"]["git_commit"] == git(project, "rev-parse", "HEAD")
    assert body["tasks"][0]["spark_python_task"]["python_file"] == "personalize/databricks/driver.py"
    assert body["idempotency_token"] == job.run_id
    job.cancel()
    assert job.get_status() == "KILLED"
    assert mlflow.get_run(job.run_id).info.status in ("KILLED", "FINISHED")


def test_a_job_that_fails_shows_its_output_and_ends_the_run(workspace, tracking, project, caplog):
    job = submit(project, tracking, {**CLUSTER, "volume": VOLUME}, entry_point="fails")
    assert job.wait() is False
    assert "no such chair" in caplog.text
    assert mlflow.get_run(job.run_id).info.status == "FAILED"


def test_code_that_no_cluster_can_get_is_refused_with_both_ways_out(workspace, tracking, project):
    with pytest.raises(ExecutionException, match=r"repository has no remote\. Commit and push, or name a volume"):
        submit(project, tracking, CLUSTER)
    (project / "entry.py").write_text("changed")
    with pytest.raises(ExecutionException, match="uncommitted changes"):
        submit(project, tracking, CLUSTER)


def test_a_tracking_store_on_this_machine_is_refused(workspace, project):
    with pytest.raises(ExecutionException, match=r"cannot reach .*sqlite.*MLFLOW_TRACKING_URI=databricks"):
        JobsBackend().run(str(project), "main", {}, None, dict(CLUSTER), "sqlite:///mlflow.db", "0")


def test_the_backend_config_is_checked_before_anything_is_sent():
    with pytest.raises(WorkspaceError, match="Unknown key 'new_clutser'"):
        check_config({"new_clutser": {}})
    with pytest.raises(WorkspaceError, match="either new_cluster or existing_cluster_id"):
        check_config({"SYNCHRONOUS": True})
    assert check_config({"SYNCHRONOUS": True, "existing_cluster_id": "1"}) == {"existing_cluster_id": "1"}


def test_a_token_in_the_remotes_address_does_not_travel(project, tmp_path):
    git(project, "remote", "add", "origin", "https://me:hunter2@github.com/me/personalize.git")
    git(project, "update-ref", "refs/remotes/origin/main", "HEAD")
    commit = pushed_commit(project)
    assert isinstance(commit, Commit)
    assert commit.url == "https://github.com/me/personalize.git"
    assert commit.provider == "gitHub"
    git(project, "remote", "set-url", "origin", "git@gitlab.com:me/personalize.git")
    assert pushed_commit(project) == Commit("https://gitlab.com/me/personalize.git", "gitLab", commit.sha, ".")
    git(project, "remote", "set-url", "origin", "https://git.example.org/personalize.git")
    assert "git_provider in the backend config" in str(pushed_commit(project))


def test_the_same_files_give_the_same_snapshot(project):
    first = snapshot(project)[0]
    os.utime(project / "entry.py", (1, 1))
    assert snapshot(project)[0] == first
    (project / "new.py").write_text("1")
    assert snapshot(project)[0] != first, "a new file counts before it is committed"


def test_a_snapshot_holds_what_may_leave_this_machine_and_says_what_does_not(project, caplog):
    private = ["photographs/chair/zwvchr/front.jpg", "teapot/1.jpg", "teapot/1.txt", ".env", "talk.ipynb", "names.csv"]
    for name in private:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("GEHEIM")
    (project / "keys.py").write_text("KEY = 'ghp_" + "a1B2c3D4e5F6" * 3 + "'")
    git(project, "add", ".env")
    (project / "empty.py").touch()
    with tarfile.open(fileobj=io.BytesIO(snapshot(project)[1])) as packed:
        names = packed.getnames()
        assert all(b"GEHEIM" not in packed.extractfile(name).read() for name in names)
    assert set(names) == {".gitignore", "MLproject", "empty.py", "entry.py", "personalize/databricks/driver.py"}
    assert "photographs/ (data, 1 file)" in caplog.text
    assert "teapot/ (a folder of pictures, 2 files)" in caplog.text
    assert "keys.py (looks like a secret: GitHub Token)" in caplog.text


def test_the_cluster_gets_the_packages_that_the_environment_pins():
    assert any(package.startswith("diffusers==") for package in pinned(ROOT / "conda.yaml"))


def test_the_driver_imports_the_standard_library_only():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); before = set(sys.modules); import driver; "
        "print(sorted(m for m in set(sys.modules) - before if m.split('.')[0] not in sys.stdlib_module_names))"
    )
    folder = str(ROOT / "personalize" / "databricks")
    done = subprocess.run([sys.executable, "-S", "-c", code, folder], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['driver']"
