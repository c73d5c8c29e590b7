"""Promote: a person's approval makes the challenger the champion.   gives: promotion.json

    mlflow run . -e promote                                 where it was approved in the review
    mlflow run . -e promote -P approved_by=you -P reason="the legs are right"
    mlflow run . -e promote -P version=3 -P rollback=true -P approved_by=you -P reason="4 paints it blue"

Needs an evaluation card, gates that passed, and an approval. No tag is believed: the version carries a signed statement
of its own bytes, of the runs that it comes from and of its card and scores, each run one of what it made, and all of
them must hold (docs/evidence.md). The verdict is worked out from the gates in the scores. An approval given here is
kept and signed as one of the review is. Who, when and why stay as tags on the version as well, for people to read.
Each promotion is signed and numbered as well, so that going back to a version whose place another has taken is a
decision (`rollback`) and never an accident or somebody else's doing.

Nothing is trained here: what is promoted is in the registry already, by number or by the alias `challenger`. Only as a
part of `main until=deploy` (`version` empty) does it follow the version that register has just made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from personalize.cards import command
from personalize.evidence import keys
from personalize.evidence.chain import broken
from personalize.evidence.trust import Trust
from personalize.files import read_json, write_json
from personalize.recipe import Inputs, RecipeError, StepConfig
from steps.evidence import Chain, approval_of, chain_of, place_of

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from personalize.review.approval import Evidence
    from personalize.serving.promotions import History

NEEDS = ("register",)
REUSE = False
ACTS = True


class Config(StepConfig):
    name: str = Field("personalize", min_length=1, description="The registered model")
    version: str = Field(
        "challenger",
        pattern=r"^([0-9]+|[A-Za-z][\w.-]*)?$",
        description="A version's number or an alias; empty is the version that register makes in this very run",
    )
    approved_by: str = Field("", max_length=500, description="Who approves; kept on the version")
    reason: str = Field("", max_length=1000, description="Why; kept on the version")
    rollback: bool = Field(
        False, description="Go back to a version whose place another has taken; wants approved_by and reason"
    )
    approval_tag: str = Field(
        "", description="Tag that a Databricks deployment job's approval task looks for: the task's name"
    )
    trust: Trust = Field(Trust(), description="The trust policy: whose results and approvals count")


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
    chain = chain_of(config.name, str(version.version), config.trust)
    past, place = place_of(chain, config.name, str(version.version), config.trust)
    already = champion is not None and str(champion.version) == str(version.version) and place.holds
    evidence, missing = chain.evidence, broken(chain.links)
    approval, unapproved = find_approval(config, version, chain)
    missing += [] if already else unapproved
    if not place.holds and not config.rollback:
        missing.append(place.words)
    elif not place.holds and not (config.approved_by.strip() and config.reason.strip()):
        missing.append("who goes back says so and why: -P approved_by=... -P reason=...")
    if missing:
        raise RecipeError(
            f"{config.name} version {version.version} cannot be promoted: {'; '.join(missing)}. Nothing was changed."
        )
    if chain.dirty:
        print(f"DIRTY: {chain.dirty}; nobody can make this model again from a commit", flush=True)
    tags, previous = dict(version.tags), None
    if champion is not None and str(champion.version) != str(version.version):
        previous = champion.version
    if already:
        print(f"{config.name} version {version.version} is already the champion; nothing to do", flush=True)
    else:
        assert evidence is not None
        tags |= _promote(config, version, approval, evidence, past)
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
            "rollback": not place.holds,
            **approval.tags(),
            "looked_at": None if evidence is None else asdict(evidence),
            "links": [asdict(link) for link in chain.links],
            "dirty": chain.dirty,
            "tags": tags,
        },
    )


def _just_registered(inputs: Inputs) -> str:
    return str(read_json(inputs["register"].path / "model_version.json")["version"])


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


def find_approval(config: Config, version: ModelVersion, chain: Chain) -> tuple[Approval, list[str]]:
    """The approval, and what it lacks.

    Given now; or kept with the evaluation, where what was looked at then must be what there is now. Tags that say who
    approved are for people; only the Approve button of a workspace, which sets the tag of `approval_tag`, is heard.
    """
    by, reason, tags = config.approved_by.strip(), config.reason.strip(), version.tags
    now = datetime.now(UTC).isoformat(timespec="seconds")
    if not (by or reason):
        record, link = approval_of(chain, config.trust)
        if record is not None:
            kept = Approval(record["by"], record["reason"], str(record["at"]), str(record["how"]), kept=True)
            overrule = " (-P approved_by=... -P reason=... overrules that)" if record["decision"] != "approved" else ""
            return kept, [] if link.holds else [f"{link.words}{overrule}"]
        if chain.evidence is not None and "nobody has approved" not in link.words:
            return Approval("", "", now, ""), [link.words]
    against = config.trust.against_approver(keys.own_id(config.trust.key), chain.trainer)
    mine = [against.replace("the approval is", "your approval would be")] if against else []
    pressed = bool(config.approval_tag) and tags.get(config.approval_tag, "").strip().lower() == "approved"
    if pressed and not by:  # the Approve button says neither who nor why
        reason = reason or f"approved in the task {config.approval_tag}"
        return Approval("the workspace's Approve button", reason, now, f"task {config.approval_tag}"), mine
    decide = f"or decide in `{command('review')}`"
    lacks = [] if by else [f"nobody says who approves: -P approved_by=..., {decide}"]
    lacks += [] if reason else [f"nobody says why: -P reason=..., {decide}"]
    if tags.get("approval_by") and not by:
        lacks.append(f"tags name {tags['approval_by']}, and tags are shown, never believed")
    return Approval(by, reason, now, "command line"), lacks or mine


def _promote(
    config: Config, version: ModelVersion, approval: Approval, evidence: Evidence, past: History
) -> dict[str, str]:
    """Approval first, alias last: whoever sees the alias finds the approval. Returns the tags that were set."""
    import mlflow

    from personalize.cards.links import address
    from personalize.review.approval import APPROVAL, decide
    from personalize.serving import promotions
    from personalize.serving.registry import CHAMPION

    signer = keys.own(config.trust.key)
    if not approval.kept:
        if signer is None:
            print("unsigned: there is no signing key, so nobody can tell later whose approval this is", flush=True)
        decide(evidence, "approved", approval.by, approval.reason, approval.how, signer)
    client = mlflow.MlflowClient()
    tags = approval.tags() | {"approval": address(evidence.run_id, APPROVAL)}
    if config.approval_tag:
        tags[config.approval_tag] = "Approved"
    for key, value in tags.items():
        client.set_model_version_tag(config.name, version.version, key, value)
    promotions.add(past, str(version.version), evidence, approval.by, approval.reason, signer)
    client.set_registered_model_alias(config.name, CHAMPION, version.version)
    return tags
