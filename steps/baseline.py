"""Baseline: what the base model draws when it is asked what the tuned model will be.   needs: caption   gives: images/

Every subject in every prompt, and the plain class noun too, from seeds that chose no checkpoint. The base knows no
token; what it draws is what the tuned model is compared with. No training changes it, so one baseline serves all.
`questions.json` says what was asked and under which conditions; the draw step asks the same.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from personalize import hub
from personalize.evaluation import drawings
from personalize.evaluation.questions import Questions, check_prompts
from personalize.files import write_json
from personalize.hub import Device, Dtype
from personalize.recipe import HOW_NOT_WHAT, Inputs, StepConfig

if TYPE_CHECKING:
    import torch

NEEDS = ("caption",)

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
    base_model: str = Field(description="Folder or hub name of the SDXL base that is tuned")
    base_revision: str | None = Field(None, description="Commit of a hub name")
    prompts: tuple[str, ...] = Field(
        PROMPTS, min_length=1, description="Prompts with {token_noun} for the subject; fewer than five settle nothing"
    )
    seeds_per_prompt: int = Field(2, ge=1, description="Pictures that each model draws of each subject in each prompt")
    first_seed: int = Field(1_000_000, ge=0, description="Seeds count up from here, away from those training used")
    sampling_steps: int = Field(25, ge=1, description="Denoising steps")
    guidance_scale: float = Field(5.0, ge=0, description="Classifier-free guidance")
    negative_prompt: str = Field("", description="What the pictures should not show")
    resolution: int = Field(1024, ge=8, description="Side of the pictures in pixels")
    # which device it was counts through `sources`, resolved; the batch counts to the last bit of a picture
    device: Device = Field("auto", description="Where to draw", json_schema_extra=HOW_NOT_WHAT)
    dtype: Dtype = Field("float32", description="Precision of UNet and text encoders")
    batch_size: int = Field(8, ge=1, description="Pictures drawn at a time")

    @field_validator("prompts")
    @classmethod
    def _can_be_asked(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        check_prompts(prompts)
        return prompts


def sources(config: Config) -> Mapping[str, str]:
    """The base model, by content or by commit, and what computes: the same numbers added in another order differ."""
    return {
        "base model": hub.identity(config.base_model, config.base_revision),
        "computed on": _will_compute_on(config.device),
    }


def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    draw(config, inputs["caption"].path, outputs)


def draw(config: Config, captioned: Path, outputs: Path, lora: Path | None = None) -> None:
    """Every answer of the base, or of the base with the adapter `lora` merged: the one difference between the two."""
    import mlflow
    from tqdm import tqdm

    from personalize.dreambooth.sampling import Sampling, load_pipeline, merge_adapter, sample
    from personalize.photographs.prompts import load_subjects

    subjects = [(subject.token, subject.class_noun) for subject in load_subjects(captioned)]
    questions = Questions(subjects, config.prompts, config.seeds_per_prompt, config.first_seed)
    prompts, seeds = questions.rows()
    sampling = Sampling(
        config.sampling_steps, config.guidance_scale, config.resolution, config.resolution, config.negative_prompt
    )
    pipe = load_pipeline(
        config.base_model, revision=config.base_revision or None, device=config.device, dtype=config.dtype, lora=lora
    )
    if lora is not None:
        merge_adapter(pipe)
    begun = time.perf_counter()
    with tqdm(total=len(prompts), desc=f"{'tuned' if lora else 'base'} model draws", unit="picture") as bar:
        pictures = sample(pipe, prompts, seeds, sampling, config.batch_size, bar.update)
    seconds = time.perf_counter() - begun

    drawings.save(outputs, questions, _conditions(config), pictures)
    write_json(outputs / "diagnostics" / "speed.json", {"pictures": len(pictures), "seconds": round(seconds, 1)})
    mlflow.log_metrics({"pictures": len(pictures), "drawing_seconds": seconds})


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
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"cpu, at most {os.environ.get('OMP_NUM_THREADS') or processors} threads"
