"""The card of a comparison: the same question and seed side by side, then every difference with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from personalize.cards import Card
from personalize.evaluation.gates import METRICS
from personalize.files import read_json
from personalize.recipe import Inputs
from steps.compare import Config


def show(config: Config, inputs: Inputs, outputs: Path, card: Card) -> None:
    made = read_json(outputs / "comparison.json")
    evaluations, metrics = made["evaluations"], made["metrics"]
    names = [each["name"] for each in evaluations]
    card.text(
        f"{len(evaluations)} evaluations on the {made['questions']} questions that all were asked: "
        f"{len(made['subjects'])} subjects, {made['prompts']} prompts, the same seeds. Differences are from {names[0]}."
    )
    for line in in_words(made):
        card.text(line)
    card.table(
        "What is compared",
        ["", "run", "evaluation", "gates", *(METRICS[metric].words for metric in metrics)],
        [
            [each["name"], each["run_name"], each["run_id"][:8], each["verdict"], *_means(each["means"])]
            for each in evaluations
        ],
    )
    with card.section("Side by side"):
        for token in made["subjects"]:
            of_subject = [row for row in made["grid"] if row["token"] == token]
            strips(f"{token}: same prompt, same seed (the first, not selected)", of_subject, names, outputs, card)
    for apart, other in zip(made["differences"], evaluations[1:], strict=True):
        with card.section(f"{other['name']} against {names[0]}"):
            differences(made, apart, card)
            for of in made["furthest"]:
                if of["name"] == other["name"]:
                    strips("Where it gained most in likeness", of["gained"], names, outputs, card)
                    strips("Where it lost most", of["lost"], names, outputs, card)
    if made["trained_with"]:
        with card.section("Trained with"):
            rows = [[key.removeprefix("train."), *of] for key, of in made["trained_with"].items()]
            card.table("Settings that are not the same in all", ["setting", *names], rows)
    card.code("Their cards", "\n".join(f"mlflow artifacts download -u {each['card']}" for each in evaluations))


def in_words(made: Mapping[str, Any]) -> list[str]:
    """What can be said of each against the first: only where the whole interval lies on one side."""
    said = []
    first = made["evaluations"][0]["name"]
    for apart, other in zip(made["differences"], made["evaluations"][1:], strict=True):
        if other["name"] in made["same_weights"]:
            said.append(f"{other['name']} has the very weights of {first}.")
            continue
        better: list[str] = []
        worse: list[str] = []
        for metric, found in apart["overall"].items():
            if found and found["ci"] and (found["ci"][0] > 0 or found["ci"][1] < 0):
                good = (found["ci"][0] > 0) == METRICS[metric].higher_is_better
                (better if good else worse).append(METRICS[metric].words)
        open_ = "" if better or worse else "no difference that could not be chance"
        words = [
            f"better in {', '.join(better)}" if better else "",
            f"worse in {', '.join(worse)}" if worse else "",
            open_,
        ]
        said.append(f"{other['name']} against {first}: {'; '.join(filter(None, words))}.")
    return said


def differences(made: Mapping[str, Any], apart: Mapping[str, Any], card: Card) -> None:
    percent = f"{100 * made['level']:g} % interval"
    rows = [
        [METRICS[metric].words, _value(metric, found), _span(metric, found), _means_what(metric, found)]
        for metric, found in apart["overall"].items()
    ]
    card.table("Differences, picture by picture", ["", "difference", percent, ""], rows)
    card.table(
        "Of each subject",
        ["subject", *(METRICS[metric].words for metric in made["metrics"])],
        [
            [token, *(f"{_value(m, f)} ({_span(m, f)})" for m, f in of.items())]
            for token, of in apart["subjects"].items()
        ],
    )


def strips(title: str, rows: Sequence[Mapping[str, Any]], names: Sequence[str], outputs: Path, card: Card) -> None:
    shown = [
        (f"{row['token']} {row['label']}, seed {row['seed']}", [outputs / file for file in row["files"]])
        for row in rows
    ]
    card.grid(title, ["base", *names], shown, width=128)


def _means(means: Mapping[str, float]) -> list[str]:
    return [METRICS[metric].write(value) for metric, value in means.items()]


def _value(metric: str, found: Mapping[str, Any] | None) -> str:
    return METRICS[metric].write(found["value"], sign=True) if found and found["value"] is not None else "–"


def _span(metric: str, found: Mapping[str, Any] | None) -> str:
    return (
        METRICS[metric].span(found["ci"][0], found["ci"][1], sign=True) if found and found["ci"] else "too few prompts"
    )


def _means_what(metric: str, found: Mapping[str, Any] | None) -> str:
    if not found or not found["ci"] or found["ci"][0] <= 0 <= found["ci"][1]:
        return "may be chance"
    return "better" if (found["ci"][0] > 0) == METRICS[metric].higher_is_better else "worse"
