"""Promotions: which version was made the champion, when and by whose word, one signed line each.

The alias says who is the champion now, and whoever may write to the registry can move it; an approval that was signed
once stays signed. So each promotion has a number and names the one before by its digest. All of them lie with the
evaluated run of the version that was promoted last, as lines of one file, and the registered model says with which.
A line that goes back to an older version counts where somebody who may approve has signed it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from personalize.cards.links import address, parts
from personalize.evidence.memory import NOTHING, Seen, digest, last_seen, older, remember
from personalize.evidence.statement import SUFFIX, EvidenceError, read, write
from personalize.evidence.trust import Trust
from personalize.review.approval import ApprovalError, content

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

    from personalize.review.approval import Evidence

FILE = f"promotions{SUFFIX}"
KIND = "urn:personalize:promotion:1"
POINTER = "promotions"
"""Tag of the registered model: where the newest file lies. It helps to find it, and nothing else is believed of it."""


@dataclass(frozen=True)
class Promotion:
    """One that counts. key: the id of the key that signed it."""

    version: str
    by: str
    reason: str
    at: str
    key: str

    def __str__(self) -> str:
        return f"version {self.version} (by {self.by} on {self.at[:16]}: {self.reason})"


@dataclass(frozen=True)
class History:
    """The promotions of a model that count, in order.

    lines: all as they were signed; last: the last of them; wrong: why they are not to be relied on.
    """

    name: str
    promotions: Sequence[Promotion] = ()
    lines: Sequence[str] = ()
    last: Seen = NOTHING
    wrong: str = ""

    def instead_of(self, version: str) -> Promotion | None:
        """The last promotion, where it has taken this version's place or is of a newer one."""
        return self.promotions[-1] if _goes_back(version, self.promotions) else None


def history(name: str, run_id: str, trust: Trust) -> History:
    """The promotions of a registered model. run_id: the evaluated run of the version at hand, where it is known.

    What is newest here is remembered on this machine, and an older state is not taken for the newest afterwards.
    """
    import mlflow

    model = mlflow.MlflowClient().get_registered_model(name)
    found, wrong = History(name), ""
    for place in filter(None, {str(model.tags.get(POINTER, "")), address(run_id, FILE) if run_id else ""}):
        try:
            here = _read(name, place, trust)
            found = max(found, here, key=lambda each: each.last.number)
        except EvidenceError as error:
            wrong = f"who was promoted last is not known: {place} has {error}"
    what = _called(name)
    wrong = wrong or older(found.last, last_seen(what), "the last promotion that this machine has seen")
    if not wrong and found.promotions and trust.may_approve(found.promotions[-1].key):
        remember(what, found.last)
    return History(name, found.promotions, found.lines, found.last, wrong)


def add(past: History, version: str, evidence: Evidence, by: str, reason: str, signer: CryptoSigner | None) -> None:
    """From now on `version` is the one that was promoted last. evidence: what it was promoted for; its run keeps it."""
    import mlflow

    client, what = mlflow.MlflowClient(), _called(past.name)
    before = list(past.lines)
    subjects = {"model": evidence.model.sha256, "card": evidence.card.sha256, "scores": evidence.scores.sha256}
    subjects |= {FILE: digest(before[-1])} if before else {}
    number = max(past.last.number, last_seen(what).number) + 1
    said = {
        "name": past.name,
        "version": version,
        "number": number,
        "by": by,
        "reason": reason,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    line = write(subjects, KIND, said, signer)
    client.log_text(evidence.run_id, "".join([*before, line]), FILE)
    client.set_registered_model_tag(past.name, POINTER, address(evidence.run_id, FILE))
    remember(what, Seen(number, digest(line)))


def _read(name: str, place: str, trust: Trust) -> History:
    """Raises EvidenceError in words that follow `it has`; where no file is, nobody was promoted."""
    import mlflow

    try:
        run_id, path = parts(place)
        if path != FILE:
            raise ValueError(f"{path} is not what promotions are kept in")
        if not any(file.path == FILE for file in mlflow.MlflowClient().list_artifacts(run_id)):
            return History(name)
        lines = content(place, "list of promotions").decode("utf-8").splitlines(keepends=True)
    except (ApprovalError, ValueError) as error:
        raise EvidenceError(f"no list of promotions ({error})") from error
    promotions: list[Promotion] = []
    last = NOTHING
    for line in lines:
        statement = read(line, KIND)
        said = statement.predicate
        try:
            version, by, reason, at = (str(said[key]) for key in ("version", "by", "reason", "at"))
            each = Promotion(version, by, reason, at, statement.key)
            number = int(said["number"])
        except (KeyError, TypeError, ValueError) as error:
            raise EvidenceError(f"a promotion that cannot be read ({error})") from error
        if said["name"] != name or number <= last.number or statement.subjects.get(FILE, "") != last.digest:
            raise EvidenceError("promotions that do not follow upon each other: lines were taken away or put in")
        if trust.may_approve(each.key) or not _goes_back(each.version, promotions):
            promotions.append(each)
        last = Seen(number, digest(line))
    return History(name, promotions, lines, last)


def _goes_back(version: str, promotions: Sequence[Promotion]) -> bool:
    """Whether a version is older than one that was promoted, or was promoted itself before the last one was."""
    earlier = [each.version for each in promotions]
    if not earlier or earlier[-1] == version:
        return False
    return version in earlier or not version.isdigit() or int(version) < max(int(e) for e in earlier if e.isdigit())


def _called(name: str) -> str:
    """By what this machine remembers a model: one that is deleted and made again is another."""
    import mlflow

    made = mlflow.MlflowClient().get_registered_model(name).creation_timestamp
    return f"promotions of {name} in {mlflow.get_registry_uri()}, made {made}"
