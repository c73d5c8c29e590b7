"""Evaluate: does the tuned model draw the subjects, and still what it is told?   needs: ingest, caption, train

Base and tuned model answer the same prompts from the same seeds, none of which helped to choose the checkpoint. DINO
and CLIP score every picture, the gates judge the scores' confidence intervals, and the card shows a design team the
pictures, the verdict and its reasons.   gives: scores.json, images/
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from personalize.cards import Card
from personalize.evaluation.gates import Gate
from personalize.evaluation.questions import Answers, Questions, check_prompts
from personalize.files import tree_digest
from personalize.recipe import Inputs, RecipeError, StepConfig

if TYPE_CHECKING:
    from PIL.Image import Image

    from personalize.evaluation.pages import Pages

NEEDS = ("ingest", "caption", "train")

HOW_NOT_WHAT = {"affects_result": False}
PROMPTS = tuple(
    f"a photo of a {{token_noun}} {where}"
    for where in (
        "on the beach",
        "in the snow",
        "on green grass",
        "in a forest",
        "on a wooden floor",
        "in a living room",
        "in the desert",
        "with a city in the background",
    )
)


class Config(StepConfig):
    base_model: str = Field(description="Folder or hub name of the SDXL base that was tuned")
    base_revision: str | None = Field(None, description="Commit of a hub name")
    clip_model: str = Field(description="Folder or hub name of the CLIP that judges")
    clip_revision: str | None = Field(None, description="Commit of a hub name")
    dino_model: str = Field(description="Folder or hub name of the DINO ViT that judges")
    dino_revision: str | None = Field(None, description="Commit of a hub name")
    prompts: tuple[str, ...] = Field(
        PROMPTS, min_length=1, description="Prompts with {token_noun} for the subject; fewer than five settle nothing"
    )
    seeds_per_prompt: int = Field(2, ge=1, description="Pictures that each model draws of each subject in each prompt")
    first_seed: int = Field(1_000_000, ge=0, description="Seeds count up from here, away from those training used")
    sampling_steps: int = Field(25, ge=1, description="Denoising steps")
    guidance_scale: float = Field(5.0, ge=0, description="Classifier-free guidance")
    negative_prompt: str = Field("", description="What the pictures should not show")
    resolution: int = Field(1024, ge=8, description="Side of the pictures in pixels")
    gates: tuple[Gate, ...] = Field((), description="What the model must show before it may be promoted")
    level: float = Field(0.95, gt=0.5, lt=1, description="Confidence of the intervals on the card")
    limits: str = Field("", description="What a reader must know before believing the card")
    reproduce: str = Field(
        "mlflow run . --env-manager local", description="How runs are started, for the commands that the card gives"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", json_schema_extra=HOW_NOT_WHAT)
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="Precision of the drawing model")
    batch_size: int = Field(8, ge=1, description="Pictures drawn at a time", json_schema_extra=HOW_NOT_WHAT)
    work: str = Field(
        "output/evaluation",
        description="Where the base model's pictures are kept for the next evaluation",
        json_schema_extra=HOW_NOT_WHAT,
    )

    @field_validator("prompts")
    @classmethod
    def _can_be_asked(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        check_prompts(prompts)
        return prompts


def sources(config: Config) -> Mapping[str, str]:
    """The base and the two judges, by content or by commit."""
    models = {
        "base model": (config.base_model, config.base_revision),
        "CLIP": (config.clip_model, config.clip_revision),
        "DINO": (config.dino_model, config.dino_revision),
    }
    return {
        name: tree_digest(model) if Path(model).is_dir() else f"{model}@{revision}"
        for name, (model, revision) in models.items()
    }


def run(config: Config, inputs: Inputs, outputs: Path, card: Card) -> None:
    from personalize.evaluation.encoders import ClipEncoder, DinoEncoder, open_rgb
    from personalize.evaluation.measure import measure
    from personalize.evaluation.pages import Pages
    from personalize.evaluation.report import report
    from personalize.photographs.prompts import load_subjects

    subjects = [(subject.token, subject.class_noun) for subject in load_subjects(inputs["caption"].path)]
    questions = Questions(subjects, config.prompts, config.seeds_per_prompt, config.first_seed)
    images = inputs["ingest"].path / "images"
    photographs = _photographs(images, subjects)
    history = json.loads((inputs["train"].path / "history.json").read_text(encoding="utf-8"))
    held_out = {images / name for name in history.get("held_out", ())}
    unseen = [[path in held_out for path in paths] for paths in photographs]
    clip = ClipEncoder(config.clip_model, config.clip_revision or None, config.device)
    dino = DinoEncoder(config.dino_model, config.dino_revision or None, config.device)

    base, tuned = _draw(config, questions, inputs["train"].path / "lora")
    opened = [[open_rgb(path) for path in paths] for paths in photographs]
    with _progress("scored", 2 * len(base.flat) + sum(map(len, opened))) as advance:
        captions = _captions(inputs["caption"].path, images, subjects, photographs)
        scores = measure(questions, opened, base, tuned, clip, dino, unseen, captions, advance)

    files = _save(base, outputs, "base"), _save(tuned, outputs, "tuned")
    names = [
        [path.name + (" (held out)" if held else "") for path, held in zip(*each, strict=True)]
        for each in zip(photographs, unseen, strict=True)
    ]
    result = report(scores, questions, config.gates, names, *files, config.level)
    rights = json.loads((inputs["ingest"].path / "qa.json").read_text(encoding="utf-8"))["rights"]
    settings = config.model_dump(mode="json", exclude={"gates", "limits", "device", "batch_size", "work"})
    told = {**result, "rights": rights, "settings": settings}
    text = json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False)
    (outputs / "scores.json").write_text(text + "\n", encoding="utf-8")
    pages = Pages(
        questions, opened, names, base, tuned, result, config.limits, _facts(config, history, rights), config.reproduce
    )
    _log(result, pages)
    pages.write(card)


def _photographs(images: Path, subjects: Sequence[tuple[str, str]]) -> list[list[Path]]:
    """Each subject's photographs, as ingest left them."""
    rows = [json.loads(line) for line in (images / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    found = [
        [images / row["file_name"] for row in rows if (row["token"], row["class_noun"]) == subject]
        for subject in subjects
    ]
    for (token, noun), paths in zip(subjects, found, strict=True):
        if not paths:
            raise RecipeError(f"{images} holds no photograph of {token} {noun}: run ingest and caption again")
    return found


def _captions(
    captioned: Path, images: Path, subjects: Sequence[tuple[str, str]], photographs: Sequence[Sequence[Path]]
) -> list[list[str]]:
    """What each photograph shows in words that CLIP knows: its caption without the token."""
    rows = map(json.loads, (captioned / "metadata.jsonl").read_text(encoding="utf-8").splitlines())
    said = {images / row["file_name"]: row["text"] for row in rows}
    return [
        [said[path].replace(f"{token} ", "") for path in paths]
        for (token, _), paths in zip(subjects, photographs, strict=True)
    ]


def _draw(config: Config, questions: Questions, lora: Path) -> tuple[Answers[Image], Answers[Image]]:
    """Base first, then the same pipeline with the adapter: the one difference between the two.

    What the base draws is kept for the next evaluation: another training asks it nothing new.
    """
    import torch

    from personalize.hub import resolve_device
    from personalize.dreambooth.sampling import Sampling, load_adapter, load_pipeline, merge_adapter, sample
    from personalize.evaluation import baseline

    prompts, seeds = questions.rows()
    sampling = Sampling(
        config.sampling_steps, config.guidance_scale, config.resolution, config.resolution, config.negative_prompt
    )
    pipe = load_pipeline(
        config.base_model, revision=config.base_revision or None, device=config.device, dtype=config.dtype
    )

    def draw(name: str) -> list[Image]:
        with _progress(f"{name} model draws", len(prompts)) as advance:
            return sample(pipe, prompts, seeds, sampling, config.batch_size, advance)

    identity = {
        "base model": sources(config)["base model"],
        "asked": [prompts, seeds],
        "sampling": asdict(sampling),
        # to the last bit, so that no difference between base and tuned comes from how they were computed
        "computed": [config.dtype, str(resolve_device(config.device)), torch.get_num_threads(), config.batch_size],
        "with": [version("torch"), version("diffusers")],
    }
    base = baseline.kept(Path(config.work), identity, len(prompts), lambda: draw("base"))
    load_adapter(pipe, lora)
    merge_adapter(pipe)
    return Answers(questions, base), Answers(questions, draw("tuned"))


def _facts(config: Config, history: Mapping[str, Any], rights: str) -> dict[str, Any]:
    return {
        "base model": _at(config.base_model, config.base_revision),
        "judges": f"{_at(config.clip_model, config.clip_revision)}, {_at(config.dino_model, config.dino_revision)}",
        "drawn with": f"{config.sampling_steps} steps, guidance {config.guidance_scale:g}, {config.resolution} px",
        "checkpoint": f"step {history['chosen']['step']} of {len(history['steps'])}" if "chosen" in history else None,
        "photographs held out": len(history.get("held_out", ())),
        **({"rights to the photographs": rights} if rights else {}),
    }


def _at(model: str, revision: str | None) -> str:
    return f"{model}@{revision[:8]}" if revision else model


def _save(answers: Answers[Image], outputs: Path, model: str) -> Answers[str]:
    """`images/<model>/<subject>/<prompt>-<seed>.png`, lossless, so that anybody can score them again."""
    asked, names = answers.questions, []
    for n, p, k in product(*map(range, asked.seeds.shape)):
        folder = re.sub(r"[^\w-]+", "_", asked.names[n])
        names.append(f"images/{model}/{folder}/{p:02}-{asked.seeds[n, p, k]}.png")
        (outputs / names[-1]).parent.mkdir(parents=True, exist_ok=True)
        answers.of(n, p, k).save(outputs / names[-1])
    return Answers(asked, names)


def _log(result: Mapping[str, Any], pages: Pages) -> None:
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
    for token, picture in pages.strips():
        mlflow.log_image(picture, artifact_file=f"before_and_after/{_metric_name(token)}.png")


def _metric_name(name: str) -> str:
    return re.sub(r"[^\w.\- ]", "_", name)


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    from tqdm import tqdm

    with tqdm(total=total, desc=what, unit="picture") as bar:
        yield lambda count: bar.update(count) and None
