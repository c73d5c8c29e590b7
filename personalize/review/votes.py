"""Votes: each kept at once as a file of its own, on this disk and with the run that was evaluated.

A vote's name is made of voter and pair, so that the first one stands, whoever opens the page twice; and two servers
that review the same run at once, on one machine or two, never write the same file.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import threading
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from personalize.files import read_json

CONTROL = "check"
"""Kind of a pair whose answer is known."""
CHOICES = ("left", "right", "neither")
ARTIFACTS = "review/votes"
LONGEST_NAME = 100


@dataclass(frozen=True)
class Vote:
    """What one person said of one pair. left, right: what was shown there; worth: see `agreement`.

    at: UTC, ISO 8601. seconds: from the page's making to the answer, None where that is not known. evaluation: what
    the pictures belong to (`approval.Evidence.key`).
    """

    voter: str
    pair: str
    kind: str
    subject: str
    prompt: str
    seed: int | None
    left: str
    right: str
    choice: str
    worth: float
    at: str
    seconds: float | None
    evaluation: str

    @property
    def name(self) -> str:
        """The file's: the same for every answer of this voter to this pair."""
        return vote_name(self.voter, self.pair)


def vote_name(voter: str, pair: str) -> str:
    return hashlib.sha256(f"{voter.casefold()}\n{pair}".encode()).hexdigest()[:24] + ".json"


def tidy_name(name: str) -> str:
    """A person's name as it is kept: one spelling, no control characters, spaces single, at most 100 characters."""
    plain = "".join(c if c.isprintable() else " " for c in unicodedata.normalize("NFC", name))
    return " ".join(plain.split())[:LONGEST_NAME].strip()


class Book:
    """The votes on one evaluated run. folder: on this disk; run_id: of the run that keeps them in MLflow."""

    def __init__(self, folder: Path, run_id: str) -> None:
        self.folder = folder
        self.run_id = run_id
        self.waiting: set[str] = set()
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        self.fetch()

    def fetch(self) -> None:
        """Bring both places to the same votes. Raises ValueError or OSError where a vote cannot be read."""
        with self._lock, tempfile.TemporaryDirectory() as scratch:
            there = names(self.run_id)
            here = {path.name for path in self.folder.glob("*.json")}
            for name in there - here:
                self._write(name, _fetched(self.run_id, f"{ARTIFACTS}/{name}", scratch).read_bytes())
            self.waiting = here - there
        self.deliver()

    def add(self, vote: Vote) -> bool:
        """Keep a vote; False where this voter has answered this pair before, and that answer stands."""
        with self._lock:
            if not self._write(vote.name, (json.dumps(asdict(vote), indent=1, ensure_ascii=False) + "\n").encode()):
                return False
            self.waiting.add(vote.name)
        self.deliver()
        return True

    def _write(self, name: str, content: bytes) -> bool:
        """The file whole or not at all, and never a second one of that name, whichever process writes it."""
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".", suffix=".part") as part:
            part.write(content)
            part.flush()
            os.fsync(part.fileno())
            try:
                os.link(part.name, self.folder / name)
            except FileExistsError:
                return False
        return True

    def deliver(self) -> bool:
        """Send to MLflow what it does not have yet; what it does not take waits for the next time."""
        import mlflow

        client = mlflow.MlflowClient()
        for name in sorted(self.waiting):
            try:
                client.log_artifact(self.run_id, str(self.folder / name), ARTIFACTS)
            except Exception:  # whatever a foreign artifact store raises, the vote is safe on this disk
                return False
            self.waiting.discard(name)
        return True

    def votes(self) -> list[Vote]:
        """All votes, in the order they were given."""
        return sorted((read(path) for path in self.folder.glob("*.json")), key=lambda vote: (vote.at, vote.name))

    def has(self, voter: str, pair: str) -> bool:
        return (self.folder / vote_name(voter, pair)).exists()


def read(path: Path) -> Vote:
    """A vote from its file. Raises ValueError naming the file where it is none."""
    try:
        content: Mapping[str, Any] = read_json(path)
        return Vote(**{field.name: content[field.name] for field in fields(Vote)})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no vote ({type(error).__name__}: {error})") from error


def names(run_id: str) -> set[str]:
    """The files of the votes that MLflow keeps with a run."""
    import mlflow

    return {Path(file.path).name for file in mlflow.MlflowClient().list_artifacts(run_id, ARTIFACTS)}


def kept(run_id: str, scratch: Path) -> list[Path]:
    """The votes that MLflow keeps with a run, as files in `scratch`."""
    return sorted(_fetched(run_id, ARTIFACTS, str(scratch)).glob("*.json")) if names(run_id) else []


def _fetched(run_id: str, path: str, scratch: str) -> Path:
    from mlflow.artifacts import download_artifacts

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a bar for each small file tells nothing
    return Path(download_artifacts(run_id=run_id, artifact_path=path, dst_path=scratch))


def digest(paths: list[Path]) -> str:
    """sha256 over the votes' names and contents, whatever their order."""
    lines = sorted(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in paths)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
