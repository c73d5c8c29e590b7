"""The evaluation card: the verdict in plain words, what to look at and to do first, then pictures and their numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from personalize.cards import Card
from personalize.cards.links import address
from personalize.evaluation import judges
from personalize.evaluation.gates import METRICS
from personalize.files import read_json
from personalize.recipe import Inputs
from steps.advice import advise
from steps.cards import evaluate_figures as figures
from steps.cards import evaluate_pictures as pictures
from steps.cards.evaluate_sections import Evaluation, span
from steps.cards.evaluate_words import reasons
from steps.cards.train import masks
from steps.evaluate import SIDES, Config, drawn_alike, photographs_of

SECTIONS: dict[str, Callable[[Evaluation, Card], None]] = {
    "Subjects": figures.subjects,
    "Where it holds": figures.matrix,
    "All pictures": pictures.everything,
    "Best, middle, worst": pictures.ranked,
    "Copies": pictures.copies,
    "Mix-ups": figures.confusion,
    "Variety": pictures.variety,
    "Plain class word": pictures.drift,
    "Quality": figures.quality,
    "Prompts": figures.prompts,
    "Judges": figures.judges,
}
GATE_WORDS = {"passed": "passed", "failed": "not passed", "undecided": "undecided", "skipped": "could not be asked"}
SPEEDS = {"base": "speed.json", "tuned": "speed.json", "champion": "champion.json"}
MEMORY = ("system/gpu_0_memory_usage_megabytes", "system/system_memory_usage_megabytes")
"""Metrics in which MLflow keeps a run's memory: the card's where there is one, else the machine's."""


def show(config: Config, inputs: Inputs, outputs: Path, card: Card) -> None:
    drawn = drawn_alike(inputs)
    places = {
        side: address(inputs[step].run_id, f"outputs/{within}".rstrip("/"))
        for side, (step, within) in SIDES.items()
        if inputs[step].run_id
    }
    photographs = photographs_of(inputs, drawn["base"].questions.subjects)
    evaluation = Evaluation(read_json(outputs / "scores.json"), photographs, drawn, places)
    result, history = evaluation.result, read_json(inputs["train"].path / "history.json")

    card.verdict(result["verdict"], result["headline"], reasons(result, evaluation.questions.nouns))
    for name, why in result["unfit"].items():
        card.warning(f"{name} decides nothing here: it {why}.")
    for words in [*figures.overlooked(result), *earlier(outputs / "diagnostics" / "earlier.json")]:
        card.warning(words)
    pictures.first(evaluation, card)
    card.advice("What to do next", advise(result, history))
    card.facts(result["facts"])
    if config.limits:
        card.warning(config.limits)
    gates(result, card)
    pictures.before_and_after(evaluation, card)
    for name, section in SECTIONS.items():
        with card.section(name):
            section(evaluation, card)
    with card.section("Cost"):
        speeds = {side: read_json(inputs[SIDES[side][0]].path / "diagnostics" / SPEEDS[side]) for side in drawn}
        used = {side: gb for side in drawn if (gb := memory(inputs[SIDES[side][0]].metrics))}
        figures.cost(speeds, used, card)
    with card.section("How it was judged"):
        method(evaluation, card)
        card.facts(circumstances(config, evaluation, history, inputs))
        commands(evaluation, card)


def earlier(file: Path) -> list[str]:
    """Whoever asks often enough gets the answer he wants: what was asked of this very adapter before."""
    found = read_json(file) if file.is_file() else []
    if not found:
        return []
    each = [
        f"{each['verdict'] or 'no verdict'} with other {' and '.join(each['other'])} "
        f"({datetime.fromtimestamp(each['at'] / 1000, UTC):%d %B %Y}, run {each['run'][:8]})"
        for each in found
    ]
    times = "once" if len(found) == 1 else f"{len(found)} times"
    return [
        f"This very model was evaluated {times} before: {'; '.join(each)}. A verdict that comes of asking again is "
        "worth less."
    ]


def gates(result: Mapping[str, Any], card: Card) -> None:
    rows = []
    for gate in result["gates"]:
        paired = gate["kind"] != "threshold"
        value = "–" if gate["value"] is None else METRICS[gate["metric"]].write(gate["value"], sign=paired)
        interval = f"{span(gate['ci'], gate['metric'], paired)} ({100 * gate['level']:g} %)" if gate["ci"] else None
        worst = ", ".join(name for name in (gate["subject"], gate["judge"]) if name)
        rows.append(
            [
                GATE_WORDS[gate["verdict"]],
                gate["words"],
                value,
                interval,
                gate["requirement"],
                worst,
                gate["line_from"] if gate["verdict"] != "skipped" else gate["why"],
            ]
        )
    columns = ["verdict", "question", "found", "interval", "required", "worst for, to", "why this line"]
    card.table("What was required", columns, rows, stacked=True, tones=[gate["verdict"] for gate in result["gates"]])


def method(evaluation: Evaluation, card: Card) -> None:
    questions, result = evaluation.questions, evaluation.result
    count = len(questions.prompts) * questions.seeds_per_prompt
    card.text(
        f"All models answered the same {len(questions.prompts)} prompts from the same seeds, {count} pictures of each "
        "subject; the base, which knows no subject, was asked for any thing of its class. A seed follows from class "
        "noun and prompt, so that both start from the same noise; none helped to choose the checkpoint. What is "
        "compared is tuned minus base, picture by picture. Intervals are about prompts: pictures "
        "of one prompt resemble each other, so another prompt tells more than another seed. They hold for these "
        "subjects and for prompts like these. In CLIP-T the token is replaced by its class noun, which the judge "
        "knows. A subject that does not look like its class lowers CLIP-T in every place; whether a picture fits its "
        "own prompt better than all the others (R-precision) does not suffer from that."
    )
    if looks := questions.looks:
        card.text(
            f"The verdict is asked {len(looks)} times at most, after {' and '.join(map(str, looks))} prompts, and no "
            f"more are drawn where it is decided; this is time {questions.look}. The intervals are repeated ones "
            f"(Jennison and Turnbull 1989): so wide that those of all {len(looks)} times together hold in "
            f"{evaluation.level} of evaluations, whenever one stops."
        )
    noticed = {name: of["detectable"] for name in ("likeness", "clip_t") if (of := result["overall"][name])}
    if len(noticed) == 2 and None not in noticed.values():
        card.text(
            f"With this many prompts a true change of {noticed['likeness']:.3f} in likeness or "
            f"{noticed['clip_t']:.3f} in prompt following would be found to be one in about four evaluations of five, "
            "if other prompts scatter as these do; a smaller one may well be missed."
        )


def circumstances(config: Config, evaluation: Evaluation, history: Mapping[str, Any], inputs: Inputs) -> dict[str, Any]:
    """Which models, which checkpoint, whose photographs, from which runs."""
    drawn, settings = evaluation.base.conditions, evaluation.result["settings"]
    chosen, champion = history.get("chosen"), settings.get("champion")
    return {
        "base model": drawn["base_model"],
        "judges": ", ".join(f"{judge.name}: {judges.label(judge)}" for judge in config.judges),
        "drawn with": f"{drawn['sampling_steps']} steps, guidance {drawn['guidance_scale']:g}, "
        f"{drawn['resolution']} px, {drawn['dtype']}, {drawn['computed_on']}",
        "checkpoint": f"step {chosen['step']} of {len(history['steps'])}" if chosen else None,
        "adapter (md5)": settings["adapter_md5"],
        "champion": f"{champion['name']} version {champion['version']}"
        if (champion := settings.get("champion"))
        else None,
        "seed of the questions": settings["questions_seed"],
        "photographs held out": len(history.get("held_out", ())),
        **masks(history),
        **{f"run of {step}": inputs[step].run_id for step in inputs if inputs[step].run_id},
        "rights to the photographs": config.rights or "not said",
    }


def commands(evaluation: Evaluation, card: Card) -> None:
    rows = evaluation.rows
    chosen = rows[0], min(rows, key=lambda row: row["likeness"])
    again = [card.command("generate", prompt=row["prompt"], seed=row["seed"]) for row in chosen]
    card.code("Draw one of these pictures again", "\n".join(again))
    card.code("Run this evaluation again", card.command("evaluate"))
    if card.run_id:
        card.code("See this card again", card.command("inspect", run=card.run_id))


def memory(metrics: Mapping[str, float]) -> float | None:
    """GB in use when a run last looked; None where it did not."""
    return next((metrics[name] / 1000 for name in MEMORY if name in metrics), None)
