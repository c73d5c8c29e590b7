"""Sections of the evaluation card that show figures: subjects, where it holds, mix-ups, quality, prompts, cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from personalize.cards import Card
from personalize.evaluation.gates import METRICS
from steps.cards import evaluate_judges
from steps.cards.evaluate_sections import Evaluation, number, thumbnail, values, with_span
from steps.evaluate import examined_on


def subjects(evaluation: Evaluation, card: Card) -> None:
    """Does it look like each subject?"""
    sides, result = evaluation.sides, evaluation.result
    card.table(
        "Likeness of each subject to its photographs, and what became of the prompt",
        ["", "subject", *sides, "photographs", "way there", "recognised", "prompt following (CLIP-T)", "pictures"],
        [
            [
                thumbnail(evaluation.photographs[s][0].path),
                of["token"],
                *values(of["likeness"], sides, "likeness"),
                number(of["ceiling"]["likeness"]),
                with_span(of["gap_closed"], "gap_closed"),
                with_span(of["recognised"], "recognised"),
                with_span(of["clip_t"] and of["clip_t"]["difference"], "clip_t", sign=True),
                of["pictures"],
            ]
            for s, of in enumerate(result["subjects"])
        ],
        stacked=True,
    )
    card.text(
        f"Brackets are {evaluation.level} intervals. “Photographs” is how much a subject's real photographs resemble "
        "one another, each left out in turn: more than that can hardly be asked."
    )
    if out := [f"{of['token']}: {name} ({why})" for of in result["subjects"] for name, why in of["left_out"].items()]:
        card.warning(f"Photographs that pictures are not compared with: {'; '.join(out)}.")
    reached = {of["token"]: of["ceiling"]["clip_t"] for of in result["subjects"]}
    followed = result["overall"]["clip_t"]
    if followed and all(value is not None for value in reached.values()):
        card.text(
            f"CLIP-T went from {followed['base']:.3f} to {followed['tuned']:.3f}. The photographs themselves, beside "
            f"their own captions, reach {sum(reached.values()) / len(reached):.3f} "
            f"({', '.join(f'{token} {value:.2f}' for token, value in reached.items())}): a subject that hardly looks "
            "like its class cannot be drawn faithfully and please CLIP as an ordinary one does."
        )
    if unseen := result["overall"].get("held_out"):
        card.text(
            f"Against only those photographs whose pixels training did not learn from, likeness went from "
            f"{unseen['base']:.3f} to {unseen['tuned']:.3f}: {with_span(unseen['difference'], 'held_out', sign=True)}. "
            "The checkpoint was chosen by them, so they are not wholly new to it."
        )


def matrix(evaluation: Evaluation, card: Card) -> None:
    """Which subject fails where? An average hides the one that is missing."""
    result = evaluation.result
    tokens = [of["token"] for of in result["subjects"]]
    prompts = [f"{prompt['label']} ({prompt['category']})" for prompt in result["prompts"]]
    likeness = [value for row in result["matrix"]["likeness"] for value in row]
    ceilings = [of["ceiling"]["likeness"] for of in result["subjects"]]
    top = max([*likeness, *(value for value in ceilings if value is not None)])
    card.text("The tuned model's pictures of each subject in each prompt: the deeper the colour, the better.")
    for name, title, span in (
        ("likeness", "Likeness to the photographs", (min(likeness), top)),
        ("recognised", "Recognised as that very one", (0.0, 1.0)),
        ("r_precision", "Fit their own prompt best", (0.0, 1.0)),
    ):
        of = result["matrix"][name]
        card.heat(
            title,
            tokens,
            [(prompt, [of[s][p] for s in range(len(tokens))]) for p, prompt in enumerate(prompts)],
            span,
            percent=METRICS[name].percent,
        )


def confusion(evaluation: Evaluation, card: Card) -> None:
    """Are subjects mixed up, with each other or with any of their class?"""
    found = evaluation.result["confusion"]
    card.heat(
        "Asked for (rows), nearest to the photographs of (columns)",
        found["columns"],
        list(zip(found["tokens"], found["shares"], strict=True)),
        (0.0, 1.0),
        percent=True,
        note="“Any” is what the base draws for the plain class word. A faithful model has 100 % along the diagonal.",
    )


def prompts(evaluation: Evaluation, card: Card) -> None:
    """Which prompts are hard?"""
    sides = evaluation.sides
    asked = (("likeness", "likeness"), ("clip_t", "prompt following"), ("r_precision", "fits best"))
    card.table(
        "Where it is easy and where it is hard",
        ["prompt", "kind", *(f"{words}: {side}" for _, words in asked for side in sides)],
        [
            [
                row["label"],
                row["category"],
                *(METRICS[metric].write(row[f"{metric}_{side}"]) for metric, _ in asked for side in sides),
            ]
            for row in evaluation.result["prompts"]
        ],
    )


def quality(evaluation: Evaluation, card: Card) -> None:
    """What the pictures are like whatever they show, beside the base's."""
    overall, sides = evaluation.result["overall"], evaluation.sides
    measured = [
        name
        for name, metric in METRICS.items()
        if metric.judged_by == "measuring" and metric.paired and overall.get(name)
    ]
    card.text(
        "No judge of likeness sees a blur, a watermark or a stretch, so these are measured. The scales are logarithms "
        "or shares; what counts is the distance from the base, which draws the same prompts from the same seeds."
    )
    card.table(
        "Measured in every picture",
        ["what", *sides, "tuned less base", "smallest change that would be noticed"],
        [
            [
                METRICS[name].words,
                *values(overall[name], sides, name),
                with_span(overall[name]["difference"], name, sign=True),
                number(overall[name]["detectable"]),
            ]
            for name in measured
        ],
        stacked=True,
    )


def overlooked(result: Mapping[str, Any]) -> list[str]:
    """What no judge that decides would notice, in a sentence each: a card must not praise what nobody looked at."""
    from personalize.evaluation.examination import ACCEPTABLE

    examined = [result["examination"][name]["kinds"] for name in result["judges"]["deciding"]]
    blind = [
        words
        for kind, words in (("colour", "another colour"), ("form", "another form"), ("part", "a missing part"))
        if all(kinds[kind]["auc"] is not None and kinds[kind]["auc"] < ACCEPTABLE for kinds in examined)
    ]
    if not blind:
        return []
    names = " and ".join(result["judges"]["deciding"])
    measured = [
        answer["subject"] or "all"
        for gate in result["gates"]
        if gate["metric"] == "proportions" and gate["verdict"] != "skipped"
        for answer in gate["answers"]
        if answer["value"] is not None
    ]
    instead = (
        f" Breadth over height is measured without a judge (“proportions”: {', '.join(measured)}), the rest of a form "
        "is not."
        if measured and "another form" in blind
        else ""
    )
    return [
        f"{names} would hardly notice {' or '.join(blind)}: on changed copies of your photographs it was little better "
        f"than a guess. Likeness says nothing of that here.{instead} Look at the pictures for it yourself (“Judges”)."
    ]


def judges(evaluation: Evaluation, card: Card) -> None:
    """Who judged, how far each can be believed, and what those say who do not decide."""
    result = evaluation.result
    who, named = result["judges"], result["settings"]["judges"]
    card.table(
        "Who looked at the pictures",
        ["judge", "model", "part"],
        [
            [
                name,
                named.get(name, name),
                "decides" if name in who["deciding"] else "reads the prompts" if name == who["reading"] else "advises",
            ]
            for name in dict.fromkeys([*who["all"], who["reading"]])
        ],
        stacked=True,
    )
    evaluate_judges.show(result["examination"], *examined_on(evaluation.photographs, evaluation.drawn["base"]), card)
    for gate in result["gates"]:
        if gate["verdict"] != "skipped" and len(gate["answers"]) + len(gate["opinions"]) > 1:
            _answers(gate, card)


def _answers(gate: Mapping[str, Any], card: Card) -> None:
    """What was found of each subject, by each judge: those that decide, then those that advise."""
    of_judges: dict[str, dict[str, str]] = {}
    for answers, column, said in (
        (gate["answers"], "{judge}", "{found}, {verdict}"),
        (gate["opinions"], "{judge}, which does not decide", "{found}, would say {verdict}"),
    ):
        for answer in answers:
            found = with_span(answer, gate["metric"], sign=gate["kind"] != "threshold")
            judge = column.format(judge=answer["judge"]) if answer["judge"] else "found"
            words = "cannot be told" if answer["value"] is None else said.format(found=found, verdict=answer["verdict"])
            of_judges.setdefault(judge, {})[answer["subject"] or "all"] = words
    subjects = dict.fromkeys(subject for of in of_judges.values() for subject in of)
    card.table(
        f"{gate['words'][0].upper()}{gate['words'][1:]}: {gate['requirement']}",
        ["subject", *of_judges],
        [[subject, *(of.get(subject, "") for of in of_judges.values())] for subject in subjects],
        stacked=len(of_judges) > 1,
    )


def cost(speeds: Mapping[str, Mapping[str, Any]], memory: Mapping[str, float], card: Card) -> None:
    """What a picture costs. speeds: each model's diagnostics/speed.json; memory: GB in use while it drew, if known."""
    card.table(
        "Seconds and memory",
        ["model", "pictures", "drawn in that run", "seconds a picture", "memory in use"],
        [
            [
                side,
                speed["pictures"],
                speed.get("drawn_now", speed["pictures"]),
                f"{speed['seconds'] / drawn:.2f}"
                if (drawn := speed.get("drawn_now", speed["pictures"]))
                else "all were there",
                f"{memory[side]:.1f} GB" if side in memory else "not recorded",
            ]
            for side, speed in speeds.items()
        ],
        stacked=True,
    )
