"""Baseline: what the base model draws when it is asked what the tuned model will be.   needs: caption   gives: images/

The plain class noun in every prompt, from seeds that chose no checkpoint: the base knows no token, so that its answer
about a noun is its answer about every subject of that noun. No training changes it, so one baseline serves all.
`questions.json` says what was asked and under which conditions; the draw step asks the same, about the subjects too.
"""

from __future__ import annotations

import functools
import itertools
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, PositiveInt, ValidationInfo, field_validator

from personalize import hub
from personalize.evaluation import drawings
from personalize.evaluation.prompt_sets import SETS
from personalize.evaluation.questions import Questions, as_prompts, by_look
from personalize.files import file_digest, value_digest, write_json
from personalize.hub import Device, Dtype
from personalize.photographs.prompts import Words
from personalize.recipe import HOW_NOT_WHAT, Inputs, StepConfig, machine

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from personalize.dreambooth.backbone import Pipeline

NEEDS = ("caption",)
READS = {"caption": ("subjects.json",)}


class Config(StepConfig):
    base_model: str = Field(description="Folder or hub name of the SDXL base that is tuned")
    base_revision: str | None = Field(None, description="Commit of a hub name")
    prompts: dict[str, dict[str, Words]] = Field(
        SETS["objects"],
        description="{category: {name: text}} with {token_noun} for the subject, or a set: objects, animals, "
        "miniature. More prompts, rather than seeds, settle a verdict; fewer than five settle nothing",
    )
    looks: tuple[PositiveInt, ...] = Field(
        (),
        description="After how many prompts the verdict is asked already, [24]: the others are drawn where it is "
        "undecided then, and intervals hold at every look. All at once if empty",
    )
    look: int = Field(1, ge=1, description="Which of these looks it is; an undecided evaluation raises it")
    seeds_per_prompt: int = Field(2, ge=1, description="Pictures that are drawn of each subject in each prompt")
    questions_seed: int = Field(0, ge=0, description="Another number gives other noise to every picture")
    sampling_steps: int = Field(25, ge=1, le=1000, description="Denoising steps")
    guidance_scale: float = Field(5.0, ge=0, description="Classifier-free guidance")
    negative_prompt: Words = Field("", description="What the pictures should not show")
    resolution: int = Field(1024, ge=32, multiple_of=8, description="Side of the pictures in pixels")
    # which device it was counts through `sources`, resolved; the batch counts to the last bit of a picture
    device: Device = Field("auto", description="Where to draw", json_schema_extra=HOW_NOT_WHAT)
    dtype: Dtype = Field("float32", description="Precision of UNet and text encoders")
    batch_size: int = Field(8, ge=1, description="Pictures drawn at a time")

    work: str = Field(
        "build/drawings",
        description="Folder for pictures drawn before, which are not drawn twice",
        json_schema_extra=HOW_NOT_WHAT,
    )

    @field_validator("looks")
    @classmethod
    def _one_after_another(cls, looks: tuple[int, ...]) -> tuple[int, ...]:
        if any(later <= before for before, later in itertools.pairwise(looks)):
            raise ValueError("each look has more prompts than the one before it")
        return looks

    @field_validator("look")
    @classmethod
    def _there_is_that_look(cls, look: int, info: ValidationInfo) -> int:
        if {"prompts", "looks"} <= info.data.keys():
            prompts, looks = as_prompts(info.data["prompts"]), info.data["looks"]
            last = len(by_look(prompts, looks))
            if look > last:
                raise ValueError(f"{len(prompts)} prompts and looks {[*looks]} make {last} in all")
        return look

    @field_validator("prompts", mode="before")
    @classmethod
    def _of_that_name(cls, prompts: Any) -> Any:
        if isinstance(prompts, str):
            if prompts not in SETS:
                raise ValueError("must be prompts by category or the name of a set")
            return SETS[prompts]
        return prompts

    @field_validator("prompts")
    @classmethod
    def _can_be_asked(cls, prompts: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        as_prompts(prompts)
        return prompts


def sources(config: Config) -> Mapping[str, str]:
    """The base model, by content or by commit, and what computes: the same numbers added in another order differ."""
    return {
        "base model": hub.identity(config.base_model, config.base_revision),
        "computed on": _will_compute_on(config.device),
    }


def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    report(draw(config, inputs["caption"].path, outputs, "base model"), outputs)


def draw(config: Config, captioned: Path, outputs: Path, who: str, lora: Path | None = None) -> dict[str, float]:
    """Every answer of the base, or of the base with the adapter `lora` merged, which is asked about the subjects too.

    Returns how many pictures there are, how many were drawn now, and in how many seconds. `who` is shown as it draws.
    """
    from tqdm import tqdm

    from personalize.dreambooth.sampling import Sampling, adapter_file, load_pipeline, merge_adapter, sample
    from personalize.photographs.prompts import load_subjects

    subjects = [(subject.token, subject.class_noun) for subject in load_subjects(captioned)]
    questions = _questions(config, subjects)
    rows = list(zip(*questions.rows(), strict=True))
    sampling = Sampling(
        config.sampling_steps, config.guidance_scale, config.resolution, config.resolution, config.negative_prompt
    )
    conditions = _conditions(config)
    drawn = drawings.Drawings(outputs, questions, conditions, plain=lora is None)
    adapter = file_digest(adapter_file(lora)) if lora else ""
    book = drawings.Sketchbook(Path(config.work), {**conditions, "adapter": adapter})

    @functools.cache
    def pipeline() -> Pipeline:
        revision = config.base_revision or None
        pipe = load_pipeline(config.base_model, revision=revision, device=config.device, dtype=config.dtype, lora=lora)
        if lora is not None:
            merge_adapter(pipe)
        return pipe

    def answer(batch: Sequence[tuple[str, int]]) -> list[Image]:
        prompts, seeds = zip(*batch, strict=True)
        begun = time.perf_counter()
        pictures = sample(pipeline(), prompts, seeds, sampling, len(batch))
        spent.append((len(batch), time.perf_counter() - begun))
        return pictures

    spent: list[tuple[int, float]] = []
    pictures: dict[int, Path] = {}
    with tqdm(total=len(drawn.files), desc=f"{who} draws", unit="picture") as bar:
        for batch in questions.batches(config.batch_size, drawn.plain):
            files = book.drawn([rows[row] for row in batch], answer)
            pictures |= dict(zip(batch, files, strict=True))
            bar.update(len(batch))
    drawings.save(drawn, pictures)
    book.tidy()
    now, seconds = sum(count for count, _ in spent), sum(taken for _, taken in spent)
    return {"pictures": len(drawn.files), "drawn_now": now, "seconds": round(seconds, 1)}


def _questions(config: Config, subjects: Sequence[tuple[str, str]]) -> Questions:
    at_looks = by_look(as_prompts(config.prompts), config.looks)
    prompts = at_looks[config.look - 1]
    several = len(at_looks) > 1
    looks, whole = ([len(each) for each in at_looks], value_digest(config.prompts)) if several else ([], "")
    return Questions(subjects, prompts, config.seeds_per_prompt, config.questions_seed, looks, whole)


def report(speed: Mapping[str, float], outputs: Path, name: str = "speed") -> None:
    """How the drawing went: to cards and metrics, not among what was made."""
    import mlflow

    write_json(outputs / "diagnostics" / f"{name}.json", dict(speed))
    called = {"pictures": "pictures", "drawn_now": "pictures_drawn_now", "seconds": "drawing_seconds"}
    prefix = "" if name == "speed" else f"{name}_"
    mlflow.log_metrics({prefix + called[key]: value for key, value in speed.items()})


def _conditions(config: Config) -> dict[str, Any]:
    return {
        "base_model": hub.label(config.base_model, config.base_revision),
        "base_identity": hub.identity(config.base_model, config.base_revision),
        "sampling_steps": config.sampling_steps,
        "guidance_scale": config.guidance_scale,
        "negative_prompt": config.negative_prompt,
        "resolution": config.resolution,
        "dtype": config.dtype,
        "batch_size": config.batch_size,
        "computed_on": _computed_on(hub.resolve_device(config.device)),
    }


def _computed_on(device: torch.device) -> str:
    import torch

    threads = torch.get_num_threads()
    return f"cpu, {threads} thread{'' if threads == 1 else 's'}" if device.type == "cpu" else device.type


def _will_compute_on(device: Device) -> str:
    """The same foretold, without torch, whose import takes longer than the whole plan."""
    if device == "auto":
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
        has_cuda = Path("/dev/nvidiactl").exists() and not hidden
        device = "cuda" if has_cuda else "mps" if sys.platform == "darwin" else "cpu"
    if device != "cpu":
        return device
    return f"cpu, at most {machine.threads()} threads"
