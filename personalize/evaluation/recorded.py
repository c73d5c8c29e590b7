"""Scores as an evaluation wrote them, for whoever relies on them later: read, and judged anew."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from personalize.evaluation.gates import METRICS, Answer, Gate, Judgement, Verdict, judge, verdict
from personalize.evaluation.statistics import Estimate
from personalize.files import parse_json

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
        scores = parse_json(content)
        missing = [key for key in NEEDED if key not in scores]
    except (ValueError, TypeError) as error:
        raise ValueError(f"what should be scores is no JSON of them ({error})") from error
    if not isinstance(scores, dict) or missing:
        raise ValueError(f"what should be scores has no {' and no '.join(missing) or 'content'}")
    return scores


def verdict_of(scores: Mapping[str, Any]) -> Verdict:
    """The verdict that the intervals in the scores come to, each gate judged anew.

    Raises ValueError where the scores or one of their gates say another, or do not say what was found and required.
    """
    try:
        judged = [_again(row, scores.get("unfit", {})) for row in scores["gates"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"its gates do not say what was required and found ({error})") from error
    for row, gate in zip(scores["gates"], judged, strict=True):
        if row["verdict"] != gate.verdict:
            raise ValueError(
                f"gate {gate.name} is called {row['verdict']!r}, and what was found makes it {gate.verdict!r}"
            )
    found = verdict(judged)
    if found != scores.get("verdict"):
        raise ValueError(f"its scores say {scores.get('verdict')!r}, and the gates in them come to {found!r}")
    return found


def _again(row: Mapping[str, Any], unfit: Mapping[str, str]) -> Judgement:
    gate = Gate(**row["gate"])
    answers = [Answer(each["judge"], each["subject"], _found(each, gate.level)) for each in row["answers"]]
    return judge(gate, answers, unfit if METRICS[gate.metric].judged_by == "looking" else {})


def _found(answer: Mapping[str, Any], level: float) -> Estimate | None:
    if answer["value"] is None:
        return None
    low, high = answer["ci"] or (float("nan"), float("nan"))
    return Estimate(answer["value"], low, high, level, 0)
