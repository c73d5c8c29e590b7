"""Losses: the arithmetic of diffusion training, as pure functions in float32.

Symbols: x_0 latents, ε noise, ᾱ_t the cumulated alphas of the scheduler, SNR(t) = ᾱ_t / (1 - ᾱ_t).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

PredictionType = Literal["epsilon", "v_prediction", "sample"]

LEAST_SHARE = 0.05
"""Share of a picture below which a masked subject gets no more weight."""
FRAME = 1 / 8
"""How wide the frame around a picture's middle is, of its height and width."""
MOST_WEIGHT = 20.0
"""A timestep's error counts at most so much as one of v: reached at SNR 1/19, where hardly anything is seen yet."""


def add_noise(latents: Tensor, noise: Tensor, timesteps: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε, Eq. 4, Ho et al. 2020. [B, C, H, W] float32 in and out.

    Raises TypeError for half-precision latents: in bfloat16, √(1 - ᾱ_t) rounds to no noise at all at the first steps.
    """
    if latents.dtype != torch.float32 or noise.dtype != torch.float32:
        raise TypeError(f"add_noise needs float32 latents and noise, got {latents.dtype} and {noise.dtype}.")
    a = alphas_cumprod.to(latents.device, torch.float32)[timesteps][:, None, None, None]
    return a.sqrt() * latents + (1.0 - a).sqrt() * noise


def prediction_target(
    latents: Tensor, noise: Tensor, timesteps: Tensor, alphas_cumprod: Tensor, prediction_type: PredictionType
) -> Tensor:
    """What the UNet should say: ε, or v = √ᾱ_t ε - √(1 - ᾱ_t) x_0 (Sec. 2.4, Salimans & Ho 2022), or x_0."""
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "sample":
        return latents
    a = alphas_cumprod.to(latents.device, torch.float32)[timesteps][:, None, None, None]
    return a.sqrt() * noise - (1.0 - a).sqrt() * latents


def signal_to_noise(timesteps: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """SNR(t) = ᾱ_t / (1 - ᾱ_t), [B]."""
    a = alphas_cumprod.to(timesteps.device, torch.float32)[timesteps]
    return a / (1.0 - a)


def min_snr_weights(snr: Tensor, gamma: float, prediction_type: PredictionType) -> Tensor:
    """Loss weights min(SNR, γ) on x_0, rewritten for what is predicted; Sec. 3.4, Hang et al. 2023. [B] -> [B].

    ε: min(SNR, γ) / SNR (its limit 1 at SNR = 0);  v: min(SNR, γ) / (SNR + 1);  x_0: min(SNR, γ).
    """
    if prediction_type == "epsilon":
        return (gamma / snr).clamp(max=1.0)
    if prediction_type == "v_prediction":
        return snr.clamp(max=gamma) / (snr + 1.0)
    return snr.clamp(max=gamma)


def velocity_weights(snr: Tensor, prediction_type: PredictionType) -> Tensor:
    """Loss weights that make errors of what is predicted errors of v, at most `MOST_WEIGHT`. [B] -> [B].

    At the same x_t, |Δv|² = |Δε|² (1 + 1 / SNR) = |Δx_0|² (1 + SNR). What a picture shows is decided at high noise,
    where ε is nearly the noise itself and its errors are small whatever they do to the picture.
    """
    if prediction_type == "epsilon":
        return (1.0 + 1.0 / snr).clamp(max=MOST_WEIGHT)
    if prediction_type == "v_prediction":
        return torch.ones_like(snr)
    return (1.0 + snr).clamp(max=MOST_WEIGHT)


def squared_error(prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean squared error of each sample, in float32 whatever the prediction's dtype: [B, C, H, W] -> [B].

    weights: [B, 1, H, W], what each latent counts.
    """
    errors = (prediction.float() - target.float()).square()
    return (errors if weights is None else errors * weights).flatten(1).mean(1)


def mask_weights(mask: Tensor, surroundings: float, share: float) -> Tensor:
    """w = (s + (1 - s) m) / (s + (1 - s) max(share, 0.05)): 1 for the subject, s for what surrounds it, rescaled.

    mask: m in [0, 1], the subject's share of each latent. share: the mean of m over the whole picture, so that over it
    the weights' mean is 1 and a masked photograph's loss is of the size of any other's. The floor keeps a subject of a
    few latents from weighing as much as a picture. Any shape in and out.
    """
    return (surroundings + (1 - surroundings) * mask) / (surroundings + (1 - surroundings) * max(share, LEAST_SHARE))


def frame_weights(height: int, width: int) -> Tensor:
    """What the latents of a picture count whose surroundings alone are to stay: [h, w] with mean 1.

    All of a frame alike, at least a latent wide, and nothing in the middle, where a subject stands.
    """
    frame = torch.ones(height, width)
    up, left = (max(1, round(side * FRAME)) for side in (height, width))
    frame[up : height - up, left : width - left] = 0
    return frame / frame.mean()


def dreambooth_loss(errors: Tensor, weights: Tensor, instances: int, prior_loss_weight: float) -> Tensor:
    """L = mean over instances + λ · mean over class images, each error times its own weight; Eq. 2, Ruiz et al. 2023.

    `errors` and `weights` are [B]: the first `instances` rows are photographs of subjects, the rest class images.
    """
    weighted = errors * weights
    loss = weighted[:instances].mean()
    if len(weighted) > instances:
        loss = loss + prior_loss_weight * weighted[instances:].mean()
    return loss
