"""The card of promote: which version is the champion, by whose word, and the way back."""

from __future__ import annotations

from pathlib import Path

from personalize.cards import Card
from personalize.files import read_json
from personalize.recipe import Inputs
from steps.promote import Config


def show(config: Config, inputs: Inputs, outputs: Path, card: Card) -> None:
    made = read_json(outputs / "promotion.json")
    name, by, previous = f"{made['name']} version {made['version']}", made["approval_by"], made["previous"]
    headline = f"{name} was the champion already" if made["already"] else f"{name} is the champion"
    reasons = [f"approved by {by}: {made['approval_reason']}"] if by else []
    card.verdict("passed", headline, ["gates passed", *reasons])
    if dirty := made.get("dirty", ""):
        card.warning(f"Dirty: {dirty}. Nobody can make this model again from a commit.")
    card.facts(
        {
            "model": made["name"],
            "version": made["version"],
            "instead of version": previous or "-",
            "approved by": by or "-",
            "at": made["approval_at"] or "-",
        }
    )
    if made.get("rollback"):
        card.warning("It went back: another version had taken its place.")
    if seen := made["looked_at"]:
        rows = [[part, seen[part]["address"], seen[part]["sha256"]] for part in ("card", "scores", "model")]
        rows.append(["votes", str(seen["votes"]), seen["votes_sha256"]])
        card.table("What was looked at", ["", "where", "sha256"], rows)
    if links := made.get("links"):
        card.table("What it rests on", ["", "what was found"], [[link["name"], link["words"]] for link in links])
    card.code("Serve it", card.command("deploy"))
    if previous:
        card.code(
            "Take it back", card.command("promote", version=previous, rollback=True, approved_by="...", reason="...")
        )
    card.code("Its evaluation card", f"mlflow artifacts download -u {made['tags'].get('card', '')}")
    card.table("Tags of the version", ["tag", "value"], [[key, value] for key, value in sorted(made["tags"].items())])
