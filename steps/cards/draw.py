"""What the tuned model drew, subject by subject, and who else was asked."""

from __future__ import annotations

from pathlib import Path

from personalize.cards import Card
from personalize.files import read_json
from personalize.recipe import Inputs
from steps.cards.baseline import answers
from steps.draw import Config


def show(config: Config, inputs: Inputs, outputs: Path, card: Card) -> None:
    card.text("The base with the adapter, asked the same from the same noise. How good it is the evaluation card says.")
    champion, left_out = outputs / "champion" / "version.json", outputs / "diagnostics" / "left_out.json"
    if champion.is_file():
        version = read_json(champion)["version"]
        card.text(f"The champion, version {version}, was asked the same: the evaluation card shows both side by side.")
    if left_out.is_file():
        found = read_json(left_out)
        card.warning(f"The champion, version {found['version']}, is not compared: {found['why']}.")
    answers("tuned", outputs, card)
