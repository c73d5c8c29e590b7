"""Compare: several evaluations on the questions that all were asked, each against the first.   gives: comparison.json

    mlflow run . -e compare -P runs=<run id>,<run id>,<run id>

A run is an evaluation, or a project run that made or reused one. Differences are taken picture by picture: the same
subject, prompt and seed; their intervals are over prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from personalize.cards import command
from personalize.files import write_json
from personalize.recipe import Inputs, RecipeError, StepConfig

if TYPE_CHECKING:
    from personalize.evaluation.comparison import Evaluated, Question
    from personalize.recipe.past import Past

NEEDS: tuple[str, ...] = ()
REUSE = False

FURTHEST = 3
SIDE = 512
LETTERS = "ABCDEFGHIJ"


class Config(StepConfig):
    runs: str = Field("", description="Run ids with commas between, of evaluations or of project runs; at most ten")
    level: float = Field(0.95, gt=0.5, lt=1, description="Confidence of the intervals")


def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    from personalize.evaluation.comparison import common_questions, compare

    pasts = find_all(config.runs)
    evaluations = [_evaluated(letter, past) for letter, past in zip(LETTERS, pasts, strict=False)]
    try:
        questions = common_questions(evaluations)
    except ValueError as error:
        raise RecipeError(f"These evaluations cannot be compared: {error}.") from error
    result = compare(evaluations, questions, config.level)
    for row, past in zip(result["evaluations"], pasts, strict=True):
        row["run_name"], row["card"] = past.name, past.own.card
    write_json(
        outputs / "comparison.json",
        {
            **result,
            "trained_with": _trained_apart(pasts),
            "same_weights": _same_weights(evaluations, pasts),
            "grid": _grid(evaluations, pasts, questions, outputs),
            "furthest": _furthest(evaluations, pasts, questions, outputs),
        },
    )
    _log(result)


def find_all(runs: str) -> list[Past]:
    """The evaluations that are meant. Raises RecipeError for fewer than two, for ten and more, and for a run twice."""
    from personalize.recipe.past import find

    names = [name for name in (part.strip() for part in runs.split(",")) if name]
    if not 2 <= len(names) <= len(LETTERS):
        raise RecipeError(
            f"compare takes 2 to {len(LETTERS)} runs, not {len(names)}: `{command('compare', runs='...')}` with run "
            "ids and commas between them"
        )
    pasts = [find(name, "evaluate") for name in names]
    seen: dict[str, str] = {}
    for name, past in zip(names, pasts, strict=True):
        if (first := seen.setdefault(past.run_id, name)) != name or names.count(name) > 1:
            raise RecipeError(f"{first} and {name} are the same evaluation ({past.run_id}); name it once.")
    return pasts


def _evaluated(letter: str, past: Past) -> Evaluated:
    from personalize.evaluation.comparison import Evaluated
    from personalize.evaluation.recorded import read_scores

    try:
        return Evaluated(letter, past.run_id, read_scores(past.own.path / "scores.json"))
    except ValueError as error:
        raise RecipeError(f"run {past.run_id} is no evaluation that can be compared: {error}") from error


def _trained_apart(pasts: Sequence[Past]) -> dict[str, list[str]]:
    """The training settings that are not the same in all, each run's value; of runs that say how they were trained."""
    import mlflow

    client = mlflow.MlflowClient()
    params = [client.get_run(past.inputs["train"].run_id).data.params for past in pasts if "train" in past.inputs]
    if len(params) < len(pasts):
        return {}
    keys = [key for key in params[0] if key.startswith("train.") and all(key in of for of in params)]
    values = {key: [of[key] for of in params] for key in sorted(keys)}
    return {key: of for key, of in values.items() if len(set(of)) > 1}


def _same_weights(evaluations: Sequence[Evaluated], pasts: Sequence[Past]) -> list[str]:
    """The names of those whose weights are those of the first, to the byte."""
    from personalize.files import file_digest
    from personalize.review.approval import ADAPTER

    files = [past.inputs["train"].path.parent / ADAPTER if "train" in past.inputs else None for past in pasts]
    digests = [file_digest(file) if file is not None and file.is_file() else None for file in files]
    return [
        each.name
        for each, digest in zip(evaluations[1:], digests[1:], strict=True)
        if digest is not None and digest == digests[0]
    ]


def _grid(
    evaluations: Sequence[Evaluated], pasts: Sequence[Past], questions: Sequence[Question], outputs: Path
) -> list[dict[str, Any]]:
    """For every subject in every prompt the first common seed: base and each model, not selected."""
    first: dict[tuple[str, str], Question] = {}
    for question in questions:
        first.setdefault(question[:2], question)
    return [_strip(evaluations, pasts, question, outputs) for question in first.values()]


def _furthest(
    evaluations: Sequence[Evaluated], pasts: Sequence[Past], questions: Sequence[Question], outputs: Path
) -> list[dict[str, Any]]:
    """For each but the first: where its likeness gained and lost most."""
    from personalize.evaluation.comparison import furthest

    found = []
    for other in evaluations[1:]:
        gained, lost = furthest(evaluations[0], other, questions, "likeness", FURTHEST)
        strips = {
            "gained": [_strip(evaluations, pasts, question, outputs) for question in gained],
            "lost": [_strip(evaluations, pasts, question, outputs) for question in lost],
        }
        found.append({"name": other.name, **strips})
    return found


def _strip(
    evaluations: Sequence[Evaluated], pasts: Sequence[Past], question: Question, outputs: Path
) -> dict[str, Any]:
    """Copies of what all drew for a question, as the card shows them; it must not depend on those runs for ever."""
    rows = [each.rows[question] for each in evaluations]
    sources = [_input(pasts[0], "baseline") / rows[0]["base_file"]]
    sources += [_input(past, "draw") / row["file"] for past, row in zip(pasts, rows, strict=True)]
    token, prompt, seed = question
    names = ["base", *(each.name for each in evaluations)]
    stem = f"{token}-{seed}"
    files = [
        _copy(source, outputs / "pictures" / f"{stem}-{name}.webp") for source, name in zip(sources, names, strict=True)
    ]
    return {
        "token": token,
        "prompt": prompt,
        "label": rows[0].get("label") or prompt,
        "seed": seed,
        "files": [file.relative_to(outputs).as_posix() for file in files],
        "likeness": [row.get("likeness") for row in rows],
    }


def _input(past: Past, step: str) -> Path:
    if step not in past.inputs:
        raise RecipeError(f"the pictures of evaluation {past.run_id} are gone: its run of {step} was deleted")
    return past.inputs[step].path


def _copy(source: Path, target: Path) -> Path:
    from PIL import Image

    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with Image.open(source) as opened:
                image = opened.convert("RGB")
            image.thumbnail((SIDE, SIDE))
            image.save(target, quality=90)
        except OSError as error:
            raise RecipeError(f"the picture {source} cannot be read ({error})") from error
    return target


def _log(result: Mapping[str, Any]) -> None:
    import mlflow

    metrics: dict[str, float] = {}
    for evaluation, apart in zip(result["evaluations"][1:], result["differences"], strict=True):
        for metric, found in apart["overall"].items():
            if found and found["value"] is not None:
                metrics[f"{metric}.{evaluation['name']}-{result['evaluations'][0]['name']}"] = found["value"]
    mlflow.log_metrics({**metrics, "common_questions": float(result["questions"])})
