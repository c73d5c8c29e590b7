"""The card of verify: every link, and whether it holds."""

from __future__ import annotations

from pathlib import Path

from personalize.cards import Card
from personalize.files import read_json
from personalize.recipe import Inputs
from steps.verify import Config


def show(config: Config, inputs: Inputs, outputs: Path, card: Card) -> None:
    found = read_json(outputs / "verification.json")
    wrong = [link["words"] for link in found["links"] if not link["holds"]]
    holds = f"{found['what']} holds" if not wrong else f"{found['what']} does not hold"
    card.verdict("failed" if wrong else "passed", holds, wrong)
    rows = [[link["name"], "holds" if link["holds"] else "fails", link["words"]] for link in found["links"]]
    card.table("Link by link", ["", "", "what was found"], rows)
    card.facts({"key of the machine that looked": found["key"] or "none"})
