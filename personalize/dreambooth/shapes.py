"""Shapes: the sizes in which photographs are learnt and pictures are drawn. Imports no torch.

Several shapes of about one area to choose from keep a chair's legs in the picture (cf. NovelAI's aspect-ratio
bucketing). What is not learnt at a shape is not drawn well at it, so training and drawing have one list.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

MAX_ASPECT = 2.0


class Size(NamedTuple):
    """In pixels."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.width} x {self.height}"


def halvings(unet: Mapping[str, Any], vae: Mapping[str, Any]) -> int:
    """What a base's sides are multiples of: its VAE and its UNet halve them at every level but the last.

    unet, vae: the two models' configurations.
    """
    return int(2 ** (len(unet["block_out_channels"]) - 1 + len(vae["block_out_channels"]) - 1))


def shape_step(resolution: int, needed: int) -> int:
    """Steps of 64 pixels for large pictures (kernels like them), else the least that the base's levels allow."""
    return max(needed, 64) if resolution >= 512 else needed


def bucket_shapes(resolution: int, step: int, max_aspect: float = MAX_ASPECT) -> list[Size]:
    """Shapes of at most resolution² pixels whose sides are multiples of `step`, the square first."""
    if resolution % step:
        raise ValueError(f"resolution: {resolution} is not a multiple of {step}, which this base model needs.")
    shapes = [Size(resolution, resolution)]
    for long in range(resolution + step, int(resolution * math.sqrt(max_aspect)) + 1, step):
        short = resolution**2 // long // step * step
        if short and long / short <= max_aspect:
            shapes += [Size(long, short), Size(short, long)]
    return shapes


def shapes_at(resolution: int, step: int, buckets: bool) -> list[Size]:
    """The shapes of a training and of its model's pictures: the buckets, or the square alone."""
    return bucket_shapes(resolution, step) if buckets else [Size(resolution, resolution)]


def nearest_shape(size: Size, shapes: Sequence[Size]) -> Size:
    """The shape whose aspect ratio is nearest (in logarithm) to that of `size`; on a tie the larger one."""
    wanted = math.log(size.height / size.width)
    return min(shapes, key=lambda s: (round(abs(math.log(s.height / s.width) - wanted), 9), -s.height * s.width))


def check_shape(size: Size, shapes: Sequence[Size]) -> None:
    """Raises ValueError unless a picture of this size is drawn; the message has the nearest size, and all of them."""
    if size not in shapes:
        sizes = ", ".join(str(shape) for shape in shapes)
        raise ValueError(
            f"{size} pixels (width x height) is not a size that this model draws; nearest in aspect ratio is "
            f"{nearest_shape(size, shapes)}. It draws {sizes}."
        )
