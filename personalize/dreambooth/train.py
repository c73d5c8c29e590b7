"""Train: DreamBooth with LoRA on SDXL, one loop, read top to bottom.

Features: prior preservation, min-SNR, ε- and v-prediction, aspect-ratio buckets, crop variants with true
micro-conditioning, caption dropout, EMA, DoRA and rsLoRA, text-encoder LoRA, gradient accumulation, several processes
through accelerate, exact resume, checkpoints that are scored and chosen.

How it is fast: VAE moments and text embeddings are computed once and their models freed; a thread makes batches ahead;
the loss is read from the device every `log_every` steps only; AdamW is fused; attention is torch's SDPA; a bucket's
shapes are static.

How it is right: every random draw is a function of (seed, purpose, step, sample), so a resumed run needs no generator
state, and the same global batch is the same however it is split over processes and micro-batches. Adapter, optimiser
and loss are float32 whatever the base's precision.

Raises ValueError for data that cannot be trained on, and Diverged when the loss stops being a number.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from personalize.dreambooth import checkpoints, choice, hardware, losses, optimisers, tensorfile
from personalize.dreambooth.batches import Batch, prefetch
from personalize.dreambooth.examples import Example
from personalize.dreambooth.previews import Preview, Sample
from personalize.dreambooth.settings import TrainSettings
from personalize.dreambooth.setup import Base, Denoiser, Setup, set_up

Score = Callable[[int, Sequence[Sample]], Mapping[str, float]]
"""Judges a checkpoint's pictures: gives `fidelity`, `prompt` (more is better), `drift` (less is better) ..."""


class Diverged(ValueError):
    """The loss or its gradient is no longer a number."""


@dataclass
class Observer:
    """What a caller may watch. Called on the first process only."""

    phase: Callable[[str], None] = lambda text: None
    logged: Callable[[int, dict[str, float]], None] = lambda step, metrics: None
    scored: Callable[[int, dict[str, float], list[Sample]], None] = lambda step, scores, samples: None


@dataclass
class Result:
    choice: choice.Choice
    stop_reason: str
    steps: int
    speed: dict[str, float]
    history: dict[str, Any] = field(default_factory=dict)


def train(
    settings: TrainSettings,
    base: Base,
    photographs: Sequence[Example],
    class_images: Sequence[Example],
    outputs: Path,
    *,
    work: Path,
    held_out: Sequence[Example] = (),
    previews: Sequence[Preview] = (),
    score: Score | None = None,
    observer: Observer | None = None,
) -> Result:
    """Teaches the base model the subjects of `photographs`; writes lora/, samples/, history.json and speed.json.

    `class_images` preserve the prior; `held_out` photographs give the validation loss; `previews` are drawn at every
    checkpoint and judged by `score` (without it the last step is kept). `work` holds the latent cache and the states
    from which the same call goes on after a kill; it is safe to share between runs.
    """
    began = time.perf_counter()
    watch = observer or Observer()
    run = set_up(settings, base, photographs, class_images, held_out, previews, work, watch.phase)
    accelerator, params = run.accelerator, run.params
    main = accelerator.is_main_process
    model, optimizer = accelerator.prepare(run.denoiser, run.optimizer)

    state = checkpoints.latest(run.folder, run.identity) or checkpoints.State()
    history = state.history or {"steps": [], "scores": [], "stop_reason": ""}
    if state.step:
        checkpoints.load_weights(params, state.weights)
        optimizer.load_state_dict(state.optimizer)
        run.arithmetic.know(state.flops)
        if accelerator.scaler is not None and state.scaler:
            accelerator.scaler.load_state_dict(state.scaler)
        watch.phase(f"resuming after step {state.step}")
    average = {name: p.detach().clone() for name, p in params.items()} if settings.ema_decay else {}
    if state.average:
        checkpoints.load_weights(average, state.average)

    def validate(step: int) -> None:
        with evaluating(run, average):
            scores, samples = run.validate(score, step)
            if main and step:
                weights = {name: p.detach() for name, p in params.items()}
                checkpoints.save_weights(run.folder / "scored" / f"step-{step:06d}.safetensors", weights)
        history["scores"].append({"step": step, **scores})
        if main:
            for sample in samples:
                file = run.folder / "samples" / f"step-{step:06d}" / f"{sample.preview.name}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                sample.image.save(file)
            watch.scored(step, scores, samples)

    scoring = settings.validation_every > 0 and score is not None and bool(previews)
    if scoring and not history["scores"]:
        watch.phase("drawing the base model's pictures")
        validate(0)

    maker, accumulation, last = run.maker, settings.gradient_accumulation, settings.max_train_steps
    micro_steps = range(state.step * accumulation, last * accumulation)
    batches = prefetch(lambda k: maker.batch(*divmod(k, accumulation)), micro_steps)
    pending = Pending(run, history)
    first_step_seconds = 0.0
    step = state.step
    run.train_mode()
    watch.phase("training")
    with contextlib.closing(batches):
        while step < last and not history["stop_reason"]:
            for micro in range(accumulation):
                batch = next(batches).to(accelerator.device)
                run.seed_dropout(step, micro)
                with accelerator.no_sync(model) if micro < accumulation - 1 else contextlib.nullcontext():
                    with run.arithmetic.watch("forward"):
                        loss = training_loss(model, batch, run)
                    with run.arithmetic.watch("backward"):
                        accelerator.backward(loss / accumulation)
                pending.loss += loss.detach() / accumulation
            norm = accelerator.clip_grad_norm_(params.values(), settings.max_grad_norm)
            rate = optimisers.learning_rate_factor(step, settings.lr_scheduler, settings.warmup_steps, last)
            optimisers.set_learning_rates(optimizer, run.base_rates, rate)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if average:
                # the average of few steps is taken over those few
                decay = min(settings.ema_decay, (1 + step) / (10 + step))
                torch._foreach_lerp_(list(average.values()), [p.detach() for p in params.values()], 1 - decay)
            step += 1
            pending.count(norm, rate)
            if not first_step_seconds:
                pending.loss.item()
                first_step_seconds = time.perf_counter() - began
                run.meter.flops_a_step = run.arithmetic.flops * accumulation * accelerator.num_processes
                pending.restart()

            validation_due = scoring and (step == last or step % settings.validation_every == 0)
            saving_due = settings.resume_every > 0 and step % settings.resume_every == 0
            if validation_due or saving_due or step == last or step % settings.log_every == 0:
                metrics = pending.flush(step)
                if main:
                    watch.logged(step, metrics)
            if validation_due:
                validate(step)
                history["stop_reason"] = stop_reason(history["scores"], settings)
                run.train_mode()
                pending.restart()
            if saving_due and main:
                checkpoints.save(run.folder, _state(step, run, optimizer, average, history), run.identity)
                pending.restart()

    history["stop_reason"] = history["stop_reason"] or "all steps done"
    chosen = choose(history["scores"], step, settings)
    speed = pending.meter.total() | {
        "seconds_to_first_step": first_step_seconds,
        "peak_memory_gb": hardware.peak_memory_gb(accelerator.device),
        "seconds": time.perf_counter() - began,
    }
    if main:
        with evaluating(run, average):
            scored = run.folder / "scored" / f"step-{chosen.step:06d}.safetensors"
            if scored.exists():
                checkpoints.load_weights(params, checkpoints.read_weights(scored))
            history |= {
                "chosen": asdict(chosen),
                "photographs": [example.name for example in photographs],
                "held_out": [example.name for example in held_out],
                "settings": settings.model_dump(mode="json"),
            }
            _finish(outputs, run, photographs, chosen, history, speed)
    accelerator.wait_for_everyone()
    if main:
        shutil.rmtree(run.folder, ignore_errors=True)
    return Result(chosen, history["stop_reason"], step, speed, history)


def training_loss(model: nn.Module, batch: Batch, run: Setup) -> Tensor:
    """DreamBooth's loss of one micro-batch, in float32."""
    s = run.settings
    noisy = losses.add_noise(batch.latents, batch.noise, batch.timesteps, run.alphas_cumprod)
    prediction = model(noisy, batch.timesteps, batch.time_ids, *run.text_inputs(batch.captions))
    target = losses.prediction_target(
        batch.latents, batch.noise, batch.timesteps, run.alphas_cumprod, run.prediction_type
    )
    errors = losses.squared_error(prediction, target)
    weights = torch.ones_like(errors)
    if s.snr_gamma is not None:
        snr = losses.signal_to_noise(batch.timesteps, run.alphas_cumprod)
        weights = losses.min_snr_weights(snr, s.snr_gamma, run.prediction_type)
    return losses.dreambooth_loss(errors, weights, batch.instances, s.prior_loss_weight)


class Pending:
    """Losses that are still on the device. They are read together, so that the device never waits for the host."""

    def __init__(self, run: Setup, history: dict[str, Any]) -> None:
        self.run, self.history, self.meter = run, history, run.meter
        self.loss = torch.zeros((), device=run.accelerator.device)
        self.rows: list[Tensor] = []
        self.rates: list[float] = []
        self.timed = 0
        self.since = time.perf_counter()

    def count(self, norm: Tensor, rate: float) -> None:
        """Closes a step: its loss and gradient norm go to the rows that wait."""
        self.rows.append(torch.stack([self.loss, torch.as_tensor(norm, device=self.loss.device).float()]))
        self.rates.append(rate)
        self.loss = torch.zeros_like(self.loss)
        self.timed += 1

    def restart(self) -> None:
        """Starts the clock again after something that is not training."""
        self.timed, self.since = 0, time.perf_counter()

    def flush(self, step: int) -> dict[str, float]:
        """Reads what waits (mean over processes), puts it into the history, and gives the newest numbers and the speed.

        Raises Diverged for the first of these steps whose loss or gradient is not finite.
        """
        run, first = self.run, step - len(self.rows)
        values = run.accelerator.reduce(torch.stack(self.rows), "mean").tolist()
        for index, ((loss, norm), rate) in enumerate(zip(values, self.rates, strict=True)):
            finite = torch.isfinite(torch.tensor([loss, norm]))
            # with float16 an overflowing gradient is expected now and then: the scaler skips the step
            if not finite[0] or (not finite[1] and run.accelerator.scaler is None):
                raise Diverged(_divergence(run, first + index, loss, norm))
            self.history["steps"].append(
                {
                    "step": first + index + 1,
                    "loss": loss,
                    "gradient_norm": norm,
                    "learning_rate": rate * run.base_rates[0],
                }
            )
        mean_loss = sum(loss for loss, _ in values) / len(values)
        speed = self.meter.add(self.timed, time.perf_counter() - self.since)
        newest = {
            "loss": mean_loss,
            "gradient_norm": values[-1][1],
            "learning_rate": self.rates[-1] * run.base_rates[0],
        }
        self.rows, self.rates = [], []
        self.restart()
        return newest | speed


def _divergence(run: Setup, step: int, loss: float, norm: float) -> str:
    s = run.settings
    files = sorted({f for micro in range(s.gradient_accumulation) for f in run.maker.batch(step, micro).files})
    half = " or `dtype: bfloat16` (float16 overflows easily)" if run.dtype == torch.float16 else ""
    return (
        f"training stopped at step {step + 1}: loss {loss:g}, gradient norm {norm:g}. Nothing was saved as "
        f"finished. The batch held {', '.join(files)}. Try a lower learning_rate than {s.learning_rate:g} (a "
        f"third of it){half}, a longer warmup, or a lower max_grad_norm; if it is always these pictures, look at them."
    )


@contextlib.contextmanager
def evaluating(run: Setup, average: Mapping[str, Tensor]) -> Any:
    """The weights that are drawn from and saved: the EMA or schedule-free average where there is one; no dropout."""
    run.denoiser.eval()
    optimisers.evaluation_weights(run.optimizer, True)
    trained = {name: p.detach().clone() for name, p in run.params.items()} if average else {}
    checkpoints.load_weights(run.params if average else {}, average)
    try:
        yield
    finally:
        checkpoints.load_weights(run.params if average else {}, trained)
        optimisers.evaluation_weights(run.optimizer, False)


def margins(settings: TrainSettings) -> choice.Margins:
    return choice.Margins(settings.prompt_margin, settings.drift_margin, settings.fidelity_gain)


def stop_reason(scores: Sequence[Mapping[str, float]], settings: TrainSettings) -> str:
    """Why to stop now, or nothing."""
    base, *points = [choice.Point.of(int(row["step"]), row) for row in scores]
    if choice.stalled(points, base, margins(settings), settings.patience):
        return f"no gain in likeness that kept the prompt in the last {settings.patience} checkpoints"
    return ""


def choose(scores: Sequence[Mapping[str, float]], last: int, settings: TrainSettings) -> choice.Choice:
    if not scores:
        return choice.Choice(last, "knee", f"checkpoints were not scored; the last step, {last}, is kept.")
    base, *points = [choice.Point.of(int(row["step"]), row) for row in scores]
    return choice.choose(points, base, margins(settings))


def _state(
    step: int, run: Setup, optimizer: Any, average: Mapping[str, Tensor], history: dict[str, Any]
) -> checkpoints.State:
    scaler = run.accelerator.scaler
    return checkpoints.State(
        step,
        {name: p.detach() for name, p in run.params.items()},
        dict(average),
        optimizer.state_dict(),
        history,
        scaler.state_dict() if scaler is not None else {},
        run.arithmetic.flops,
    )


def _finish(
    outputs: Path,
    run: Setup,
    photographs: Sequence[Example],
    chosen: choice.Choice,
    history: Mapping[str, Any],
    speed: Mapping[str, float],
) -> None:
    """Writes the outputs; the adapter last, so that a folder with lora/ in it is complete."""
    outputs.mkdir(parents=True, exist_ok=True)
    if (run.folder / "samples").exists():
        shutil.copytree(run.folder / "samples", outputs / "samples", dirs_exist_ok=True)
    tensorfile.write(outputs / "history.json", (json.dumps(history, indent=1) + "\n").encode())
    tensorfile.write(outputs / "speed.json", (json.dumps(speed, indent=1) + "\n").encode())
    run.save_adapter(outputs / "lora", photographs, chosen.step)


__all__ = ["Base", "Denoiser", "Diverged", "Observer", "Result", "Score", "train"]
