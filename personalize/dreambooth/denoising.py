"""Denoising: many pictures at once, step by step, each with its own settings and its own place in its own schedule.

This is `StableDiffusionXLPipeline.__call__` taken apart at the step, so that a picture may join a batch between two
steps and leave it when it is done. For row i, at its own timestep t_i of its own number of steps:

    x_i   = scale_model_input(z_i, t_i)                            its own copy of the base's scheduler
    ε_i   = UNet(x_i, t_i, c_i)                                    one call for all rows
    ε_i   = ε_i(∅) + w_i (ε_i(c_i) - ε_i(∅))     where w_i > 1       classifier-free guidance, Ho & Salimans 2022
    z_i   = step(ε_i, t_i, z_i; generator_i)                       the same copy

Nothing in a row is computed from another row, and the scheduler's arithmetic is diffusers' own: whatever the base is
published with, multistep and ancestral samplers too, works as there. A row alone gives the pipeline's picture to the
byte. Beside others a kernel may add in another order: the UNet's output then differs by some 1e-6 of values around 1 in
float32, which moves no pixel by more than a grey level or two of 255.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from personalize.dreambooth.adapters import SILENT, Adapters, Voice
from personalize.dreambooth.backbone import Pipeline
from personalize.dreambooth.sampling import Sampling, decode, initial_noise

if TYPE_CHECKING:
    from PIL import Image

REMEMBERED_TEXTS = 128
"""Texts whose embeddings are kept, by what the text encoders hear: SDXL's take 320 kB each in half precision."""


@dataclass
class Row:
    """A picture that is being drawn.

    latents: z [1, c, h, w]; texts: hidden states [k, 77, d] and pooled [k, p], k = 2 (unconditional first) with
    guidance and 1 without; time_ids: [k, 6]; timesteps: of the row's own scheduler, of which `done` are behind it.
    """

    latents: Tensor
    texts: Tensor
    pooled: Tensor
    time_ids: Tensor
    timesteps: Tensor
    scheduler: Any
    options: dict[str, Any]
    guidance: float
    voice: Voice
    done: int = 0

    @property
    def left(self) -> int:
        """Steps that are still to be made."""
        return len(self.timesteps) - self.done


class Denoising:
    """Draws rows with one pipeline and its adapters. Everything here belongs on the one thread that loaded them.

    Raises ValueError for a base that takes its guidance as an input of the UNet.
    """

    def __init__(self, pipe: Pipeline, adapters: Adapters | None = None) -> None:
        if pipe.unet.config.time_cond_proj_dim is not None:
            raise ValueError("this base was distilled to take its guidance as an input (LCM), which is not supported.")
        self.pipe = pipe
        self.adapters = adapters or Adapters(pipe)
        self._texts: OrderedDict[tuple[str, str, float], tuple[Tensor, Tensor]] = OrderedDict()

    @torch.inference_mode()
    def begin(self, prompt: str, seed: int, sampling: Sampling, voice: Voice = SILENT) -> Row:
        """A row before its first step. Prompts of at most 77 tokens, sizes in multiples of 8 (`sampling._check`)."""
        pipe, device, factor = self.pipe, self.pipe._execution_device, self.pipe.vae_scale_factor
        voice = voice if voice[1] else SILENT
        texts = [self._encoded(prompt, voice)]
        if sampling.guidance_scale > 1:
            texts.insert(0, self._unconditional(sampling.negative_prompt, voice))
        scheduler = copy.deepcopy(pipe.scheduler)
        scheduler.set_timesteps(sampling.steps, device=device)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
        noise = initial_noise([seed], pipe.unet.config.in_channels, sampling.height // factor, sampling.width // factor)
        size = (sampling.height, sampling.width)
        return Row(
            latents=noise.to(device, pipe.unet.dtype) * scheduler.init_noise_sigma,
            texts=torch.cat([hidden for hidden, _ in texts]),
            pooled=torch.cat([pooled for _, pooled in texts]),
            time_ids=torch.tensor([[*size, 0, 0, *size]] * len(texts), dtype=pipe.unet.dtype, device=device),
            timesteps=scheduler.timesteps,
            scheduler=scheduler,
            options=pipe.prepare_extra_step_kwargs(torch.Generator("cpu").manual_seed(seed + 1), 0.0),
            guidance=sampling.guidance_scale,
            voice=voice,
        )

    @torch.inference_mode()
    def step(self, rows: Sequence[Row]) -> None:
        """One step for each row, all of one size; at most as many as memory allows, which the caller knows."""
        rows = sorted(rows, key=lambda row: _key(row.voice))
        times = [row.timesteps[row.done] for row in rows]
        inputs = [
            row.scheduler.scale_model_input(row.latents, time).expand(len(row.texts), -1, -1, -1)
            for row, time in zip(rows, times, strict=True)
        ]
        with self.adapters.speaking([row.voice for row in rows for _ in row.texts]):
            noise = self.pipe.unet(
                torch.cat(inputs),
                torch.cat([time.expand(len(row.texts)) for row, time in zip(rows, times, strict=True)]),
                encoder_hidden_states=torch.cat([row.texts for row in rows]),
                added_cond_kwargs={
                    "text_embeds": torch.cat([row.pooled for row in rows]),
                    "time_ids": torch.cat([row.time_ids for row in rows]),
                },
                return_dict=False,
            )[0]
        for row, time, predicted in zip(rows, times, noise.split([len(row.texts) for row in rows]), strict=True):
            if len(row.texts) == 2:
                unconditional, conditional = predicted.chunk(2)
                predicted = unconditional + row.guidance * (conditional - unconditional)
            row.latents = row.scheduler.step(predicted, time, row.latents, **row.options, return_dict=False)[0]
            row.done += 1
        if noise.is_cuda:
            torch.cuda.synchronize(noise.device)  # a boundary that the host has run past is none: nobody could join

    @torch.inference_mode()
    def finish(self, rows: Sequence[Row]) -> list[Image.Image]:
        """The pictures of rows of one size that have no step left, in their order."""
        return decode(self.pipe, torch.cat([row.latents for row in rows]))

    def _unconditional(self, negative_prompt: str, voice: Voice) -> tuple[Tensor, Tensor]:
        """Zeros where the base was trained with them for no prompt at all, as SDXL was."""
        hidden, pooled = self._encoded(negative_prompt, voice)
        if negative_prompt or not self.pipe.config.force_zeros_for_empty_prompt:
            return hidden, pooled
        return torch.zeros_like(hidden), torch.zeros_like(pooled)

    def _encoded(self, text: str, voice: Voice) -> tuple[Tensor, Tensor]:
        """Hidden states [1, 77, d] and pooled [1, p] of a text, which are the same as prompt and as negative prompt."""
        heard = voice if voice[0] is not None and voice[0].in_text else SILENT
        key = (text, *_key(heard))
        if key not in self._texts:
            with self.adapters.speaking([heard]):
                hidden, _, pooled, _ = self.pipe.encode_prompt(
                    text, device=self.pipe._execution_device, num_images_per_prompt=1, do_classifier_free_guidance=False
                )
            self._texts[key] = hidden, pooled
            while len(self._texts) > REMEMBERED_TEXTS:
                self._texts.popitem(last=False)
        self._texts.move_to_end(key)
        return self._texts[key]


def _key(voice: Voice) -> tuple[str, float]:
    return (voice[0].name if voice[0] is not None else "", voice[1])
