"""The evaluation card: pictures first, then plain words, with the numbers behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from personalize import hub
from personalize.cards import Card
from personalize.evaluation.gates import METRICS
from personalize.files import read_json
from personalize.recipe import Inputs
from steps.cards import evaluate_sections as sections
from steps.cards.evaluate_sections import Evaluation, span, spread, thumbnail
from steps.evaluate import Config, drawn_alike, photographs_of

SECTIONS: dict[str, Callable[[Evaluation, Card], None]] = {
    "Subjects": sections.subjects,
    "Best, middle, worst": sections.ranked,
    "Copies": sections.copies,
    "Plain class word": sections.drift,
    "Mix-ups": sections.confusion,
    "Prompts": sections.prompts,
}
GATE_WORDS = {"passed": "passed", "failed": "not passed", "undecided": "undecided", "skipped": "does not apply"}


def show(config: Config, inputs: Inputs, outputs: Path, card: Card) -> None:
    base, tuned = drawn_alike(inputs)
    photographs = photographs_of(inputs, base.questions.subjects)
    evaluation = Evaluation(read_json(outputs / "scores.json"), photographs, base, tuned)
    result = evaluation.result

    card.verdict(result["verdict"], result["headline"], result["reasons"])
    card.facts(result["facts"])
    if config.limits:
        card.warning(config.limits)
    before_and_after(evaluation, card)
    gates(result, card)
    for name, section in SECTIONS.items():
        with card.section(name):
            section(evaluation, card)
    with card.section("How it was judged"):
        method(evaluation, card)
        card.facts(circumstances(config, evaluation, read_json(inputs["train"].path / "history.json")))
        commands(result, card)


def before_and_after(evaluation: Evaluation, card: Card) -> None:
    """What a design team looks at first."""
    questions, models = evaluation.questions, (("base", evaluation.base), ("tuned", evaluation.tuned))
    chosen = spread(len(questions.prompts), 3)
    columns = ["photograph", *(f"{name}: {questions.labels[p]}" for p in chosen for name, _ in models)]
    rows = [
        (
            f"{token} {noun}",
            [
                thumbnail(evaluation.photographs[s][0].path),
                *(thumbnail(drawn.paths.of(s, p, 0)) for p in chosen for _, drawn in models),
            ],
        )
        for s, (token, noun) in enumerate(questions.subjects)
    ]
    card.grid("Same prompt, same seed, before and after (first seed, not selected)", columns, rows, width=108)


def gates(result: Mapping[str, Any], card: Card) -> None:
    rows = []
    for gate in result["gates"]:
        paired = gate["kind"] != "threshold"
        value = "–" if gate["value"] is None else METRICS[gate["metric"]].write(gate["value"], sign=paired)
        interval = f"{span(gate['ci'], gate['metric'], paired)} ({100 * gate['level']:g} %)" if gate["ci"] else "–"
        rows.append([GATE_WORDS[gate["verdict"]], gate["words"], value, interval, gate["requirement"]])
    card.table("What was required", ["verdict", "question", "found", "interval", "required"], rows)


def method(evaluation: Evaluation, card: Card) -> None:
    questions = evaluation.questions
    count = len(questions.prompts) * questions.seeds_per_prompt
    card.text(
        f"Both models answered the same {len(questions.prompts)} prompts from the same seeds "
        f"({questions.seeds.min()} to {questions.seeds.max()}; none helped to choose the checkpoint): {count} "
        "pictures of each subject. What is compared is tuned minus base, picture by picture. Intervals come from "
        "resampling whole prompts (cluster bootstrap), since pictures of one prompt resemble each other; they hold "
        "for these subjects and for prompts like these. In CLIP-T the token is replaced by its class noun, which "
        "CLIP knows. A subject that does not look like its class lowers CLIP-T in every place; whether a picture "
        "fits its own prompt better than all the others (R-precision) does not suffer from that."
    )
    likeness, following = (evaluation.result["overall"][metric]["detectable"] for metric in ("dino", "clip_t"))
    if likeness is not None and following is not None:
        card.text(
            f"With this many pictures a true change of {likeness:.3f} in likeness or {following:.3f} in "
            "prompt following would be noticed four times in five; a smaller one may well be missed."
        )


def circumstances(config: Config, evaluation: Evaluation, history: Mapping[str, Any]) -> dict[str, Any]:
    """Which models, which checkpoint, whose photographs."""
    drawn = evaluation.base.conditions
    judges = (config.clip_model, config.clip_revision), (config.dino_model, config.dino_revision)
    return {
        "base model": drawn["base_model"],
        "judges": ", ".join(hub.label(*judge) for judge in judges),
        "drawn with": f"{drawn['sampling_steps']} steps, guidance {drawn['guidance_scale']:g}, "
        f"{drawn['resolution']} px",
        "checkpoint": f"step {history['chosen']['step']} of {len(history['steps'])}" if "chosen" in history else None,
        "photographs held out": len(history.get("held_out", ())),
        **({"rights to the photographs": config.rights} if config.rights else {}),
    }


def commands(result: Mapping[str, Any], card: Card) -> None:
    first, worst = result["pictures"][0], min(result["pictures"], key=lambda row: row["dino"])
    again = [card.command("generate", prompt=row["prompt"], seed=row["seed"]) for row in (first, worst)]
    card.code("Draw one of these pictures again", "\n".join(again))
    card.code("Run this evaluation again", card.command("evaluate"))
