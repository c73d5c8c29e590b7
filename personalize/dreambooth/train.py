"""Train: DreamBooth with LoRA on SDXL, one loop, read top to bottom.

Features: prior preservation, min-SNR, ε- and v-prediction, aspect-ratio buckets, crop variants with true
micro-conditioning, masked loss, caption dropout, EMA, DoRA and rsLoRA, text-encoder LoRA, gradient accumulation,
several processes through accelerate, exact resume, checkpoints that are scored and chosen.

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from personalize.dreambooth import (
    adapter_files,
    choice,
    hardware,
    kohya,
    lora,
    losses,
    optimisers,
    proof,
    tensorfile,
    training_state,
)
from personalize.dreambooth.batches import Batch, prefetch
from personalize.dreambooth.examples import Example
from personalize.dreambooth.progress import LossLog
from personalize.dreambooth.randomness import derive
from personalize.dreambooth.settings import TrainSettings
from personalize.dreambooth.setup import Base, Setup, set_up
from personalize.dreambooth.validation import Preview, Sample, Score, Validation, evaluating
from personalize.files import write_json, write_text


@dataclass
class Observer:
    """What a caller may watch. Called on the first process only."""

    phase: Callable[[str], None] = lambda text: None
    logged: Callable[[int, dict[str, float]], None] = lambda step, metrics: None
    scored: Callable[[int, dict[str, float], list[Sample]], None] = lambda step, scores, samples: None
    states: Callable[[Path], None] = lambda folder: None
    """the folder of the states that the proof keeps, when all is done; it is removed afterwards"""


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
    """Teaches the base model the subjects of `photographs`; writes lora/, samples/, history.json (and speed.json).

    `class_images` preserve the prior; `held_out` photographs give the validation loss; `previews` are drawn at every
    checkpoint and judged by `score` (without it the last step is kept). `work` holds the latent cache and the states
    from which the same call goes on after a kill; it is safe to share between runs.
    """
    began = time.perf_counter()
    watch = observer or Observer()
    prompts = [preview.prompt for preview in previews]
    run = set_up(settings, base, photographs, class_images, held_out, prompts, work, watch.phase)
    accelerator, main = run.place.accelerator, run.place.accelerator.is_main_process
    denoiser, optimizer = accelerator.prepare(run.model.denoiser, run.model.optimizer)
    state, average = training_state.resume(run, optimizer)
    step, history = state.step, state.history or {"steps": [], "scores": [], "stop_reason": ""}
    if step:
        watch.phase(f"resuming after step {step}")
    chain, states = proof.Chain(run, state.proof), run.place.folder / "proof"
    if settings.proof_every and not step:
        chain.add(training_state.state_of(step, run, optimizer, average))
    validation = Validation(run, previews, score, average, history, watch.scored)
    if validation.previews and not history["scores"]:
        watch.phase("drawing the base model's pictures")
        validation.at(0)

    accumulation, last = settings.gradient_accumulation, settings.steps
    micro_steps = range(step * accumulation, last * accumulation)
    on_gpu = accelerator.device.type == "cuda"
    made = prefetch(lambda k: run.data.maker.batch(*divmod(k, accumulation)), micro_steps, pin=on_gpu)
    log = LossLog(run, history)
    first_step_seconds = 0.0
    run.model.train_mode()
    watch.phase("training")
    with contextlib.closing(made):
        batches = chain.following(made)
        while step < last and not history["stop_reason"]:
            norm, rate = take_step(step, run, denoiser, optimizer, batches, log)
            follow(average, run.model.params, settings.ema_decay, step)
            step += 1
            log.close_step(norm, rate)
            if not first_step_seconds:
                log.wait()
                first_step_seconds = time.perf_counter() - began
                log.restart()

            saving_due = settings.resume_every > 0 and step % settings.resume_every == 0
            if validation.due(step) or saving_due or step == last or step % settings.log_every == 0:
                metrics = log.flush(step)
                if main:
                    watch.logged(step, metrics)
            if validation.due(step):
                validation.at(step)
                history["stop_reason"] = validation.stop_reason()
                run.model.train_mode()
                log.restart()
            if settings.proof_every and (proof.due(settings, step) or validation.due(step) or step == last):
                reached = training_state.state_of(step, run, optimizer, average)
                chain.add(reached)
                if main:
                    chain.write(outputs)
                    if proof.is_kept(settings, step):
                        proof.keep(states, reached, run.place.identity)
                log.restart()
            if saving_due:
                so_far = chain.kept()
                if main:
                    reached = training_state.state_of(step, run, optimizer, average)
                    reached = replace(reached, history=history, proof=so_far)
                    training_state.save(run.place.folder, reached, run.place.identity)
                log.restart()

    history["stop_reason"] = history["stop_reason"] or "all steps done"
    chosen = validation.choose(step)
    speed = log.meter.total() | {
        "seconds_to_first_step": first_step_seconds,
        "peak_memory_gb": hardware.peak_memory_gb(accelerator.device),
        "seconds": time.perf_counter() - began,
    }
    if main:
        history |= {
            "chosen": asdict(chosen),
            "photographs": [example.name for example in photographs],
            "held_out": [example.name for example in held_out],
            "masked": [example.name for example in photographs if example.mask],
            "settings": settings.deciding(),
        }
        if settings.proof_every and settings.proof_states:
            proof.keep(states, training_state.state_of(step, run, optimizer, average), run.place.identity)
            watch.states(states)
        chain.write(outputs)
        with evaluating(run, average):
            finish(outputs, run, photographs, chosen, history, speed)
    accelerator.wait_for_everyone()
    if main:
        shutil.rmtree(run.place.folder, ignore_errors=True)
    return Result(chosen, history["stop_reason"], step, speed, history)


def take_step(
    step: int, run: Setup, denoiser: nn.Module, optimizer: Any, batches: Iterator[Batch], log: LossLog
) -> tuple[Tensor, float]:
    """One optimiser step (0-based) over its micro-batches -> (gradient norm, factor of the learning rates)."""
    s, accelerator, accumulation = run.settings, run.place.accelerator, run.settings.gradient_accumulation
    for micro in range(accumulation):
        batch = next(batches).to(accelerator.device)
        if s.lora_dropout:  # the one draw that torch's global generator makes
            torch.manual_seed(derive(s.seed, "dropout", step, micro, accelerator.process_index))
        with accelerator.no_sync(denoiser) if micro < accumulation - 1 else contextlib.nullcontext():
            loss = training_loss(denoiser, batch, run)
            accelerator.backward(loss / accumulation)
        log.loss += loss.detach() / accumulation
    norm = accelerator.clip_grad_norm_(run.model.params.values(), s.max_grad_norm)
    rate = optimisers.learning_rate_factor(step, s.lr_scheduler, s.warmup_steps, s.steps)
    optimisers.set_learning_rates(optimizer, run.model.base_rates, rate)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm, rate


def training_loss(denoiser: nn.Module, batch: Batch, run: Setup) -> Tensor:
    """DreamBooth's loss of one micro-batch, in float32.

    With `prior_target: base` class images are to come out as the base without the adapter would have them at that noise
    (learning without forgetting, Li and Hoiem 2016): a few of them then stand for all of their class, while pictures
    that are targets themselves come to mean their caption. Their timesteps are drawn by what errors there do to a
    picture (`batches.timesteps_of`), and all weigh alike. Those asked for with a subject's token (`prior_surroundings`)
    are to have the frame that the base gives them without it.
    """
    s, model, text = run.settings, run.model, run.data.text
    look_up = text.tokens if s.train_text_encoder else text.lookup
    noisy = losses.add_noise(batch.latents, batch.noise, batch.timesteps, model.alphas_cumprod)
    target = losses.prediction_target(
        batch.latents, batch.noise, batch.timesteps, model.alphas_cumprod, model.prediction_type
    )
    rows = slice(batch.instances, None)
    if s.distils:
        with torch.no_grad(), lora.base_alone(model.parts):
            kept = denoiser(noisy[rows], batch.timesteps[rows], batch.time_ids[rows], *look_up(batch.of_base[rows]))
        target = torch.cat([target[: batch.instances], kept.float()])
    prediction = denoiser(noisy, batch.timesteps, batch.time_ids, *look_up(batch.captions))
    errors = losses.squared_error(prediction, target, batch.weights)
    weights = torch.ones_like(errors)
    if s.snr_gamma is not None:
        snr = losses.signal_to_noise(batch.timesteps, model.alphas_cumprod)
        weights = losses.min_snr_weights(snr, s.snr_gamma, model.prediction_type)
    if s.distils:
        weights[rows] = 1
    return losses.dreambooth_loss(errors, weights, batch.instances, s.prior_loss_weight)


def follow(average: Mapping[str, Tensor], params: Mapping[str, nn.Parameter], decay: float, step: int) -> None:
    """Moves the EMA (where there is one) towards the weights; the average of few steps is taken over those few."""
    if average:
        decay = min(decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(average.values()), [p.detach() for p in params.values()], 1 - decay)


def finish(
    outputs: Path,
    run: Setup,
    photographs: Sequence[Example],
    chosen: choice.Choice,
    history: Mapping[str, Any],
    speed: Mapping[str, float],
) -> None:
    """Writes the outputs with the chosen weights; the adapter last, so that a folder with lora/ in it is complete."""
    folder = run.place.folder
    scored = folder / "scored" / f"step-{chosen.step:06d}.safetensors"
    if scored.exists():
        training_state.load_weights(run.model.params, tensorfile.load(scored))
    if (folder / "samples").exists():
        shutil.copytree(folder / "samples", outputs / "samples", dirs_exist_ok=True)
    write_text(outputs / "history.json", json.dumps(history, indent=1) + "\n")  # an overflow's norm may be infinite
    write_json(outputs / "diagnostics" / "speed.json", speed)
    save_adapter(outputs / "lora", run, photographs, chosen.step)


def save_adapter(folder: Path, run: Setup, photographs: Sequence[Example], step: int) -> None:
    """Writes both forms of the adapter; the diffusers one last, since others wait for it."""
    words = {p.token: sum(q.token == p.token for q in photographs) for p in photographs}
    kohya.export(
        folder / adapter_files.KOHYA,
        run.model.parts,
        run.model.spec,
        base=Path(run.base.path).name,
        title=", ".join(sorted({f"{p.token} {p.class_noun}" for p in photographs})),
        trigger_words=list(words),
        resolution=run.settings.resolution,
        prediction_type=run.model.prediction_type,
        steps=step,
        images=words,
    )
    lora.save(folder, run.model.parts)
