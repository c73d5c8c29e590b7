"""`mlflow run --backend databricks-jobs`: the code that lies here runs as a job, in the run that was opened for it."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import ExecutionException

from personalize.databricks import driver
from personalize.databricks.backend import JobsBackend
from personalize.databricks.compute import check_config
from personalize.databricks.job import JobRun, unread
from personalize.databricks.snapshot import Commit, git, pushed_commit, snapshot
from personalize.databricks.workspace import WorkspaceError, connect
from tests.databricks.conftest import CLUSTER, ROOT, VOLUME, committed, pushed, small_project
from tests.workspace import ME, Fault
from tests.workspace.jobs import can_isolate

PROJECT = """\
name: tiny
entry_points:
  main:
    parameters:
      prompt: {type: string, default: nothing}
    command: "python entry.py {prompt}"
  fails:
    command: "python -c 'raise SystemExit(\\"no such chair\\")'"
  sleeps:
    command: "python -c 'import time; time.sleep(60)'"
  patient:
    command: "python patient.py"
"""
ENTRY = """\
import sys, mlflow
from pathlib import Path
with mlflow.start_run():
    Path("build").mkdir()
    Path("build/card.html").write_text("a project writes beside itself")
    mlflow.set_tag("painted", sys.argv[1])
    mlflow.set_tag("where", __file__)
    mlflow.set_tag("volume", Path("/Volumes/main/personalize/files").is_dir())
"""
PATIENT = """\
import time, mlflow
with mlflow.start_run():
    for step in range(6):
        mlflow.log_metric("step", step)
        print("step", step, "of 6", flush=True)
        time.sleep(1.6)
"""
PROMPT = 'it\'s a "büro" chair; $(touch oops) {{job.run_id}}'

needs_mounts = pytest.mark.skipif(not can_isolate(), reason="JOBS NOT TESTED: this machine allows no mount namespace")


@pytest.fixture
def project(tmp_path):
    """A small project under Git, with this project's driver in it."""
    folder = small_project(tmp_path / "project", PROJECT, ENTRY)
    (folder / "patient.py").write_text(PATIENT)
    (folder / ".gitignore").write_text("secret.env\n")
    (folder / "secret.env").write_text("TOKEN=1")
    return committed(folder)


@pytest.fixture
def quick(monkeypatch):
    """Looks at a job ten times a second."""
    monkeypatch.setattr(JobRun.__init__, "__defaults__", (0.1,))


def submit(project, experiment, config, entry_point="main", **params):
    return JobsBackend().run(str(project), entry_point, params, None, dict(config), "databricks", experiment)


@needs_mounts
def test_a_pushed_commit_runs_from_a_read_only_checkout(workspace, tracking, project, quick, monkeypatch):
    pushed(project, monkeypatch)
    job = submit(project, tracking, CLUSTER, prompt=PROMPT)
    assert job.wait(), job.why(job.look())
    told = mlflow.get_run(job.run_id)
    assert told.data.tags["painted"] == PROMPT, "nothing expands what is in a parameter"
    assert told.data.tags["volume"] == "True"
    assert told.info.status == "FINISHED"
    body = workspace.jobs.runs[job.job_run_id]["body"]
    assert body["git_source"]["git_commit"] == git(project, "rev-parse", "HEAD")
    assert body["git_source"]["git_url"] == "https://github.com/me/personalize.git"
    [task] = body["tasks"]
    assert task["spark_python_task"]["python_file"] == "personalize/databricks/driver.py"
    assert body["idempotency_token"] == job.run_id
    assert task["new_cluster"]["data_security_mode"] == "SINGLE_USER"


@needs_mounts
def test_an_uncommitted_change_runs_as_a_snapshot_on_serverless_gpus(workspace, tracking, project, quick, faults):
    (project / "entry.py").write_text(ENTRY + "# not committed\n")
    job = submit(project, tracking, {"accelerator": "GPU_1xA10", "volume": VOLUME}, prompt=PROMPT)
    body = workspace.jobs.runs[job.job_run_id]["body"]
    assert body["tasks"][0]["compute"] == {"hardware_accelerator": "GPU_1xA10"}
    assert body["environments"][0]["environment_key"] == body["tasks"][0]["environment_key"]
    faults += [Fault("GET /api/2.2/jobs/runs/get", 503, times=3), Fault("GET /api/2.2/jobs/runs/get", 0, times=2)]
    assert job.wait(), job.why(job.look())  # a workspace that does not answer for a while costs nothing
    told = mlflow.get_run(job.run_id)
    assert told.data.tags["painted"] == PROMPT
    assert told.data.tags["mlflow.databricks.runURL"].startswith(workspace.url)
    archive = next(workspace.path(VOLUME).rglob("project.tar.gz"))
    with tarfile.open(archive) as packed:
        names = packed.getnames()
    assert "MLproject" in names
    assert "secret.env" not in names, "what Git ignores does not leave this machine"


@needs_mounts
def test_a_job_that_fails_shows_its_output_and_ends_the_run(workspace, tracking, project, quick, caplog):
    job = submit(project, tracking, {**CLUSTER, "volume": VOLUME}, entry_point="fails")
    assert job.wait() is False
    assert "Workload failed" in caplog.text, "what the workspace says of the task"
    assert "no such chair" in caplog.text, "what the task printed"
    assert mlflow.get_run(job.run_id).info.status == "FAILED"


@needs_mounts
@pytest.mark.slow
def test_credentials_outlive_the_token_that_the_job_began_with(
    workspace, tracking, project, quick, monkeypatch, caplog
):
    caplog.set_level("INFO", "personalize")
    monkeypatch.setattr(workspace.identity, "lasts_s", 8)
    monkeypatch.setattr(workspace.jobs, "keeps_bytes", 200)  # of a log that is longer
    before = workspace.identity.issued
    job = submit(project, tracking, {**CLUSTER, "volume": VOLUME}, entry_point="patient")
    assert job.wait(), job.why(job.look())
    assert mlflow.get_run(job.run_id).data.metrics["step"] == 5
    assert workspace.identity.issued - before > 1
    for step in range(5):
        assert f"  step {step} of 6" in caplog.text, "the log is shown as it grows"
    assert caplog.text.count("  step 3 of 6") == 1


def test_what_is_new_in_a_log_is_found_by_what_was_the_end_of_it():
    assert unread(["a", "b"], []) == ["a", "b"]
    assert unread(["a", "b", "c"], ["a", "b"]) == ["c"]
    assert unread(["y", "z", "c"], ["y", "z"]) == ["c"], "wherever it stands, since the begin has gone"
    assert unread(["b", "c"], ["a", "b"]) == ["c"], "the first of it has gone"
    assert unread(["a", "begun and ended"], ["a", "begun"]) == ["begun and ended"]
    assert unread(["p", "q"], ["a", "b"]) == ["p", "q"], "all of it is new"
    assert unread(["a", "b"], ["a", "b"]) == []


def test_a_job_without_a_machine_says_what_the_cloud_said(workspace, tracking, project, quick, caplog, monkeypatch):
    monkeypatch.setattr(workspace.jobs, "no_capacity", True)
    job = submit(project, tracking, {**CLUSTER, "volume": VOLUME})
    assert job.wait() is False
    assert "CLOUD_PROVIDER_LAUNCH_FAILURE" in caplog.text
    assert mlflow.get_run(job.run_id).info.status == "FAILED"


@needs_mounts
def test_a_job_past_its_time_says_how_to_give_it_more(workspace, tracking, project, quick, caplog):
    job = submit(project, tracking, {**CLUSTER, "volume": VOLUME, "timeout_minutes": 0.05}, entry_point="sleeps")
    assert job.wait() is False
    assert "TIMEDOUT" in caplog.text
    assert "timeout_minutes" in caplog.text


@needs_mounts
def test_interrupting_the_wait_cancels_the_job(workspace, tracking, project, quick):
    config = {**CLUSTER, "volume": VOLUME, "wait": True}
    before = set(workspace.jobs.runs)

    def interrupt():
        while not any(task["process"] for n, run in workspace.jobs.runs.copy().items() if n not in before
                      for task in run["tasks"] if run["alive"]):  # fmt: skip
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        submit(project, tracking, config, entry_point="sleeps")
    run = workspace.jobs.runs[max(workspace.jobs.runs)]
    assert run["canceled"]
    told = mlflow.MlflowClient().search_runs([tracking], max_results=1)[0]
    assert told.info.status == "KILLED"


def test_a_workspace_that_is_away_for_good_leaves_the_job_running_and_says_so(
    workspace, tracking, project, quick, faults, monkeypatch
):
    monkeypatch.setattr(workspace.jobs, "no_capacity", True)
    monkeypatch.setattr("personalize.databricks.workspace.RETRY_S", 1)
    monkeypatch.setattr("personalize.databricks.job.PATIENCE_S", 0)
    faults.append(Fault("GET /api/2.2/jobs/runs/get", 503, times=10**6, spared=1))
    with pytest.raises(ExecutionException, match="did not answer while waiting for the job, which runs on"):
        submit(project, tracking, {**CLUSTER, "volume": VOLUME, "wait": True})
    assert not workspace.jobs.runs[max(workspace.jobs.runs)]["canceled"]


def test_an_experiment_that_is_not_there_is_said_without_a_traceback(workspace, tracking, project):
    with pytest.raises(ExecutionException, match="No Experiment with id=999999"):
        submit(project, "999999", {**CLUSTER, "volume": VOLUME})


def test_a_submission_that_is_refused_can_be_made_again(workspace, tracking, project, quick, faults):
    (project / "new.py").write_text("1")
    config = {**CLUSTER, "volume": VOLUME}
    faults.append(Fault("PUT /api/2.0/fs/files", 503, times=99))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("personalize.databricks.workspace.RETRY_S", 1)
        with pytest.raises(ExecutionException, match="submitting the job"):
            submit(project, tracking, config)
    [failed] = mlflow.MlflowClient().search_runs([tracking], max_results=1)
    assert failed.info.status == "FAILED", "no run is left running"
    faults.clear()
    job = submit(project, tracking, config)
    job.cancel()
    assert job.get_status() in ("KILLED", "FINISHED")


def test_code_that_no_cluster_can_get_is_refused_with_both_ways_out(workspace, tracking, project):
    with pytest.raises(ExecutionException, match=r"repository has no remote\. Commit and push, or name a volume"):
        submit(project, tracking, CLUSTER)
    (project / "entry.py").write_text("changed")
    with pytest.raises(ExecutionException, match="uncommitted changes"):
        submit(project, tracking, CLUSTER)


def test_a_tracking_store_on_this_machine_is_refused(workspace, project):
    with pytest.raises(ExecutionException, match=r"cannot reach .*sqlite.*MLFLOW_TRACKING_URI=databricks"):
        JobsBackend().run(str(project), "main", {}, None, dict(CLUSTER), "sqlite:///mlflow.db", "0")


def test_a_volume_that_is_not_there_is_named(workspace, tracking, project):
    with pytest.raises(ExecutionException, match=r"Volume 'main\.default\.nothing' does not exist"):
        submit(project, tracking, {**CLUSTER, "volume": "/Volumes/main/default/nothing"})


def test_parameters_that_no_job_takes_are_refused(workspace, tracking, project):
    with pytest.raises(ExecutionException, match="longer than a job takes"):
        submit(project, tracking, {**CLUSTER, "volume": VOLUME}, prompt=os.urandom(8000).hex())


def test_a_workspace_without_clusters_says_what_to_ask_for(workspace, tracking, project, monkeypatch):
    monkeypatch.setattr(workspace.jobs, "serverless_only", True)
    with pytest.raises(ExecutionException, match=r"Only serverless.*databricks-serverless\.json"):
        submit(project, tracking, {**CLUSTER, "volume": VOLUME})


def test_a_cluster_that_is_not_there_is_named_and_one_that_is_is_taken(workspace, tracking, project, monkeypatch):
    monkeypatch.setattr(workspace.jobs, "no_capacity", True)
    with pytest.raises(ExecutionException, match=r"submitting the job: Cluster 1128-chairs does not exist"):
        submit(project, tracking, {"existing_cluster_id": "1128-chairs", "volume": VOLUME})
    monkeypatch.setattr(workspace.jobs, "clusters", {"1128-chairs"})
    job = submit(project, tracking, {"existing_cluster_id": "1128-chairs", "volume": VOLUME})
    [task] = workspace.jobs.runs[job.job_run_id]["body"]["tasks"]
    assert task["existing_cluster_id"] == "1128-chairs"


def test_serverless_gpus_are_charged_to_a_budget_policy_that_one_may_use(workspace, tracking, project, monkeypatch):
    monkeypatch.setattr(workspace.jobs, "no_capacity", True)
    config = {"accelerator": "GPU_1xA10", "volume": VOLUME, "budget_policy_id": "studio-policy"}
    with pytest.raises(
        ExecutionException, match=r"submitting the job.*not have permission to use budget policy studio"
    ):
        submit(project, tracking, config)
    monkeypatch.setitem(workspace.jobs.policies, "studio-policy", {ME})
    job = submit(project, tracking, config)
    assert workspace.jobs.runs[job.job_run_id]["body"]["budget_policy_id"] == "studio-policy"
    with pytest.raises(ExecutionException, match=r"is of serverless compute.*custom_tags"):
        submit(project, tracking, {**CLUSTER, "volume": VOLUME, "budget_policy_id": "studio-policy"})
    tagged = {"new_cluster": {**CLUSTER["new_cluster"], "custom_tags": {"cost_centre": "studio"}}, "volume": VOLUME}
    job = submit(project, tracking, tagged)
    cluster = workspace.jobs.runs[job.job_run_id]["body"]["tasks"][0]["new_cluster"]
    assert cluster["custom_tags"] == {"ResourceClass": "SingleNode", "cost_centre": "studio"}


@needs_mounts
@pytest.mark.parametrize("there", [True, False], ids=["installed", "missing"])
def test_a_clusters_libraries_are_there_before_a_task_or_the_reason_why_not(workspace, tracking, there, caplog):
    """Our jobs name none, for they build an environment of their own; a job that somebody else has made may."""
    from databricks.sdk.service.compute import ClusterSpec, Library, LibraryInstallStatus, PythonPyPiLibrary
    from databricks.sdk.service.jobs import SparkPythonTask, SubmitTask

    client, wheel = connect(), f"{VOLUME}/chairs-1-py3-none-any.whl"
    workspace.path(f"{VOLUME}/task.py").write_text("import chairs\nprint(chairs.LEGS)\n")
    workspace.path(wheel).unlink(missing_ok=True)
    if there:
        with zipfile.ZipFile(workspace.path(wheel), "w") as made:
            made.writestr("chairs.py", "LEGS = 'four legs'\n")
    task = SubmitTask(
        task_key="personalize",
        spark_python_task=SparkPythonTask(f"{VOLUME}/task.py"),
        new_cluster=ClusterSpec.from_dict(check_config(dict(CLUSTER))["new_cluster"]),
        libraries=[Library(pypi=PythonPyPiLibrary("wordfreq==3.1.1")), Library(whl=wheel)],
    )
    number = client.jobs.submit(tasks=[task]).response.run_id
    job = JobRun(client, number, mlflow.MlflowClient().create_run(tracking).info.run_id, poll_s=0.1)
    assert job.wait() is there
    seen = job.look().tasks[0]
    states = [one.status for one in client.libraries.cluster_status(seen.cluster_instance.cluster_id)]
    if there:
        assert states == [LibraryInstallStatus.INSTALLED, LibraryInstallStatus.INSTALLED]
        assert "four legs" in job.output(seen.run_id)[1]
    else:
        assert states == [LibraryInstallStatus.INSTALLED, LibraryInstallStatus.FAILED]
        assert f"Library installation failed for library due to user error for whl {wheel}" in caplog.text


def test_the_backend_config_is_checked_before_anything_is_sent():
    with pytest.raises(WorkspaceError, match="Unknown key 'new_clutser'"):
        check_config({"new_clutser": {}})
    with pytest.raises(WorkspaceError, match="one of new_cluster, existing_cluster_id, accelerator"):
        check_config({"SYNCHRONOUS": True})
    with pytest.raises(WorkspaceError, match=r"'node_typeid' in new_cluster.*did you mean 'node_type_id'"):
        check_config({"new_cluster": {"node_typeid": "g5.4xlarge"}})
    with pytest.raises(WorkspaceError, match="names no machine: node_type_id"):
        check_config({"new_cluster": {}})
    with pytest.raises(WorkspaceError, match="'GPU_4xA10'; there are GPU_1xA10"):
        check_config({"accelerator": "GPU_4xA10"})
    assert check_config({"SYNCHRONOUS": True, "existing_cluster_id": "1"}) == {"existing_cluster_id": "1"}


@pytest.mark.parametrize("name", ["databricks-cluster.json", "databricks-serverless.json"])
def test_the_configs_that_come_with_the_project_are_whole(name):
    config = json.loads((ROOT / "profiles" / name).read_text())
    assert check_config(config) == config, "nothing is left to be filled in"


def test_the_runtime_is_the_newest_with_long_term_support(workspace):
    from databricks.sdk.service.jobs import SparkPythonTask

    from personalize.databricks.compute import task_on

    config = check_config({"new_cluster": {"node_type_id": "g5.4xlarge"}})
    task, _ = task_on(connect(), config, SparkPythonTask("/Volumes/a/b/c/x.py"))
    assert task.new_cluster.spark_version == "18.0.x-gpu-ml-scala2.13"


def test_a_token_in_the_remotes_address_does_not_travel(project):
    git(project, "remote", "add", "origin", "https://me:hunter2@github.com/me/personalize.git")
    git(project, "update-ref", "refs/remotes/origin/main", "HEAD")
    commit = pushed_commit(project)
    assert isinstance(commit, Commit)
    assert commit.url == "https://github.com/me/personalize.git"
    assert commit.provider == "gitHub"


@pytest.mark.parametrize(
    ("address", "url", "kind"),
    [
        ("git@gitlab.com:me/personalize.git", "https://gitlab.com/me/personalize.git", "gitLab"),
        ("ssh://git@github.com/me/personalize.git", "https://github.com/me/personalize.git", "gitHub"),
        ("ssh://git@github.com:22/me/personalize.git", "https://github.com/me/personalize.git", "gitHub"),
        (
            "https://me:t@git.example.org:8443/me/p.git",
            "https://git.example.org:8443/me/p.git",
            "gitLabEnterpriseEdition",
        ),
    ],
)
def test_an_address_of_any_kind_becomes_one_that_the_workspace_takes(project, address, url, kind):
    git(project, "remote", "add", "origin", address)
    git(project, "update-ref", "refs/remotes/origin/main", "HEAD")
    assert "git_provider in the backend config" in str(pushed_commit(project)) or kind != "gitLabEnterpriseEdition"
    given = kind if kind == "gitLabEnterpriseEdition" else ""
    commit = pushed_commit(project, given)
    assert (commit.url, commit.provider) == (url, kind)


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
    travels = {".gitignore", "MLproject", "empty.py", "entry.py", "personalize/databricks/driver.py"}
    assert travels <= set(names)
    assert not {*private, "keys.py"} & set(names)
    assert "photographs/ (data, 1 file)" in caplog.text
    assert "teapot/ (a folder of pictures, 2 files)" in caplog.text
    assert "keys.py (looks like a secret: GitHub Token)" in caplog.text


def test_parameters_travel_as_one_plain_word():
    packed = driver.pack({"prompt": PROMPT, "empty": ""})
    assert driver.unpacked(packed) == {"prompt": PROMPT, "empty": ""}
    assert not set(packed) & set("{}\"'$ ")


def test_what_the_backend_tells_is_shown_by_mlflow_run():
    code = "from personalize.databricks import backend; backend._speak(); backend._logger.info('job running')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "job running" in done.stderr


def test_the_driver_imports_the_standard_library_only():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); before = set(sys.modules); import driver; "
        "print(sorted(m for m in set(sys.modules) - before if m.split('.')[0] not in sys.stdlib_module_names))"
    )
    folder = str(ROOT / "personalize" / "databricks")
    done = subprocess.run([sys.executable, "-S", "-c", code, folder], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['driver']"


def test_the_driver_copies_a_checkout_that_it_may_not_write_to(tmp_path):
    checkout, home = tmp_path / "checkout", tmp_path / "home"
    (checkout / "deep").mkdir(parents=True)
    (checkout / "deep" / "file").write_text("1")
    (checkout / "deep" / "file").chmod(0o444)
    (checkout / "deep").chmod(0o555)
    root = driver.copy(checkout, home)
    assert Path(root, "deep", "file").stat().st_mode & 0o200
    assert Path(root, "deep").stat().st_mode & 0o200
    (checkout / "deep").chmod(0o755)


@pytest.mark.parametrize("filters", [True, False])
def test_the_driver_unpacks_a_snapshot_also_where_tarfile_has_no_filters(tmp_path, monkeypatch, filters):
    (tmp_path / "step.py").write_text("1")
    with tarfile.open(tmp_path / "snapshot.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "step.py", "steps/step.py")
    if not filters:  # as Python 3.11.0 to 3.11.3, Debian 12's among them
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    home = tmp_path / "home"
    home.mkdir()
    assert (driver.unpack(tmp_path / "snapshot.tar.gz", home) / "steps" / "step.py").read_text() == "1"


def closure(*packages):
    """Names of the packages and of all that they need, as they are installed here."""
    from importlib.metadata import PackageNotFoundError, requires

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found, waiting = set(), list(packages)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        found.add(name)
        try:
            needed = [Requirement(text) for text in requires(name) or []]
        except PackageNotFoundError:
            continue
        waiting += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture
def locked_project(project):
    """The project with a lock file: the part of the real one that `mlflow run` needs."""
    from personalize.environment import EnvironmentRefused, block

    real, parts = (ROOT / "requirements.lock").read_text(), []
    for name in sorted({"pip", "uv", *closure("mlflow-skinny", "databricks-sdk")}):
        try:
            parts.append(block(real, name))
        except EnvironmentRefused:
            continue
    (project / "requirements.lock").write_text("".join(parts))
    shutil.copy(ROOT / "requirements-torch.lock", project)
    shutil.copy(ROOT / "personalize" / "environment.py", project / "personalize")
    (project / "entry.py").write_text(
        "import importlib.util, mlflow, torch\n"
        "with mlflow.start_run():\n"
        "    mlflow.set_tags({'python': mlflow.__file__, 'torch': torch.__version__})\n"
        "    mlflow.set_tag('torchvision', importlib.util.find_spec('torchvision') is not None)\n"
    )
    committed(project, "locked")
    return project


@pytest.fixture
def runtime(workspace, monkeypatch, tmp_path):
    """A runtime's Python with the SDK, a torchvision that does not fit, and nothing else."""
    here = shutil.which("uv", path=str(Path(sys.executable).parent))
    subprocess.run([here, "venv", "--quiet", "--seed", "--python", sys.executable, tmp_path / "runtime"], check=True)
    python = tmp_path / "runtime" / "bin" / "python"
    subprocess.run([here, "pip", "install", "--quiet", "--python", python, "databricks-sdk==0.156.0"], check=True)
    site = next((tmp_path / "runtime" / "lib").glob("python*/site-packages"))
    (site / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.setattr(workspace.jobs, "python", str(python))


@pytest.fixture
def wheels(tmp_path):
    """A folder with a build of torch of this machine's own, as small as can be."""
    version = "2.13.0+own"
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels" / f"torch-{version}-py3-none-any.whl", "w") as wheel:
        info = f"torch-{version}.dist-info"
        wheel.writestr("torch.py", f"__version__ = {version!r}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", f"torch.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return tmp_path / "wheels"


@needs_mounts
@pytest.mark.slow
def test_a_job_builds_its_own_environment_on_a_runtime_that_has_none_of_it(
    workspace, tracking, locked_project, runtime, wheels, quick, monkeypatch
):
    pushed(locked_project, monkeypatch)
    cluster = {**CLUSTER["new_cluster"], "spark_env_vars": {"UV_FIND_LINKS": str(wheels)}}
    job = submit(locked_project, tracking, {"new_cluster": cluster})
    assert job.wait(), job.why(job.look())
    tags = mlflow.get_run(job.run_id).data.tags
    assert "/environment/lib/" in tags["python"], "built by the job on its own disk"
    assert tags["torch"] == "2.13.0+own"
    assert tags["torchvision"] == "False", "nothing of the runtime's packages is seen"


def test_a_jobs_copy_without_git_says_what_it_is_of(monkeypatch, tmp_path):
    from personalize.recipe.fingerprint import lineage

    assert lineage(tmp_path).tags()["lineage.commit"] == "none"
    monkeypatch.setenv("PERSONALIZE_COMMIT", "0123abc")
    assert lineage(tmp_path).tags() == {"lineage.commit": "0123abc", "lineage.dirty": "false"}
    monkeypatch.setenv("PERSONALIZE_COMMIT", "0123abc+changes")
    assert lineage(tmp_path).tags()["lineage.dirty"] == "true"
