"""Errors a user can act on: the nearest known name, what went wrong in a step, and what to try, in words."""

import contextlib
import difflib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from personalize.cards.commands import command
from personalize.egress import without_secrets

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_WORDS = ("No space left on device", "database or disk is full", "Disk quota exceeded")
LONG = 20_000
"""Characters of a word that are looked through for secrets."""
_WORD = re.compile(r"\S{1000,}")


class RecipeError(ValueError):
    """Something the user can put right: names the thing, the place and the way out; exit code 2, no traceback.

    A message may repeat what was typed; what looks like a secret in it is put out.
    """

    def __init__(self, message: str) -> None:
        # megabytes would be looked through for minutes; and only then are words cut, which could be half a secret
        said = without_secrets(in_short(_WORD.sub(lambda word: word[0][:LONG], message), 10 * LONG))
        super().__init__(
            _WORD.sub(lambda word: in_short(word[0]) if len(word[0]) < LONG else f"{word[0][:200]}…", said)
        )


class Faults:
    """What is wrong, one line for each, to be said all at once."""

    def __init__(self) -> None:
        self.said: list[str] = []

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """What the block refuses is kept for the end."""
        try:
            yield
        except RecipeError as error:
            self.said.append(str(error))

    def refuse(self) -> None:
        """Raises RecipeError where something was wrong."""
        if self.said:
            raise RecipeError("\n".join(dict.fromkeys(self.said)))


def in_short(text: str, most: int = 200) -> str:
    """Text of which the end is left out where it is longer than `most`."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'rank'?` or, where nothing is near, the known names."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if not close:  # `alpha` for `train.alpha`
        close = [known_name for known_name in names if known_name.rpartition(".")[2] == name][:1]
    if close:
        return f"; did you mean '{close[0]}'?"
    if not names:
        return "; none is known"
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"; known: {shown}"


def in_words(error: BaseException) -> str:
    """The error for a person: what the step said where it said it well, else with the error's kind."""
    if full := full_disk(error):
        return full
    if isinstance(error, SystemExit):
        return f"the step ended the process (exit {error.code})"
    text = without_secrets(str(error).strip())
    if isinstance(error, ValueError | OSError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def full_disk(error: BaseException) -> str:
    """Which disk is full, where that is what an error comes from; empty where it is not.

    SQLite, safetensors and torch say it in words of their own.
    """
    chain: list[BaseException] = []
    found: BaseException | None = error
    while found is not None and found not in chain:
        chain.append(found)
        found = found.__cause__ or found.__context__
    full = [each for each in chain if getattr(each, "errno", None) in _FULL or any(w in str(each) for w in _FULL_WORDS)]
    if not full:
        return ""
    name = next((str(each.filename) for each in full if isinstance(each, OSError) and each.filename), "")
    places = [Path(name)] if name else [Path.cwd(), Path(tempfile.gettempdir()), Path.home()]
    least, mount = min((_free(place), str(_mount(place))) for place in places)
    return f"the disk is full ({f'{name} on ' if name else ''}{mount}, {least / 1e6:.1f} MB free)"


def _mount(place: Path) -> Path:
    """Where the disk that a path lies on begins, whether or not the path is there yet."""
    return next(folder for folder in (place.absolute(), *place.absolute().parents) if os.path.ismount(folder))


def _free(place: Path) -> int:
    return shutil.disk_usage(_mount(place)).free


def advice(error: BaseException, step: str, asked: Mapping[str, str]) -> str:
    """What to try next, with all that was asked for on the command line."""
    again = command(step, **asked)
    if full_disk(error):
        return f"Free some space there, then {again}; finished steps are kept and not run again."
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return f"Lower the batch size or the resolution of this step, then {again}."
    if isinstance(error, KeyboardInterrupt):
        return f"To go on from here: {again}; finished steps are kept and not run again."
    return f"Put right what is named above, then {again}; finished steps are kept and not run again."
