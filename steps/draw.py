"""Draw: the tuned model is asked about every subject what the base was about its class noun, from the same noise.
needs: caption, train   gives: images/

So does the champion, where the registry has one: which of two good models is better shows side by side (`champion/`).
The Config extends baseline's, and recipe.yaml names no question for this step: what `baseline:` says there holds for
all, so that the adapter is the only difference between their pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from personalize import hub
from personalize.files import file_digest, write_json
from personalize.recipe import Inputs
from steps import baseline

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

NEEDS = ("caption", "train")


class Config(baseline.Config):
    """What baseline is asked, and of whom besides."""

    champion: str = Field("", description="Registered model whose champion answers too; nobody if empty")


def sources(config: Config) -> Mapping[str, str]:
    """What the base's pictures depend on, and which version is the champion."""
    versions = champions(config.champion)
    called = ", before it ".join(f"version {version.version} ({version.source})" for version in versions)
    return {**baseline.sources(config), **({"champion": called or "none"} if config.champion else {})}


def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    from personalize.dreambooth.sampling import adapter_file
    from personalize.serving.package import adapter_of

    captioned, lora = inputs["caption"].path, inputs["train"].path / "lora"
    baseline.report(baseline.draw(config, captioned, outputs, "tuned model", lora), outputs)
    own = file_digest(adapter_file(lora))
    for version in champions(config.champion):
        theirs = adapter_of(version.name, version.version)
        if file_digest(adapter_file(theirs)) == own:
            continue  # the champion is this very model: it is compared with whom it took the place of
        if why := _cannot_answer(version, theirs, config, captioned):
            print(f"the champion, version {version.version}, is not compared: {why}", flush=True)
            write_json(outputs / "diagnostics" / "left_out.json", {"version": version.version, "why": why})
        else:
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


def _cannot_answer(version: ModelVersion, adapter: Path, config: Config, captioned: Path) -> str:
    """Why its pictures could not be compared; empty where they can."""
    from personalize.photographs.prompts import load_subjects

    base = version.tags.get("base_revision", "")
    if base != hub.identity(config.base_model, config.base_revision):
        return f"it was trained on another base model ({version.tags.get('base_model', 'unknown')})"
    known = {(subject.token, subject.class_noun) for subject in load_subjects(adapter)}
    asked = [(subject.token, subject.class_noun) for subject in load_subjects(captioned)]
    unknown = [f"{token} {noun}" for token, noun in asked if (token, noun) not in known]
    return f"it does not know {', '.join(unknown)}" if unknown else ""
