"""An approval and what it rests on: the bytes of card, scores and model that were looked at, and the votes.

It is kept with the run that was evaluated, because that is what people looked at: every registered version of these
very weights may rely on it, and no version of others. `approval.json` is for people; what counts is the same as a
signed statement, `approval.intoto.jsonl`. Every decision is kept beside it, with a number; the last one is in force,
and an older one that is put in its place is not. Digests are sha256 of what lies in MLflow at the moment they are
taken, never what a tag says.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from personalize.cards.links import address, parts
from personalize.evidence.memory import NOTHING, Seen, digest, last_seen, older, remember
from personalize.evidence.statement import SUFFIX, EvidenceError, read, write
from personalize.files import parse_json
from personalize.review import votes as ballots

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

APPROVAL = "approval.json"
SIGNED = f"approval{SUFFIX}"
KIND = "urn:personalize:approval:1"
DECISIONS = "review/decisions"
SCORES = "outputs/scores.json"
ADAPTER = "outputs/lora/pytorch_lora_weights.safetensors"
PARTS = ("card", "scores", "model")

Decision = Literal["approved", "rejected"]


class ApprovalError(ValueError):
    """An approval that cannot be given or does not hold; the message says why."""


@dataclass(frozen=True)
class Artifact:
    """A file in MLflow (`runs:/...` or `models:/...`) and the sha256 of its bytes."""

    address: str
    sha256: str


@dataclass(frozen=True)
class Evidence:
    """What a decision rests on. run_id: of the evaluation; model: the adapter's weights."""

    run_id: str
    card: Artifact
    scores: Artifact
    model: Artifact
    votes: int
    votes_sha256: str

    @property
    def key(self) -> str:
        """Names the evaluated pictures: the same as long as scores and model are."""
        return hashlib.sha256(f"{self.run_id} {self.scores.sha256} {self.model.sha256}".encode()).hexdigest()[:16]


def gather(run_id: str, card: str, train_run: str) -> Evidence:
    """What lies in MLflow now. card: its address. Raises ApprovalError naming what is not there."""
    with tempfile.TemporaryDirectory() as scratch:
        votes = ballots.kept(run_id, Path(scratch))
        return Evidence(run_id, *papers(run_id, card, train_run), len(votes), ballots.digest(votes))


def papers(run_id: str, card: str, train_run: str) -> tuple[Artifact, Artifact, Artifact]:
    """Card, scores and model as they lie in MLflow now."""
    return (
        artifact(card, "evaluation card"),
        artifact(address(run_id, SCORES), "scores"),
        artifact(address(train_run, ADAPTER), "adapter that was evaluated"),
    )


def artifact(where: str, what: str) -> Artifact:
    """A file of MLflow by its address, with the digest of what lies there now. Raises ApprovalError where none does."""
    return Artifact(where, hashlib.sha256(content(where, what)).hexdigest())


def content(where: str, what: str) -> bytes:
    """The bytes of a file in MLflow, fetched anew. Raises ApprovalError where it cannot be had."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a bar for each small file tells nothing
    try:
        with tempfile.TemporaryDirectory() as scratch:
            return Path(download_artifacts(artifact_uri=where, dst_path=scratch)).read_bytes()
    except (MlflowException, OSError) as error:
        raise ApprovalError(f"its {what} {where} is gone") from error


def decide(
    evidence: Evidence,
    decision: Decision,
    by: str,
    reason: str,
    how: str,
    signer: CryptoSigner | None = None,
    sample: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Keep a decision with the evaluated run, in force from now on. how: where it was given, in a word or two.

    signer: whose key stands for it; without one it is unsigned. sample: where it was given for many together, which of
    them were looked at and what that shows. Raises ApprovalError without a name or a reason.
    """
    import mlflow

    by, reason = ballots.tidy_name(by), " ".join(reason.split())[:1000]
    if not by or not reason:
        raise ApprovalError(f"a decision needs {'a name' if not by else 'a reason'}")
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    number = max(_kept(evidence.run_id).number, last_seen(_called(evidence.run_id)).number) + 1
    record: dict[str, Any] = {"decision": decision, "by": by, "reason": reason, "at": at, "how": how, "number": number}
    record |= asdict(evidence)
    if sample is not None:
        record["sample"] = dict(sample)
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    client = mlflow.MlflowClient()
    name = f"{at.replace(':', '')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    digests = {part: record[part]["sha256"] for part in PARTS} | {"votes": evidence.votes_sha256}
    signed = write(digests, KIND, record, signer)
    client.log_text(evidence.run_id, text, f"{DECISIONS}/{name}.json")
    client.log_text(evidence.run_id, signed, f"{DECISIONS}/{name}{SUFFIX}")
    client.log_text(evidence.run_id, text, APPROVAL)
    client.log_text(evidence.run_id, signed, SIGNED)
    remember(_called(evidence.run_id), Seen(number, digest(signed)))
    client.set_tag(evidence.run_id, "approval", f"{decision} by {by}"[:500])  # for people; nothing believes it
    return record


def in_force(run_id: str) -> dict[str, Any] | None:
    """The last decision on an evaluated run; `key` is the id of the key that signed it, empty where nobody did.

    Raises ApprovalError where it cannot be read, is not what was signed, or is not the last one that was given.
    """
    import mlflow

    if not {file.path for file in mlflow.MlflowClient().list_artifacts(run_id)} & {APPROVAL, SIGNED}:
        return None
    try:
        signed = content(address(run_id, SIGNED), "statement of the approval").decode("utf-8")
        statement = read(signed, KIND)
        record = dict(statement.predicate)
        if record["decision"] not in ("approved", "rejected") or not (record["by"] and record["reason"]):
            raise ValueError("it has no decision, no name or no reason")
        for part in PARTS:
            parts(record[part]["address"])
            if record[part]["sha256"] != statement.subjects[part]:
                raise ValueError(f"it says two things of the {part}")
        shown = parse_json(content(address(run_id, APPROVAL), "approval"))
    except EvidenceError as error:
        raise ApprovalError(f"its approval has {error}") from error
    except ApprovalError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise ApprovalError(f"its {APPROVAL} cannot be read ({error})") from error
    if shown != record:
        raise ApprovalError(f"its {APPROVAL} is not what was signed: somebody changed it")
    now, seen = Seen(int(record.get("number", 0)), digest(signed)), last_seen(_called(run_id))
    replaced = older(now, _kept(run_id), "the last decision that is kept beside it")
    if replaced := replaced or older(now, seen, "the last decision that this machine has seen"):
        raise ApprovalError(f"its approval is not the last word: {replaced}")
    remember(_called(run_id), now)
    return record | {"key": statement.key}


def _kept(run_id: str) -> Seen:
    """The last decision that lies in the run, whoever signed it; nothing where none can be read."""
    import mlflow

    names = [file.path for file in mlflow.MlflowClient().list_artifacts(run_id, DECISIONS)]
    last = NOTHING
    for name in (name for name in names if name.endswith(SUFFIX)):
        with contextlib.suppress(ValueError, TypeError):
            signed = content(address(run_id, name), "decision").decode("utf-8")
            number = int(read(signed, KIND).predicate.get("number", 0))
            last = max(last, Seen(number, digest(signed)), key=lambda each: each.number)
    return last


def _called(run_id: str) -> str:
    return f"decisions on {run_id}"


def changes(record: Mapping[str, Any], now: tuple[Artifact, Artifact, Artifact]) -> list[str]:
    """Which of card, scores and model are not those of `record`, in words."""
    pairs = {part: (record[part]["sha256"], of.sha256) for part, of in zip(PARTS, now, strict=True)}
    return [
        f"the {part} {'are not those that were' if part == 'scores' else 'is not the one that was'} looked at "
        f"(sha256 {then[:12]} then, {today[:12]} now)"
        for part, (then, today) in pairs.items()
        if then != today
    ]


def differences(record: Mapping[str, Any], now: Evidence) -> list[str]:
    """What is not as it was when `record` was made, votes included; empty when it holds."""
    found = changes(record, (now.card, now.scores, now.model))
    if record["run_id"] != now.run_id:
        found.append(f"it is an approval of evaluation {record['run_id']}, not of {now.run_id}")
    if record["votes_sha256"] != now.votes_sha256:
        found.append(f"the votes are not those that were counted ({record['votes']} then, {now.votes} now)")
    return found
