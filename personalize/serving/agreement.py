"""What a local endpoint's commands and its keeper process agree by: two files in the endpoint's folder.

What should be (`wanted.json`) is written by the commands of a person, what is (`actual.json`) by the keeper alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from personalize.files import read_json, write_json
from personalize.serving.processes import is_alive

WANTED, ACTUAL = "wanted.json", "actual.json"


@dataclass(frozen=True)
class Agreement:
    """The two files in `folder`; one that is absent or damaged says nothing."""

    folder: Path

    def wanted(self) -> dict[str, Any]:
        """What should be: `host`, `port`, the number of the server that is `serving`, and all `servers` by number."""
        return _content(self.folder / WANTED)

    def want(self, wanted: dict[str, Any]) -> None:
        """Say what should be from now on."""
        write_json(self.folder / WANTED, wanted, private=True)

    def actual(self) -> dict[str, Any]:
        """What is: `host`, `port`, `serving` and `servers` as they are, the `keeper` and its `complaint`."""
        return _content(self.folder / ACTUAL)

    def tell(self, actual: dict[str, Any]) -> None:
        """Say what is now."""
        write_json(self.folder / ACTUAL, actual, private=True)

    def forget(self) -> None:
        """Nothing is kept here any more."""
        (self.folder / ACTUAL).unlink(missing_ok=True)

    def keeper(self) -> dict[str, Any] | None:
        """The keeper process, if it lives."""
        keeper = self.actual().get("keeper")
        return keeper if is_alive(keeper) else None

    def wait(self, done: Callable[[dict[str, Any]], bool], patience_s: float) -> bool:
        """Wait until what is satisfies `done`; False when it does not within `patience_s` seconds."""
        deadline = time.monotonic() + patience_s
        while not (satisfied := done(self.actual())) and time.monotonic() < deadline:
            time.sleep(0.1)
        return satisfied


def _content(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
