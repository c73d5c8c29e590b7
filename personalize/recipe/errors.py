"""Errors a user can act on: the nearest known name, what went wrong in a step, and what to try, in words."""

import difflib
import errno
import re
from collections.abc import Iterable, Mapping

from personalize.cards.commands import command
from personalize.egress import without_secrets

_WORD = re.compile(r"\S{1000,}")


class RecipeError(ValueError):
    """Something the user can put right: names the thing, the place and the way out; exit code 2, no traceback.

    A message may repeat what was typed; what looks like a secret in it is put out.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_WORD.sub(lambda word: in_short(word[0]), without_secrets(message)))


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
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk is full ({error.filename or 'while writing'})"
    if isinstance(error, SystemExit):
        return f"the step ended the process (exit {error.code})"
    text = without_secrets(str(error).strip())
    if isinstance(error, ValueError | OSError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def advice(error: BaseException, step: str, asked: Mapping[str, str]) -> str:
    """What to try next, with all that was asked for on the command line."""
    again = command(step, **asked)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"Free some space, then {again}; finished steps are kept and not run again."
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return f"Lower the batch size or the resolution of this step, then {again}."
    if isinstance(error, KeyboardInterrupt):
        return f"To go on from here: {again}; finished steps are kept and not run again."
    return f"Put right what is named above, then {again}; finished steps are kept and not run again."
