"""Promote: a person's approval makes the challenger the champion.   gives: promotion.json

    mlflow run . -e promote -P approved_by=you -P reason="the legs are right"
    mlflow run . -e promote -P approved_by=you -P reason="back to the old one" -P version=3

Needs an evaluation card, gates that passed, and an approval: who, when and why stay as tags on the version. Nothing is
trained here: what is promoted is in the registry already, by number or by the alias `challenger`. Only as a part of
`main until=deploy` (`version` empty) does it follow the version that register has just made.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from personalize.cards import command
from personalize.files import read_json, write_json
from personalize.recipe import Inputs, RecipeError, StepConfig

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

NEEDS = ("register",)
REUSE = False


class Config(StepConfig):
    name: str = Field("personalize", min_length=1, description="The registered model")
    version: str = Field(
        "challenger",
        pattern=r"^([0-9]+|[A-Za-z][\w.-]*)?$",
        description="A version's number or an alias; empty is the version that register makes in this very run",
    )
    approved_by: str = Field("", max_length=500, description="Who approves; kept on the version")
    reason: str = Field("", max_length=1000, description="Why; kept on the version")
    approval_tag: str = Field(
        "", description="Tag that a Databricks deployment job's approval task looks for: the task's name"
    )


def needs(config: Config) -> tuple[str, ...]:
    """The registry has what is promoted; only an empty `version` asks for the steps before."""
    return () if config.version else NEEDS


def sources(config: Config) -> Mapping[str, str]:
    """Nothing; but an approval that is missing is said before anything is trained."""
    if not config.version and not (config.approved_by.strip() and config.reason.strip()):
        raise RecipeError(
            "To go on to promote and deploy, say who approves and why: -P approved_by=... -P reason=... Without them "
            f"the recipe goes as far as register; look at the card, then `{command('promote')}`."
        )
    return {}


def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    from personalize.serving import registry

    which = config.version or _just_registered(inputs)
    version = registry.version_of(config.name, which)
    champion = registry.alias_or_none(config.name, registry.CHAMPION)
    already = champion is not None and str(champion.version) == str(version.version)
    _refuse_unless(config, version, already)
    approval, tags = _approval(config, version), dict(version.tags)
    previous = champion.version if champion is not None and not already else None
    if already:
        print(f"{config.name} version {version.version} is already the champion; nothing to do", flush=True)
    else:
        tags |= _promote(config, version, approval)
        instead = f" instead of version {previous}" if previous else ""
        print(f"{config.name} version {version.version} is now the champion{instead}", flush=True)
    write_json(
        outputs / "promotion.json",
        {
            "name": config.name,
            "version": str(version.version),
            "uri": f"models:/{config.name}/{version.version}",
            "alias": registry.CHAMPION,
            "previous": str(previous or ""),
            "already": already,
            **{f"approval_{key}": value for key, value in approval.items()},
            "tags": tags,
        },
    )


def _just_registered(inputs: Inputs) -> str:
    return str(read_json(inputs["register"].path / "model_version.json")["version"])


def _refuse_unless(config: Config, version: ModelVersion, already: bool) -> None:
    """Raises RecipeError with everything that is missing at once."""
    missing = []
    verdict, address = version.tags.get("verdict", ""), version.tags.get("card", "")
    if not address:
        missing.append("it has no evaluation card (tag `card`): register it with this recipe, which evaluates first")
    elif not _exists(address):
        missing.append(f"its evaluation card {address} is gone: run the recipe again to make it anew")
    if verdict != "passed":
        about = {
            "failed": "its gates failed",
            "undecided": "its gates are undecided: more prompts or seeds in evaluate would settle them",
        }
        missing.append(f"{about.get(verdict, 'it has no verdict')} (verdict={verdict or 'none'}; see {address or '-'})")
    approval = _approval(config, version)
    if not already:
        for key, option in (("by", "approved_by"), ("reason", "reason")):
            if not approval[key]:
                missing.append(f"nobody says {'who approves' if key == 'by' else 'why'}: -P {option}=...")
    if missing:
        raise RecipeError(
            f"{config.name} version {version.version} cannot be promoted: "
            + "; ".join(missing)
            + ". Nothing was changed."
        )


def _exists(address: str) -> bool:
    """Whether the artifact at `runs:/<id>/<path>` is there, without downloading it."""
    import mlflow
    from mlflow.exceptions import MlflowException

    from personalize.cards.links import parts

    try:
        run_id, path = parts(address)
        folder = path.rpartition("/")[0] or None
        return any(file.path == path for file in mlflow.MlflowClient().list_artifacts(run_id, folder))
    except (MlflowException, OSError, ValueError):
        return False


def _approval(config: Config, version: ModelVersion) -> dict[str, str]:
    """Given now, or on the version already (set in the registry's own page, say)."""
    by, reason = config.approved_by.strip(), config.reason.strip()
    pressed = config.approval_tag and version.tags.get(config.approval_tag, "").strip().lower() == "approved"
    if pressed and not by and not version.tags.get("approval_by"):  # the Approve button says neither who nor why
        by, reason = "the workspace's Approve button", reason or f"approved in the task {config.approval_tag}"
    return {
        "by": by or version.tags.get("approval_by", ""),
        "reason": reason or version.tags.get("approval_reason", ""),
        "at": version.tags.get("approval_at", "") if not by else datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _promote(config: Config, version: ModelVersion, approval: Mapping[str, str]) -> dict[str, str]:
    """Approval first, alias last: whoever sees the alias finds the approval. Returns the tags that were set."""
    import mlflow

    from personalize.serving.registry import CHAMPION

    client = mlflow.MlflowClient()
    tags = {f"approval_{key}": value for key, value in approval.items()}  # Unity Catalog takes no dot in a key
    if config.approval_tag:
        tags[config.approval_tag] = "Approved"
    for key, value in tags.items():
        client.set_model_version_tag(config.name, version.version, key, value)
    client.set_registered_model_alias(config.name, CHAMPION, version.version)
    return tags
