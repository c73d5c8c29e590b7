"""Errors a user can act on, and the words that suggest the nearest known name."""

import difflib
from collections.abc import Iterable


class RecipeError(ValueError):
    """Something the user can put right: names the thing, the place and the way out; exit code 2, no traceback."""


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
