"""Batches: what one micro-step of one process sees, a pure function of (seed, step, sample), made ahead of its use.

Samples of an optimiser step are numbered across micro-batches and processes, and each draws its cut, noise, timestep
and caption dropout by its number. Splitting the same step over 1 or 8 devices, or 1 or 4 micro-batches, moves samples
about and changes none of them.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from personalize.dreambooth import conditioning, latents, losses
from personalize.dreambooth.latents import Encoded
from personalize.dreambooth.randomness import derive, generator, permutation, uniform
from personalize.dreambooth.settings import TrainSettings
from personalize.files import value_digest


@dataclass(frozen=True)
class Batch:
    """One micro-batch: `instances` photographs first, class images after them. B rows in all."""

    latents: Tensor
    """[B, C, h, w] float32, scaled, drawn from the VAE's posterior"""
    noise: Tensor
    """[B, C, h, w] float32"""
    timesteps: Tensor
    """[B] int64"""
    captions: Tensor
    """[B] int64, rows of the text table"""
    of_base: Tensor
    """[B] int64, the rows that the base is asked for where it is the target"""
    time_ids: Tensor
    """[B, 6] float32"""
    instances: int
    weights: Tensor | None = None
    """[B, 1, h, w] float32, what each latent counts in the loss; None where no photograph has a mask"""
    files: list[str] = field(default_factory=list)
    shown: str = ""
    """digest of which pictures, sizes, captions and timesteps; empty where no proof is asked for"""
    drawn: str = ""
    """digest of every tensor: latents and noise among them"""

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device. Without waiting for the copy on a CUDA device, whose batches are pinned."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=device.type == "cuda"))

    def pinned(self) -> Batch:
        """The same batch in memory that a CUDA device reads by itself. Pinning takes time: the thread ahead does it."""
        return self._each(Tensor.pin_memory)

    def digested(self) -> Batch:
        """The same with its digests: sha256 over what each row is, and over every tensor."""
        rows = [self.files, *(each.tolist() for each in (self.timesteps, self.captions, self.time_ids))]
        drawn = hashlib.sha256()
        for name, value in sorted(vars(self).items()):
            if isinstance(value, Tensor):
                drawn.update(f"{name}{tuple(value.shape)}".encode())
                drawn.update(value.contiguous().numpy().data)
        return replace(self, shown=value_digest(rows), drawn=drawn.hexdigest())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        changed: dict[str, Any] = {name: change(v) for name, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **changed)


@dataclass(frozen=True)
class Epochs:
    """Which pictures are shown at which step, a pure function of the seed.

    `groups` holds, for each bucket, the indices of its pictures. A step takes all its samples from one bucket, so that
    every micro-batch of every process has one shape; buckets take turns in proportion to their size. In a bucket the
    pictures pass in shuffled epochs without end, so each is shown equally often to within one.
    """

    groups: tuple[tuple[int, ...], ...]
    samples_a_step: int
    steps: int
    seed: int
    name: str = "photographs"

    def buckets(self) -> list[int]:
        """The bucket of every step: always the one that lags furthest behind its share."""
        total = sum(len(group) for group in self.groups)
        served = [0.0] * len(self.groups)
        turns = []
        for step in range(self.steps):
            lag = [(step + 1) * len(group) / total - s for group, s in zip(self.groups, served, strict=True)]
            turn = max(range(len(lag)), key=lambda i: (round(lag[i], 9), -i))
            served[turn] += 1
            turns.append(turn)
        return turns

    def draws(self, bucket: int, first: int, count: int) -> list[int]:
        """Pictures number `first` to `first + count` of a bucket's endless stream."""
        group = self.groups[bucket]
        epochs: Mapping[int, list[int]] = {
            e: permutation(len(group), self.seed, self.name, bucket, e)
            for e in range(first // len(group), (first + count - 1) // len(group) + 1)
        }
        return [group[epochs[k // len(group)][k % len(group)]] for k in range(first, first + count)]

    def plan(self) -> list[tuple[int, list[int]]]:
        """(bucket, pictures) of every step."""
        visits = [0] * len(self.groups)
        steps = []
        for bucket in self.buckets():
            steps.append((bucket, self.draws(bucket, visits[bucket] * self.samples_a_step, self.samples_a_step)))
            visits[bucket] += 1
        return steps


@dataclass(frozen=True)
class BatchMaker:
    """Makes the micro-batches of one process out of encoded pictures."""

    settings: TrainSettings
    photographs: Encoded
    class_images: Encoded | None
    caption_rows: Mapping[str, int]
    vae_config: Any
    timesteps: Mapping[str, Tensor]
    """how often each timestep is drawn for a kind of picture, cumulated: [T], rising to 1"""
    about_subjects: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """of captions of class images: the same about each subject of the class"""
    rank: int = 0
    processes: int = 1

    @cached_property
    def plan(self) -> list[tuple[int, list[int]]]:
        """(bucket, photographs) of every step."""
        return self._epochs(self.photographs, self.settings.batch_size, "photographs").plan()

    @cached_property
    def visits(self) -> list[int]:
        """How often each step's bucket had its turn before."""
        turns = [bucket for bucket, _ in self.plan]
        seen = dict.fromkeys(turns, -1)
        visits = []
        for bucket in turns:
            seen[bucket] += 1
            visits.append(seen[bucket])
        return visits

    def batch(self, step: int, micro: int) -> Batch:
        """Micro-batch `micro` of 0-based `step` for this process."""
        s, part = self.settings, micro * self.processes + self.rank
        bucket, drawn = self.plan[step]
        rows = []
        for number in range(part * s.batch_size, (part + 1) * s.batch_size):
            rows.append(self._sample(self.photographs, drawn[number], step, number, "photograph"))
        if self.class_images is not None:
            epochs = self._epochs(self.class_images, s.class_images_a_step, "class images")
            drawn = epochs.draws(bucket, self.visits[step] * epochs.samples_a_step, epochs.samples_a_step)
            for number in range(part * s.class_images_a_step, (part + 1) * s.class_images_a_step):
                rows.append(self._sample(self.class_images, drawn[number], step, number, "class image"))
        z, noise, timesteps, captions, of_base, ids, weights, files = zip(*rows, strict=True)
        batch = Batch(
            torch.stack(z),
            torch.stack(noise),
            torch.tensor(timesteps),
            torch.tensor(captions),
            torch.tensor(of_base),
            torch.stack(ids),
            s.batch_size,
            torch.stack(weights)[:, None] if self.photographs.masked or s.surroundings_share else None,
            list(files),
        )
        return batch.digested() if s.proof_every else batch

    def _epochs(self, encoded: Encoded, batch_size: int, name: str) -> Epochs:
        s = self.settings
        samples = batch_size * s.gradient_accumulation * self.processes
        return Epochs(encoded.groups(), samples, s.steps, s.seed, name)

    def _sample(
        self, encoded: Encoded, index: int, step: int, number: int, kind: str
    ) -> tuple[Tensor, Tensor, int, int, int, Tensor, Tensor, str]:
        s = self.settings
        example, cuts = encoded.examples[index], encoded.cuts[index]
        cut = derive(s.seed, "cut", kind, step, number) % len(cuts)
        g = generator(s.seed, "noise", kind, step, number)
        mean, std = encoded.moments[index][cut]
        z = latents.scale_latents(mean + std * torch.randn(mean.shape, generator=g), self.vae_config)
        noise = torch.randn(mean.shape, generator=g)
        if s.noise_offset:
            noise = noise + s.noise_offset * torch.randn((mean.shape[0], 1, 1), generator=g)
        timestep = int(torch.searchsorted(self.timesteps[kind], torch.rand(1, generator=g, dtype=torch.float64)))
        share = s.caption_dropout if kind == "photograph" else s.class_caption_dropout
        dropped = conditioning.drops_caption(s.seed, step, number, share)
        caption = of_base = conditioning.NO_CAPTION if dropped else self.caption_rows[example.caption]
        weights = encoded.weights[index][cut]
        counts = torch.ones(mean.shape[-2:]) if weights is None else weights
        about = self.about_subjects.get(example.caption, ()) if kind == "class image" and not dropped else ()
        if about and uniform(s.seed, "surroundings", step, number) < s.surroundings_share:
            caption = self.caption_rows[about[derive(s.seed, "subject", step, number) % len(about)]]
            counts = losses.frame_weights(*mean.shape[-2:])
        return z, noise, timestep, caption, of_base, cuts[cut].time_ids(s.size_conditioning), counts, example.name


def timesteps_of(
    settings: TrainSettings, alphas_cumprod: Tensor, prediction_type: losses.PredictionType
) -> dict[str, Tensor]:
    """How often each timestep is drawn for photographs and for class images, cumulated: [T] float64, rising to 1.

    All alike, but for class images that teach what the base makes of them: these in proportion to what errors there
    would weigh as errors of v, which is as good as weighing them, and varies less from step to step.
    """
    alike = torch.ones(len(alphas_cumprod), dtype=torch.float64)
    snr = losses.signal_to_noise(torch.arange(len(alike)), alphas_cumprod)
    by_velocity = losses.velocity_weights(snr, prediction_type).double()
    often = {"photograph": alike, "class image": by_velocity if settings.distils else alike}
    summed = {kind: weights.cumsum(0) for kind, weights in often.items()}
    return {kind: of / of[-1] for kind, of in summed.items()}


def prefetch(
    make: Callable[[int], Batch], items: Sequence[int], depth: int = 3, pin: bool = False
) -> Generator[Batch, None, None]:
    """Batches of `items` in order, made by a thread a few ahead. An error in the thread is raised where it is used."""
    ready: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def work() -> None:
        for item in items:
            try:
                made: Batch | BaseException = make(item).pinned() if pin else make(item)
            except BaseException as error:
                made = error
            while not stop.is_set():
                try:
                    ready.put(made, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if stop.is_set() or isinstance(made, BaseException):
                return

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        for _ in items:
            batch = ready.get()
            if isinstance(batch, BaseException):
                raise batch
            yield batch
    finally:
        stop.set()
        thread.join()
