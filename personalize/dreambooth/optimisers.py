"""Optimisers and learning-rate schedules. The rate is a pure function of the step, so resuming needs no state of it."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    import torch

    from personalize.dreambooth.settings import TrainSettings

OptimizerName = Literal["adamw", "adamw-8bit", "prodigy", "schedule-free"]
ScheduleName = Literal["constant", "cosine", "linear"]

PACKAGES = {"adamw-8bit": "bitsandbytes", "prodigy": "prodigyopt", "schedule-free": "schedulefree"}
"""The package each optimiser lives in, imported only when asked for. AdamW is torch's own."""


def check_installed(name: OptimizerName) -> None:
    """Raises ValueError with the way out when an optimiser's package is missing."""
    package = PACKAGES.get(name)
    if package and importlib.util.find_spec(package) is None:
        raise ValueError(
            f"optimizer: {name} needs the package {package}, which is not installed. Install it (`pip install "
            f"{package}`) or set `optimizer: adamw`."
        )


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


def make_optimizer(
    name: OptimizerName,
    groups: list[dict[str, Any]],
    *,
    betas: tuple[float, float],
    weight_decay: float,
    eps: float,
    warmup: int,
) -> torch.optim.Optimizer:
    """An optimiser over `groups` of {"params", "lr"}. AdamW is fused where torch can. Raises ValueError, see above."""
    import torch

    check_installed(name)
    shared: dict[str, Any] = {"betas": betas, "weight_decay": weight_decay}
    if name == "adamw":
        return torch.optim.AdamW(groups, eps=eps, fused=_can_fuse(groups), **shared)
    if name == "adamw-8bit":
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(groups, eps=eps, **shared)
    if name == "prodigy":
        from prodigyopt import Prodigy

        return Prodigy(groups, eps=eps, decouple=True, use_bias_correction=True, safeguard_warmup=True, **shared)
    from schedulefree import AdamWScheduleFree

    return AdamWScheduleFree(groups, eps=eps, warmup_steps=warmup, **shared)


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
