"""The sweep card: the best settings and the command that trains with them, every trial, what mattered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from personalize.cards import Card
from personalize.dreambooth.search import spelt
from personalize.files import read_json
from personalize.recipe import Inputs
from steps.cards.train import side_by_side
from steps.sweep import Config

LONGEST = 500
"""Characters of a command that is repeated where the run ends, kept in a tag of it."""


def show(config: Config, inputs: Inputs, outputs: Path, card: Card) -> None:
    found, best = read_json(outputs / "trials.json"), read_json(outputs / "best.json")
    states = [trial["state"] for trial in found]
    card.facts(
        {
            "best trial": best["trial"],
            "likeness to the subject": round(best["value"], 4),
            **{name: spelt(value) for name, value in best["params"].items()},
            "chosen step": best["step"],
            "trials": ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)),
        }
    )
    card.text(f"To train with the best settings: {best['command']}")
    card.outcome("found" if len(best["command"]) <= LONGEST else "long", command=best["command"])
    if best["value"] < -1:
        card.warning(
            "No trial kept prompt following and class drift within the margins; the one that breaks them least is "
            "called best. Search lower learning rates, smaller ranks or more prior preservation."
        )
    minutes = {row["trial"]: row["minutes"] for row in read_json(outputs / "diagnostics" / "trials.json")}
    names = sorted(best["params"])
    rows = [
        [
            trial["trial"],
            *(spelt(trial["params"][name]) for name in names),
            *(trial[key] for key in ("state", "value", "step")),
            minutes[trial["trial"]],
            trial["why"],
        ]
        for trial in found
    ]
    card.table("Trials", ["trial", *names, "state", "value", "chosen step", "minutes", "why"], rows)
    show_values([trial for trial in found if trial["state"] == "complete"], best, card)
    shown = {
        "base": "base",
        "trial 1, as configured": "configured",
        f"trial {best['trial']}, step {best['step']}": "best",
    }
    folders = {label: outputs / "samples" / name for label, name in shown.items()}
    folders = {label: folder for label, folder in folders.items() if folder.is_dir()}
    card.grid("The best trial beside the base", list(folders), side_by_side(list(folders.values())))
    if important := read_json(outputs / "importances.json"):
        ordered = sorted(important.items(), key=lambda row: -row[1])
        card.table("What mattered", ["setting", "share"], [[name, round(share, 3)] for name, share in ordered])


def show_values(complete: Sequence[Mapping[str, Any]], best: Mapping[str, Any], card: Card) -> None:
    """Where the chosen checkpoints lie between likeness and prompt following, and how the best was found."""
    chosen = {f"trial {trial['trial']}": scores_at(trial, trial["step"]) for trial in complete}
    points = {"base": scores_at(best, 0)} | chosen
    dots = {name: ([row["prompt"]], [row["fidelity"]]) for name, row in points.items()}
    at = {f"trial {best['trial']}, the best": scores_at(best, best["step"])["prompt"]}
    card.chart("Chosen checkpoints", dots, x="prompt following", y="likeness to the subject", marks=at)
    good = [trial for trial in complete if trial["value"] > -1]
    reached = [max(other["value"] for other in good[: index + 1]) for index in range(len(good))]
    if good:
        numbers = [trial["trial"] for trial in good]
        lines = {"best so far": (numbers, reached), "trial": (numbers, [trial["value"] for trial in good])}
        card.chart("Value by trial", lines, x="trial", y="likeness to the subject")


def scores_at(trial: Mapping[str, Any], step: int) -> Mapping[str, float]:
    return next(row for row in trial["scores"] if row["step"] == step)
