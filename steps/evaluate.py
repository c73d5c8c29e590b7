"""Evaluate: does the tuned model draw the subjects, and still what it is told?   needs: all before it but prior

DINO and CLIP score every picture that base and tuned model drew for the same prompts and seeds, and the gates judge the
scores' confidence intervals.   gives: scores.json

In its rows about single pictures, `file` lies in the outputs of draw and `base_file` in those of baseline.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from personalize import hub
from personalize.cards.commands import command
from personalize.evaluation import drawings
from personalize.evaluation.drawings import Drawings, Photograph
from personalize.evaluation.gates import Gate
from personalize.files import read_json, read_rows, write_json
from personalize.hub import Device
from personalize.recipe import HOW_NOT_WHAT, Inputs, RecipeError, StepConfig

if TYPE_CHECKING:
    from PIL.Image import Image

NEEDS = ("ingest", "caption", "train", "baseline", "draw")


class Config(StepConfig):
    clip_model: str = Field(description="Folder or hub name of the CLIP that judges")
    clip_revision: str | None = Field(None, description="Commit of a hub name")
    dino_model: str = Field(description="Folder or hub name of the DINO ViT that judges")
    dino_revision: str | None = Field(None, description="Commit of a hub name")
    gates: tuple[Gate, ...] = Field((), description="What the model must show before it may be promoted")
    level: float = Field(0.95, gt=0.5, lt=1, description="Confidence of the intervals on the card")
    limits: str = Field(
        "", description="What a reader must know before believing the card", json_schema_extra=HOW_NOT_WHAT
    )
    rights: str = Field("", description="Who allowed the use of the photographs", json_schema_extra=HOW_NOT_WHAT)
    device: Device = Field("auto", description="Where CLIP and DINO run", json_schema_extra=HOW_NOT_WHAT)


def sources(config: Config) -> Mapping[str, str]:
    """The two judges, by content or by commit."""
    return {
        "CLIP": hub.identity(config.clip_model, config.clip_revision),
        "DINO": hub.identity(config.dino_model, config.dino_revision),
    }


def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    from tqdm import tqdm

    from personalize.evaluation.judges import JudgeConfig, load
    from personalize.evaluation.measure import measure
    from personalize.evaluation.scorecard import scorecard

    base, tuned = drawn_alike(inputs)
    photographs = photographs_of(inputs, base.questions.subjects)
    named = (("clip", config.clip_model, config.clip_revision), ("dino", config.dino_model, config.dino_revision))
    clip, dino = load([JudgeConfig(name=name, model=model, revision=at) for name, model, at in named], config.device)
    with tqdm(total=2 * len(base.paths.flat) + sum(map(len, photographs)), desc="scored", unit="picture") as bar:
        scores = measure(photographs, base, tuned, clip, dino, bar.update)
    names = [[photograph.name for photograph in of] for of in photographs]
    result = scorecard(scores, base.questions, config.gates, names, config.level)
    write_json(outputs / "scores.json", {**result, "settings": _settings(config, base)})
    _log(result, base, tuned, photographs)


def drawn_alike(inputs: Inputs) -> tuple[Drawings, Drawings]:
    """What base and tuned model drew. Raises RecipeError where they were not asked the same under equal conditions."""
    try:
        base, tuned = drawings.load(inputs["baseline"].path), drawings.load(inputs["draw"].path)
    except (OSError, ValueError) as error:
        raise RecipeError(f"there is nothing to compare: {error}; run baseline and draw again.") from error
    if apart := drawings.differences(base, tuned):
        raise RecipeError(
            f"what baseline and draw drew cannot be compared, they had {'; '.join(apart)}. Say it once, for baseline "
            f"(draw takes it from there), and have both draw in one place; `{command('clean', step='baseline')}` and "
            f"`{command('clean', step='draw')}` make them draw anew."
        )
    return base, tuned


def photographs_of(inputs: Inputs, subjects: Sequence[tuple[str, str]]) -> list[list[Photograph]]:
    """Each subject's photographs, as ingest left them. Raises RecipeError where one has none."""
    from personalize.photographs.prompts import without_token

    images = inputs["ingest"].path / "images"
    rows = read_rows(images / "metadata.jsonl")
    texts = {row["file_name"]: row["text"] for row in read_rows(inputs["caption"].path / "metadata.jsonl")}
    held_out = set(read_json(inputs["train"].path / "history.json").get("held_out", ()))
    found = []
    for token, noun in subjects:
        files = [row["file_name"] for row in rows if (row["token"], row["class_noun"]) == (token, noun)]
        if not files:
            raise RecipeError(f"{images} holds no photograph of {token} {noun}: run ingest and caption again")
        found.append([Photograph(images / file, without_token(texts[file], token), file in held_out) for file in files])
    return found


def _settings(config: Config, base: Drawings) -> dict[str, Any]:
    """What the scores were found with, for who reads scores.json alone."""
    asked = base.questions
    return {
        "prompts": list(asked.prompts),
        "seeds_per_prompt": asked.seeds_per_prompt,
        "first_seed": asked.first_seed,
        **base.conditions,
        **config.model_dump(
            mode="json", include={"clip_model", "clip_revision", "dino_model", "dino_revision", "level"}
        ),
    }


def _log(
    result: Mapping[str, Any], base: Drawings, tuned: Drawings, photographs: Sequence[Sequence[Photograph]]
) -> None:
    """Scores of all and of each subject, the verdict, and one picture a subject: photograph, base, tuned."""
    import mlflow

    metrics = {"gates_passed": float(sum(gate["verdict"] == "passed" for gate in result["gates"]))}
    for scores, suffix in [(result["overall"], "")] + [(of, f".{of['token']}") for of in result["subjects"]]:
        for name, score in scores.items():
            if isinstance(score, Mapping) and "tuned" in score:
                metrics |= {f"{name}{suffix}": score["tuned"], f"{name}_base{suffix}": score["base"]}
            elif isinstance(score, Mapping) and "value" in score:
                metrics[f"{name}{suffix}"] = score["value"]
            elif name == "ceiling":
                metrics |= {f"{metric}_ceiling{suffix}": value for metric, value in score.items()}
    mlflow.log_metrics({_metric_name(name): value for name, value in metrics.items() if value is not None})
    mlflow.set_tag("verdict", result["verdict"])
    for s, (token, _) in enumerate(base.questions.subjects):
        strip = _strip([photographs[s][0].path, base.paths.of(s, 0, 0), tuned.paths.of(s, 0, 0)])
        mlflow.log_image(strip, artifact_file=f"before_and_after/{_metric_name(token)}.png")


def _strip(files: Sequence[Path]) -> Image:
    """Photograph, base and tuned side by side: squares as large as the last, up to 512 pixels."""
    from PIL import Image, ImageOps

    from personalize.evaluation.judges import open_rgb

    pictures = [open_rgb(file) for file in files]
    side = min(512, *pictures[-1].size)
    strip = Image.new("RGB", (side * len(pictures), side))
    for i, picture in enumerate(pictures):
        strip.paste(ImageOps.fit(picture, (side, side)), (i * side, 0))
    return strip


def _metric_name(name: str) -> str:
    return re.sub(r"[^\w.\- ]", "_", name)
