"""What a worker does: one subject's recipe, through the engine, and a row about what became of it.

This module is imported in processes that Ray starts, on this machine or another one.
"""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from personalize.fleet import record
from personalize.fleet.record import Row
from personalize.fleet.work import Work
from personalize.recipe.config import Override

LOG = "output.txt"
"""Artifact of a subject's project run: what its steps printed."""


PASSING = ("TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR", "REQUEST_LIMIT_EXCEEDED")
"""Codes of MLflow's errors that say nothing of what was asked."""
CROWDED = "QueuePool limit"
"""Of a server whose connections to its database are all in use: MLflow calls that a bad request."""


class ServerAway(Exception):
    """The tracking server failed within a subject: not the subject's fault, so it is worth another try."""


@dataclass(frozen=True)
class Place:
    """Where a worker works, and what is the same for all subjects.

    fleet: the run that their runs hang under; threads: that compute, as the plan has counted on.
    """

    root: str
    profile: str
    overrides: tuple[Override, ...]
    until: str
    fleet: str
    experiment: str
    tracking_uri: str
    registry_uri: str
    threads: str

    @property
    def environment(self) -> dict[str, str]:
        """The tracking server, the fleet's experiment, and the threads."""
        found = {"MLFLOW_TRACKING_URI": self.tracking_uri, "MLFLOW_EXPERIMENT_ID": self.experiment}
        found |= {"MLFLOW_REGISTRY_URI": self.registry_uri} if self.registry_uri else {}
        return found | {"OMP_NUM_THREADS": self.threads}


def carry_out(work: Work, place: Place) -> Row:
    """The recipe for one subject. Raises ServerAway; what is wrong with the subject itself is said in its row."""
    settle(place.root, place.environment)
    from personalize.recipe.api import Recipe
    from personalize.recipe.errors import RecipeError
    from personalize.recipe.project import Under

    started = time.monotonic()
    heard = io.StringIO()
    runner = None
    try:
        with contextlib.redirect_stdout(heard):
            recipe = Recipe(place.profile, place.root, [*place.overrides, *work.overrides])
            tags = {record.SUBJECT: work.name}
            runner = recipe.runner(until=place.until or None, tags=tags, under=Under(place.fleet, work.name))
            runner.run()
        project = runner.store.by_id(runner.parent_id)
        assert project is not None
        row = record.of_run(work, runner.store, runner.prepared.merged, runner.prepared.target, project)
    except RecipeError as error:
        _refuse_away(error.__cause__)
        row = record.blank(work) | {"state": "failed", "why": str(error), "run": runner.parent_id if runner else ""}
        if card := _failure_card(runner):
            row["card"] = card
    except Exception as error:
        _refuse_away(error)
        row = record.blank(work) | {"state": "failed", "why": f"{type(error).__name__}: {error}"}
    finally:
        if runner is not None and runner.parent_id:
            with contextlib.suppress(Exception):
                runner.store.log_text(runner.parent_id, heard.getvalue(), LOG)
    return row | {"seconds": round(time.monotonic() - started, 2)}


def _refuse_away(error: BaseException | None) -> None:
    """Raises ServerAway where an error is MLflow's and may be gone the next moment."""
    passing = getattr(error, "error_code", "") in PASSING or CROWDED in str(error)
    if passing and type(error).__module__.startswith("mlflow."):
        raise ServerAway(f"MLflow: {error}") from None


def _failure_card(runner: object) -> str:
    """The address of the card that the failed step has left; empty where none did."""
    from personalize.cards.links import address
    from personalize.recipe.tracking import STEPS

    project = runner.store.by_id(runner.parent_id) if runner and runner.parent_id else None  # type: ignore[attr-defined]
    steps = project.tags if project is not None else {}
    failed = [text.partition(" ")[2] for name, text in steps.items() if name.startswith(STEPS) and "failed" in text]
    return address(failed[-1]) if failed else ""


def settle(root: str, environment: Mapping[str, str]) -> None:
    """This process, which has worked elsewhere until now, works in the project's folder; no run is its own."""
    os.chdir(root)
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
        os.environ.pop(name, None)
    os.environ.update(environment)
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"


def looks(root: str, versions: dict[str, str]) -> list[str]:
    """What a machine of the cluster lacks to be a worker: the project's folder, or these versions of packages."""
    from importlib.metadata import PackageNotFoundError, version

    if not Path(root, "recipe.yaml").is_file():
        return [f"the project's folder {root} is not there"]
    found = []
    for name, wanted in versions.items():
        try:
            there = version(name)
        except PackageNotFoundError:
            there = "none"
        if there != wanted:
            found.append(f"{name} {there}, and {wanted} here")
    return found
