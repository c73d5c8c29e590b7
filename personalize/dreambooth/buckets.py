"""Buckets: every picture is cut, in several ways, to one of a few shapes, and the UNet is told how it was cut.

A batch has one shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from personalize.dreambooth.examples import Example
from personalize.dreambooth.randomness import uniform
from personalize.dreambooth.settings import SizeConditioning, TrainSettings
from personalize.dreambooth.shapes import Size, nearest_shape, shapes_at


@dataclass(frozen=True)
class Cut:
    """One way of cutting a picture to a shape: mirrored or not, resized, then cropped at (top, left).

    `original` is the picture's own size; the crop corner is in pixels of the resized, already mirrored picture, so
    `time_ids` tells the UNet exactly what was done.
    """

    original: Size
    resized: Size
    top: int
    left: int
    target: Size
    mirrored: bool = False

    def time_ids(self, conditioning: SizeConditioning = "true") -> Tensor:
        """What the UNet is told, [6]. "as sampled" tells what a pipeline says when it draws: nothing was cut."""
        if conditioning == "true":
            return time_ids(self.original, (self.top, self.left), self.target)
        return time_ids(self.target, (0, 0), self.target)

    def apply(self, image: Image.Image) -> Image.Image:
        if self.mirrored:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        image = image.resize((self.resized.width, self.resized.height), Image.Resampling.LANCZOS)
        return image.crop((self.left, self.top, self.left + self.target.width, self.top + self.target.height))


def time_ids(original: Size, crop: tuple[int, int], target: Size) -> Tensor:
    """SDXL's micro-conditioning, [6] float32: original height and width, crop top and left, target height and width.

    All in pixels; the crop corner is counted in the resized picture. Sec. 2.2, Podell et al. 2023.
    """
    return torch.tensor([*original, *crop, *target], dtype=torch.float32)


def cuts_of(original: Size, target: Size, count: int, zoom: float, flip: bool, seed: int, name: str) -> list[Cut]:
    """`count` cuts of one picture. The first is always the whole picture, centred and unmirrored.

    The others are enlarged by up to `zoom` and cropped at random; every second one is mirrored when `flip` is set. A
    pure function of its arguments (`name` is the picture's), so the cache and a resumed run meet the same cuts.
    """
    cuts = []
    cover = max(target.height / original.height, target.width / original.width)
    for index in range(count):
        enlarge = 1.0 if index == 0 else 1.0 + (zoom - 1.0) * uniform(seed, "zoom", name, index)
        resized = Size(
            max(target.height, round(original.height * cover * enlarge)),
            max(target.width, round(original.width * cover * enlarge)),
        )
        spare_height, spare_width = resized.height - target.height, resized.width - target.width
        down, right = (
            (0.5, 0.5) if index == 0 else (uniform(seed, "top", name, index), uniform(seed, "left", name, index))
        )
        top, left = math.floor(spare_height * down), math.floor(spare_width * right)
        cut = Cut(original, resized, top, left, target, mirrored=flip and index % 2 == 1)
        if cut not in cuts:
            cuts.append(cut)
    return cuts


@dataclass(frozen=True)
class Cuts:
    """A set of examples, the bucket each lies in (an index of `shapes`), and its cuts to that bucket's shape."""

    examples: tuple[Example, ...]
    shapes: tuple[Size, ...]
    bucket_of: tuple[int, ...]
    cuts: tuple[tuple[Cut, ...], ...]

    @property
    def count(self) -> int:
        return sum(len(own) for own in self.cuts)

    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Indices of the examples of each bucket; buckets without any keep their place, empty."""
        return tuple(
            tuple(i for i, b in enumerate(self.bucket_of) if b == bucket) for bucket in range(len(self.shapes))
        )


def cut_photographs(examples: Sequence[Example], settings: TrainSettings, step: int, count: int | None = None) -> Cuts:
    """Photographs in the buckets that some of them need, `count` cuts of each (as many as the settings say).

    `step` is what the base's shapes must be multiples of.
    """
    shapes = shapes_at(settings.resolution, step, settings.aspect_ratio_buckets)
    used = sorted({nearest_shape(example.size, shapes) for example in examples})
    buckets = [used.index(nearest_shape(example.size, used)) for example in examples]
    return _cut(examples, used, buckets, settings.variants if count is None else count, settings)


def cut_class_images(examples: Sequence[Example], photographs: Cuts, settings: TrainSettings) -> Cuts:
    """Class images dealt to the photographs' buckets in proportion, at least one each: a step has one shape."""
    groups = photographs.groups()
    wanted = [max(1, round(len(examples) * len(group) / len(photographs.examples))) for group in groups]
    buckets = [bucket for bucket, count in enumerate(wanted) for _ in range(count)]
    dealt = [examples[i % len(examples)] for i in range(len(buckets))]
    return _cut(dealt, photographs.shapes, buckets, 1, settings)


def _cut(
    examples: Sequence[Example], shapes: Sequence[Size], buckets: Sequence[int], count: int, settings: TrainSettings
) -> Cuts:
    s = settings
    cuts = [
        tuple(cuts_of(example.size, shapes[bucket], count, s.zoom, s.flip, s.seed, example.name))
        for example, bucket in zip(examples, buckets, strict=True)
    ]
    return Cuts(tuple(examples), tuple(shapes), tuple(buckets), tuple(cuts))
