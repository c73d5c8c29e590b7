"""Previews: a checkpoint's pictures, drawn with few steps on fixed prompts and seeds, and its loss on a fixed batch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from personalize.dreambooth import conditioning, losses, sampling
from personalize.dreambooth.conditioning import TextTable
from personalize.dreambooth.randomness import derive, generator
from personalize.photographs.prompts import Subject

SCENES = ("on a red rug", "on a dirt road", "in a kitchen", "in a studio")
"""Where subjects are put to see whether the prompt is still heard. Evaluation asks for other places."""

BINS = 4
"""Ranges of timesteps whose loss is followed apart: the highest noise levels overfit first (Soboleva et al. 2025)."""


@dataclass(frozen=True)
class Preview:
    """A picture to be drawn at every checkpoint. `plain` is its prompt without the token, which CLIP can judge."""

    kind: Literal["subject", "class"]
    prompt: str
    plain: str
    seed: int
    class_noun: str
    token: str = ""

    @property
    def name(self) -> str:
        words = re.sub(r"[^\w]+", "-", f"{self.token or 'class'} {self.prompt}", flags=re.UNICODE).strip("-").lower()
        return f"{words[:80]}-{self.seed}"


@dataclass(frozen=True)
class Sample:
    preview: Preview
    image: Image.Image


def previews(subjects: Sequence[Subject], prompts: int, seeds: int, seed: int) -> list[Preview]:
    """For each subject `prompts` scenes with `seeds` pictures each, and for each class noun its plain class prompt."""
    wanted = []
    for number, subject in enumerate(subjects):
        for turn in range(prompts):
            scene = SCENES[(number + turn) % len(SCENES)]
            for index in range(seeds):
                wanted.append(
                    Preview(
                        "subject",
                        f"{subject.instance_prompt} {scene}",
                        f"{subject.class_prompt} {scene}",
                        _seed(seed, "subject", turn, index),
                        subject.class_noun,
                        subject.token,
                    )
                )
    for noun in dict.fromkeys(subject.class_noun for subject in subjects):
        prompt = next(s.class_prompt for s in subjects if s.class_noun == noun)
        for index in range(2 * seeds):
            wanted.append(Preview("class", prompt, prompt, _seed(seed, "class", 0, index), noun))
    return wanted


def _seed(seed: int, kind: str, prompt: int, index: int) -> int:
    """Below 2³¹, so that a seed can be typed again anywhere. Evaluation's seeds are derived under other names."""
    return derive(seed, "preview", kind, prompt, index) % 2**31


@torch.no_grad()
def draw(
    pipe: Any,
    text: TextTable,
    wanted: Sequence[Preview],
    *,
    size: int,
    steps: int,
    guidance: float,
    batch_size: int = 8,
) -> list[Sample]:
    """The pictures of `wanted` from a pipeline whose text encoders may be gone: captions come from `text`."""
    drawn: list[Sample] = []
    channels, side = pipe.unet.config.in_channels, size // pipe.vae_scale_factor
    for start in range(0, len(wanted), batch_size):
        batch = wanted[start : start + batch_size]
        rows = torch.tensor([text.row(p.prompt) for p in batch], device=text.hidden.device)
        hidden, pooled = text.lookup(rows)
        no_hidden, no_pooled = text.lookup(torch.full_like(rows, conditioning.NO_CAPTION))
        noise = sampling.initial_noise([p.seed for p in batch], channels, side, side)
        latents = pipe(
            prompt_embeds=hidden,
            pooled_prompt_embeds=pooled,
            negative_prompt_embeds=no_hidden,
            negative_pooled_prompt_embeds=no_pooled,
            num_inference_steps=steps,
            guidance_scale=guidance,
            width=size,
            height=size,
            latents=noise.to(pipe.device, pipe.unet.dtype),
            output_type="latent",
        ).images
        images = sampling.decode(pipe, latents)
        drawn += [Sample(preview, image) for preview, image in zip(batch, images, strict=True)]
    return drawn


@torch.no_grad()
def fixed_losses(
    denoise: Any,
    moments: Sequence[Tensor],
    captions: Sequence[int],
    ids: Sequence[Tensor],
    text: TextTable,
    *,
    vae_config: Any,
    alphas_cumprod: Tensor,
    prediction_type: losses.PredictionType,
    seed: int,
    device: torch.device,
    scale: Any,
) -> dict[str, float]:
    """Mean error by range of timesteps on the same pictures, noise and timesteps each time: `validation_loss_0`...

    Unlike the training loss it is free of the noise of sampling, so it tells whether learning goes on
    (DVAR, Voronov et al. 2023). `denoise(noisy, timesteps, ids, hidden, pooled)` is the UNet in eval mode.
    """
    total = len(alphas_cumprod)
    found = {}
    for part in range(BINS):
        errors = []
        for index, (mean_std, row, size_ids) in enumerate(zip(moments, captions, ids, strict=True)):
            g = generator(seed, "validation loss", part, index)
            latents = scale(mean_std[0], vae_config)[None].to(device)
            noise = torch.randn(latents.shape, generator=g).to(device)
            low, high = part * total // BINS, (part + 1) * total // BINS
            t = torch.randint(low, high, (1,), generator=g).to(device)
            noisy = losses.add_noise(latents, noise, t, alphas_cumprod)
            hidden, pooled = text.lookup(torch.tensor([row], device=text.hidden.device))
            target = losses.prediction_target(latents, noise, t, alphas_cumprod, prediction_type)
            errors.append(losses.squared_error(denoise(noisy, t, size_ids[None].to(device), hidden, pooled), target))
        found[f"validation_loss_{part}"] = float(torch.cat(errors).mean())
    return found
