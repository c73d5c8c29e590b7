"""A submitted job: how it goes, how it ended and why, and how it is stopped."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from mlflow.projects.submitted_run import SubmittedRun

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.service.jobs import Run, RunState

PATIENCE_S = 600
"""For how long a workspace that does not answer is asked again while a job runs there."""
LOG_LINES = 5
"""Lines at the end of what a log has newly got that are shown, and those before that begin a step."""
HEADING = "▸ "
_logger = logging.getLogger(__name__)


class JobRun(SubmittedRun):
    """A submitted job and the MLflow run that it fills."""

    def __init__(self, client: WorkspaceClient, job_run_id: int, run_id: str, poll_s: float = 10) -> None:
        super().__init__()
        self.client, self.job_run_id, self._run_id, self.poll_s = client, job_run_id, run_id, poll_s
        self._shown: set[str] = set()
        self._read: dict[int, list[str]] = {}

    @property
    def run_id(self) -> str:
        """The MLflow run."""
        return self._run_id

    def look(self) -> Run:
        """The job as the workspace sees it; asked again for ten minutes where it does not answer."""
        from databricks.sdk.errors import InternalError, TemporarilyUnavailable, TooManyRequests
        from requests.exceptions import RequestException

        begun = time.monotonic()
        while True:
            try:
                return self.client.jobs.get_run(self.job_run_id)
            except (TimeoutError, RequestException, InternalError, TemporarilyUnavailable, TooManyRequests) as error:
                if time.monotonic() - begun > PATIENCE_S:
                    raise
                _logger.warning("The workspace does not answer (%s); the job runs on. Asking again.", error)
                time.sleep(self.poll_s)

    def get_status(self) -> str:
        """The job's status as an MLflow run status: RUNNING, FINISHED, FAILED or KILLED."""
        return _status(self.look().state)

    def wait(self) -> bool:
        """Wait for the job and tell how it goes. One that ended without ending its MLflow run ends it here."""
        while True:
            run = self.look()
            self._tell(run)
            status = _status(run.state)
            if status != "RUNNING":
                break
            time.sleep(self.poll_s)
        if status != "FINISHED":
            _logger.error("%s", self.why(run))
            self._end_run(status)
        return status == "FINISHED"

    def why(self, run: Run) -> str:
        """Why the job did not succeed: what the workspace says of it and of each task, and the end of their output."""
        result = run.state.result_state.value if run.state and run.state.result_state else "an internal error"
        said = [f"The job ended as {result}. {_message(run.state)}".rstrip()]
        if result == "TIMEDOUT":
            said.append("Give it more with timeout_minutes in the backend config; finished steps are not run again.")
        for task in run.tasks or []:
            error, log = self.output(int(task.run_id or 0))
            said += [f"task {task.task_key}: {_message(task.state)}".rstrip(": "), error, log[-4000:]]
        return "\n".join(line for line in said if line)

    def output(self, task_run_id: int) -> tuple[str, str]:
        """A task's error, and the end of what it printed: whole lines, of which a workspace keeps the last 5 MB."""
        from databricks.sdk.errors import DatabricksError

        try:
            found = self.client.jobs.get_run_output(task_run_id)
        except DatabricksError as error:
            return f"(its output cannot be read: {error})", ""
        logs = (found.logs or "").partition("\n")[2] if found.logs_truncated else found.logs or ""
        return (found.error or "").strip(), logs.strip()

    def cancel(self) -> None:
        """Cancel the job and wait until it has ended."""
        self.client.jobs.cancel_run(self.job_run_id)
        while self.get_status() == "RUNNING":
            time.sleep(self.poll_s)
        self._end_run("KILLED")

    def _tell(self, run: Run) -> None:
        """What is new: the job's state, which steps have begun, as the MLflow run says, and the end of its log."""
        from databricks.sdk.service.jobs import RunLifeCycleState
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        from personalize.recipe.tracking import STEPS

        state = run.state.life_cycle_state.value if run.state and run.state.life_cycle_state else "PENDING"
        lines = [f"job {state.lower()} {_message(run.state)}".rstrip()]
        try:
            tags = MlflowClient().get_run(self._run_id).data.tags
            begun = {key.removeprefix(STEPS): what for key, what in tags.items() if key.startswith(STEPS)}
            lines += [f"{step}: {what.partition(' ')[0]}" for step, what in begun.items()]
        except MlflowException:
            pass
        for line in lines:
            if line not in self._shown:
                self._shown.add(line)
                _logger.info("%s", line)
        for task in run.tasks or []:
            if task.run_id and task.state and task.state.life_cycle_state is RunLifeCycleState.RUNNING:
                said = [line.rstrip() for line in self.output(task.run_id)[1].splitlines()]
                new = unread(said, self._read.get(task.run_id, []))
                for line in [each for each in new[:-LOG_LINES] if each.startswith(HEADING)] + new[-LOG_LINES:]:
                    _logger.info("  %s", line)
                self._read[task.run_id] = said[-LOG_LINES:]

    def _end_run(self, status: str) -> None:
        from mlflow import MlflowClient

        if MlflowClient().get_run(self._run_id).info.status in ("RUNNING", "SCHEDULED"):
            MlflowClient().set_terminated(self._run_id, status)


def unread(said: list[str], before: list[str]) -> list[str]:
    """The lines of a log after those that were the last ones `before`; all where they have gone out of it.

    Not by their number: of a long log a workspace keeps the end alone, so the first of them may have gone.
    """
    for known in (before, before[:-1]):  # of the last one only a part may have been there
        for gone in range(len(known)):
            rest = known[gone:]
            for end in [len(rest)] if gone else range(len(said), len(rest) - 1, -1):
                if said[end - len(rest) : end] == rest:
                    return said[end:]
    return said


def _status(state: RunState | None) -> str:
    cycle = state.life_cycle_state.value if state and state.life_cycle_state else "PENDING"
    if cycle == "INTERNAL_ERROR":
        return "FAILED"
    if cycle not in ("TERMINATED", "SKIPPED"):
        return "RUNNING"
    result = state.result_state.value if state and state.result_state else "FAILED"
    return {"SUCCESS": "FINISHED", "CANCELED": "KILLED"}.get(result, "FAILED")


def _message(state: RunState | None) -> str:
    return (state.state_message or "").strip() if state else ""
