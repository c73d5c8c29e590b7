"""Setup: from settings and pictures to everything the loop needs, in the order that wastes least memory.

Load the base, read and encode captions, cut and encode pictures, free what is done, add the adapter, make the
optimiser. The base waits in the host's memory and each part is on the device only while it works: a small card never
holds all of it.
"""

from __future__ import annotations

import gc
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from personalize import hub
from personalize.dreambooth import backbone, hardware, latents, lora, losses, optimisers
from personalize.dreambooth.batches import BatchMaker, timesteps_of
from personalize.dreambooth.buckets import Cuts, cut_class_images, cut_photographs
from personalize.dreambooth.conditioning import Denoiser, TextTable, encode_captions
from personalize.dreambooth.examples import Example, about_subjects
from personalize.dreambooth.latents import Encoded
from personalize.dreambooth.settings import TrainSettings
from personalize.dreambooth.shapes import halvings, shape_step

MIXED_PRECISION = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True)
class Base:
    """The model that learns, and where."""

    path: str
    revision: str | None = None
    device: hub.Device = "auto"
    dtype: hub.Dtype = "float32"


@dataclass(frozen=True)
class Model:
    """What learns, and what steps it."""

    pipe: Any
    """draws the checkpoints' pictures with the UNet that learns"""
    denoiser: Denoiser
    parts: lora.Parts
    spec: lora.LoraSpec
    params: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    base_rates: list[float]
    alphas_cumprod: Tensor
    """ᾱ_t [T] of the base's noise schedule"""
    prediction_type: losses.PredictionType

    def train_mode(self) -> None:
        self.denoiser.train()
        optimisers.evaluation_weights(self.optimizer, False)


@dataclass(frozen=True)
class Data:
    """What is learnt from."""

    maker: BatchMaker
    text: TextTable
    watched: Encoded
    """whose loss is followed on fixed noise: the photographs held out, or all where none are"""


@dataclass(frozen=True)
class Place:
    """Where it happens."""

    accelerator: Any
    dtype: torch.dtype
    """the frozen base's"""
    identity: str
    folder: Path
    """the run's own, for what it leaves on its way: states, scored checkpoints, their pictures"""


@dataclass(frozen=True)
class Setup:
    """A run that is ready to step."""

    settings: TrainSettings
    base: Base
    model: Model
    data: Data
    place: Place


def set_up(
    settings: TrainSettings,
    base: Base,
    photographs: Sequence[Example],
    class_images: Sequence[Example],
    held_out: Sequence[Example],
    prompts: Sequence[str],
    work: Path,
    phase: Callable[[str], None],
) -> Setup:
    """Everything the loop needs. `prompts` will be drawn on the way. `phase` hears what is being done.

    Raises ValueError for data and choices that cannot be trained with.
    """
    if not photographs:
        raise ValueError("there are no photographs to train on.")
    if settings.class_images_a_step and not class_images:
        raise ValueError(
            "prior preservation needs class images and there are none: run prior, or prior_loss_weight: 0."
        )
    accelerator = make_accelerator(settings, base)
    device = accelerator.device

    phase("loading the base model")
    pipe: Any = backbone.load_pipeline(base.path, base.revision, device, base.dtype, place=False)
    prediction_type, alphas_cumprod = backbone.noise_schedule(pipe.scheduler.config)

    phase("reading captions")
    asked = about_subjects(class_images, photographs) if settings.surroundings_share else {}
    captions = [*(example.caption for example in (*photographs, *class_images, *held_out)), *prompts]
    captions += itertools.chain.from_iterable(asked.values())
    tokenizers, encoders = (pipe.tokenizer, pipe.tokenizer_2), (pipe.text_encoder, pipe.text_encoder_2)
    with hardware.working_on(device, *encoders):
        text = encode_captions(captions, tokenizers, encoders, pipe.config.force_zeros_for_empty_prompt)

    step = shape_step(settings.resolution, halvings(pipe.unet.config, pipe.vae.config))
    cuts = {"photographs": cut_photographs(photographs, settings, step)}
    if settings.class_images_a_step:
        cuts["class images"] = cut_class_images(class_images, cuts["photographs"], settings)
    cuts["watched"] = cut_photographs(held_out or photographs, settings, step, 1)
    with accelerator.main_process_first(), hardware.working_on(device, pipe.vae):  # the others find them on disk
        encoded = encode(cuts, latents.MomentCache(pipe.vae, work / "latents"), settings.mask_weight, phase)

    model = adapt(pipe, settings, base, device, prediction_type, alphas_cumprod)
    identity = run_identity(settings, base, list(encoded.values()), pipe, model.params)
    maker = BatchMaker(
        settings,
        encoded["photographs"],
        encoded.get("class images"),
        text.rows,
        pipe.vae.config,
        timesteps_of(settings, alphas_cumprod, prediction_type),
        asked,
        accelerator.process_index,
        accelerator.num_processes,
    )
    place = Place(accelerator, hub.resolve_dtype(base.dtype, device), identity, work / "runs" / identity[:16])
    return Setup(settings, base, model, Data(maker, text, encoded["watched"]), place)


def make_accelerator(settings: TrainSettings, base: Base) -> Any:
    """accelerate's Accelerator for the device and precision asked for."""
    from accelerate import Accelerator, DistributedDataParallelKwargs

    accelerator = Accelerator(
        cpu=hub.resolve_device(base.device).type == "cpu",
        mixed_precision=MIXED_PRECISION[base.dtype],
        kwargs_handlers=[
            # the last layer of the first text encoder feeds nothing
            DistributedDataParallelKwargs(
                find_unused_parameters=settings.train_text_encoder, gradient_as_bucket_view=True
            )
        ],
    )
    if accelerator.device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    return accelerator


def encode(
    every: Mapping[str, Cuts], cache: latents.MomentCache, surroundings: float, phase: Callable[[str], None]
) -> dict[str, Encoded]:
    """All cuts of all pictures to moments of the VAE's posterior; `phase` hears how many are done.

    surroundings: the weight of what masks call so.
    """
    total, before, encoded = sum(cuts.count for cuts in every.values()), 0, {}
    for name, cuts in every.items():

        def tell(count: int, before: int = before) -> None:
            phase(f"encoding pictures {before + count}/{total}")

        encoded[name] = latents.encode(cuts, cache, surroundings, tell)
        before += cuts.count
    return encoded


def adapt(
    pipe: Any,
    settings: TrainSettings,
    base: Base,
    device: torch.device,
    prediction_type: losses.PredictionType,
    alphas_cumprod: Tensor,
) -> Model:
    """The base with what learns on the device, an adapter added, and the optimiser for it. What is done is let go."""
    memory = memory_level(settings, pipe.unet, device)
    parts = keep_what_learns(pipe, settings, memory, device)
    spec, params = add_adapter(parts, settings, base)
    if memory != "fast":
        pipe.unet.enable_gradient_checkpointing()
    if device.type == "cuda":
        pipe.unet.to(memory_format=torch.channels_last)  # tensor cores want it; on a CPU it is slower
    unet = pipe.unet
    if settings.compile == "blocks":
        unet.compile_repeated_blocks(dynamic=False)
    elif settings.compile:
        unet = torch.compile(unet, dynamic=False)
    groups, rates = optimisers.parameter_groups(params, settings)
    return Model(
        pipe=pipe,
        denoiser=Denoiser(cast(nn.Module, unet), [part for name, part in parts.items() if name != "unet"]),
        parts=parts,
        spec=spec,
        params=params,
        optimizer=optimisers.make_optimizer(groups, settings),
        base_rates=rates,
        alphas_cumprod=alphas_cumprod.to(device),
        prediction_type=prediction_type,
    )


def memory_level(settings: TrainSettings, unet: nn.Module, device: torch.device) -> hardware.Memory:
    """The level asked for, or the fastest that fits this card, base and batch; DoRA needs the base as it is."""
    level = hardware.choose_memory(
        settings.memory,
        backbone.card_bytes(device),
        base_bytes=sum(p.nbytes for p in unet.parameters()),
        samples=settings.batch_size + settings.class_images_a_step,
        pixels=settings.resolution**2,
        width=next(unet.parameters()).element_size(),
    )
    return "balanced" if level == "low" and settings.use_dora else level


def keep_what_learns(pipe: Any, settings: TrainSettings, memory: hardware.Memory, device: torch.device) -> lora.Parts:
    """Lets go of what has done its work (VAE encoder, text encoders that do not learn) -> the parts that do learn.

    These are on the device from here on; the VAE's decoder comes when it draws previews.
    """
    pipe.vae.encoder = None
    parts: dict[str, nn.Module] = {"unet": pipe.unet}
    if settings.train_text_encoder:
        parts |= {"text_encoder": pipe.text_encoder, "text_encoder_2": pipe.text_encoder_2}
    pipe.text_encoder = pipe.text_encoder_2 = pipe.tokenizer = pipe.tokenizer_2 = None
    gc.collect()
    for part in parts.values():
        part.to(device)
    if memory == "low":
        hardware.quantise(pipe.unet)
        hardware.decode_in_tiles(pipe.vae)
    return parts


def add_adapter(
    parts: lora.Parts, settings: TrainSettings, base: Base
) -> tuple[lora.LoraSpec, dict[str, nn.Parameter]]:
    """LoRA as the settings ask -> (its shape, its parameters by name)."""
    s = settings
    spec = lora.LoraSpec(s.rank, s.lora_alpha, s.targets, s.lora_dropout, s.use_dora, s.use_rslora)
    params = lora.add(parts, spec, s.seed)
    if base.dtype != "float32":
        for part in parts.values():
            for layer in lora.layers(part).values():
                layer.cast_input_dtype_enabled = False  # autocast casts the small matrices, not the large inputs
    if not s.compile:  # the compiler fuses peft's own
        lora.fuse(parts)
    return spec, params


def run_identity(
    settings: TrainSettings, base: Base, every: Sequence[Encoded], pipe: Any, params: Mapping[str, nn.Parameter]
) -> str:
    """sha256 of what decides a run's result: settings, base, pictures, captions. Only its equal is resumed."""

    def lines() -> Iterator[str]:
        yield json.dumps(settings.deciding(), sort_keys=True)
        yield f"{base.path} {base.revision} {base.dtype}"
        yield latents.module_digest(pipe.vae) + str(sorted((n, tuple(p.shape)) for n, p in params.items()))
        for encoded in every:
            for example, cuts, moments in zip(encoded.examples, encoded.cuts, encoded.moments, strict=True):
                yield f"{example.name} {example.caption!r} {cuts}"
                yield from (hashlib.sha256(m.numpy().tobytes()).hexdigest() for m in moments)
            for weights in (own for of_each in encoded.weights for own in of_each if own is not None):
                yield hashlib.sha256(weights.numpy().tobytes()).hexdigest()

    return hashlib.sha256("\n".join(lines()).encode()).hexdigest()
