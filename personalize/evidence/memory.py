"""What this machine has seen last of something that only grows: who may write to a store can put an older state back.

As in The Update Framework, where a client takes no metadata of a lower number than it has seen (specification 1.0.33,
5.3.3, rollback attack). It lies with the user, not in the store.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from personalize.files import read_json, write_json


@dataclass(frozen=True)
class Seen:
    """number: counts from 1, 0 is nothing; digest: sha256 of what has that number."""

    number: int = 0
    digest: str = ""


NOTHING = Seen()


def last_seen(what: str) -> Seen:
    """The newest that was seen of `what`; nothing where this machine has seen or keeps none."""
    try:
        found = read_json(_place(what))
        return Seen(int(found["number"]), str(found["digest"]))
    except (OSError, RuntimeError, ValueError, KeyError, TypeError):  # a container without a home; a file that was cut
        return NOTHING


def remember(what: str, now: Seen) -> None:
    """From now on this is the newest. A machine that can keep nothing remembers nothing."""
    if now != last_seen(what):
        with contextlib.suppress(OSError, RuntimeError):
            write_json(_place(what), {"what": what, "number": now.number, "digest": now.digest}, private=True)


def older(now: Seen, seen: Seen, what: str) -> str:
    """Why `now` is not the newest; empty where it may be. what: how people call what was seen, with `the`."""
    if now.number < seen.number:
        found = f"number {now.number}" if now.number else "none"
        return f"{what} is number {seen.number}, and this is {found}: somebody put an older state back"
    if now.number == seen.number and seen.digest and now.digest != seen.digest:
        return f"{what} is another number {seen.number} than this: somebody put one in its place"
    return ""


def digest(text: str) -> str:
    """sha256 of a line that was signed."""
    return hashlib.sha256(text.strip().encode()).hexdigest()


def _place(what: str) -> Path:
    home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    name = hashlib.sha256(what.encode()).hexdigest()[:32]
    return Path(home).expanduser() / "personalize" / "seen" / f"{name}.json"
