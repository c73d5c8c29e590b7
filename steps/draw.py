"""Draw: the tuned model is asked about every subject what the base was about its class noun, from the same noise.
needs: caption, train   gives: images/

So does the champion, where the registry has one: which of two good models is better shows side by side (`champion/`).
The Config extends baseline's, and recipe.yaml names no question for this step: what `baseline:` says there holds for
all, so that the adapter is the only difference between their pictures. A champion whose adapter is not the one that was
registered ends the run: left out, it would let any model pass that is to be no worse than it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from personalize import hub
from personalize.cards import command
from personalize.evidence.statement import EvidenceError, Statement
from personalize.evidence.trust import Trust, signed_by
from personalize.files import file_digest, write_json
from personalize.recipe import HOW_NOT_WHAT, Inputs, RecipeError
from steps import baseline

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

NEEDS = ("caption", "train")


class Config(baseline.Config):
    """What baseline is asked, and of whom besides."""

    champion: str = Field("", description="Registered model whose champion answers too; nobody if empty")
    trust: Trust = Field(
        Trust(), description="The trust policy: whose models may answer as the champion", json_schema_extra=HOW_NOT_WHAT
    )


def sources(config: Config) -> Mapping[str, str]:
    """What the base's pictures depend on."""
    return baseline.sources(config)


def remote_sources(config: Config) -> Mapping[str, str]:
    """Which version is the champion."""
    versions = champions(config.champion)
    called = ", before it ".join(f"version {version.version} ({version.source})" for version in versions)
    return {"champion": called or "none"} if config.champion else {}


def check(config: Config) -> None:
    """Before anything is trained: whoever is asked for a comparison is what was registered. Raises RecipeError."""
    from personalize.serving.promotions import history

    found = champions(config.champion)
    for version in found:
        registered(version, config.trust)
    past = history(config.champion, "", config.trust) if found else None
    if past and (said := past.wrong or past.instead_of(str(found[0].version))):
        raise RecipeError(
            f"nothing is compared with {config.champion} version {found[0].version}, which the alias champion names: "
            f"{said if past.wrong else f'{said} was promoted last'}. `{command('verify')}` says more"
        )


def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    from personalize.dreambooth.sampling import adapter_file

    captioned, lora = inputs["caption"].path, inputs["train"].path / "lora"
    baseline.report(baseline.draw(config, captioned, outputs, "tuned model", lora), outputs)
    own = file_digest(adapter_file(lora))
    for version in champions(config.champion):
        theirs, statement = registered(version, config.trust)
        if file_digest(adapter_file(theirs)) == own:
            continue  # the champion is this very model: it is compared with whom it took the place of
        if why := _cannot_answer(version, statement, theirs, config, captioned):
            print(f"the champion, version {version.version}, is not compared: {why}", flush=True)
            write_json(outputs / "diagnostics" / "left_out.json", {"version": version.version, "why": why})
        else:
            print(f"the champion, version {version.version}, is {signed_by(statement)}", flush=True)
            speed = baseline.draw(config, captioned, outputs / "champion", "the champion", theirs)
            baseline.report(speed, outputs, "champion")
            write_json(outputs / "champion" / "version.json", {"name": version.name, "version": str(version.version)})
        return


def champions(name: str) -> list[ModelVersion]:
    """The champion of that name and the one that it was compared with when it was evaluated, as far as there are any.

    A registry that cannot be asked has none, and it is said: whether it takes a model is checked before training.
    """
    from mlflow.exceptions import MlflowException

    from personalize.serving import registry

    if not name:
        return []
    try:
        champion = registry.alias_or_none(name, registry.CHAMPION)
        before = champion.tags.get("compared_with", "") if champion else ""
        found = [champion, registry.alias_or_none(name, before) if before.isdigit() else None]
        return [version for version in found if version is not None]
    except MlflowException as error:
        print(f"the registry does not say who the champion of {name} is: {error}", flush=True)
        return []


def registered(version: ModelVersion, trust: Trust) -> tuple[Path, Statement]:
    """The folder of its adapter, and the statement that it was checked against.

    Raises:
        RecipeError: it carries no statement, the adapter is another, or the policy does not take who signed it.
    """
    from personalize.serving.checking import check_adapter

    try:
        adapter, statement, wrong = check_adapter(version.name, version.version)
        against = trust.against_maker(statement.key)
        said = f"its statement {against}" if against else ""
        said = f"it is not as it was registered: {'; '.join(wrong)}" if wrong else said
    except EvidenceError as error:
        said = f"it has {error}"
    if said:
        at = f"models:/{version.name}/{version.version}"
        raise RecipeError(
            f"nothing is compared with {version.name} version {version.version}: {said}. "
            f"`{command('verify', model=at)}` says more. Make a version that holds the champion, or draw "
            "without one: -P draw.champion=''"
        )
    return adapter, statement


def _cannot_answer(version: ModelVersion, statement: Statement, adapter: Path, config: Config, captioned: Path) -> str:
    """Why its pictures could not be compared; empty where they can."""
    from personalize.photographs.prompts import load_subjects

    if statement.predicate.get("base") != hub.identity(config.base_model, config.base_revision):
        return f"it was trained on another base model ({version.tags.get('base_model', 'unknown')})"
    known = {(subject.token, subject.class_noun) for subject in load_subjects(adapter)}
    asked = [(subject.token, subject.class_noun) for subject in load_subjects(captioned)]
    unknown = [f"{token} {noun}" for token, noun in asked if (token, noun) not in known]
    return f"it does not know {', '.join(unknown)}" if unknown else ""
