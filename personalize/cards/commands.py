"""Commands as a person types them: the one place that knows how a run is started.

Cards, errors and the words after a run all ask here, so that none of them loses the profile that a person works under.
"""

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

ENTRY_POINT = "main"
_profile: ContextVar[str] = ContextVar("profile", default="")
_project: ContextVar[tuple[str, ...]] = ContextVar("project", default=(".",))
_PLACEHOLDER = re.compile(r"\.\.\.|<[\w ]+>|\{\w+\}")


@contextmanager
def under_profile(name: str) -> Iterator[None]:
    """Commands that are written inside name this profile."""
    before = _profile.set(name)
    try:
        yield
    finally:
        _profile.reset(before)


@contextmanager
def of_project(words: tuple[str, ...]) -> Iterator[None]:
    """Commands that are written inside name the project so: `.`, or an address with `-v` and a commit."""
    before = _project.set(words)
    try:
        yield
    finally:
        _project.reset(before)


def command(entry: str = ENTRY_POINT, **params: Any) -> str:
    """`mlflow run . --env-manager local -e promote -P profile=gpu -P approved_by=...`, under the profile in use.

    params: in the order given; None leaves one out. A step's key is given as `**{"train.rank": 8}`. Values are quoted
    for a shell, except the three ways to say "yours goes here": `...`, `<name>` and `{name}`.
    """
    words = ["mlflow", "run", *map(_typed, _project.get()), "--env-manager", "local"]  # else MLflow looks for conda
    if entry != ENTRY_POINT:
        words += ["-e", entry]
    chosen = params.pop("profile", None) or _profile.get()
    given = {"profile": chosen} if chosen else {}
    for name, value in (given | params).items():
        if value is not None:
            words += ["-P", f"{name}={_typed(value)}"]
    return " ".join(words)


def _typed(value: Any) -> str:
    """A value as it is typed: true and false in small letters, numbers as they are, text quoted where it must be."""
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    return text if _PLACEHOLDER.fullmatch(text) else shlex.quote(text)
