"""Setup: from settings and pictures to everything the loop needs, in the order that wastes least memory.

Load the base, read and encode captions, encode pictures, free what is done, add the adapter, make the optimiser.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from personalize.dreambooth import backbone, conditioning, hardware, kohya, latents, lora, losses, optimisers, previews
from personalize.dreambooth.batches import BatchMaker, Pictures, class_pictures, photograph_pictures
from personalize.dreambooth.conditioning import NO_CAPTION, TextTable
from personalize.dreambooth.examples import Example
from personalize.dreambooth.previews import Preview, Sample
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


class Denoiser(nn.Module):
    """The UNet and, where they learn too, the text encoders: one module, so that one wrapper distributes it.

    forward: noisy [B, C, h, w], timesteps [B], time_ids [B, 6], and either hidden states [B, 77, D] with pooled
    embeddings [B, P], or token ids [B, 2, 77] with a mask [B] that is 0 for a dropped caption. -> [B, C, h, w].
    """

    def __init__(self, unet: nn.Module, text_encoders: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoders = nn.ModuleList(text_encoders)

    def forward(
        self, noisy: Tensor, timesteps: Tensor, time_ids: Tensor, text: Tensor, pooled_or_mask: Tensor
    ) -> Tensor:
        hidden, pooled = text, pooled_or_mask
        if len(self.text_encoders):
            hidden, pooled = conditioning.encode(list(self.text_encoders), text)
            hidden, pooled = hidden * pooled_or_mask[:, None, None], pooled * pooled_or_mask[:, None]
        added = {"text_embeds": pooled, "time_ids": time_ids}
        unet: Any = self.unet
        dtype = next(p.dtype for p in unet.conv_in.parameters())
        return cast(
            Tensor,
            unet(
                noisy.to(dtype),
                timesteps,
                encoder_hidden_states=hidden.to(dtype),
                added_cond_kwargs=added,
                return_dict=False,
            )[0],
        )


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

    def seed_dropout(self, step: int, micro: int) -> None:
        """Dropout inside the adapter is the one draw that torch's global generator makes."""
        if self.settings.lora_dropout:
            torch.manual_seed(derive(self.settings.seed, "dropout", step, micro, self.maker.rank))

    def text_inputs(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """What `Denoiser` is given for these captions."""
        if not self.settings.train_text_encoder:
            return self.text.lookup(rows)
        kept = (rows != NO_CAPTION) if self.text.zeros_for_empty else torch.ones_like(rows, dtype=torch.bool)
        return self.text.ids[rows], kept.to(torch.float32)

    @torch.no_grad()
    def validate(self, score: Any, step: int) -> tuple[dict[str, float], list[Sample]]:
        """Draws this checkpoint's pictures (dealt over the processes), judges them, and measures the fixed loss."""
        from accelerate.utils import broadcast_object_list, gather_object

        s, accelerator = self.settings, self.accelerator
        if s.train_text_encoder:
            self.text.encode([self.parts["text_encoder"], self.parts["text_encoder_2"]])
        size = s.resolution
        mine = list(self.previews)[accelerator.process_index :: accelerator.num_processes]
        vae_home = self.pipe.vae.device
        self.pipe.vae.to(accelerator.device)
        with accelerator.autocast():
            drawn = previews.draw(
                self.pipe,
                self.text,
                mine,
                size=size,
                steps=s.validation_sampling_steps,
                guidance=s.validation_guidance,
                batch_size=8 if size <= 256 else 2,
            )
        self.pipe.vae.to(vae_home)
        everyone = gather_object(drawn)
        order = {preview: index for index, preview in enumerate(self.previews)}
        samples = sorted(everyone, key=lambda sample: order[sample.preview])
        answer: list[dict[str, float]] = [{}]
        if accelerator.is_main_process:
            answer = [{name: float(value) for name, value in score(step, samples).items()} | self._fixed_losses()]
        broadcast_object_list(answer)
        return answer[0], samples

    def _fixed_losses(self) -> dict[str, float]:
        if self.held_out is None:
            return {}
        with self.accelerator.autocast():
            return previews.fixed_losses(
                self._denoise,
                [cuts[0] for cuts in self.held_out.moments],
                [self.text.row(example.caption) for example in self.held_out.examples],
                [cuts[0].time_ids(self.settings.size_conditioning) for cuts in self.held_out.cuts],
                self.text,
                vae_config=self.pipe.vae.config,
                alphas_cumprod=self.alphas_cumprod,
                prediction_type=self.prediction_type,
                seed=self.settings.seed,
                device=self.accelerator.device,
                scale=latents.scale_latents,
            )

    def _denoise(self, noisy: Tensor, t: Tensor, ids: Tensor, hidden: Tensor, pooled: Tensor) -> Tensor:
        return cast(Tensor, Denoiser(self.parts["unet"])(noisy, t, ids, hidden, pooled))

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
    from accelerate import Accelerator, DistributedDataParallelKwargs

    if not photographs:
        raise ValueError("there are no photographs to train on.")
    if settings.class_images_a_step and not class_images:
        raise ValueError(
            "prior preservation needs class images and there are none: run prior, or prior_loss_weight: 0."
        )
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
    device = accelerator.device
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True

    phase("loading the base model")
    pipe: Any = backbone.load_pipeline(base.path, base.revision, device, base.dtype)
    prediction_type, alphas_cumprod = noise_schedule(pipe.scheduler.config)

    phase("reading captions")
    captions = [e.caption for e in (*photographs, *class_images, *held_out)] + [p.prompt for p in wanted]
    text = TextTable(captions, pipe.config.force_zeros_for_empty_prompt)
    text.tokenize([pipe.tokenizer, pipe.tokenizer_2]).encode([pipe.text_encoder, pipe.text_encoder_2])
    text.ids = text.ids.to(device)

    shape_step = bucket_step(
        settings.resolution, pipe.vae_scale_factor * 2 ** (len(pipe.unet.config.block_out_channels) - 1)
    )
    shown = photograph_pictures(photographs, settings, shape_step)
    regular = class_pictures(class_images, shown, settings) if settings.class_images_a_step else None
    watched = photograph_pictures(held_out or photographs, settings.model_copy(update={"variants": 1}), shape_step)
    cache = latents.MomentCache(pipe.vae, work / "latents")
    every = [pictures for pictures in (shown, regular, watched) if pictures is not None]
    total, done = sum(len(pictures.jobs()) for pictures in every), 0
    with accelerator.main_process_first():  # the others find the latents on disk
        for pictures in every:
            before = done

            def encoded(count: int, before: int = before) -> None:
                phase(f"encoding pictures {before + count}/{total}")

            pictures.encode(cache, 8 if settings.resolution <= 256 else 2, encoded)
            done += len(pictures.jobs())

    memory = hardware.choose_memory(settings.memory, _card_bytes(device))
    pipe.vae.encoder = None
    if memory != "fast":
        pipe.vae.to("cpu")
    parts: dict[str, nn.Module] = {"unet": pipe.unet}
    if settings.train_text_encoder:
        parts |= {"text_encoder": pipe.text_encoder, "text_encoder_2": pipe.text_encoder_2}
    pipe.text_encoder = pipe.text_encoder_2 = pipe.tokenizer = pipe.tokenizer_2 = None
    gc.collect()

    if memory == "low":
        hardware.quantise(pipe.unet)
    spec = lora.LoraSpec(
        settings.rank,
        settings.lora_alpha,
        settings.targets,
        settings.lora_dropout,
        settings.use_dora,
        settings.use_rslora,
    )
    params = lora.add(parts, spec, settings.seed)
    if base.dtype != "float32":
        for part in parts.values():
            for layer in lora.layers(part).values():
                layer.cast_input_dtype_enabled = False  # autocast casts the small matrices, not the large inputs
    if memory != "fast":
        pipe.unet.enable_gradient_checkpointing()
    pipe.unet.to(memory_format=torch.channels_last)
    unet = torch.compile(pipe.unet, dynamic=False) if settings.compile else pipe.unet
    denoiser = Denoiser(cast(nn.Module, unet), [part for name, part in parts.items() if name != "unet"])

    groups, rates = parameter_groups(params, settings)
    optimizer = optimisers.make_optimizer(
        settings.optimizer,
        groups,
        betas=settings.adam_betas,
        weight_decay=settings.weight_decay,
        eps=settings.adam_eps,
        warmup=settings.warmup_steps,
    )
    images = (settings.batch_size + settings.class_images_a_step) * settings.gradient_accumulation
    images *= accelerator.num_processes
    peak = hardware.peak_tflops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    identity = run_identity(settings, base, every, pipe, params)
    return Setup(
        settings,
        base,
        accelerator,
        pipe,
        denoiser,
        parts,
        spec,
        params,
        optimizer,
        rates,
        BatchMaker(
            settings,
            shown,
            regular,
            text,
            pipe.vae.config,
            len(alphas_cumprod),
            accelerator.process_index,
            accelerator.num_processes,
        ),
        text,
        alphas_cumprod.to(device),
        prediction_type,
        watched,
        wanted,
        hardware.Meter(images, accelerator.num_processes, peak),
        hardware.FlopCount(recomputes=memory != "fast", compiled=settings.compile),
        work / "runs" / identity[:16],
        identity,
    )


def noise_schedule(config: Mapping[str, Any]) -> tuple[losses.PredictionType, Tensor]:
    """The base's prediction type and ᾱ_t [T] float32. ValueError for a scheduler this loss does not describe."""
    from diffusers import DDPMScheduler

    prediction_type = config.get("prediction_type", "epsilon")
    if prediction_type not in ("epsilon", "v_prediction", "sample") or "EDM" in str(config.get("_class_name", "")):
        raise ValueError(
            f"this base's scheduler ({config.get('_class_name')}, prediction_type {prediction_type}) is not one of "
            f"epsilon, v_prediction or sample; EDM models are not supported."
        )
    return prediction_type, DDPMScheduler.from_config(config).alphas_cumprod.float()


def bucket_step(resolution: int, needed: int) -> int:
    """Steps of 64 pixels for large pictures (kernels like them), else the least that the base's levels allow."""
    return max(needed, 64) if resolution >= 512 else needed


def parameter_groups(
    params: Mapping[str, nn.Parameter], settings: TrainSettings
) -> tuple[list[dict[str, Any]], list[float]]:
    """(optimiser groups, their base learning rates): the UNet's adapter, and the text encoders' with its own rate."""
    text_rate = settings.text_encoder_learning_rate or (
        settings.learning_rate if settings.optimizer == "prodigy" else settings.learning_rate / 10
    )
    groups = [
        {"params": [p for name, p in params.items() if name.startswith("unet.")], "lr": settings.learning_rate},
        {"params": [p for name, p in params.items() if not name.startswith("unet.")], "lr": text_rate},
    ]
    groups = [group for group in groups if group["params"]]
    return groups, [float(cast(float, group["lr"])) for group in groups]


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


def _card_bytes(device: torch.device) -> int | None:
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None
