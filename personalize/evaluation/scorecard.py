"""Scorecard: what scores.json says. Verdict, gates, subjects, prompts and every picture, in plain numbers and words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from personalize.evaluation import metrics, statistics
from personalize.evaluation.faults import FAULTS
from personalize.evaluation.gates import METRICS, Answer, Gate, Judgement, judge, prompts_wanted, verdict
from personalize.evaluation.questions import Answers, Questions
from personalize.evaluation.scores import Scores
from personalize.evaluation.statistics import Estimate

SCHEMA = 5
"""Number of this format; docs/evaluation.md describes it."""

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

    In these rows `file` is relative to what the tuned model's drawing left, `base_file` to what the base's left, and
    `champion_file`, where there is a champion, to what its own left.
    """
    judgements = judge_all(scores, gates)
    overall = _overall(scores, level)
    return {
        "schema": SCHEMA,
        "verdict": verdict(judgements),
        "headline": HEADLINES[verdict(judgements)],
        "reasons": reasons(judgements),
        "prompts_wanted": prompts_wanted(judgements),
        "facts": _facts(overall, len(scores.tokens)),
        "gates": [_gate(each, scores) for each in judgements],
        "judges": {"deciding": list(scores.lookers), "reading": scores.reader, "all": scores.judges},
        "unfit": dict(scores.unfit),
        "overall": overall,
        "opinions": {name: _overall(scores, level, name) for name in scores.judges[1:]},
        "subjects": [_subject(scores, s, level, photographs[s]) for s in range(len(scores.tokens))],
        "confusion": {
            "tokens": scores.tokens,
            "columns": [*scores.tokens, *(f"any {noun}" for noun in scores.nouns)],
            "shares": scores.confusion().round(4).tolist(),
        },
        "matrix": {
            name: scores.of("tuned")[name].mean(axis=-1).round(4).tolist()
            for name in ("likeness", "recognised", "r_precision")
        },
        "prompts": _by_prompt(scores, questions),
        "pictures": _pictures(scores, questions, photographs),
    }


def judge_all(scores: Scores, gates: Sequence[Gate]) -> list[Judgement]:
    return [
        judge(gate, _answers(scores, gate), scores.unfit if METRICS[gate.metric].judged_by == "looking" else {})
        for gate in gates
    ]


def _answers(scores: Scores, gate: Gate, judges: Sequence[str] = ()) -> list[Answer]:
    """A gate's metric in the eyes of each judge, of each subject where it asks for that."""
    looked_at = METRICS[gate.metric].judged_by == "looking"
    names = judges or (scores.lookers if looked_at else [""])
    plain = [f"a plain {noun}" for noun in scores.nouns] if METRICS[gate.metric].plain else []
    of_whom = enumerate([*scores.tokens, *plain]) if gate.each else [(None, "")]
    return [
        Answer(
            _called(scores, gate.metric, name),
            called,
            as_written(scores.estimate(gate.metric, name, gate.rival, gate.level, s)),
            scores.missing(gate.metric, s, gate.rival, name),
        )
        for s, called in of_whom
        for name in names
    ]


def as_written(found: Estimate | None) -> Estimate | None:
    """To the digits that scores.json keeps, so that whoever judges it again comes to the same."""
    return found and replace(found, value=round(found.value, 6), low=round(found.low, 6), high=round(found.high, 6))


def _called(scores: Scores, metric: str, name: str) -> str:
    return {"looking": name, "reading": scores.reader, "measuring": ""}[METRICS[metric].judged_by]


def reasons(judgements: Sequence[Judgement]) -> list[str]:
    """What speaks against promotion, in full; what speaks for it, counted."""
    if not judgements:
        return ["Nothing was required of the model (recipe.yaml: evaluate.gates), so nothing can be said."]
    against = [each.why for verdict in ("failed", "undecided") for each in judgements if each.verdict == verdict]
    passed = sum(each.verdict == "passed" for each in judgements)
    skipped = [each.why for each in judgements if each.verdict == "skipped"]
    of = f"{passed} of {len(judgements)} requirements met"
    not_asked = f", {len(skipped)} not asked ({'; '.join(skipped)})" if skipped else ""
    return [*against, f"{of}{not_asked}; the table below has them all."]


def _facts(overall: Mapping[str, Any], subjects: int) -> dict[str, str]:
    """The four numbers that sum it up, by what they say."""
    facts = {}
    if overall["gap_closed"]:
        facts["way from base model to photographs"] = METRICS["gap_closed"].write(overall["gap_closed"]["value"])
    if overall["recognised"]:
        among = f"among {subjects} subjects and their class" if subjects > 1 else "and not as any of its class"
        facts[f"recognised {among}"] = METRICS["recognised"].write(overall["recognised"]["value"])
    if overall["r_precision"]:
        facts["fit their own prompt best"] = METRICS["r_precision"].write(overall["r_precision"]["tuned"])
    if overall["copied"]:
        facts["looks copied from a photograph"] = METRICS["copied"].write(overall["copied"]["value"])
    return facts


def _gate(judged: Judgement, scores: Scores) -> dict[str, Any]:
    found, gate = judged.found, judged.gate
    advisers = [name for name in scores.judges if name not in scores.lookers]
    opinions = _answers(scores, gate, advisers) if METRICS[gate.metric].judged_by == "looking" and advisers else []
    return {
        "name": judged.name,
        "gate": gate.model_dump(mode="json"),
        "metric": gate.metric,
        "kind": gate.kind,
        "against": gate.rival,
        "words": METRICS[gate.metric].words,
        "judge": judged.decisive.judge,
        "subject": judged.decisive.subject,
        **_numbers(found),
        "level": gate.level,
        "threshold": gate.line,
        "requirement": gate.requirement,
        "line_from": gate.why,
        "verdict": judged.verdict,
        "why": judged.why,
        "answers": [_answer(gate, answer) for answer in judged.answers],
        "opinions": [_answer(gate, answer) for answer in opinions],
    }


def _answer(gate: Gate, answer: Answer) -> dict[str, Any]:
    return {
        "judge": answer.judge,
        "subject": answer.subject,
        **_numbers(answer.found),
        "verdict": gate.decide(answer.found),
    }


def _numbers(found: Estimate | None) -> dict[str, Any]:
    return {
        "value": number(found.value) if found else None,
        "ci": [number(found.low), number(found.high)] if found and found.known else None,
    }


def _overall(scores: Scores, level: float, judge: str = "", subject: int | None = None) -> dict[str, Any]:
    """Every metric: base, tuned and their difference where both have it, otherwise the tuned model's alone."""
    found: dict[str, Any] = {}
    for name, metric in METRICS.items():
        if (subject is not None and not metric.each) or (judge and metric.judged_by != "looking"):
            continue
        if metric.paired:
            found[name] = None if scores.missing(name, subject) else _compare(scores, name, level, judge, subject)
        else:
            found[name] = as_json(scores.estimate(name, judge, "", level, subject))
    return found


def _compare(scores: Scores, metric: str, level: float, judge: str, subject: int | None) -> dict[str, Any]:
    chosen = slice(None) if subject is None else slice(subject, subject + 1)
    of = {side: scores.of(side, judge)[metric][chosen] for side in scores.drawn}
    return {
        **{side: number(values.mean()) for side, values in of.items()},
        "difference": as_json(scores.estimate(metric, judge, "base", level, subject)),
        "detectable": number(
            statistics.minimum_detectable_effect(of["tuned"] - of["base"], scores.at_this_look(level))
        ),
    }


def _subject(scores: Scores, s: int, level: float, names: Sequence[str]) -> dict[str, Any]:
    photos, lead = scores.photographs[s], scores.lookers[0]
    of_captions = photos.captions
    own_clip_t = (
        float("nan")
        if of_captions is None
        else float(metrics.prompt_following(photos.features[scores.reader], of_captions).mean())
    )
    return {
        "token": photos.token,
        "class_noun": photos.class_noun,
        "photographs": len(photos),
        "left_out": {names[i]: why for i, why in scores.left_out[s].items()},
        "pictures": int(np.prod(scores.shape)),
        "ceiling": {"likeness": number(scores.ceilings(lead)[s]), "clip_t": number(own_clip_t)},
        "closest_photographs": number(scores.closest_pairs(lead)[s]),
        **_overall(scores, level, subject=s),
    }


def _by_prompt(scores: Scores, questions: Questions) -> list[dict[str, Any]]:
    return [
        {"prompt": prompt.text, "label": prompt.name, "category": prompt.category}
        | {
            f"{metric}_{side}": number(scores.of(side)[metric][:, p].mean())
            for metric in ("likeness", "recognised", "clip_t", "r_precision")
            for side in scores.drawn
        }
        for p, prompt in enumerate(questions.prompts)
    ]


def _pictures(scores: Scores, questions: Questions, photographs: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    rows, seeds = [], questions.seeds
    files, plain = Answers(questions, questions.files), Answers(questions, questions.plain_files)
    of, rivals = scores.of("tuned"), [side for side in ("base", "champion") if side in scores.drawn]
    called = [*scores.tokens, *(f"any {noun}" for noun in scores.nouns)]
    closest = scores.closest_pairs(scores.lookers[0])
    for s, (token, noun) in enumerate(questions.subjects):
        for p, prompt in enumerate(questions.prompts):
            for k in range(questions.seeds_per_prompt):
                at = (s, p, k)
                rows.append(
                    {
                        "at": list(at),
                        "file": files.of(*at),
                        **{f"{side}_file": (plain if side == "base" else files).of(*at) for side in rivals},
                        "token": token,
                        "class_noun": noun,
                        "label": prompt.name,
                        "category": prompt.category,
                        "prompt": prompt.about(f"{token} {noun}"),
                        "seed": int(seeds[at]),
                        "likeness": number(of["likeness"][at]),
                        **{f"likeness_{side}": number(scores.of(side)["likeness"][at]) for side in rivals},
                        "clip_t": number(of["clip_t"][at]),
                        **{f"clip_t_{side}": number(scores.of(side)["clip_t"][at]) for side in rivals},
                        "fits_own_prompt_best": bool(of["r_precision"][at]),
                        "recognised_as": called[of["recognised_as"][at]],
                        "nearest_photograph": photographs[s][of["nearest_photograph"][at]],
                        "nearest": number(of["nearest"][at]),
                        "closest_photographs": number(closest[s]),
                        "copied": bool(of["copied"][at]),
                        **{fault: bool(of[fault][at]) for fault in FAULTS},
                    }
                )
    return rows


def number(value: float) -> float | None:
    """A float for JSON, which has no NaN."""
    return round(float(value), 6) if np.isfinite(value) else None


def as_json(estimate: Estimate | None) -> dict[str, Any] | None:
    if estimate is None:
        return None
    return {**_numbers(estimate), "level": estimate.level}
