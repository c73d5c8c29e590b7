"""What the base model drew, subject by subject."""

from __future__ import annotations

from pathlib import Path

from personalize.cards import Card
from personalize.evaluation import drawings
from personalize.files import read_json
from personalize.recipe import Inputs
from steps.baseline import Config


def show(config: Config, inputs: Inputs, outputs: Path, card: Card) -> None:
    card.text(
        "The base model has not learnt the subjects: it draws some thing of their class, wherever it is asked to."
    )
    answers(outputs, card)


def answers(outputs: Path, card: Card) -> None:
    """How the pictures came about, and a contact sheet for each subject and each plain class noun."""
    drawn, speed = drawings.load(outputs), read_json(outputs / "diagnostics" / "speed.json")
    asked, how = drawn.questions, drawn.conditions
    card.facts(
        {
            "pictures": len(drawn.paths.flat),
            "seconds": speed["seconds"],
            "base model": how["base_model"],
            "drawn with": f"{how['sampling_steps']} steps, guidance {how['guidance_scale']:g}, {how['resolution']} px",
            "computed on": f"{how['computed_on']}, {how['dtype']}, {how['batch_size']} at a time",
        }
    )
    for n, name in enumerate(asked.names):
        with card.section(name, open=n == 0):
            rows = [
                (f"seed {k + 1}", [drawn.paths.of(n, p, k) for p in range(len(asked.prompts))])
                for k in range(asked.seeds_per_prompt)
            ]
            card.grid("One column for each prompt", asked.labels, rows, width=100)
