"""Scorecard: what scores.json says. Verdict, gates, subjects, prompts and every picture, in plain numbers and words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from personalize.evaluation.gates import METRICS, Gate, Judgement, judge, verdict
from personalize.evaluation.questions import Answers, Questions
from personalize.evaluation.scores import Scores, number

HEADLINES = {
    "passed": "Good enough to promote",
    "failed": "Not good enough to promote",
    "undecided": "Not yet clear whether it is good enough",
}


def scorecard(
    scores: Scores,
    questions: Questions,
    gates: Sequence[Gate],
    photographs: Sequence[Sequence[str]],
    level: float = 0.95,
) -> dict[str, Any]:
    """Plain values for JSON. `photographs` are their names, by which the rows about single pictures call them.

    In these rows `file` is relative to what the tuned model's drawing left, `base_file` to what the base's left.
    """
    judgements = [
        judge(gate, scores.estimate(gate.metric, gate.kind != "threshold", gate.level), scores.missing(gate.metric))
        for gate in gates
    ]
    summary = scores.summary(level)
    return {
        "verdict": verdict(judgements),
        "headline": HEADLINES[verdict(judgements)],
        "reasons": reasons(judgements),
        "facts": _facts(summary["overall"], len(scores.tokens)),
        "gates": [_gate(each) for each in judgements],
        **summary,
        "prompts": _by_prompt(scores, questions),
        "pictures": _pictures(scores, questions, photographs),
    }


def reasons(judgements: Sequence[Judgement]) -> list[str]:
    """What speaks against promotion, in full; what speaks for it, counted."""
    if not judgements:
        return ["Nothing was required of the model (recipe.yaml: evaluate.gates), so nothing can be said."]
    against = [each.why for verdict in ("failed", "undecided") for each in judgements if each.verdict == verdict]
    passed, asked = (
        sum(each.verdict == "passed" for each in judgements),
        sum(each.verdict != "skipped" for each in judgements),
    )
    return [*against, f"{passed} of {asked} requirements met; the table below has them all."]


def _facts(overall: dict[str, Any], subjects: int) -> dict[str, str]:
    """The four numbers that sum it up, by what they say."""
    facts = {}
    if overall["gap_closed"]:
        facts["way from base model to photographs"] = METRICS["gap_closed"].write(overall["gap_closed"]["value"])
    if overall["recognised"]:
        facts[f"recognised among {subjects} subjects"] = METRICS["recognised"].write(overall["recognised"]["value"])
    if "r_precision" in overall:
        facts["fit their own prompt best"] = METRICS["r_precision"].write(overall["r_precision"]["tuned"])
    if overall["copied"]:
        facts["looks copied from a photograph"] = METRICS["copied"].write(overall["copied"]["value"])
    return facts


def _gate(judged: Judgement) -> dict[str, Any]:
    found = judged.found
    return {
        "name": judged.name,
        "metric": judged.gate.metric,
        "kind": judged.gate.kind,
        "words": METRICS[judged.gate.metric].words,
        "value": number(found.value) if found else None,
        "ci": [number(found.low), number(found.high)] if found and found.known else None,
        "level": judged.gate.level,
        "threshold": judged.gate.line,
        "requirement": judged.gate.requirement,
        "verdict": judged.verdict,
        "why": judged.why,
    }


def _by_prompt(scores: Scores, questions: Questions) -> list[dict[str, Any]]:
    return [
        {"prompt": prompt, "label": label}
        | {
            f"{metric}_{side}": number(of[metric][:, p].mean())
            for metric in ("dino", "clip_t", "r_precision")
            for side, of in (("base", scores.of_base), ("tuned", scores.of_tuned))
        }
        for p, (prompt, label) in enumerate(zip(questions.prompts, questions.labels, strict=True))
    ]


def _pictures(scores: Scores, questions: Questions, photographs: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    rows, files = [], Answers(questions, questions.files)
    for s, (token, noun) in enumerate(questions.subjects):
        for p, prompt in enumerate(questions.prompts):
            for k in range(questions.seeds_per_prompt):
                of, of_base, at = scores.of_tuned, scores.of_base, (s, p, k)
                rows.append(
                    {
                        "at": list(at),
                        "file": files.of(*at),
                        "base_file": files.of(*at),
                        "token": token,
                        "label": questions.labels[p],
                        "prompt": questions.prompt(prompt, f"{token} {noun}"),
                        "seed": int(questions.seeds[at]),
                        "dino": number(of["dino"][at]),
                        "dino_base": number(of_base["dino"][at]),
                        "clip_i": number(of["clip_i"][at]),
                        "clip_t": number(of["clip_t"][at]),
                        "clip_t_base": number(of_base["clip_t"][at]),
                        "fits_own_prompt_best": bool(of["r_precision"][at]),
                        "recognised_as": scores.tokens[of["recognised_as"][at]],
                        "nearest_photograph": photographs[s][of["nearest_photograph"][at]],
                        "nearest": number(of["nearest"][at]),
                        "nearest_clip": number(of["nearest_clip"][at]),
                        "closest_photographs": number(scores.closest_pairs[s]),
                        "closest_photographs_clip": number(scores.closest_clip_pairs[s]),
                        "copied": bool(of["copied"][at]),
                    }
                )
    return rows
