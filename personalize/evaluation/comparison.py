"""Comparison: several models on the questions that all of them were asked, every one against the first.

A question is a subject in a prompt from a seed. Two models that answer it start from the same noise, so what is
compared is the difference picture by picture. Prompts stand for all that will be asked; they are what the interval
resamples, each counting once whatever the number of its pictures.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from personalize.evaluation import statistics
from personalize.evaluation.gates import METRICS
from personalize.evaluation.scorecard import as_json

Question = tuple[str, str, int]
"""(token, prompt, seed)."""

COMPARED = ("likeness", "clip_t", "r_precision", "recognised", "copied")
"""The metrics that each picture has by itself, as `METRICS` calls them."""
MAY_DIFFER = (
    "prompts", "seeds_per_prompt", "questions_seed", "looks", "champion", "level", "computed_on", "adapter_md5",
)  # fmt: skip
"""Settings of scores.json that do not keep two evaluations from being compared on their common questions."""


@dataclass(frozen=True)
class Evaluated:
    """One evaluation: name as people call it, its run, and the content of its scores.json."""

    name: str
    run_id: str
    scores: Mapping[str, Any]

    @property
    def rows(self) -> dict[Question, Mapping[str, Any]]:
        return {(row["token"], row["prompt"], row["seed"]): row for row in self.scores["pictures"]}


def common_questions(evaluations: Sequence[Evaluated]) -> list[Question]:
    """What all were asked, in the order of the first.

    Raises ValueError where they have nothing in common, or were not drawn and judged alike.
    """
    first, *others = evaluations
    for other in others:
        apart = _apart(first.scores.get("settings", {}), other.scores.get("settings", {}))
        if apart:
            raise ValueError(f"{first.name} and {other.name} were not drawn and judged alike: {'; '.join(apart)}")
    common = [question for question in first.rows if all(question in other.rows for other in others)]
    if not common:
        asked = "; ".join(f"{each.name}: {_asked(each.rows)}" for each in evaluations)
        raise ValueError(
            f"they have no question in common (same subject, prompt and seed), so nothing can be compared ({asked})"
        )
    return common


def _apart(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    keys = [key for key in {**ours, **theirs} if key not in MAY_DIFFER]
    return [f"{key} {ours.get(key)} and {theirs.get(key)}" for key in keys if ours.get(key) != theirs.get(key)]


def _asked(rows: Mapping[Question, Any]) -> str:
    tokens = sorted({token for token, _, _ in rows})
    prompts, seeds = {prompt.replace(token, "") for token, prompt, _ in rows}, {seed for _, _, seed in rows}
    return (
        f"{', '.join(tokens)} in {len(prompts)} prompts, seeds {min(seeds)} to {max(seeds)}" if rows else "no picture"
    )


def compare(evaluations: Sequence[Evaluated], questions: Sequence[Question], level: float = 0.95) -> dict[str, Any]:
    """Of each evaluation its means on the common questions, of each but the first its differences from the first.

    Plain values for JSON. Differences are given over all subjects and of each subject. Where evaluations were asked
    again while they were undecided, intervals are so wide that they hold at all looks of any of them.
    """
    first = evaluations[0]
    metrics = [metric for metric in COMPARED if all(_has(each, metric) for each in evaluations)]
    subjects = list(dict.fromkeys(token for token, _, _ in questions))
    prompts = len({_cluster(first, question) for question in questions})
    looks = sorted({look for each in evaluations for look in each.scores.get("settings", {}).get("looks", ())})
    held = statistics.at_each_look(level, tuple(looks), prompts)
    return {
        "questions": len(questions),
        "prompts": prompts,
        "subjects": subjects,
        "metrics": {metric: METRICS[metric].words for metric in metrics},
        "level": level,
        "evaluations": [
            {
                "name": each.name,
                "run_id": each.run_id,
                "verdict": each.scores["verdict"],
                "means": {m: round(float(np.mean([_value(each, q, m) for q in questions])), 6) for m in metrics},
            }
            for each in evaluations
        ],
        "differences": [
            {
                "run_id": other.run_id,
                "overall": {metric: _difference(first, other, questions, metric, held) for metric in metrics},
                "subjects": {
                    token: {
                        metric: _difference(first, other, [q for q in questions if q[0] == token], metric, held)
                        for metric in metrics
                    }
                    for token in subjects
                },
            }
            for other in evaluations[1:]
        ],
    }


def _difference(
    first: Evaluated, other: Evaluated, questions: Sequence[Question], metric: str, level: float
) -> dict[str, Any] | None:
    """other minus first, with its interval over prompts: means of subjects within a prompt, of prompts over all."""
    cells: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for question in questions:
        apart = _value(other, question, metric) - _value(first, question, metric)
        cells[_cluster(first, question)][question[0]].append(apart)
    by_prompt = np.array([np.mean([np.mean(seeds) for seeds in of.values()]) for of in cells.values()])
    return as_json(statistics.estimate(by_prompt[None, :, None], level=level))


def _cluster(evaluation: Evaluated, question: Question) -> str:
    """What the pictures of one prompt share, whoever the subject is."""
    token, prompt, _ = question
    return str(evaluation.rows[question].get("label") or prompt.replace(token, ""))


def _has(evaluation: Evaluated, metric: str) -> bool:
    try:
        return all(_of_row(row, metric) is not None for row in evaluation.scores["pictures"])
    except KeyError:
        return False


def _value(evaluation: Evaluated, question: Question, metric: str) -> float:
    return float(_of_row(evaluation.rows[question], metric))


def _of_row(row: Mapping[str, Any], metric: str) -> Any:
    if metric == "r_precision":
        return row["fits_own_prompt_best"]
    if metric == "recognised":
        return row["recognised_as"] == row["token"]
    return row[metric]


def furthest(
    first: Evaluated, other: Evaluated, questions: Sequence[Question], metric: str, count: int
) -> tuple[list[Question], list[Question]]:
    """Where `other` gained most against `first`, and where it lost most."""
    ranked = sorted(questions, key=lambda q: _value(other, q, metric) - _value(first, q, metric))
    return ranked[::-1][:count], ranked[:count]
