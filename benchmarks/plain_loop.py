"""What diffusers' train_dreambooth_lora_sdxl.py does in each step, as a loop: the measure where no checkout is at hand.

Pictures are encoded by the float32 VAE, captions by both text encoders and their tokenizers, every step; attention
projections get peft's own LoRA layers in the base's precision under autocast; AdamW is not fused; the loss is read from
the device every step. Left out: decoding and resizing of class images, which the script does in the same process.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from personalize.dreambooth import backbone, conditioning


def timed(
    base: str, captions: Sequence[str], batch: int, resolution: int, rank: int, dtype: str, device: torch.device,
    steps: int, until: float,
) -> dict[str, Any]:  # fmt: skip
    """Seconds of each step after the second, until `steps` are done or the clock says `until`; images are 2 x batch."""
    from diffusers import DDPMScheduler
    from peft import LoraConfig

    pipe: Any = backbone.load_pipeline(base, device=device, dtype=dtype)
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=["to_k", "to_q", "to_v", "to_out.0"])
    pipe.unet.add_adapter(config)
    pipe.unet.train()
    params = [parameter for parameter in pipe.unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=1e-4, weight_decay=1e-2)
    schedule = DDPMScheduler.from_config(pipe.scheduler.config)
    pixels = torch.rand(2 * batch, 3, resolution, resolution)
    tokenizers, encoders = (pipe.tokenizer, pipe.tokenizer_2), (pipe.text_encoder, pipe.text_encoder_2)
    time_ids = torch.tensor([[resolution, resolution, 0, 0, resolution, resolution]] * 2 * batch, device=device)
    ended: list[float] = []
    while len(ended) < steps and (len(ended) < 4 or time.perf_counter() < until):
        with torch.no_grad():
            latents = (
                pipe.vae.encode(pixels.to(device, torch.float32)).latent_dist.sample() * pipe.vae.config.scaling_factor
            )
            ids = conditioning.token_ids(tokenizers, [captions[i % len(captions)] for i in range(2 * batch)])
            hidden, pooled = conditioning.encode_tokens(encoders, ids)
        latents = latents.to(pipe.unet.dtype)
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, schedule.config.num_train_timesteps, (2 * batch,), device=device)
        noisy = schedule.add_noise(latents, noise, timesteps)
        added = {"text_embeds": pooled, "time_ids": time_ids}
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
            predicted = pipe.unet(noisy, timesteps, hidden, added_cond_kwargs=added, return_dict=False)[0]
        loss = functional.mse_loss(predicted.float(), noise.float())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        ended.append(time.perf_counter())
    return {"ended": ended}
