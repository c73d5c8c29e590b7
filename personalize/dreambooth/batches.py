"""Batches: what one micro-step of one process sees, a pure function of (seed, step, sample), made ahead of its use.

Samples of an optimiser step are numbered across micro-batches and processes, and each draws its cut, noise, timestep
and caption dropout by its number. Splitting the same step over 1 or 8 devices, or 1 or 4 micro-batches, moves samples
about and changes none of them.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from personalize.dreambooth import conditioning, latents
from personalize.dreambooth.conditioning import Size, TextTable
from personalize.dreambooth.examples import Example, Order
from personalize.dreambooth.randomness import derive, generator
from personalize.dreambooth.settings import TrainSettings


@dataclass
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
    time_ids: Tensor
    """[B, 6] float32"""
    instances: int
    files: list[str] = field(default_factory=list)

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device. The copy does not wait, where the memory is pinned."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """The same batch in memory that a GPU reads by itself; pinning takes time, so the thread ahead does it."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        changed: dict[str, Any] = {name: change(v) for name, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **changed)


class Pictures:
    """A set of examples cut to buckets and encoded: for each example its bucket and its cuts' moments."""

    def __init__(self, examples: Sequence[Example], shapes: Sequence[Size]) -> None:
        self.examples = list(examples)
        self.shapes = list(shapes)
        self.bucket_of: list[int] = []
        self.cuts: list[list[latents.Variant]] = []
        self.moments: list[list[Tensor]] = []

    def cut(self, settings: TrainSettings, count: int, choose_bucket: Callable[[int, Size], int]) -> Pictures:
        """Decides bucket and cuts of each example. Reads image headers only."""
        for index, example in enumerate(self.examples):
            with Image.open(example.path) as image:
                original = Size(image.height, image.width)
            bucket = choose_bucket(index, original)
            self.bucket_of.append(bucket)
            self.cuts.append(
                latents.variants(
                    original, self.shapes[bucket], count, settings.zoom, settings.flip, settings.seed, example.name
                )
            )
        return self

    def jobs(self) -> list[tuple[Path, latents.Variant]]:
        return [(example.path, cut) for example, cuts in zip(self.examples, self.cuts, strict=True) for cut in cuts]

    def encode(self, cache: latents.MomentCache, batch_size: int, on_done: Callable[[int], None] | None = None) -> None:
        encoded = iter(cache.encode(self.jobs(), batch_size, on_done))
        self.moments = [[next(encoded) for _ in cuts] for cuts in self.cuts]

    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Indices of the examples of each bucket; buckets without any keep their place, empty."""
        return tuple(
            tuple(i for i, b in enumerate(self.bucket_of) if b == bucket) for bucket in range(len(self.shapes))
        )


def bucket_step(resolution: int, needed: int) -> int:
    """Steps of 64 pixels for large pictures (kernels like them), else the least that the base's levels allow."""
    return max(needed, 64) if resolution >= 512 else needed


def photograph_pictures(examples: Sequence[Example], settings: TrainSettings, step: int) -> Pictures:
    """Photographs in the buckets that some of them need; `step` is what the base's shapes must be multiples of."""
    square = Size(settings.resolution, settings.resolution)
    shapes = latents.buckets(settings.resolution, step) if settings.aspect_ratio_buckets else [square]
    sizes = []
    for example in examples:
        with Image.open(example.path) as image:
            sizes.append(Size(image.height, image.width))
    used = sorted({latents.nearest_bucket(size, shapes) for size in sizes})
    pictures = Pictures(examples, used)
    return pictures.cut(settings, settings.variants, lambda _, size: used.index(latents.nearest_bucket(size, used)))


def class_pictures(examples: Sequence[Example], photographs: Pictures, settings: TrainSettings) -> Pictures:
    """Class images dealt to the photographs' buckets in proportion, at least one each: a step has one shape."""
    groups = photographs.groups()
    wanted = [max(1, round(len(examples) * len(group) / len(photographs.examples))) for group in groups]
    dealt = [bucket for bucket, count in enumerate(wanted) for _ in range(count)]
    pictures = Pictures([examples[i % len(examples)] for i in range(len(dealt))], photographs.shapes)
    return pictures.cut(settings, 1, lambda index, _: dealt[index])


@dataclass
class BatchMaker:
    """Makes the micro-batches of one process out of encoded pictures."""

    settings: TrainSettings
    photographs: Pictures
    class_images: Pictures | None
    text: TextTable
    vae_config: Any
    train_timesteps: int
    rank: int = 0
    processes: int = 1

    def __post_init__(self) -> None:
        s = self.settings
        parts = s.gradient_accumulation * self.processes
        self.plan = Order(
            self.photographs.groups(), s.batch_size * parts, s.max_train_steps, s.seed, "photographs"
        ).plan()
        self.class_order = self.class_visits = None
        if self.class_images is not None:
            self.class_order = Order(
                self.class_images.groups(), s.class_images_a_step * parts, s.max_train_steps, s.seed, "class images"
            )
            seen: dict[int, int] = {}
            self.class_visits = []
            for bucket, _ in self.plan:
                self.class_visits.append(seen.get(bucket, 0))
                seen[bucket] = seen.get(bucket, 0) + 1

    def batch(self, step: int, micro: int) -> Batch:
        """Micro-batch `micro` of 0-based `step` for this process."""
        s = self.settings
        bucket, drawn = self.plan[step]
        part = micro * self.processes + self.rank
        rows = []
        for number in range(part * s.batch_size, (part + 1) * s.batch_size):
            rows.append(self._sample(self.photographs, drawn[number], step, number, "photograph"))
        if self.class_images is not None and self.class_order is not None and self.class_visits is not None:
            a_step = self.class_order.samples_a_step
            drawn = self.class_order.draws(bucket, self.class_visits[step] * a_step, a_step)
            for number in range(part * s.class_images_a_step, (part + 1) * s.class_images_a_step):
                rows.append(self._sample(self.class_images, drawn[number], step, number, "class image"))
        z, noise, timesteps, captions, ids, files = zip(*rows, strict=True)
        return Batch(
            torch.stack(z),
            torch.stack(noise),
            torch.tensor(timesteps),
            torch.tensor(captions),
            torch.stack(ids),
            s.batch_size,
            list(files),
        )

    def _sample(
        self, pictures: Pictures, index: int, step: int, number: int, kind: str
    ) -> tuple[Tensor, Tensor, int, int, Tensor, str]:
        s = self.settings
        example, cuts = pictures.examples[index], pictures.cuts[index]
        cut = derive(s.seed, "cut", kind, step, number) % len(cuts)
        g = generator(s.seed, "noise", kind, step, number)
        mean, std = pictures.moments[index][cut]
        z = latents.scale_latents(mean + std * torch.randn(mean.shape, generator=g), self.vae_config)
        noise = torch.randn(mean.shape, generator=g)
        if s.noise_offset:
            noise = noise + s.noise_offset * torch.randn((mean.shape[0], 1, 1), generator=g)
        timestep = int(torch.randint(self.train_timesteps, (1,), generator=g))
        # class images keep their captions: dropping them would teach the unconditional model the class
        dropped = kind == "photograph" and conditioning.drops_caption(s.seed, step, number, s.caption_dropout)
        caption = conditioning.NO_CAPTION if dropped else self.text.row(example.caption)
        return z, noise, timestep, caption, cuts[cut].time_ids(s.size_conditioning), example.name


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
