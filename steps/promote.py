"""Promote: a person's approval makes the challenger the champion.   gives: promotion.json

    mlflow run . -e promote                                 where it was approved in the review
    mlflow run . -e promote -P approved_by=you -P reason="the legs are right"
    mlflow run . -e promote -P approved_by=you -P reason="back to the old one" -P version=3

Needs an evaluation card, gates that passed, and an approval. No tag is believed: the verdict is worked out from the
gates in the evaluation's scores, and the bytes of card, scores, weights and votes must be those that the approval
names. An approval given here is kept in the same way. Who, when and why stay as tags on the version as well, for
people to read.

Nothing is trained here: what is promoted is in the registry already, by number or by the alias `challenger`. Only as a
part of `main until=deploy` (`version` empty) does it follow the version that register has just made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from personalize.cards import command
from personalize.files import read_json, write_json
from personalize.recipe import Inputs, RecipeError, StepConfig

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from personalize.review.approval import Evidence

NEEDS = ("register",)
REUSE = False
ACTS = True

ADAPTER = "artifacts/adapter/pytorch_lora_weights.safetensors"
"""Of a registered version: the weights that it serves."""


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
    evidence, missing = looked_at(version)
    approval, unapproved = find_approval(config, version, evidence)
    missing += [] if already else unapproved
    if missing:
        raise RecipeError(
            f"{config.name} version {version.version} cannot be promoted: {'; '.join(missing)}. Nothing was changed."
        )
    tags, previous = dict(version.tags), champion.version if champion is not None and not already else None
    if already:
        print(f"{config.name} version {version.version} is already the champion; nothing to do", flush=True)
    else:
        assert evidence is not None
        tags |= _promote(config, version, approval, evidence)
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
            **approval.tags(),
            "looked_at": None if evidence is None else asdict(evidence),
            "tags": tags,
        },
    )


def _just_registered(inputs: Inputs) -> str:
    return str(read_json(inputs["register"].path / "model_version.json")["version"])


def looked_at(version: ModelVersion) -> tuple[Evidence | None, list[str]]:
    """What lies in MLflow for a version, by its digests, and what speaks against promoting it.

    The evaluation that the version's tags name must be of the very weights that would be served.
    """
    from personalize.evaluation.recorded import parse_scores, verdict_of
    from personalize.recipe.past import find
    from personalize.review import approval

    card, evaluation = version.tags.get("card", ""), version.tags.get("evaluate_run", "")
    if not card:
        return None, ["it has no evaluation card (tag `card`): register it with this recipe, which evaluates first"]
    if not evaluation:
        return None, ["it has no verdict (tag `evaluate_run`): register it with this recipe, which evaluates first"]
    try:
        past = find(evaluation, "evaluate")
        if "train" not in past.inputs:
            raise RecipeError(f"the training that evaluation {evaluation} judged is gone")
        evidence = approval.gather(past.run_id, card, past.inputs["train"].run_id)
        served = approval.artifact(f"models:/{version.name}/{version.version}/{ADAPTER}", "adapter")
        scores = parse_scores(approval.content(evidence.scores.address, "scores"))
    except (RecipeError, ValueError) as error:
        return None, [f"{error}: run the recipe again to make it anew"]
    against = []
    if served.sha256 != evidence.model.sha256:
        against.append(
            f"its weights are not those that were evaluated (sha256 {served.sha256[:12]}, evaluated were "
            f"{evidence.model.sha256[:12]})"
        )
    try:
        verdict = verdict_of(scores)
    except ValueError as error:
        return evidence, [*against, f"{error}: evaluate again"]
    if verdict != "passed":
        about = {
            "failed": "its gates failed",
            "undecided": "its gates are undecided: more prompts or seeds in evaluate would settle them",
        }
        against.append(f"{about[verdict]} (see {card})")
    if (tag := version.tags.get("verdict", "")) != verdict:
        against.append(f"its tag says verdict={tag or 'none'}, and its scores come to {verdict}: somebody changed one")
    return evidence, against


@dataclass(frozen=True)
class Approval:
    """Who, why and when. how: where it was said; kept: whether it is the decision that the evaluated run keeps."""

    by: str
    reason: str
    at: str
    how: str
    kept: bool = False

    def tags(self) -> dict[str, str]:
        """For the version; Unity Catalog takes no dot in a key."""
        return {"approval_by": self.by, "approval_reason": self.reason, "approval_at": self.at}


def find_approval(config: Config, version: ModelVersion, evidence: Evidence | None) -> tuple[Approval, list[str]]:
    """The approval, and what it lacks.

    Given now; or kept with the evaluation, where what was looked at then must be what there is now; or on the version
    already, set by hand in the registry's own page.
    """
    from personalize.review import approval

    by, reason, tags = config.approved_by.strip(), config.reason.strip(), version.tags
    now = datetime.now(UTC).isoformat(timespec="seconds")
    if evidence is not None and not (by or reason):
        try:
            record = approval.in_force(evidence.run_id)
            if record is not None:  # what was looked at may be another drawing of the same card than the version names
                card = approval.artifact(record["card"]["address"], "evaluation card that was looked at")
                evidence = replace(evidence, card=card)
        except approval.ApprovalError as error:
            return Approval("", "", now, ""), [f"{error}: decide again (`{command('review')}`)"]
        if record is not None:
            kept = Approval(record["by"], record["reason"], str(record["at"]), str(record["how"]), kept=True)
            if record["decision"] != "approved":
                return kept, [f"{kept.by} rejected it: {kept.reason} (-P approved_by=... -P reason=... overrules that)"]
            apart = approval.differences(record, evidence)
            return kept, [f"{line}: look again and decide (`{command('review')}`)" for line in apart]
    pressed = bool(config.approval_tag) and tags.get(config.approval_tag, "").strip().lower() == "approved"
    if pressed and not by and not tags.get("approval_by"):  # the Approve button says neither who nor why
        reason = reason or f"approved in the task {config.approval_tag}"
        return Approval("the workspace's Approve button", reason, now, f"task {config.approval_tag}"), []
    found = Approval(
        by or tags.get("approval_by", ""),
        reason or tags.get("approval_reason", ""),
        now if by else tags.get("approval_at", ""),
        "command line" if by else "tags of the version",
    )
    lacks = (
        [f"nobody says who approves: -P approved_by=..., or decide in `{command('review')}`"] if not found.by else []
    )
    lacks += [f"nobody says why: -P reason=..., or decide in `{command('review')}`"] if not found.reason else []
    return found, lacks


def _promote(config: Config, version: ModelVersion, approval: Approval, evidence: Evidence) -> dict[str, str]:
    """Approval first, alias last: whoever sees the alias finds the approval. Returns the tags that were set."""
    import mlflow

    from personalize.cards.links import address
    from personalize.review.approval import APPROVAL, decide
    from personalize.serving.registry import CHAMPION

    if not approval.kept:
        decide(evidence, "approved", approval.by, approval.reason, approval.how)
    client = mlflow.MlflowClient()
    tags = approval.tags() | {"approval": address(evidence.run_id, APPROVAL)}
    if config.approval_tag:
        tags[config.approval_tag] = "Approved"
    for key, value in tags.items():
        client.set_model_version_tag(config.name, version.version, key, value)
    client.set_registered_model_alias(config.name, CHAMPION, version.version)
    return tags
