"""Past results, for a step that looks at runs other than its own: any run by its id, and what that run was given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from personalize.cards.links import address
from personalize.recipe.errors import RecipeError
from personalize.recipe.showing import REDRAWN, given_to, inputs_of, made_of
from personalize.recipe.steps import Input, Inputs
from personalize.recipe.tracking import StepRun, Store


@dataclass(frozen=True)
class Past:
    """A finished run of a step. name: of the run that was asked for; config: the step's; inputs: what it was given."""

    run_id: str
    name: str
    own: Input
    inputs: Inputs
    config: Mapping[str, Any]
    tags: Mapping[str, str]


def find(run_id: str, step: str) -> Past:
    """The run of `step` that is meant by its own id, or by that of a project run which ran or reused it.

    Raises RecipeError where there is no such run, it is of another kind, or it did not finish.
    """
    import mlflow

    store = Store(mlflow.MlflowClient(), "", [], Path.cwd())
    asked = store.by_id(run_id.strip())
    if asked is None:
        raise RecipeError(f"run {run_id.strip() or '(empty)'} is not in the tracking store {mlflow.get_tracking_uri()}")
    past = _of_step(store, asked, step)
    if past.status != "FINISHED":
        raise RecipeError(
            f"run {past.run_id} of step '{step}' is {past.status.lower()}: only a finished one has results"
        )
    made = {"inputs": {}, "config": {}} | made_of(store, past)
    own = inputs_of(store, {step: past}, {step: _card(store, asked, past, step)})[step]
    return Past(
        past.run_id, _name(store, asked), own, inputs_of(store, given_to(store, made)), made["config"], past.tags
    )


def _of_step(store: Store, asked: StepRun, step: str) -> StepRun:
    """The run itself, or the one that a project run names in its tag `recipe.step.<step>` ("ran <id>")."""
    if asked.tags.get("recipe.step") == step:
        return asked
    if of := asked.tags.get("recipe.step"):
        raise RecipeError(f"run {asked.run_id} is a run of step '{of}', and one of '{step}' is needed")
    how, _, run_id = asked.tags.get(f"recipe.step.{step}", "").partition(" ")
    past = store.by_id(run_id) if how in ("ran", "reused") else None
    if past is None:
        raise RecipeError(
            f"run {asked.run_id} has no finished '{step}': it is no run of this step, nor of a recipe with it"
        )
    return past


def _card(store: Store, asked: StepRun, past: StepRun, step: str) -> str:
    """The card that the project run shows, where it drew its own; else the one that was drawn when the step ran."""
    own = f"{REDRAWN}/{step}.html"
    if asked.run_id != past.run_id and any(f.path == own for f in store.client.list_artifacts(asked.run_id, REDRAWN)):
        return address(asked.run_id, own)
    return address(past.run_id)


def _name(store: Store, asked: StepRun) -> str:
    """What people call it: the project run's name."""
    parent = store.by_id(asked.tags.get("mlflow.parentRunId", "")) if "recipe.step" in asked.tags else asked
    return str((parent or asked).tags.get("mlflow.runName", ""))
