"""Evaluate: does the tuned model draw the subjects, and still what it is told?   needs: all before it but prior

The judges score every picture that base and tuned model drew for the same prompts and seeds, and the gates judge the
scores' confidence intervals. First the judges are examined on the photographs: one that cannot tell these subjects
apart decides nothing.   gives: scores.json

In its rows about single pictures, `file` lies in the outputs of draw, `champion_file` in their folder champion,
`base_file` in the outputs of baseline.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from personalize.cards.commands import command
from personalize.evaluation import drawings, judges
from personalize.evaluation.drawings import Drawings, Photograph
from personalize.evaluation.gates import Gate, is_open, more_would_decide
from personalize.evaluation.images import open_rgb
from personalize.evaluation.judges import JudgeConfigs
from personalize.files import file_digest, read_json, read_rows, value_digest, write_json
from personalize.hub import Device
from personalize.recipe import AGAIN, HOW_NOT_WHAT, Inputs, RecipeError, StepConfig

if TYPE_CHECKING:
    from PIL.Image import Image

    from personalize.evaluation.questions import Questions


NEEDS = ("ingest", "caption", "train", "baseline", "draw")

SIDES = {"base": ("baseline", ""), "tuned": ("draw", ""), "champion": ("draw", "champion")}
"""Whose pictures lie in which step's outputs, and where in them."""


class Config(StepConfig):
    judges: JudgeConfigs = Field(description="Models that score the pictures: at least one must read texts")
    gates: tuple[Gate, ...] = Field((), description="What the model must show before it may be promoted")
    level: float = Field(0.95, gt=0.5, lt=1, description="Confidence of the intervals on the card")
    limits: str = Field(
        "", description="What a reader must know before believing the card", json_schema_extra=HOW_NOT_WHAT
    )
    rights: str = Field("", description="Who allowed the use of the photographs", json_schema_extra=HOW_NOT_WHAT)
    device: Device = Field("auto", description="Where the judges run", json_schema_extra=HOW_NOT_WHAT)


def sources(config: Config) -> Mapping[str, str]:
    """The judges, by content, by commit or by version."""
    return {judge.name: judges.identity(judge) for judge in config.judges}


def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    from tqdm import tqdm

    from personalize.evaluation.examination import examine
    from personalize.evaluation.measure import measure
    from personalize.evaluation.scorecard import scorecard

    drawn = drawn_alike(inputs)
    base = drawn["base"]
    photographs = photographs_of(inputs, base.questions.subjects)
    jury = judges.load(config.judges, config.device)
    examined = examine(jury, *examined_on(photographs, base))
    unfit = {name: found["words"] for name, found in examined.items() if not found["fit"]}
    with tqdm(
        total=sum(len(each.files) for each in drawn.values()) + sum(map(len, photographs)),
        desc="scored",
        unit="picture",
    ) as bar:
        scores = measure(photographs, drawn, jury, unfit, bar.update)
    names = [[photograph.name for photograph in of] for of in photographs]
    result = scorecard(scores, base.questions, config.gates, names, config.level)
    write_json(
        outputs / "scores.json", {**result, "examination": examined, "settings": _settings(config, base, inputs)}
    )
    write_json(outputs / "diagnostics" / "earlier.json", earlier(config, base, inputs))
    _log(result, drawn, photographs)
    _ask_again(result, base.questions)


def _ask_again(result: Mapping[str, Any], asked: Questions) -> None:
    """Where the verdict is undecided for want of prompts and another look is planned, the recipe goes on."""
    import mlflow

    there, wanted = len(asked.prompts), result["prompts_wanted"]
    if asked.look < len(asked.looks) and is_open(result["verdict"], wanted):
        how = f"about {wanted} would decide it" if more_would_decide(wanted, there) else "it lies near a line"
        further = asked.looks[asked.look] - there
        mlflow.set_tag(AGAIN, f"undecided after {there} prompts ({how}): {further} more are asked")


def examined_on(
    photographs: Sequence[Sequence[Photograph]], base: Drawings
) -> tuple[dict[str, list[Image]], list[Image]]:
    """What the judges are examined on: the photographs of each subject, and the base's plain class pictures."""

    asked = base.questions
    subjects = zip(asked.subjects, photographs, strict=True)
    shown = {token: [open_rgb(one.path) for one in of] for (token, _), of in subjects}
    return shown, [
        open_rgb(base.paths.plain(n, p, 0)) for n in range(len(asked.nouns)) for p in range(len(asked.prompts))
    ]


def earlier(config: Config, base: Drawings, inputs: Inputs) -> list[dict[str, Any]]:
    """Finished evaluations of this very adapter that asked, judged or required something else, oldest first.

    Whoever asks often enough gets the answer he wants: how often it was asked stands on the card and on the version.
    """
    import mlflow

    active = mlflow.active_run()
    if active is None:
        return []
    planned: dict[str, Any] = (
        {"prompts": {}} if base.questions.looks else {}
    )  # all looks that were planned are one question
    asked = {
        "questions": value_digest({**base.as_json(), "conditions": {}, **planned}),
        "judges": value_digest(sources(config)),
        "gates": value_digest([gate.model_dump(mode="json") for gate in config.gates]),
    }
    adapter = file_digest(inputs["train"].path / "lora/pytorch_lora_weights.safetensors")
    mlflow.set_tags({"evaluation.adapter": adapter, **{f"evaluation.{name}": value for name, value in asked.items()}})
    runs = mlflow.MlflowClient().search_runs(
        [active.info.experiment_id],
        f"tags.`evaluation.adapter` = '{adapter}' and attributes.status = 'FINISHED'",
        order_by=["attributes.start_time ASC"],
    )
    found, seen = [], [asked]
    for run in runs:
        theirs = {name: run.data.tags.get(f"evaluation.{name}", "") for name in asked}
        if run.info.run_id == active.info.run_id or theirs in seen:
            continue
        seen.append(theirs)
        other = [name for name in asked if theirs[name] != asked[name]]
        verdict = run.data.tags.get("verdict", "")
        found.append({"run": run.info.run_id, "at": run.info.start_time, "verdict": verdict, "other": other})
    return found


def drawn_alike(inputs: Inputs) -> dict[str, Drawings]:
    """What base and tuned model drew, and the champion where there is one, by `base`, `tuned` and `champion`.

    Raises RecipeError where they were not asked the same under equal conditions.
    """
    folders = {side: inputs[step].path / within for side, (step, within) in SIDES.items()}
    try:
        drawn = {
            side: drawings.load(folder)
            for side, folder in folders.items()
            if side != "champion" or (folder / "questions.json").is_file()
        }
    except (OSError, ValueError) as error:
        raise RecipeError(f"there is nothing to compare: {error}; run baseline and draw again.") from error
    if apart := drawings.differences(drawn["base"], drawn["tuned"]):
        raise RecipeError(
            f"what baseline and draw drew cannot be compared, they had {'; '.join(apart)}. Say it once, for baseline "
            f"(draw takes it from there), and have both draw in one place; `{command('clean', step='baseline')}` and "
            f"`{command('clean', step='draw')}` make them draw anew."
        )
    return drawn


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


def _settings(config: Config, base: Drawings, inputs: Inputs) -> dict[str, Any]:
    """What the scores were found with, for who reads scores.json alone."""
    asked, champion = base.questions, inputs["draw"].path / "champion" / "version.json"
    return {
        "prompts": len(asked.prompts),
        "seeds_per_prompt": asked.seeds_per_prompt,
        "questions_seed": asked.seed,
        "looks": list(asked.looks),
        **base.conditions,
        "judges": {judge.name: judges.label(judge) for judge in config.judges},
        "level": config.level,
        "adapter_md5": file_digest(inputs["train"].path / "lora/pytorch_lora_weights.safetensors"),
        "champion": read_json(champion) if champion.is_file() else None,
    }


def _log(result: Mapping[str, Any], drawn: Mapping[str, Drawings], photographs: Sequence[Sequence[Photograph]]) -> None:
    """Scores of all and of each subject, the verdict, and one strip a subject: photograph, base, champion, tuned."""
    import mlflow

    metrics = {"gates_passed": float(sum(gate["verdict"] == "passed" for gate in result["gates"]))}
    for scores, suffix in [(result["overall"], "")] + [(of, f".{of['token']}") for of in result["subjects"]]:
        for name, score in scores.items():
            if isinstance(score, Mapping) and "tuned" in score:
                metrics |= {f"{name}{'' if side == 'tuned' else f'_{side}'}{suffix}": score[side] for side in drawn}
            elif isinstance(score, Mapping) and "value" in score:
                metrics[f"{name}{suffix}"] = score["value"]
            elif name == "ceiling":
                metrics |= {f"{metric}_ceiling{suffix}": value for metric, value in score.items()}
    for judge, opinion in result["opinions"].items():
        found = {name: score.get("value", score.get("tuned")) for name, score in opinion.items() if score}
        metrics |= {f"{name}.{judge}": value for name, value in found.items()}
    mlflow.log_metrics({_metric_name(name): value for name, value in metrics.items() if value is not None})
    mlflow.set_tag("verdict", result["verdict"])
    for s, (token, _) in enumerate(drawn["base"].questions.subjects):
        shown = [drawn[side].paths.of(s, 0, 0) for side in ("base", "champion", "tuned") if side in drawn]
        strip = _strip([photographs[s][0].path, *shown])
        mlflow.log_image(strip, artifact_file=f"before_and_after/{_metric_name(token)}.png")


def _strip(files: Sequence[Path]) -> Image:
    """Photograph and pictures side by side: squares as large as the last, up to 512 pixels."""
    from PIL import Image, ImageOps

    pictures = [open_rgb(file) for file in files]
    side = min(512, *pictures[-1].size)
    strip = Image.new("RGB", (side * len(pictures), side))
    for i, picture in enumerate(pictures):
        strip.paste(ImageOps.fit(picture, (side, side)), (i * side, 0))
    return strip


def _metric_name(name: str) -> str:
    return re.sub(r"[^\w.\- ]", "_", name)
