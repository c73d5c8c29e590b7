"""Other versions that a server draws with: which there are, and whether their adapters may be used here.

A server carries one adapter. With PERSONALIZE_ADAPTERS it also draws with the adapters of registered versions of those
names, trained apart, on the same base. A version is used when its statement is signed by a maker that the policy names
and speaks of these bytes, its gates have passed, it names this server's base, and somebody whose word counts has
approved it, all as `-e deploy` asks; the policy is PERSONALIZE_TRUST, which `-e deploy` writes, and without one nothing
is approved. What was found out is looked at again after RECHECK_S. Nothing that a tag says is believed: the tag
`tokens` only tells where to look for a subject.

Without PERSONALIZE_ADAPTERS no registry is asked, and a server draws with what it carries.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personalize.cards.links import address
from personalize.dreambooth.adapter_files import DIFFUSERS as WEIGHTS
from personalize.evidence import package
from personalize.evidence.statement import PROVENANCE, EvidenceError, Statement, read
from personalize.evidence.trust import Resolved
from personalize.files import scratch
from personalize.photographs.prompts import Subject, load_subjects

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion as RegisteredVersion

LOG = logging.getLogger("personalize.serving")
NAMES = "PERSONALIZE_ADAPTERS"
"""Environment variable of a server: registered models, with commas between; the first is meant where none is named."""
POLICY = "PERSONALIZE_TRUST"
"""Environment variable of a server: whose versions and approvals count (`evidence.trust.Resolved` as JSON)."""

RECHECK_S, REFUSED_S, ALIAS_S = 300.0, 10.0, 60.0
"""Seconds for which a version stays approved, stays refused, and an alias means the same version."""
REMEMBERED = 1024
FOLDER = f"artifacts/{package.ADAPTER}"
WHICH = re.compile(r"[0-9]{1,9}|[A-Za-z][\w.-]{0,63}")


class NotServed(ValueError):
    """A version that this server does not draw with; the message says why."""


class Unreachable(Exception):
    """The registry does not answer, so nobody knows."""


@dataclass(frozen=True)
class Version:
    """Whose adapter a row is drawn with. `sha256` and `size` in bytes are its weights'; what is carried has none.

    name, number: of the registry; empty for the model that the server carries, which does not know them.
    """

    subjects: Sequence[Subject]
    fingerprint: str = ""
    name: str = ""
    number: str = ""
    sha256: str = ""
    size: int = 0

    def __str__(self) -> str:
        return f"{self.name}/{self.number}" if self.name else ""

    @property
    def origin(self) -> dict[str, Any]:
        """What a picture's manifest says of a version of the registry; its words are those of `package.origin`."""
        adapters = {f"{FOLDER}/{WEIGHTS}": self.sha256}
        return {"registered_model": self.name, "version": self.number, "adapters": adapters}


@dataclass
class Versions:
    """What a server draws with: `own`, which it carries, and the versions of `names`."""

    own: Version
    base: Mapping[str, str]
    names: tuple[str, ...] = ()
    policy: Resolved = field(default_factory=Resolved)
    clock: Callable[[], float] = time.monotonic
    _found: OrderedDict[tuple[str, ...], tuple[float, Any]] = field(default_factory=OrderedDict)
    _asking: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of_environment(cls, own: Version, base: Mapping[str, str]) -> Versions:
        """base: sha256 of the server's own base by file. Raises ValueError for a policy that cannot be read."""
        names = tuple(name.strip() for name in os.environ.get(NAMES, "").split(",") if name.strip())
        return cls(own, base, names, Resolved.model_validate_json(os.environ.get(POLICY) or "{}"))

    def find(self, model: str, which: str, subject: str) -> Version:
        """The version that a row means: by its number or alias, by its model, by its subject, or the server's own.

        Raises:
            NotServed: there is none, or it may not be used here.
            Unreachable: the registry does not answer.
        """
        token = spoken(subject)
        if not (model or which):
            if not token or not self.names or any(one.token.casefold() == token for one in self.own.subjects):
                return self.own
            return self._of_subject(token) or self.own
        if not self.names:
            raise NotServed(f"this server draws with what it carries, and no other versions ({NAMES} names no model).")
        if model and model not in self.names:
            raise NotServed(f"model {model!r} is not served here. Served are: {', '.join(self.names)}.")
        if which and not WHICH.fullmatch(which):
            raise NotServed(f"model_version {which[:60]!r} is neither a number nor an alias.")
        name, which = model or self.names[0], which or "champion"
        if which.isdigit():
            return self._checked(name, str(int(which)))
        return self._checked(name, str(self._alias(name, which).version))

    def weights(self, version: Version) -> bytes:
        """The bytes of a version's adapter, as they were approved.

        Raises:
            NotServed: they are others now.
            Unreachable: they cannot be had.
        """
        try:
            with scratch("adapter") as folder:
                data = _fetched(version.name, version.number, f"{FOLDER}/{WEIGHTS}", folder).read_bytes()
        except NotServed:
            raise
        except Exception as error:  # a store, a network: each has its own
            LOG.warning("the adapter of %s cannot be had: %s", version, error)
            raise Unreachable(f"The adapter of {version} cannot be had at this moment; try again.") from error
        if hashlib.sha256(data).hexdigest() != version.sha256:
            raise NotServed(
                f"{_named(version.name, version.number)} is not as it was registered: {WEIGHTS} was changed."
            )
        return data

    def _of_subject(self, token: str) -> Version | None:
        """The champion that was taught this token. Raises NotServed where several were."""
        known = []
        for name in self.names:
            try:
                champion = self._alias(name, "champion")
            except NotServed:
                continue
            if token in str(champion.tags.get("tokens", "")).casefold().split(", "):
                known.append(self._checked(name, str(champion.version)))
        known = [each for each in known if any(one.token.casefold() == token for one in each.subjects)]
        if len(known) > 1:
            raise NotServed(f"subject {token!r} is taught by {' and '.join(map(str, known))}; name the model as well.")
        return known[0] if known else None

    def _alias(self, name: str, alias: str) -> RegisteredVersion:
        from personalize.serving.registry import RegistryError, version_of

        def look() -> RegisteredVersion:
            try:
                return version_of(name, alias)
            except RegistryError as error:
                raise NotServed(str(error)) from error

        found: RegisteredVersion = self._remembered((name, "", alias), look, ALIAS_S)
        return found

    def _checked(self, name: str, number: str) -> Version:
        found: Version = self._remembered((name, number), lambda: self._look(name, number), RECHECK_S)
        return found

    def _remembered(self, key: tuple[str, ...], look: Callable[[], Any], for_s: float) -> Any:
        """What `look` found, or why it did not, for a while; what was found while nobody answers any more."""
        known = self._found.get(key)
        if known is None or self.clock() >= known[0]:
            with self._asking:
                known = self._found.get(key)
                if known is None or self.clock() >= known[0]:
                    known = self._asked(look, for_s, known)
                    self._found[key] = known
                    self._found.move_to_end(key)
                    while len(self._found) > REMEMBERED:
                        self._found.popitem(last=False)
        if isinstance(known[1], NotServed):
            raise NotServed(str(known[1]))
        return known[1]

    def _asked(self, look: Callable[[], Any], for_s: float, before: tuple[float, Any] | None) -> tuple[float, Any]:
        try:
            return self.clock() + for_s, look()
        except NotServed as error:
            return self.clock() + REFUSED_S, error
        except Exception as error:  # a store, a registry, a network: each has its own
            if before is None or isinstance(before[1], NotServed):
                LOG.warning("the registry does not answer: %s", error)
                raise Unreachable("The registry does not answer; try again in a moment.") from error
            LOG.warning("the registry does not answer, and what it said before holds: %s", error)
            return self.clock() + REFUSED_S, before[1]

    def _look(self, name: str, number: str) -> Version:
        """A version, its papers fetched and checked. Raises NotServed, and whatever a registry raises."""
        with scratch("version") as folder:
            _fetched(name, number, package.PLACE, folder)
            subjects = _fetched(name, number, f"{FOLDER}/subjects.json", folder)
            try:
                statement = package.statement_of(folder)
                signed = statement.subjects
                if hashlib.sha256(subjects.read_bytes()).hexdigest() != signed.get(f"{FOLDER}/subjects.json"):
                    raise EvidenceError("subjects other than those that it was registered with")
                if why := self._against(statement):
                    raise NotServed(f"{_named(name, number)} is not served here: {why}.")
                return Version(
                    load_subjects(subjects),
                    str(statement.predicate["config"].get("fingerprint", "")),
                    name,
                    number,
                    signed[f"{FOLDER}/{WEIGHTS}"],
                    _size(name, number),
                )
            except (EvidenceError, KeyError) as error:
                raise NotServed(f"{_named(name, number)} is not served here: it has {error}.") from error

    def _against(self, statement: Statement) -> str:
        """Why a version is not used, in words; empty where it is."""
        from personalize.review import approval
        from personalize.serving.base import digest

        said = statement.predicate
        if against := self.policy.against_maker(statement.key):
            return f"it {against}"
        if (theirs := package.base_files(statement)) != dict(self.base):
            return f"it was trained on base {digest(theirs)[:12]}, and this server has {digest(self.base)[:12]}"
        if "runs" not in said or said.get("verdict") != "passed":
            return "its gates have not passed"
        if said["code"]["dirty"] and not self.policy.dirty:
            return "uncommitted code made it"
        try:
            record = approval.in_force(said["runs"]["evaluate"])
        except approval.ApprovalError as error:
            return str(error)
        if record is None or record["decision"] != "approved":
            return "nobody has approved it" if record is None else f"{record['by']} rejected it"
        of = {"model": f"{FOLDER}/{WEIGHTS}", "scores": package.SCORES}
        if apart := [part for part, name in of.items() if record[part]["sha256"] != statement.subjects.get(name)]:
            return f"what was approved is another: {' and '.join(apart)}"
        return self.policy.against_approver(record["key"], self._trainer(statement))

    def _trainer(self, statement: Statement) -> str:
        """Whose key the training of these weights is signed with, by its own statement; asked where four eyes are.

        Raises EvidenceError in words that follow `it has`.
        """
        from personalize.review import approval

        if not self.policy.four_eyes:
            return ""
        try:
            where = address(statement.predicate["runs"]["train"], PROVENANCE)
            trained = read(approval.content(where, "statement of its training").decode("utf-8"))
        except (approval.ApprovalError, ValueError) as error:
            raise EvidenceError(f"no training that shows who trained ({error})") from error
        adapter = approval.ADAPTER.removeprefix("outputs/")
        if trained.subjects.get(adapter) != statement.subjects.get(f"{FOLDER}/{WEIGHTS}"):
            raise EvidenceError("another adapter than its training made")
        if against := self.policy.against_maker(trained.key):
            raise EvidenceError(f"a training that {against}")
        return trained.key


def spoken(subject: str) -> str:
    """A subject as a person writes it in a sentence: "Zwvchr," is zwvchr."""
    return subject.strip(" ,.;:!?'\"()").casefold()


def _named(name: str, number: str) -> str:
    return f"{name} version {number}"


def _fetched(name: str, number: str, path: str, folder: Path) -> Path:
    """A file of a registered version, in `folder`. Raises NotServed where there is none, and what MLflow raises."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        found = Path(download_artifacts(artifact_uri=f"models:/{name}/{number}/{path}", dst_path=str(target.parent)))
    except (MlflowException, FileNotFoundError) as error:
        absent = isinstance(error, FileNotFoundError) or error.error_code == "RESOURCE_DOES_NOT_EXIST"
        if absent or isinstance(error.__cause__, FileNotFoundError):
            raise NotServed(f"there is no {_named(name, number)}, or it has no {path}.") from error
        raise
    if found != target:
        found.replace(target)
    return target


def _size(name: str, number: str) -> int:
    """Bytes of a version's weights, as the store says; measured where it says nothing."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    listed = get_artifact_repository(f"models:/{name}/{number}").list_artifacts(FOLDER)
    size = next((each.file_size for each in listed if each.path.endswith(WEIGHTS)), None)
    if size is None:
        with scratch("adapter") as folder:
            size = _fetched(name, number, f"{FOLDER}/{WEIGHTS}", folder).stat().st_size
    return int(size)
