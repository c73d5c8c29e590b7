"""`mlflow run . --backend databricks-jobs --backend-config cluster.json`: the project as a Databricks job.

MLflow's own `databricks` backend does not work on runtime 13 ML and later. This one submits a one-time job whose task
runs `driver.py`. The code is the pushed Git commit when the checkout is clean, and otherwise a snapshot in a volume, so
what runs is always what lies here. cluster.json:

    {
      "new_cluster": {"spark_version": "17.3.x-gpu-ml-scala2.13", "node_type_id": "g5.4xlarge", "num_workers": 0, ...},
      "volume": "/Volumes/main/personalize/files",     for snapshots; not needed when the commit is pushed
      "git_provider": "gitHubEnterprise",              only for a Git host that is not known by its name
      "libraries": ["diffusers==0.42.1"],              default: what conda.yaml pins
      "timeout_minutes": 720
    }

`existing_cluster_id` takes the place of `new_cluster` on a running cluster. MLflow finds the backend by an entry point
of an installed distribution, so `pip install --no-deps -e .` once. The tracking server must be one that the job
reaches: `MLFLOW_TRACKING_URI=databricks` and an experiment of the workspace (`--experiment-name /Users/you/it`).
"""

from __future__ import annotations

import io
import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.projects.backend.abstract_backend import AbstractBackend
from mlflow.projects.submitted_run import SubmittedRun

from personalize.databricks.snapshot import Commit, pushed_commit, snapshot
from personalize.databricks.volumes import check_volume
from personalize.databricks.workspace import WorkspaceError, connect

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.service.jobs import Run, SubmitTask

KEYS = ("new_cluster", "existing_cluster_id", "volume", "git_provider", "libraries", "timeout_minutes")
MLFLOWS_OWN = ("ENV_MANAGER", "SYNCHRONOUS", "DOCKER_ARGS", "STORAGE_DIR", "build_image", "docker_auth")
DRIVER = "personalize/databricks/driver.py"
LONGEST_PARAMETERS = 9_000
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
        """Submit and return at once; `mlflow run` waits on the result unless it was told not to.

        Raises:
            ExecutionException: the backend config, the tracking server, the workspace or the state of the checkout does
                not allow it. `mlflow run` prints its message without a traceback.
        """
        from databricks.sdk.errors import DatabricksError
        from mlflow.exceptions import ExecutionException

        try:
            return self._run(project_uri, entry_point, params, version, backend_config, tracking_uri, experiment_id)
        except (WorkspaceError, DatabricksError) as error:
            raise ExecutionException(str(error)) from error

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
        client = connect()
        given = json.dumps(params, ensure_ascii=False)
        if len(given.encode()) > LONGEST_PARAMETERS:
            raise WorkspaceError(
                "The parameters are longer than a job takes (10,000 bytes with the rest). Put them into a profile file."
            )
        run = get_or_create_run(None, project_uri, experiment_id, str(work_dir), version, entry_point, params)
        arguments = ["--entry-point", entry_point, "--run-id", run.info.run_id, "--tracking-uri", tracking_uri]
        try:
            return submit(client, config, work_dir, [*arguments, "--parameters", given], run.info.run_id)
        except Exception:
            MlflowClient().set_terminated(run.info.run_id, "FAILED")
            raise


def submit(client: WorkspaceClient, config: dict[str, Any], project: Path, arguments: list[str], run_id: str) -> JobRun:
    """Send the code where the cluster finds it, and start the job."""
    from databricks.sdk.service.jobs import GitProvider, GitSource, Source, SparkPythonTask
    from mlflow import MlflowClient

    commit = pushed_commit(project, config.get("git_provider", ""))
    git_source = None
    if isinstance(commit, Commit):
        python_file = str(Path(commit.folder) / DRIVER)
        task = SparkPythonTask(python_file=python_file, parameters=arguments, source=Source.GIT)
        git_source = GitSource(commit.url, GitProvider(commit.provider), git_commit=commit.sha)
        said = f"commit {commit.sha[:12]} of {commit.url}"
    elif config.get("volume"):
        archive, digest = upload_snapshot(client, project, config["volume"])
        driver = archive.rsplit("/", 1)[0] + "/driver.py"
        task = SparkPythonTask(python_file=driver, parameters=[*arguments, "--snapshot", archive])
        MlflowClient().set_tag(run_id, "personalize.snapshot", digest)
        said = f"a snapshot of {project}, because {commit}"
    else:
        raise WorkspaceError(
            f"The job cannot get this code: {commit}. Commit and push, or name a volume for snapshots in the backend "
            'config: "volume": "/Volumes/<catalog>/<schema>/<volume>"'
        )
    minutes = config.get("timeout_minutes")
    answer = client.jobs.submit(
        run_name=f"personalize {run_id[:8]}",
        tasks=[cluster_task(config, project, task)],
        git_source=git_source,
        timeout_seconds=int(minutes * 60) if minutes else None,
        idempotency_token=run_id,
    )
    submitted: Any = answer.response
    job = JobRun(client, int(submitted.run_id), run_id)
    MlflowClient().set_tag(run_id, "mlflow.databricks.runURL", job.look().run_page_url or "")
    _logger.info("Submitted %s as %s", said, job.look().run_page_url)
    return job


def cluster_task(config: dict[str, Any], project: Path, task: Any) -> SubmitTask:
    """The job's one task: what runs, where, and with which packages."""
    from databricks.sdk.service.compute import ClusterSpec, Library, PythonPyPiLibrary
    from databricks.sdk.service.jobs import SubmitTask

    packages = config.get("libraries")
    if packages is None:
        packages = pinned(project / "conda.yaml")
    return SubmitTask(
        task_key="personalize",
        spark_python_task=task,
        new_cluster=ClusterSpec.from_dict(config["new_cluster"]) if "new_cluster" in config else None,
        existing_cluster_id=config.get("existing_cluster_id"),
        libraries=[Library(pypi=PythonPyPiLibrary(package=package)) for package in packages] or None,
    )


def pinned(conda_yaml: Path) -> list[str]:
    """The pip requirements of a conda.yaml; none where there is no such file."""
    import yaml

    if not conda_yaml.is_file():
        return []
    listed = yaml.safe_load(conda_yaml.read_text()).get("dependencies", [])
    return [package for entry in listed if isinstance(entry, dict) for package in entry.get("pip", [])]


def upload_snapshot(client: WorkspaceClient, project: Path, volume: str) -> tuple[str, str]:
    """Put the project and the driver into the volume, once for the same content; the archive's path and digest."""
    from databricks.sdk.errors import NotFound

    digest, data = snapshot(project)
    folder = str(check_volume(volume) / "snapshots" / digest[:16])
    archive = f"{folder}/project.tar.gz"
    try:
        client.files.get_metadata(archive)
    except NotFound:
        client.files.create_directory(folder)
        client.files.upload(f"{folder}/driver.py", io.BytesIO(Path(__file__).with_name("driver.py").read_bytes()))
        client.files.upload(archive, io.BytesIO(data), overwrite=True)
    return archive, digest


def check_config(backend_config: dict[str, Any]) -> dict[str, Any]:
    """The backend's own keys, checked. MLflow adds some that say nothing to a job.

    Raises:
        WorkspaceError: a key is unknown, or it is not said where to run.
    """
    config = {key: value for key, value in backend_config.items() if key not in MLFLOWS_OWN}
    unknown = sorted(set(config) - set(KEYS))
    if unknown:
        raise WorkspaceError(f"Unknown key {unknown[0]!r} in the backend config; known are {', '.join(KEYS)}.")
    if ("new_cluster" in config) == ("existing_cluster_id" in config):
        raise WorkspaceError("The backend config must have either new_cluster or existing_cluster_id.")
    return config


class JobRun(SubmittedRun):
    """A submitted job and the MLflow run that it fills."""

    def __init__(self, client: WorkspaceClient, job_run_id: int, run_id: str, poll_s: float = 10) -> None:
        super().__init__()
        self.client, self.job_run_id, self._run_id, self.poll_s = client, job_run_id, run_id, poll_s

    @property
    def run_id(self) -> str:
        """The MLflow run."""
        return self._run_id

    def look(self) -> Run:
        """The job as the workspace sees it."""
        return self.client.jobs.get_run(self.job_run_id)

    def get_status(self) -> str:
        """The job's status as an MLflow run status: RUNNING, FINISHED, FAILED or KILLED."""
        state = self.look().state
        cycle = state.life_cycle_state.value if state and state.life_cycle_state else "PENDING"
        if cycle == "INTERNAL_ERROR":
            return "FAILED"
        if cycle not in ("TERMINATED", "SKIPPED"):
            return "RUNNING"
        result = state.result_state.value if state and state.result_state else "FAILED"
        return {"SUCCESS": "FINISHED", "CANCELED": "KILLED"}.get(result, "FAILED")

    def wait(self) -> bool:
        """Wait for the job. A job that ended without ending its MLflow run (no cluster, say) ends it here."""
        while (status := self.get_status()) == "RUNNING":
            time.sleep(self.poll_s)
        if status != "FINISHED":
            state = self.look().state
            _logger.error("The job ended as %s. %s\n%s", status, (state and state.state_message) or "", self.output())
            self._end_run(status)
        return status == "FINISHED"

    def output(self) -> str:
        """The end of what the job printed, as far as the workspace gives it."""
        from databricks.sdk.errors import DatabricksError

        try:
            tasks = self.look().tasks or []
            return "\n".join(
                (self.client.jobs.get_run_output(int(task.run_id or 0)).logs or "")[-4000:] for task in tasks
            )
        except DatabricksError as error:
            return f"(its output cannot be read: {error})"

    def cancel(self) -> None:
        """Cancel the job and wait until it has ended."""
        self.client.jobs.cancel_run(self.job_run_id)
        while self.get_status() == "RUNNING":
            time.sleep(self.poll_s)
        self._end_run("KILLED")

    def _end_run(self, status: str) -> None:
        from mlflow import MlflowClient

        if MlflowClient().get_run(self._run_id).info.status in ("RUNNING", "SCHEDULED"):
            MlflowClient().set_terminated(self._run_id, status)
