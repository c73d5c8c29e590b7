"""The train card: which step was kept and why, the checkpoints' curves and pictures, the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from personalize.cards import Card
from personalize.dreambooth.adapter_files import DORA_ELSEWHERE, READERS
from personalize.files import read_json, read_rows
from personalize.recipe import Inputs
from steps.train import Config

SPEED = {
    "images_per_second": "images a second",
    "tflop_per_second": "TFLOP a second",
    "mfu": "share of the chip's arithmetic",
    "seconds_to_first_step": "seconds to the first step",
    "peak_memory_gb": "peak memory, GB",
    "seconds": "seconds in all",
}
"""What the card calls the numbers of diagnostics/speed.json."""

QUARTERS = ("least noise", "little noise", "much noise", "most noise")
"""What the card calls the ranges of timesteps whose loss is followed apart."""


def show(config: Config, inputs: Inputs, outputs: Path, card: Card) -> None:
    history, speed = read_json(outputs / "history.json"), read_json(outputs / "diagnostics" / "speed.json")
    chosen, held_out, chain = history["chosen"], history["held_out"], outputs / "proof" / "chain.jsonl"
    card.facts(
        {
            "chosen step": chosen["step"],
            "steps trained": len(history["steps"]),
            "stopped": history["stop_reason"],
            "photographs trained on": len(history["photographs"]),
            "held out for scoring": len(held_out),
            **masks(history),
            **({"links of its proof": len(read_rows(chain))} if chain.is_file() else {}),
            **{SPEED.get(name, name): round(value, 3) for name, value in speed.items()},
        }
    )
    if chosen["verdict"] in ("compromise", "still improving", "unlike"):
        card.warning(chosen["reason"])
    else:
        card.text(chosen["reason"])
    if config.use_dora:
        card.warning(DORA_ELSEWHERE)
    if history["scores"]:
        show_checkpoints(history, outputs / "samples", card)
    card.chart("Training loss", {"loss": _smooth(history["steps"], "loss")}, y="loss")
    read_by = [[name, who] for name, who in READERS.items() if (outputs / "lora" / name).is_file()]
    card.table("Which file is for whom", ["in lora/", "is read by"], read_by)
    card.table(
        "Held out for scoring" if held_out else "Photographs",
        ["photograph"],
        [[name] for name in held_out or history["photographs"]],
    )


def masks(history: Mapping[str, Any]) -> dict[str, str]:
    """How many photographs had a mask and what it did, for the facts; nothing where none had."""
    if not (masked := history.get("masked")):
        return {}
    weight = history["settings"]["mask_weight"]
    did = "ignored (mask_weight 1)" if weight == 1 else f"surroundings weigh {weight:g} in the loss"
    return {"masks": f"{len(masked)} of {len(history['photographs'])} photographs; {did}"}


def show_checkpoints(history: Mapping[str, Any], samples: Path, card: Card) -> None:
    """Their scores as curves, and their pictures side by side."""
    scores, chosen = history["scores"], history["chosen"]
    if not history["held_out"]:
        card.warning(
            "No photograph was held out (subjects need at least four, and validation_photographs at least 1), so "
            "likeness is to photographs that were trained on and rises with mere copying."
        )
    at, marks = [row["step"] for row in scores], {"chosen": chosen["step"]}
    measured = {"likeness to the subject": "fidelity", "prompt following": "prompt", "class drift": "drift"}
    measured |= {"likeness among its photographs": "ceiling"} if "ceiling" in scores[0] else {}
    curves = {label: (at, [row[name] for row in scores]) for label, name in measured.items()}
    card.chart("Checkpoints", curves, y="cosine", marks=marks)
    card.grid(
        "Checkpoints side by side",
        [f"step {step}" + (" (chosen)" if step == chosen["step"] else " (base)" * (step == 0)) for step in at],
        side_by_side([samples / f"step-{step:06d}" for step in at]),
    )
    bins = sorted(name for name in scores[0] if name.startswith("validation_loss"))
    fixed = {label: (at, [row[b] for row in scores]) for label, b in zip(QUARTERS, bins, strict=False)}
    if fixed:
        card.chart("Loss on a fixed batch, by noise", fixed, y="loss", marks=marks)


def side_by_side(folders: Sequence[Path]) -> list[tuple[str, list[Path]]]:
    """A row for each prompt: the picture of it in each folder of samples, subjects before plain class pictures."""
    files = folders[0].glob("*.png")  # <token, or class>-<prompt>-<seed>.png
    names = sorted((file.name for file in files), key=lambda name: (name.startswith("class-"), name))
    return [(" ".join(name.split("-")[1:-1]), [folder / name for folder in folders]) for name in names]


def _smooth(rows: Sequence[Mapping[str, float]], name: str, points: int = 200) -> tuple[list[float], list[float]]:
    """Means over equal stretches of steps: at most `points` of them."""
    width = max(1, -(-len(rows) // points))
    parts = [rows[i : i + width] for i in range(0, len(rows), width)]
    return [part[-1]["step"] for part in parts], [sum(row[name] for row in part) / len(part) for part in parts]
