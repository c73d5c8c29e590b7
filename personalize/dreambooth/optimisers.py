"""Optimisers and learning-rate schedules. The rate is a pure function of the step, so resuming needs no state of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch

from personalize.dreambooth.settings import ScheduleName, TrainSettings


def learning_rate_factor(step: int, schedule: ScheduleName, warmup: int, total: int) -> float:
    """What the learning rate is multiplied with at `step` (0-based): a linear warm-up, then the schedule down to 0."""
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return 0.5 * (1.0 + math.cos(math.pi * progress)) if schedule == "cosine" else 1.0 - progress


def parameter_groups(
    params: Mapping[str, torch.nn.Parameter], settings: TrainSettings
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


def make_optimizer(groups: list[dict[str, Any]], settings: TrainSettings) -> torch.optim.Optimizer:
    """The optimiser asked for over `groups` of {"params", "lr"}. AdamW is fused where torch can."""
    name, eps = settings.optimizer, settings.adam_eps
    shared: dict[str, Any] = {"betas": settings.adam_betas, "weight_decay": settings.weight_decay}
    if name == "adamw":
        return torch.optim.AdamW(groups, eps=eps, fused=_can_fuse(groups), **shared)
    if name == "adamw-8bit":
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(groups, eps=eps, **shared)
    if name == "prodigy":
        from prodigyopt import Prodigy

        return Prodigy(groups, eps=eps, decouple=True, use_bias_correction=True, safeguard_warmup=True, **shared)
    from schedulefree import AdamWScheduleFree

    return AdamWScheduleFree(groups, eps=eps, warmup_steps=settings.warmup_steps, **shared)


def set_learning_rates(optimizer: torch.optim.Optimizer, base_rates: Iterable[float], factor: float) -> None:
    for group, rate in zip(optimizer.param_groups, base_rates, strict=True):
        group["lr"] = rate * factor


def evaluation_weights(optimizer: torch.optim.Optimizer, on: bool) -> None:
    """Schedule-free optimisers keep averaged weights apart from those they step; this swaps them in and out."""
    swap = getattr(optimizer, "eval" if on else "train", None)
    if callable(swap):
        swap()


def _can_fuse(groups: list[dict[str, Any]]) -> bool:
    kinds = {parameter.device.type for group in groups for parameter in group["params"]}
    return kinds <= {"cuda"} or kinds <= {"cpu"}
