"""Work: the subjects that one adapter is to learn, and how that is asked of the recipe.

It is what a person types who does it alone (`-P data=... -P token=... -P class_noun=...`), so that what was done alone
is found by the fleet, and the other way round.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from personalize.files import whole
from personalize.fleet.catalogue import Entry, Fault
from personalize.recipe import RecipeError
from personalize.recipe.config import Override

GROUPS = Path("build/fleet")
"""Where the folders of subjects that are taught together are linked into one."""
ASKED = ("data", "token", "class_noun")


@dataclass(frozen=True)
class Work:
    """One run of the recipe. name: `chair/zwvchr`, or several with commas between."""

    entries: tuple[Entry, ...]
    overrides: tuple[Override, ...]

    @property
    def name(self) -> str:
        return ", ".join(entry.name for entry in self.entries)

    @property
    def class_noun(self) -> str:
        return ", ".join(dict.fromkeys(entry.class_noun for entry in self.entries))

    @property
    def tokens(self) -> list[str]:
        return [entry.token for entry in self.entries]

    @property
    def row(self) -> int:
        return self.entries[0].row


def check_names(short: Mapping[str, str]) -> None:
    """Raises RecipeError where the recipe has no short names by which a subject is asked for."""
    if lacking := [name for name in ASKED if name not in short]:
        raise RecipeError(f"recipe.yaml: `parameters:` has no {' and no '.join(lacking)}, by which a subject is named")


def works(entries: Sequence[Entry], size: int, root: Path) -> tuple[list[Work], list[Fault]]:
    """`size` subjects of a class to each, in the catalogue's order. root: the project's, for folders of groups."""
    if size == 1:
        return [Work((entry,), tuple(_alone(entry))) for entry in entries], []
    faults = [Fault(entry.row, entry.name, why) for entry in entries if (why := _cannot_be_grouped(entry))]
    left_out = {fault.name for fault in faults}
    by_noun: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.name not in left_out:
            by_noun.setdefault(entry.class_noun, []).append(entry)
    groups = [tuple(of[i : i + size]) for of in by_noun.values() for i in range(0, len(of), size)]
    return [Work(group, tuple(_together(group, root))) for group in groups], faults


def _cannot_be_grouped(entry: Entry) -> str:
    if not os.path.isdir(entry.photographs):
        return "with group_size above 1 its photographs must lie in a folder"
    return "with group_size above 1 captions lie beside the photographs" if entry.captions else ""


def _alone(entry: Entry) -> Iterable[Override]:
    yield Override("data", entry.photographs)
    yield Override("token", entry.token)
    yield Override("class_noun", entry.class_noun)
    if entry.captions:
        yield Override("captions", entry.captions)
    if entry.rights:
        yield Override("rights", entry.rights)


def _together(group: Sequence[Entry], root: Path) -> Iterable[Override]:
    said = "\n".join(f"{entry.name} {os.path.abspath(entry.photographs)}" for entry in group)
    folder = root / GROUPS / hashlib.sha256(said.encode()).hexdigest()[:16]
    if not folder.is_dir():
        with whole(folder, first_wins=True) as part:
            for entry in group:
                (part / entry.class_noun).mkdir(parents=True, exist_ok=True)
                (part / entry.class_noun / entry.token).symlink_to(os.path.abspath(entry.photographs))
    yield Override("data", str(folder))
    if rights := "; ".join(dict.fromkeys(entry.rights for entry in group if entry.rights)):
        yield Override("rights", rights)
