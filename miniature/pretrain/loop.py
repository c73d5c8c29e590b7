"""The training loop all models share: a budget, a schedule, checkpoints that a kill cannot hurt.

The learning rate is a function of the fraction of the budget spent, whether it is counted in minutes or in steps, and
everything random in a step comes from (seed, step). A run killed at any time goes on from its last checkpoint; the same
command with a larger budget goes on from where a finished run stopped.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import mlflow
import torch
from torch import Tensor, nn
from tqdm import tqdm

Loss = Callable[[int], tuple[Tensor, dict[str, float]]]


@dataclass(frozen=True)
class Options:
    """Where to read and write, how long to train, on what."""

    data: Path
    work: Path
    out: Path
    minutes: float | None = None
    steps: int | None = None
    device: str = "cpu"
    batch: int | None = None
    seed: int = 0
    compile: bool = False
    start: Path | None = None
    checkpoint_seconds: float = 120.0

    def peak(self, lr: float) -> float:
        """The highest learning rate: half of `lr` for what begins from published weights, which too much would undo."""
        return lr / 2 if self.start else lr

    def fraction(self, step: int, seconds: float) -> float:
        """Share of the budget spent, 0 to 1; a budget in steps wins over one in minutes."""
        if self.steps is not None:
            return min(1.0, step / self.steps)
        return min(1.0, seconds / (60 * (self.minutes or 1)))


def learning_rate(peak: float, fraction: float, warmup: float = 0.03, floor: float = 0.01) -> float:
    """Linear warm-up, then half a cosine down to `floor` of the peak."""
    if fraction < warmup:
        return peak * max(fraction / warmup, 0.01)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (fraction - warmup) / (1 - warmup))))


def fit(
    name: str,
    networks: dict[str, nn.Module],
    loss: Loss,
    options: Options,
    *,
    lr: float,
    batch: int,
    weight_decay: float = 0.01,
    betas: tuple[float, float] = (0.9, 0.99),
    averages: dict[str, nn.Module] | None = None,
    average_decay: Callable[[int, float], float] | None = None,
    clip_norm: float = 1.0,
    muon: bool = False,
) -> dict[str, float]:
    """Train `networks` (trained in place) until the budget is spent; returns steps, seconds and the last metrics.

    `averages` follow the network of the same name by an exponential moving average. With `muon` the matrices of
    transformer layers are trained by Muon (Jordan et al. 2024), everything else always by AdamW.
    """
    averages = averages or {}
    named = [(name, p) for net in networks.values() for name, p in net.named_parameters() if p.requires_grad]
    parameters = [p for _, p in named]
    hidden = [p for name, p in named if muon and p.ndim == 2 and "encoder.layers" in name]
    others = [p for _, p in named if not any(p is one for one in hidden)]
    matrices, vectors = [p for p in others if p.ndim > 1], [p for p in others if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)]
    if hidden:
        as_adamw = {"adjust_lr_fn": "match_rms_adamw"}  # so that one learning rate serves both
        optimizers.append(torch.optim.Muon(hidden, lr=lr, weight_decay=weight_decay, **as_adamw))
    checkpoint = options.work / f"{name}.pt"
    step, spent = 0, 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=options.device, weights_only=True)
        for key, net in {**networks, **{f"{key}.ema": net for key, net in averages.items()}}.items():
            net.load_state_dict(saved["networks"][key])
        for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        step, spent = saved["step"], saved["seconds"]

    def save() -> None:
        states = {key: net.state_dict() for key, net in networks.items()}
        states |= {f"{key}.ema": net.state_dict() for key, net in averages.items()}
        options.work.mkdir(parents=True, exist_ok=True)
        fresh = checkpoint.with_suffix(".pt.new")
        learnt = [optimizer.state_dict() for optimizer in optimizers]
        torch.save({"networks": states, "optimizers": learnt, "step": step, "seconds": spent}, fresh)
        fresh.replace(checkpoint)

    means: dict[str, float] = {}
    first = step
    last_saved = time.monotonic()
    with tqdm(total=100.0, desc=name, unit="%", mininterval=10, bar_format="{l_bar}{bar:20}| {postfix}") as bar:
        while (fraction := options.fraction(step, spent)) < 1:
            began = time.monotonic()
            rate_now = learning_rate(lr, fraction)
            for group in (group for optimizer in optimizers for group in optimizer.param_groups):
                group["lr"] = rate_now
            torch.manual_seed(options.seed * 1_000_003 + step)
            value, metrics = loss(step)
            if not torch.isfinite(value):
                raise ValueError(f"{name}: the loss is {value.item()} at step {step}; lower the learning rate of {lr}")
            value.backward()
            nn.utils.clip_grad_norm_(parameters, clip_norm)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            step += 1
            for key, average in averages.items():
                follow(average, networks[key], average_decay(step, fraction) if average_decay else ema_decay(step))
            spent += time.monotonic() - began
            for key, number in {"loss": float(value.detach()), **metrics}.items():
                means[key] = number if key not in means else 0.98 * means[key] + 0.02 * number
            bar.n = round(100 * fraction, 1)
            rate = batch / max(time.monotonic() - began, 1e-6)
            shown = " ".join(f"{key} {number:.4g}" for key, number in means.items())
            bar.set_postfix_str(f"step {step} {rate:.0f}/s {shown}", refresh=False)
            bar.update(0)
            if step % 20 == 0 and mlflow.active_run():
                rates = {"images_per_second": rate, "lr": rate_now}
                mlflow.log_metrics({f"{name}/{key}": number for key, number in {**means, **rates}.items()}, step=step)
            if time.monotonic() - last_saved > options.checkpoint_seconds:
                save()
                last_saved = time.monotonic()
    if step > first:
        save()
    return {"steps": step, "minutes": spent / 60, "samples": step * batch, **means}


def begin(model: nn.Module, options: Options, stage: str, folder: str) -> nn.Module:
    """`model` with the weights that lie in options.start/folder, unless the stage has a checkpoint of its own.

    A vision tower whose patches have another size takes them resampled (FlexiViT: Beyer et al. 2023), and its
    positions too.
    """
    if options.start is None or (options.work / f"{stage}.pt").exists():
        return model
    published = cast(Any, type(model)).from_pretrained(options.start / folder, use_safetensors=True)
    old, new = published.state_dict(), model.state_dict()
    for name, value in new.items():
        if old[name].shape == value.shape:
            new[name] = old[name].float()
        elif "patch_embedding" in name:
            side = value.shape[-1]
            scale = (old[name].shape[-1] / side) ** 2
            new[name] = nn.functional.interpolate(old[name].float(), size=side, mode="area") * scale
        elif "position_embedding" in name:
            new[name] = resampled_positions(old[name].float(), value.shape)
        else:
            raise ValueError(f"{options.start / folder}: {name} is {tuple(old[name].shape)}, not {tuple(value.shape)}")
    model.load_state_dict(new)
    return model


def resampled_positions(positions: Tensor, shape: torch.Size) -> Tensor:
    """Positions [..., 1 + n, d] of a class token and a square grid, for a grid of another size."""
    width = shape[-1]
    rows = positions.reshape(-1, width)
    side, wanted = math.isqrt(len(rows) - 1), math.isqrt(shape[-2] - 1)
    grid = rows[1:].T.reshape(1, width, side, side)
    grid = nn.functional.interpolate(grid, size=wanted, mode="bilinear")
    return torch.cat([rows[:1], grid.reshape(width, -1).T]).reshape(shape)


def trained(options: Options, stage: str) -> dict[str, dict[str, Tensor]]:
    """The weights of each network in a stage's checkpoint. Raises ValueError where that stage was not trained."""
    checkpoint = options.work / f"{stage}.pt"
    if not checkpoint.exists():
        raise ValueError(
            f"{options.work} holds no {stage}.pt: train it first with `python -m miniature.pretrain {stage}`"
        )
    return torch.load(checkpoint, map_location="cpu", weights_only=True)["networks"]


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """average <- decay * average + (1 - decay) * network."""
    pairs = zip(average.parameters(), network.parameters(), strict=True)
    old, new = zip(*((a, n) for a, n in pairs), strict=True)
    torch._foreach_lerp_(list(old), list(new), 1 - decay)


def ema_decay(step: int, longest: float = 0.9995) -> float:
    """A window that grows with the run, so that short runs are not averaged with their own beginning."""
    return min(longest, (1 + step) / (10 + step))


def autocast(device: str) -> contextlib.AbstractContextManager:
    return torch.autocast(torch.device(device).type, torch.bfloat16)


@contextlib.contextmanager
def attention_for(device: str) -> Iterator[None]:
    """On a CPU plain attention trains 1.2 times faster than the flash kernel, whose backward pass is slow there."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    if torch.device(device).type == "cpu":
        with sdpa_kernel(SDPBackend.MATH):
            yield
    else:
        yield
