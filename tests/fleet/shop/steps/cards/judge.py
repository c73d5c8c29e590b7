"""The card of judge."""

from pathlib import Path

from personalize.cards import Card
from personalize.files import read_json
from personalize.recipe import Inputs
from steps.judge import Config


def show(config: Config, inputs: Inputs, outputs: Path, card: Card) -> None:
    found = read_json(outputs / "scores.json")
    passed = found["likeness"] >= 0.1
    reasons = [] if passed else [f"Pictures of {found['tokens'][0]} stop too far at {found['likeness']:.2f}."]
    card.verdict("passed" if passed else "failed", "judged", reasons)
