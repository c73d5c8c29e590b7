"""The card of a fleet's review: the sample to be looked at, and what was decided for all."""

from __future__ import annotations

from pathlib import Path

from personalize.cards import Advice, Card, Line
from personalize.files import read_json
from personalize.recipe import Inputs
from steps.fleet_review import Config


def show(config: Config, inputs: Inputs, outputs: Path, card: Card) -> None:
    made, sample = read_json(outputs / "review.json"), read_json(outputs / "sample.json")
    looked, approved = len(made["looked_at"]), len(made["approved"])
    if not made["by"]:
        headline = f"{looked} of {made['passed']} subjects that passed are to be looked at"
        card.verdict("undecided", headline, [f"were none of them bad: {made['shows']}"], stamp="Open")
        card.outcome("open", fleet=made["fleet"])
        approve = {"fleet": made["fleet"], "approved_by": "...", "reason": "..."}
        card.advice(
            "What to do next",
            [
                Advice("", "None is bad: approve all that passed.", card.command("fleet_review", **approve)),
                Advice("", "Some are: name them.", card.command("fleet_review", **approve, bad="<token>")),
            ],
        )
    else:
        reasons = [made["reason"], made["shows"]]
        reasons += [f"{len(made['left_out'])} could not be approved, listed below"] if made["left_out"] else []
        status = "passed" if approved and not made["left_out"] else "undecided" if approved else "failed"
        card.verdict(status, f"{approved} subjects approved by {made['by']}", reasons, stamp="Approved")  # type: ignore[arg-type]
        card.outcome("approved", fleet=made["fleet"])
    card.facts(
        {
            "passed": made["passed"],
            "looked at": looked,
            "bad among them": len(made["bad"]),
            "bad among all, at most": made["most_bad"],
            "confidence": f"{100 * made['confidence']:g} %",
            "approved": approved,
            "rejected": len(made["rejected"]),
        }
    )
    if made["left_out"]:
        rows = [[of["subject"], of["why"]] for of in made["left_out"]]
        card.table("Not approved", ["subject", "why"], rows, stacked=True)
    shown = [(outputs / "sample" / name, row["subject"]) for row in sample for name in row["files"]]
    card.images("The sample", shown, columns=3, width=300)
    metrics = list(dict.fromkeys(name for row in sample for name in row["metrics"]))
    lines = [
        Line([row["subject"], *(row["metrics"].get(name) for name in metrics)], link=row["card"]) for row in sample
    ]
    card.roster("Their own cards", ["subject", *metrics], [], lines)
