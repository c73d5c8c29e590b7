"""Does training find its best step? The sample chairs with the miniature, starved on purpose and overfitted on purpose.

    python -m benchmarks.choice

Four trainings through the recipe: `starved` ends while likeness still grows; `short` is the profile's own schedule run
through in too few steps, so that likeness is level at its end and only its distance from the photographs' own tells;
`overfitted` (no class images, no caption dropout, a high constant rate) runs to its end whatever its scores; `stopped`
is that same training with early stopping. For each: where it stopped, which step it kept and how that one scores beside
the best and the last of the whole overfitted run. Likeness is to held-out photographs; prompt and drift are those of
the checkpoints' pictures, as on the train card. Runs are kept and reused like any other (experiment `choice`).
"""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from personalize.dreambooth import choice
from personalize.dreambooth.settings import TrainSettings

TOO_MUCH = {
    "prior_loss_weight": 0,
    "caption_dropout": 0,
    "lr_scheduler": "constant",
    "learning_rate": 1.2e-3,
    "batch_size": 4,
    "rank": 32,
    "validation_every": 60,
    "max_train_steps": 720,
}
RUNS: dict[str, dict[str, Any]] = {
    "starved": {"max_train_steps": 60, "validation_every": 20, "lr_scheduler": "constant"},
    "short": {"max_train_steps": 80, "validation_every": 20},
    "overfitted": {**TOO_MUCH, "patience": 0},
    "stopped": TOO_MUCH,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.choice", description=__doc__.split("\n\n")[0])
    parser.add_argument("--profile", default="local")
    parser.add_argument("--only", choices=RUNS, help="one of the trainings")
    given = parser.parse_args()
    os.environ["MLFLOW_EXPERIMENT_NAME"] = "choice"
    wanted = [given.only] if given.only else list(RUNS)
    histories = {name: history(given.profile, RUNS[name]) for name in wanted}
    print("\n| training | steps | kept | likeness | prompt | drift | what it says |\n|---|---|---|---|---|---|---|")
    for name, found in histories.items():
        print(row(name, found, found["chosen"]["step"], f"{found['stop_reason']}; {found['chosen']['reason']}"))
    if "overfitted" in histories:
        whole = histories["overfitted"]
        print(row("overfitted, its last step", whole, whole["scores"][-1]["step"], ""))
        print(row("overfitted, its best admissible step", whole, best(whole), ""))


def history(profile: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The history.json of a training with these settings, trained now or before."""
    from personalize.recipe import Recipe

    recipe = Recipe(profile, overrides={f"train.{name}": value for name, value in settings.items()})
    recipe.run("train")
    found: dict[str, Any] = json.loads(recipe.get_artifact("train/history.json").read_text(encoding="utf-8"))
    return found


def best(whole: dict[str, Any]) -> int:
    """The step of greatest likeness among those within the margins, with all of them known."""
    base, *points = [choice.Point.of(row["step"], row) for row in whole["scores"]]
    kept = choice.margins(TrainSettings.model_validate(whole["settings"]))
    good = [point for point in points if choice.admissible(point, base, kept)]
    return max(good or points, key=lambda point: point.fidelity).step


def row(name: str, found: dict[str, Any], step: int, words: str) -> str:
    scores = next(scores for scores in found["scores"] if scores["step"] == step)
    steps = found["scores"][-1]["step"]
    numbers = " | ".join(f"{scores[key]:.3f}" for key in ("fidelity", "prompt", "drift"))
    return f"| {name} | {steps} | {step} | {numbers} | {words} |"


if __name__ == "__main__":
    main()
