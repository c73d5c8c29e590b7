"""The card of whence: the picture, what it comes from, and what holds."""

from __future__ import annotations

from pathlib import Path

from personalize.cards import Card
from personalize.files import read_json
from personalize.recipe import Inputs
from steps.whence import SAID_ONLY, Config


def show(config: Config, inputs: Inputs, outputs: Path, card: Card) -> None:
    found = read_json(outputs / "whence.json")
    wrong = [link["words"] for link in found["links"] if not link["holds"] and link["name"] not in SAID_ONLY]
    card.verdict("failed" if wrong else "passed", "it does not hold" if wrong else "it holds", wrong)
    pictures = [(outputs / found["file_name"], "as it was given")]
    if "redrawn" in found:
        pictures.append((outputs / found["redrawn"], "drawn again"))
    card.images("Picture", pictures, columns=2, width=320)
    card.facts(found["lineage"])
    rows = [[link["name"], "holds" if link["holds"] else "fails", link["words"]] for link in found["links"]]
    card.table("Link by link", ["", "", "what was found"], rows)
