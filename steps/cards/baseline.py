"""What the base model drew, all of it, to be filtered by subject, prompt and seed."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from personalize.cards import Card, Shot
from personalize.cards.links import address
from personalize.evaluation import drawings
from personalize.files import read_json
from personalize.recipe import Inputs
from steps.baseline import Config


def show(config: Config, inputs: Inputs, outputs: Path, card: Card) -> None:
    card.text(
        "The base model has not learnt the subjects: it is asked for any thing of their class, where the "
        "tuned model is asked for them, from the same noise."
    )
    answers("base", outputs, card)


def answers(side: str, outputs: Path, card: Card) -> None:
    """How the pictures came about, and every one of them."""
    drawn, speed = drawings.load(outputs), read_json(outputs / "diagnostics" / "speed.json")
    asked, how = drawn.questions, drawn.conditions
    seeds = asked.seeds
    now = speed.get("drawn_now", speed["pictures"])
    card.facts(
        {
            "pictures": len(drawn.files),
            "drawn in this run": now,
            "seconds a picture": round(speed["seconds"] / now, 2) if now else None,
            "base model": how["base_model"],
            "drawn with": f"{how['sampling_steps']} steps, guidance {how['guidance_scale']:g}, {how['resolution']} px",
            "computed on": f"{how['computed_on']}, {how['dtype']}, {how['batch_size']} at a time",
        }
    )
    card.gallery(
        "Every picture, none left out",
        [side],
        ["Asked for", "Kind of prompt", "Prompt", "Seed"],
        [
            Shot(
                f"{name}, {prompt.name}, seed {seeds[n, p, k]}",
                [file := drawn.paths.of(n, p, k)],
                [
                    quote(address(card.run_id, f"outputs/{file.relative_to(outputs).as_posix()}"), safe="/:")
                    if card.run_id
                    else ""
                ],
                [name, prompt.category, prompt.name, f"{k + 1} of {asked.seeds_per_prompt}"],
            )
            for n, name in enumerate(asked.names)
            if not drawn.plain or n >= len(asked.subjects)
            for p, prompt in enumerate(asked.prompts)
            for k in range(asked.seeds_per_prompt)
        ],
    )
