"""Scores as an evaluation wrote them, for whoever relies on them later: read, and judged anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from personalize.evaluation.gates import Verdict, verdict

NEEDED = ("verdict", "gates", "pictures")


def read_scores(file: Path) -> dict[str, Any]:
    """The content of a scores.json. Raises ValueError where it is none."""
    try:
        return parse_scores(file.read_bytes())
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({error})") from error


def parse_scores(content: bytes) -> dict[str, Any]:
    """The same from its bytes."""
    try:
        scores = json.loads(content)
        missing = [key for key in NEEDED if key not in scores]
    except (ValueError, TypeError) as error:
        raise ValueError(f"what should be scores is no JSON of them ({error})") from error
    if not isinstance(scores, dict) or missing:
        raise ValueError(f"what should be scores has no {' and no '.join(missing) or 'content'}")
    return scores


def verdict_of(scores: Mapping[str, Any]) -> Verdict:
    """The verdict that the gates' own add up to. Raises ValueError where the scores say another, or gates say none."""
    try:
        judged = [SimpleNamespace(verdict=gate["verdict"]) for gate in scores["gates"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"its gates have no verdict ({error})") from error
    found = verdict(cast(Any, judged))
    if found != scores.get("verdict"):
        raise ValueError(f"its scores say {scores.get('verdict')!r}, and the gates in them come to {found!r}")
    return found
