"""Setup: from settings and pictures to everything the loop needs, in the order that wastes least memory.

Load the base, read and encode captions, encode pictures, free what is done, add the adapter, make the optimiser. The
base waits in the host's memory and each part is on the device only while it works: a small card never holds all of it.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from personalize.dreambooth import backbone, fused, hardware, kohya, latents, lora, losses, optimisers
from personalize.dreambooth.batches import BatchMaker, Pictures, bucket_step, class_pictures, photograph_pictures
from personalize.dreambooth.conditioning import NO_CAPTION, TextTable
from personalize.dreambooth.denoiser import Denoiser
from personalize.dreambooth.examples import Example
from personalize.dreambooth.previews import Preview
from personalize.dreambooth.randomness import derive
from personalize.dreambooth.settings import TrainSettings

MIXED_PRECISION = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True)
class Base:
    """The model that learns, and where."""

    path: str
    revision: str | None = None
    device: backbone.Device = "auto"
    dtype: backbone.Dtype = "float32"


@dataclass
class Setup:
    """A run that is ready to step. `pipe` shares the UNet and draws the previews."""

    settings: TrainSettings
    base: Base
    accelerator: Any
    pipe: Any
    denoiser: Denoiser
    parts: lora.Parts
    spec: lora.LoraSpec
    params: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    base_rates: list[float]
    maker: BatchMaker
    text: TextTable
    captions: fused.Captions | None
    alphas_cumprod: Tensor
    prediction_type: losses.PredictionType
    held_out: Pictures | None
    previews: Sequence[Preview]
    meter: hardware.Meter
    arithmetic: hardware.FlopCount
    folder: Path
    identity: str

    @property
    def dtype(self) -> torch.dtype:
        return backbone.resolve_dtype(self.base.dtype, self.accelerator.device)

    def train_mode(self) -> None:
        self.denoiser.train()
        optimisers.evaluation_weights(self.optimizer, False)

    def seed_dropout(self, step: int, micro: int) -> None:
        """Dropout inside the adapter is the one draw that torch's global generator makes."""
        if self.settings.lora_dropout:
            torch.manual_seed(derive(self.settings.seed, "dropout", step, micro, self.maker.rank))

    def text_inputs(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """What `Denoiser` is given for these captions."""
        if self.captions is not None:
            return self.captions.look_up(rows), self.text.pooled[rows]
        if not self.settings.train_text_encoder:
            return self.text.lookup(rows)
        kept = (rows != NO_CAPTION) if self.text.zeros_for_empty else torch.ones_like(rows, dtype=torch.bool)
        return self.text.ids[rows], kept.to(torch.float32)

    def save_adapter(self, folder: Path, photographs: Sequence[Example], step: int) -> None:
        """Writes both forms of the adapter; the diffusers one last, since others wait for it."""
        words = {p.token: sum(q.token == p.token for q in photographs) for p in photographs}
        kohya.export(
            folder / "kohya.safetensors",
            self.parts,
            self.spec,
            base=Path(self.base.path).name,
            title=", ".join(sorted({f"{p.token} {p.class_noun}" for p in photographs})),
            trigger_words=list(words),
            resolution=self.settings.resolution,
            prediction_type=self.prediction_type,
            steps=step,
            images=words,
        )
        lora.save(folder, self.parts)


def set_up(
    settings: TrainSettings,
    base: Base,
    photographs: Sequence[Example],
    class_images: Sequence[Example],
    held_out: Sequence[Example],
    wanted: Sequence[Preview],
    work: Path,
    phase: Callable[[str], None],
) -> Setup:
    """Everything the loop needs. Raises ValueError for data and choices that cannot be trained with."""
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
    captions = [e.caption for e in (*photographs, *class_images, *held_out)] + [p.prompt for p in wanted]
    text = TextTable(captions, pipe.config.force_zeros_for_empty_prompt)
    text.tokenize([pipe.tokenizer, pipe.tokenizer_2])
    with working_on(device, pipe.text_encoder, pipe.text_encoder_2):
        text.encode([pipe.text_encoder, pipe.text_encoder_2])
    text.ids = text.ids.to(device)

    levels = len(pipe.unet.config.block_out_channels) - 1
    shape_step = bucket_step(settings.resolution, pipe.vae_scale_factor * 2**levels)
    shown = photograph_pictures(photographs, settings, shape_step)
    regular = class_pictures(class_images, shown, settings) if settings.class_images_a_step else None
    watched = photograph_pictures(held_out or photographs, settings.model_copy(update={"variants": 1}), shape_step)
    every = [pictures for pictures in (shown, regular, watched) if pictures is not None]
    with accelerator.main_process_first(), working_on(device, pipe.vae):  # the others find the latents on disk
        encode(every, latents.MomentCache(pipe.vae, work / "latents"), settings, phase)

    memory = memory_level(settings, pipe.unet, device)
    parts = keep_what_learns(pipe, settings, memory, device)
    # on a GPU they are under a hundredth of SDXL's step, and 27 MB a caption
    constant = device.type == "cpu" and not (settings.train_text_encoder or settings.compile)
    known = fused.Captions(text.hidden) if constant else None
    spec, params = add_adapter(parts, settings, base, known)
    if memory != "fast":
        pipe.unet.enable_gradient_checkpointing()
    if device.type == "cuda":
        pipe.unet.to(memory_format=torch.channels_last)  # tensor cores want it; on a CPU it is slower
    unet = torch.compile(pipe.unet, dynamic=False) if settings.compile else pipe.unet
    denoiser = Denoiser(cast(nn.Module, unet), [part for name, part in parts.items() if name != "unet"])

    groups, rates = optimisers.parameter_groups(params, settings)
    optimizer = optimisers.make_optimizer(
        settings.optimizer,
        groups,
        betas=settings.adam_betas,
        weight_decay=settings.weight_decay,
        eps=settings.adam_eps,
        warmup=settings.warmup_steps,
    )
    processes = accelerator.num_processes
    images = (settings.batch_size + settings.class_images_a_step) * settings.gradient_accumulation * processes
    peak = hardware.peak_tflops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    identity = run_identity(settings, base, every, pipe, params)
    return Setup(
        settings=settings,
        base=base,
        accelerator=accelerator,
        pipe=pipe,
        denoiser=denoiser,
        parts=parts,
        spec=spec,
        params=params,
        optimizer=optimizer,
        base_rates=rates,
        maker=BatchMaker(
            settings,
            shown,
            regular,
            text,
            pipe.vae.config,
            len(alphas_cumprod),
            accelerator.process_index,
            processes,
        ),
        text=text,
        captions=known,
        alphas_cumprod=alphas_cumprod.to(device),
        prediction_type=prediction_type,
        held_out=watched,
        previews=wanted,
        meter=hardware.Meter(images, processes, peak),
        arithmetic=hardware.FlopCount(recomputes=memory != "fast"),
        folder=work / "runs" / identity[:16],
        identity=identity,
    )


def make_accelerator(settings: TrainSettings, base: Base) -> Any:
    """accelerate's Accelerator for the device and precision asked for."""
    from accelerate import Accelerator, DistributedDataParallelKwargs

    accelerator = Accelerator(
        cpu=backbone.resolve_device(base.device).type == "cpu",
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
    every: Sequence[Pictures], cache: latents.MomentCache, settings: TrainSettings, phase: Callable[[str], None]
) -> None:
    """All cuts of all pictures to moments of the VAE's posterior, through the cache on disk."""
    total, done = sum(len(pictures.jobs()) for pictures in every), 0
    for pictures in every:
        before = done

        def encoded(count: int, before: int = before) -> None:
            phase(f"encoding pictures {before + count}/{total}")

        pictures.encode(cache, settings.pictures_at_a_time, encoded)
        done += len(pictures.jobs())


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


@contextlib.contextmanager
def working_on(device: torch.device, *parts: nn.Module) -> Iterator[None]:
    """Has parts of the base on the device for as long as they work, and in the host's memory afterwards."""
    for part in parts:
        part.to(device)
    try:
        yield
    finally:
        for part in parts:
            part.to("cpu")
        if device.type == "cuda":
            torch.cuda.empty_cache()


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
    parts: lora.Parts, settings: TrainSettings, base: Base, captions: fused.Captions | None = None
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
        fused.install(parts, captions)
    return spec, params


def run_identity(
    settings: TrainSettings, base: Base, every: Sequence[Pictures], pipe: Any, params: Mapping[str, nn.Parameter]
) -> str:
    """sha256 of what decides a run's result: settings, base, pictures, captions. Only its equal is resumed."""

    def lines() -> Iterator[str]:
        yield json.dumps(settings.model_dump(mode="json", exclude={"log_every", "resume_every"}), sort_keys=True)
        yield f"{base.path} {base.revision} {base.dtype}"
        yield latents.module_digest(pipe.vae) + str(sorted((n, tuple(p.shape)) for n, p in params.items()))
        for pictures in every:
            for example, cuts, moments in zip(pictures.examples, pictures.cuts, pictures.moments, strict=True):
                yield f"{example.name} {example.caption!r} {cuts}"
                yield from (hashlib.sha256(m.numpy().tobytes()).hexdigest() for m in moments)

    return hashlib.sha256("\n".join(lines()).encode()).hexdigest()
