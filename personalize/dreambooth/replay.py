"""Replay: stretches of a training done again from the states it kept, and compared with its chain link by link."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from personalize.dreambooth import proof, tensorfile
from personalize.dreambooth.batches import prefetch
from personalize.dreambooth.examples import Example
from personalize.dreambooth.progress import Diverged, LossLog
from personalize.dreambooth.proof import Finding, Stretch
from personalize.dreambooth.settings import TrainSettings
from personalize.dreambooth.setup import Base, Setup, set_up
from personalize.dreambooth.train import follow, take_step
from personalize.dreambooth.training_state import TrainingState, read, restore, state_of
from personalize.dreambooth.validation import Preview


@dataclass(frozen=True)
class Past:
    """A training as it is recorded. states: where those lie that its stretches begin and end with, by step.

    adapter: its file in diffusers' form.
    """

    links: Sequence[Mapping[str, Any]]
    history: Mapping[str, Any]
    states: Mapping[int, Path]
    adapter: Path

    def link(self, step: int) -> Mapping[str, Any] | None:
        return next((link for link in self.links if link["step"] == step), None)


def replay(
    settings: TrainSettings,
    base: Base,
    photographs: Sequence[Example],
    class_images: Sequence[Example],
    past: Past,
    stretches: Sequence[Stretch],
    *,
    work: Path,
    held_out: Sequence[Example] = (),
    previews: Sequence[Preview] = (),
    tolerance: float = 0.0,
    phase: Callable[[str], None] = lambda text: None,
) -> list[Finding]:
    """One finding a stretch; the arguments up to `previews` are those of `train`. Nothing is drawn and nothing written.

    tolerance: how far the adapter may be from the one that was kept, as a share of the way that it went in the stretch
    (of Euclidean norms); 0 compares bytes.
    """
    run = set_up(settings, base, photographs, class_images, held_out, [p.prompt for p in previews], work, phase)
    denoiser, optimizer = run.place.accelerator.prepare(run.model.denoiser, run.model.optimizer)
    average = {name: p.detach().clone() for name, p in run.model.params.items()} if settings.ema_decay else {}
    again = _Again(run, denoiser, optimizer, average, past, tolerance)
    findings = []
    for stretch in stretches:
        phase(f"replaying {stretch}")
        findings.append(again.stretch(stretch))
    return findings


class _Again:
    """A training that is set up once and put back to one state after another."""

    def __init__(
        self,
        run: Setup,
        denoiser: Any,
        optimizer: Any,
        average: dict[str, Tensor],
        past: Past,
        tolerance: float,
    ) -> None:
        self.run, self.denoiser, self.optimizer, self.average = run, denoiser, optimizer, average
        self.past, self.tolerance = past, tolerance
        self.beginning = copy.deepcopy(state_of(0, run, optimizer, average))
        self.saved: dict[str, Tensor] = {}

    def stretch(self, stretch: Stretch) -> Finding:
        name = str(stretch)
        start, unfit = self._start(stretch.first)
        if start is None:
            return Finding(name, False, unfit)
        restore(start, self.run, self.optimizer, self.average)
        before = {part: weights.detach().clone() for part, weights in self.run.model.params.items()}
        compared, apart, device = 0, "", True
        try:
            for then, now, losses in self._links(stretch):
                compared += 1
                found, maybe_device = self._apart(then, now, losses)
                if found and (not apart or (device and not maybe_device)):
                    apart, device = found, maybe_device
        except Diverged as error:
            return Finding(name, False, f"it comes to no number: {error}")
        if not apart:
            return Finding(name, True, f"came to the same bytes ({compared} link{'s' if compared > 1 else ''})")
        return self._near(stretch, before, apart) if device else Finding(name, False, apart)

    def _start(self, step: int) -> tuple[TrainingState | None, str]:
        """The state to set out from, where it is the one that the chain names; else why not."""
        link = self.past.link(step)
        if link is None:
            return None, f"the chain has no link of step {step}, where it begins"
        state, whose = self.beginning, "the training set out from"
        if step:
            whose = f"the state kept after step {step} is"
            try:
                state = read(self.past.states[step])
            except Exception as error:  # a damaged file raises errors of many kinds
                return None, f"the state kept after step {step} cannot be read ({type(error).__name__}: {error})"
        found = proof.digests(state)
        if state.step != step or (name := proof.first_difference(link, found, tuple(found))):
            what = "" if state.step != step else f": {proof.MEANT[name]}"
            return None, f"{whose} not what the chain says{what}" if step else f"{whose} something else{what}"
        return state, ""

    def _links(self, stretch: Stretch) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any], dict[int, float]]]:
        """Each link of the stretch as it was and as it is now, and the losses of its steps by step."""
        run, s = self.run, self.run.settings
        accumulation, device = s.gradient_accumulation, run.place.accelerator.device
        wanted = {link["step"]: link for link in self.past.links}
        history: dict[str, Any] = {"steps": []}
        micro_steps = range(stretch.first * accumulation, stretch.last * accumulation)
        made = prefetch(
            lambda k: run.data.maker.batch(*divmod(k, accumulation)), micro_steps, pin=device.type == "cuda"
        )
        log, chain = LossLog(run, history), proof.Chain(run, {})
        run.model.train_mode()
        with contextlib.closing(made):
            batches = chain.following(made)
            for step in range(stretch.first, stretch.last):
                norm, rate = take_step(step, run, self.denoiser, self.optimizer, batches, log)
                follow(self.average, run.model.params, s.ema_decay, step)
                log.close_step(norm, rate)
                if then := wanted.get(step + 1):
                    log.flush(step + 1)
                    reached = state_of(step + 1, run, self.optimizer, self.average)
                    chain.add(reached)
                    if step + 1 == self.past.history["chosen"]["step"]:
                        self.saved = proof.saved(run, self.average)
                    losses = {row["step"]: row["loss"] for row in history["steps"]}
                    history["steps"].clear()
                    yield then, chain.links[-1] if chain.links else then, losses

    def _apart(self, then: Mapping[str, Any], now: Mapping[str, Any], losses: Mapping[int, float]) -> tuple[str, bool]:
        """(What differs at a link, in words, empty where nothing does; whether another device may be its cause)"""
        if then["shown"] != now["shown"]:
            return f"after step {then['step']} {proof.MEANT['shown']}", False
        if then["run"] != now["run"]:
            return "its settings, base model, pictures or captions are not those of the chain", True
        if name := proof.first_difference(then, now):
            return f"after step {then['step']} {proof.MEANT[name]}", name != "saved"
        recorded = {row["step"]: row["loss"] for row in self.past.history["steps"]}
        wrong = next((step for step, loss in losses.items() if recorded.get(step) != loss), None)
        if wrong is not None:
            return f"the loss of step {wrong} is {losses[wrong]:g}, and history.json says {recorded.get(wrong)}", False
        return "", True

    def _near(self, stretch: Stretch, before: Mapping[str, Tensor], apart: str) -> Finding:
        """What bytes that differ come to: how far the adapter is from the one that was kept at the end, and saved."""
        name, there = str(stretch), self.past.states.get(stretch.last)
        link = self.past.link(stretch.last)
        if there is None or link is None:
            return Finding(name, False, f"{apart} (no state is kept of its end, to say how far apart)")
        try:
            end = read(there)
            found = proof.digests(end)
            kept = tensorfile.load(self.past.adapter)
        except Exception as error:  # a damaged file raises errors of many kinds
            return Finding(name, False, f"{apart} (the state of its end cannot be read: {type(error).__name__})")
        if proof.first_difference(link, found, tuple(found)):
            return Finding(name, False, f"{apart} (and the state kept of its end is not what the chain says)")
        went = distance(end.weights, before)
        off = [distance(self.run.model.params, end.weights)]
        if stretch.first < self.past.history["chosen"]["step"] <= stretch.last:
            off.append(distance(self.saved, kept))
        share = max(off) / went if went else math.inf
        words = f"{apart}; the adapter ends {share:.2g} of the way that it went here from the one that was kept"
        return Finding(name, 0 < self.tolerance >= share, f"{words} (tolerance {self.tolerance:g})")


@torch.no_grad()
def distance(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """The Euclidean norm of the difference, over all tensors together; infinite where they are not of one kind."""
    if {name: t.shape for name, t in one.items()} != {name: t.shape for name, t in other.items()}:
        return math.inf
    squares = [(one[name].detach().cpu().double() - other[name].cpu().double()).square().sum() for name in one]
    return float(torch.stack(squares).sum().sqrt())
