"""Safety: an optional look at each picture before it is sent. No judge is shipped; whoever serves brings one.

    def look(picture: PIL.Image.Image, prompt: str) -> str

gives in a few words what it found, and nothing where it found nothing. It is named `module:function` and runs on the
threads that encode, several at a time. A look that fails is an error of the request: nothing is sent unseen.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL.Image import Image

Policy = Literal["withhold", "flag"]
NONE = "none"


@dataclass(frozen=True)
class Safety:
    """policy: what is found is `flag`ged in the answer, or the picture is `withheld` besides."""

    look: Callable[[Image, str], str]
    policy: Policy = "withhold"

    def judged(self, picture: Image, prompt: str) -> tuple[bool, str]:
        """Whether the picture is sent, and what the answer says of it: empty, `flagged: ...` or `withheld: ...`.

        Raises TypeError where the look gives anything but text; and whatever the look raises.
        """
        found = self.look(picture, prompt)
        if not isinstance(found, str):
            raise TypeError(f"the safety check gave {type(found).__name__} and not text")
        if not found:
            return True, ""
        return (True, f"flagged: {found}") if self.policy == "flag" else (False, f"withheld: {found}")


def module_of(entry: str) -> str:
    """The module of `module:function`; empty for `none`. Raises ValueError for what is neither."""
    if entry == NONE:
        return ""
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", entry):
        raise ValueError(f"safety {entry!r} is neither none nor <module>:<function>")
    return entry.partition(":")[0]


def load(entry: str, policy: Policy = "withhold") -> Safety | None:
    """The check of that name; None for `none`. Raises ValueError where there is no such function."""
    if not (module := module_of(entry)):
        return None
    name = entry.partition(":")[2]
    try:
        look = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"the safety check {entry} cannot be had: {error}") from error
    if not callable(look):
        raise ValueError(f"the safety check {entry} is no function")
    return Safety(look, policy)
