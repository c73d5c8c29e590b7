"""`mlflow run . -b databricks-jobs --backend-config profiles/databricks-cluster.json`: the project as a Databricks job.

MLflow's own `databricks` backend does not work on runtime 13 ML and later. This one submits a one-time job whose task
runs `driver.py`. The code is the pushed Git commit when the checkout is clean, and otherwise a snapshot in a volume, so
what runs is always what lies here. Keys of the backend config:

    new_cluster           a cluster of its own, as the Clusters API describes it; node_type_id is needed. Without
                          spark_version it gets the newest GPU ML runtime with long-term support, without
                          data_security_mode dedicated access, without num_workers a single node
    existing_cluster_id   a cluster that is there, in its place
    accelerator           serverless GPUs in its place: GPU_1xA10, GPU_1xH100, GPU_8xH100
    environment_version   of the serverless environment the driver starts in
    volume                /Volumes/<catalog>/<schema>/<volume> for snapshots; not needed when the commit is pushed
    git_provider          only for a Git host that is not known by its name
    timeout_minutes       after which the workspace stops the job
    budget_policy_id      to whom serverless compute is charged; a cluster has custom_tags
    wait                  true: stay, tell how it goes, cancel it on Ctrl-C, and fail where it fails

MLflow finds the backend by an entry point of the installed project, which `make setup` installs. The tracking server
must be one that the job reaches: `MLFLOW_TRACKING_URI=databricks` and an experiment of the workspace
(`--experiment-name /Users/you/it`).
"""

from __future__ import annotations

import io
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.projects.backend.abstract_backend import AbstractBackend

from personalize.databricks.compute import check_config, task_on
from personalize.databricks.driver import pack
from personalize.databricks.job import JobRun
from personalize.databricks.preflight import check_needs
from personalize.databricks.snapshot import Commit, git, pushed_commit, snapshot
from personalize.databricks.volumes import check_volume
from personalize.databricks.workspace import WorkspaceError, connect, explained, profile_of
from personalize.recipe.process import interruptible

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.service.jobs import GitSource, SparkPythonTask

DRIVER = "personalize/databricks/driver.py"
LONGEST_PARAMETERS = 10_000
"""Bytes that the JSON of a Python task's parameters may have (Jobs API, SparkPythonTask)."""
_logger = logging.getLogger(__name__)


class JobsBackend(AbstractBackend):
    """Submits entry points as one-time Databricks jobs."""

    def run(
        self,
        project_uri: str,
        entry_point: str,
        params: dict[str, str],
        version: str | None,
        backend_config: dict[str, Any],
        tracking_uri: str,
        experiment_id: str,
    ) -> JobRun:
        """Submit, and return at once unless the backend config says `wait`.

        Raises:
            ExecutionException: the backend config, the tracking server, the workspace or the state of the checkout does
                not allow it, or a job that was waited for failed. `mlflow run` prints its message without a traceback.
        """
        from mlflow.exceptions import ExecutionException, MlflowException

        _speak()
        waits = bool(backend_config.get("wait")) and not backend_config.get("SYNCHRONOUS")
        try:
            with interruptible():
                job = self._run(project_uri, entry_point, params, version, backend_config, tracking_uri, experiment_id)
                if waits:
                    with explained("waiting for the job, which runs on"):
                        _watch(job)
        except ExecutionException:
            raise
        except (WorkspaceError, MlflowException) as error:
            words = str(error)
            if "serverless" in words.lower() and "new_cluster" in backend_config:
                words += " Take profiles/databricks-serverless.json as the backend config."
            raise ExecutionException(words) from error
        return job

    def _run(
        self,
        project_uri: str,
        entry_point: str,
        params: dict[str, str],
        version: str | None,
        backend_config: dict[str, Any],
        tracking_uri: str,
        experiment_id: str,
    ) -> JobRun:
        from mlflow import MlflowClient
        from mlflow.projects.utils import fetch_and_validate_project, get_or_create_run

        config = check_config(backend_config)
        if not tracking_uri.startswith(("databricks", "http")):
            raise WorkspaceError(
                f"A job cannot reach the tracking store {tracking_uri}. Set MLFLOW_TRACKING_URI=databricks and name an "
                "experiment of the workspace: --experiment-name /Users/<you>/personalize"
            )
        work_dir = Path(fetch_and_validate_project(project_uri, version, entry_point, params))
        client = connect(profile=profile_of(tracking_uri))
        check_needs(client, work_dir, entry_point, params)
        run = get_or_create_run(None, project_uri, experiment_id, str(work_dir), version, entry_point, params)
        # a profile is one of this machine; the job is in its workspace anyway
        uri = "databricks" if profile_of(tracking_uri) else tracking_uri
        arguments = ["--entry-point", entry_point, "--run-id", run.info.run_id, "--tracking-uri", uri]
        try:
            with explained("submitting the job"):
                return submit(client, config, work_dir, [*arguments, "--parameters", pack(params)], run.info.run_id)
        except BaseException as error:
            status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
            MlflowClient().set_terminated(run.info.run_id, status)
            raise


def submit(client: WorkspaceClient, config: dict[str, Any], project: Path, arguments: list[str], run_id: str) -> JobRun:
    """Send the code where the compute finds it, and start the job."""
    from mlflow import MlflowClient

    task, source = code_source(client, config, project)
    task.parameters = arguments = [*arguments, *source.arguments]
    if source.snapshot:
        MlflowClient().set_tag(run_id, "personalize.snapshot", source.snapshot)
    if max(len(json.dumps(arguments, ensure_ascii=ascii).encode()) for ascii in (True, False)) > LONGEST_PARAMETERS:
        raise WorkspaceError(
            "The parameters are longer than a job takes (10,000 bytes with the rest). Put them into a profile file."
        )
    minutes = config.get("timeout_minutes")
    on, environments = task_on(client, config, task)
    request: dict[str, Any] = {
        "run_name": f"personalize {run_id[:8]}",
        "tasks": [on],
        "environments": environments,
        "git_source": source.git,
        "budget_policy_id": config.get("budget_policy_id"),
        "timeout_seconds": int(minutes * 60) if minutes else None,
        "idempotency_token": run_id,
    }
    try:
        job = JobRun(client, _submitted(client, request), run_id)
        page = job.look().run_page_url or ""
        MlflowClient().set_tag(run_id, "mlflow.databricks.runURL", page)
        _logger.info("Submitted %s as %s", source.said, page)
    except KeyboardInterrupt:  # it may have arrived: the same token gives the same job
        client.jobs.cancel_run(_submitted(client, request))
        raise
    return job


def _submitted(client: WorkspaceClient, request: dict[str, Any]) -> int:
    answer: Any = client.jobs.submit(**request).response
    return int(answer.run_id)


@dataclass(frozen=True)
class Code:
    """Where a job's code comes from, in words too. arguments: for the driver. snapshot: its digest, where it is one."""

    arguments: list[str]
    said: str
    git: GitSource | None = None
    snapshot: str = ""


def code_source(client: WorkspaceClient, config: dict[str, Any], project: Path) -> tuple[SparkPythonTask, Code]:
    """The driver as a task without parameters, and where it finds the project: the pushed commit, else a snapshot.

    Raises:
        WorkspaceError: no compute could get this code.
    """
    from databricks.sdk.service.jobs import GitProvider, GitSource, Source, SparkPythonTask

    commit = pushed_commit(project, config.get("git_provider", ""))
    if isinstance(commit, Commit):
        task = SparkPythonTask(str(Path(commit.folder) / DRIVER), source=Source.GIT)
        git_source = GitSource(commit.url, GitProvider(commit.provider), git_commit=commit.sha)
        said = f"commit {commit.sha[:12]} of {commit.url}"
        return task, Code(["--commit", commit.sha], said, git_source)
    if config.get("volume"):
        archive, digest = upload_snapshot(client, project, config["volume"])
        arguments = ["--snapshot", archive, "--commit", f"{_head(project)}+changes"]
        task = SparkPythonTask(archive.rsplit("/", 1)[0] + "/driver.py")
        return task, Code(arguments, f"a snapshot of {project}, because {commit}", snapshot=digest)
    raise WorkspaceError(
        f"The job cannot get this code: {commit}. Commit and push, or name a volume for snapshots in the backend "
        'config: "volume": "/Volumes/<catalog>/<schema>/<volume>"'
    )


def upload_snapshot(client: WorkspaceClient, project: Path, volume: str) -> tuple[str, str]:
    """Put the project and the driver into the volume, once for the same content; the archive's path and digest."""
    from databricks.sdk.errors import NotFound

    digest, data = snapshot(project)
    folder = str(check_volume(volume) / "snapshots" / digest[:16])
    archive = f"{folder}/project.tar.gz"
    try:
        whole = client.files.get_metadata(archive).content_length == len(data)
    except NotFound:
        whole = False
    if not whole:
        client.files.create_directory(folder)
        driver = Path(__file__).with_name("driver.py").read_bytes()
        client.files.upload(f"{folder}/driver.py", io.BytesIO(driver), overwrite=True)
        client.files.upload(archive, io.BytesIO(data), overwrite=True)  # last: where it is whole, all is
    return archive, digest


def _head(project: Path) -> str:
    try:
        return git(project, "rev-parse", "HEAD")
    except WorkspaceError:
        return "none"


def _speak() -> None:
    """What this package tells is shown: `mlflow run` gives its own messages alone a way to the terminal."""
    ours = logging.getLogger("personalize")
    if not ours.hasHandlers():
        shown = logging.StreamHandler()
        shown.setFormatter(logging.Formatter("%(message)s"))
        ours.addHandler(shown)
    ours.setLevel(logging.INFO)


def _watch(job: JobRun) -> None:
    """Wait, as MLflow does for its own backends; Ctrl-C cancels the job."""
    from mlflow.exceptions import ExecutionException

    try:
        if not job.wait():
            raise ExecutionException(f"The job failed; what it said is above. Run {job.run_id}")
    except KeyboardInterrupt:
        _logger.info("Cancelling the job")
        job.cancel()
        raise
