"""The card of caption: each photograph with its sentence, what the text encoder hears, and how to write better ones."""

from __future__ import annotations

from pathlib import Path

from personalize.cards import Card
from personalize.files import read_json, read_rows
from personalize.photographs.prompts import MAX_TOKENS, load_subjects
from personalize.recipe import Inputs
from steps.caption import Config

OWN = ("yours", "edited")


def show(config: Config, inputs: Inputs, outputs: Path, card: Card) -> None:
    images = inputs["ingest"].path / "images"
    rows, subjects = read_rows(outputs / "metadata.jsonl"), load_subjects(outputs)
    remarks = read_json(outputs / "remarks.json")

    own = sum(row["origin"] in OWN for row in rows)
    card.facts({"captions": len(rows), "your own": own, "captioner": config.captioner, "subjects": len(subjects)})
    for warning in remarks["warnings"]:
        card.warning(warning)
    card.table(
        "Subjects",
        ["token", "class noun", "photographs", "the text encoder hears", "instance prompt", "class prompt"],
        [
            [s.token, s.class_noun, s.images, " + ".join(remarks["pieces"][s.token]), s.instance_prompt, s.class_prompt]
            for s in subjects
        ],
    )
    for subject in subjects:
        taken = [row for row in rows if (row["token"], row["class_noun"]) == (subject.token, subject.class_noun)]
        card.images(subject.name, [(images / row["file_name"], row["text"]) for row in taken], columns=5, width=160)
    card.table(
        "Captions",
        ["file", "caption", f"tokens of {MAX_TOKENS}", "from"],
        [[row["file_name"], row["text"], remarks["tokens"][row["file_name"]], row["origin"]] for row in rows],
    )
    card.text(
        "To write captions yourself, put photo.txt beside photo.jpg. Or take this step's metadata.jsonl, change what "
        'stands after "text", and run again with it: every caption in the file is kept word for word. Name the token '
        "in each, and name what surrounds the subject, but not what the subject looks like: that is for the token to "
        "learn."
    )
    run_id = card.run_id or "<run id of this step>"
    card.code(
        "How to edit",
        f"mlflow artifacts download -u runs:/{run_id}/outputs/metadata.jsonl -d .\n"
        "# edit metadata.jsonl\n" + card.command(**{"caption.captions": "metadata.jsonl"}),
    )
