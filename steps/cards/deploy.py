"""The card of deploy: what the endpoint is doing, how to ask it, and what it has drawn."""

from __future__ import annotations

import shlex
from pathlib import Path

from personalize.cards import Card
from personalize.files import read_json
from personalize.recipe import Inputs
from steps.deploy import Config, labelled


def show(config: Config, inputs: Inputs, outputs: Path, card: Card) -> None:
    status, pictures = read_json(outputs / "endpoint.json"), read_json(outputs / "pictures.json")
    ask = status.pop("ask", "")
    if config.action == "query":
        for row in pictures:
            card.images("Picture", [(outputs / row["file_name"], row["prompt"])], columns=1, width=512)
            card.facts({"file": row["file"], **{key: str(value) for key, value in row["facts"].items()}})
    elif pictures:
        [trial] = pictures
        card.images("The trial picture", [(outputs / trial["file_name"], trial["prompt"])], columns=1, width=256)
    if ask:
        card.code("Ask for a picture", ask)
    card.facts(labelled(status))
    if status["state"] == "failed":
        card.warning(f"The endpoint has failed: {status.get('note', '')}")
    asked = config.prompt or next((row["prompt"] for row in pictures), "")
    card.outcome(status["state"], prompt=shlex.quote(asked or "a photo of a ..."))
