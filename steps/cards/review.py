"""The card of a review: what people decided, what they saw, and who they were."""

from __future__ import annotations

from pathlib import Path

from personalize.cards import Card
from personalize.files import read_json
from personalize.recipe import Inputs
from steps.review import Config

OPPONENTS = {"base": "Preferred to the base", "champion": "Preferred to the champion"}


def show(config: Config, inputs: Inputs, outputs: Path, card: Card) -> None:
    made = read_json(outputs / "review.json")
    found, decision = made["results"], made["decision"]
    if decision is None:
        card.verdict("undecided", f"{made['title']}: nobody has decided yet", ["every vote is kept"], stamp="Open")
        card.outcome("open")
    else:
        headline, reasons = f"{made['title']}: {decision['decision']} by {decision['by']}", [decision["reason"]]
        if decision["decision"] == "approved":
            card.verdict("passed", headline, reasons, stamp="Approved")
        else:
            card.verdict("failed", headline, reasons, stamp="Rejected")
        card.outcome(decision["decision"])
    card.facts(
        {
            "gates": made["verdict"],
            "votes": found["votes"],
            "checks": found["checks"],
            "people": len(found["voters"]),
            "people whose votes count": sum(voter["counts"] for voter in found["voters"]),
        }
    )
    for kind, words in OPPONENTS.items():
        if kind in found["against"]:
            card.text(f"{words}: {found['against'][kind]['words']}")
    card.text(found["agreement"])
    card.table(
        "Who voted",
        ["name", "votes", "seconds each", "counts", "checks", "what is unusual"],
        [
            [of["name"], of["votes"], of["seconds"], of["counts"], of["why"], "; ".join(of["ways"])]
            for of in found["voters"]
        ],
    )
    named = decision or made["evidence"]
    rows = [[part, named[part]["address"], named[part]["sha256"]] for part in ("card", "scores", "model")]
    card.table("What was looked at", ["", "where", "sha256"], [*rows, ["votes", named["votes"], named["votes_sha256"]]])
    card.code("Go on with it", card.command("promote" if decision and decision["decision"] == "approved" else "review"))
