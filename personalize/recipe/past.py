"""Past results, for a step that looks at runs other than its own: any run by its id, and what that run was given."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from personalize.cards.links import address
from personalize.evidence.chain import Link
from personalize.evidence.statement import EvidenceError, Statement, short
from personalize.evidence.trust import Trust, signed_by
from personalize.recipe import provenance
from personalize.recipe.errors import RecipeError
from personalize.recipe.showing import REDRAWN, given_to, inputs_of, made_of
from personalize.recipe.steps import Input, Inputs
from personalize.recipe.tracking import StepRun, Store, used


@dataclass(frozen=True)
class Past:
    """A finished run of a step. name: of the run that was asked for; config: the step's; inputs: what it was given."""

    run_id: str
    name: str
    own: Input
    inputs: Inputs
    config: Mapping[str, Any]
    tags: Mapping[str, str]


def asked() -> Mapping[str, Any]:
    """What was asked of the project run that a step runs in: its profile, and the overrides by name.

    Empty outside the engine. A value with a secret in it is not kept: its name stands under `withheld`.
    """
    import mlflow
    import yaml

    active = mlflow.active_run()
    parent = active.data.tags.get("mlflow.parentRunId") if active else None
    if not parent:
        return {}
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a bar for one small file tells nothing
    found: Mapping[str, Any] = yaml.safe_load(mlflow.artifacts.load_text(f"runs:/{parent}/recipe.resolved.yaml"))
    return found


def find(run_id: str, step: str) -> Past:
    """The run of `step` that is meant by its own id, or by that of a project run which ran or reused it.

    Raises RecipeError where there is no such run, it is of another kind, or it did not finish.
    """
    import mlflow

    store = Store(mlflow.MlflowClient(), "", [], Path.cwd())
    meant = store.by_id(run_id.strip())
    if meant is None:
        raise RecipeError(f"run {run_id.strip() or '(empty)'} is not in the tracking store {mlflow.get_tracking_uri()}")
    past = _of_step(store, meant, step)
    if past.status != "FINISHED":
        raise RecipeError(
            f"run {past.run_id} of step '{step}' is {past.status.lower()}: only a finished one has results"
        )
    made = {"inputs": {}, "config": {}} | made_of(store, past)
    own = inputs_of(store, {step: past}, {step: card_of(store, meant, past, step)})[step]
    return Past(
        past.run_id, _name(store, meant), own, inputs_of(store, given_to(store, made)), made["config"], past.tags
    )


def proven(run_id: str, trust: Trust, read: Collection[str] | None = None) -> tuple[list[Link], Statement | None]:
    """Whether a finished run and every run that it was made from are as they were made: a link for each, latest first.

    read: the steps whose outputs are fetched and read where they lie elsewhere (all of them where None); of the others
    the statements have to do, and they may be gone. Also the run's own statement, where it has one.
    """
    import mlflow

    store = Store(mlflow.MlflowClient(), "", [], Path.cwd(), trust)
    past = store.by_id(run_id)
    links = [_proven(store, past, run_id, {}, read)]
    try:
        statement = store.statement(past) if past is not None else None
    except EvidenceError:
        return links, None
    for each in provenance.of(statement) if statement is not None else ():
        if uri := each.get("uri", ""):
            run, name = uri.removeprefix("runs:/"), each["name"]
            made = store.by_id(run)
            if made is not None or read is None or name in read:
                links.append(_proven(store, made, run, each, read))
    return links, statement


def _proven(
    store: Store, past: StepRun | None, run_id: str, named: Mapping[str, Any], read: Collection[str] | None
) -> Link:
    """named: what a later run says of the one that it used (its step, its result, who signed it); may be empty."""
    step, digest = named.get("name", ""), named.get("digest", {}).get("sha256", "")
    if past is None:
        return Link(step or "run", False, f"run {run_id} of {step or 'it'} is gone")
    name = step or past.step or "run"
    if past.status != "FINISHED":
        return Link(name, False, f"run {run_id} of {name} is {past.status.lower()}")
    if said := store.doubt(past):
        return Link(name, False, f"{name}: {said}")
    statement = store.statement(past)
    if digest and provenance.result(statement) != digest:
        return Link(name, False, f"{name}: run {run_id[:8]} is not what it was when it was used")
    if (told := named.get("annotations", {}).get("key")) is not None and told != statement.key:
        apart = f"is {signed_by(statement)}, and not with {short(told)}, as is said where it was used"
        return Link(name, False, f"{name}: run {run_id[:8]} {apart}")
    if past.folder is None and (read is None or name in read):
        try:
            store.outputs(past)
        except RecipeError as error:
            return Link(name, False, f"{name}: {error}")
    looked = past.folder is not None or read is None or name in read
    files = (
        f"{len(statement.subjects)} files as they were made" if looked else "its statement holds, its files not read"
    )
    return Link(name, True, f"run {run_id[:8]}, {signed_by(statement)}; {files}")


def _of_step(store: Store, asked: StepRun, step: str) -> StepRun:
    """The run itself, or the one that a project run names in its tag `recipe.step.<step>` ("ran <id>")."""
    if asked.step == step:
        return asked
    if asked.step:
        raise RecipeError(f"run {asked.run_id} is a run of step '{asked.step}', and one of '{step}' is needed")
    run_id = used(asked.tags).get(step, "")
    past = store.by_id(run_id) if run_id else None
    if past is None:
        raise RecipeError(
            f"run {asked.run_id} has no finished '{step}': it is no run of this step, nor of a recipe with it"
        )
    return past


def card_of(store: Store, asked: StepRun, past: StepRun, step: str) -> str:
    """The card that the project run shows, where it drew its own; else the one that was drawn when the step ran."""
    own = f"{REDRAWN}/{step}.html"
    if asked.run_id != past.run_id and any(f.path == own for f in store.client.list_artifacts(asked.run_id, REDRAWN)):
        return address(asked.run_id, own)
    return address(past.run_id)


def _name(store: Store, asked: StepRun) -> str:
    """What people call it: the project run's name."""
    parent = store.by_id(asked.tags.get("mlflow.parentRunId", "")) if asked.step else asked
    return str((parent or asked).tags.get("mlflow.runName", ""))
