"""Masks: where the loss counts. What a mask calls surroundings is learnt with a small weight, or not at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from personalize.dreambooth import losses
from personalize.dreambooth.buckets import Cut
from personalize.dreambooth.examples import Example


def loss_weights(
    example: Example, cuts: Sequence[Cut], latent: Sequence[tuple[int, int]], surroundings: float
) -> tuple[Tensor | None, ...]:
    """The weight of every latent of every cut, [h, w] float32 each; None where all count alike.

    latent: height and width of each cut's latents. The mask is cut as the picture is, then averaged over each latent's
    square of pixels. All cuts share the scale of the first, which is the whole picture: a cut that shows little of the
    subject teaches little.
    """
    if example.mask is None or surroundings == 1:
        return (None,) * len(cuts)
    with Image.open(example.mask) as image:
        mask = image.convert("L")
    subject = [in_latents(cut.apply(mask), size) for cut, size in zip(cuts, latent, strict=True)]
    share = float(subject[0].mean())
    return tuple(losses.mask_weights(part, surroundings, share) for part in subject)


def in_latents(mask: Image.Image, size: tuple[int, int]) -> Tensor:
    """The share of subject, 0 to 1, in each latent's square of pixels: [h, w] float32."""
    small = mask.resize(size[::-1], Image.Resampling.BOX)
    return torch.from_numpy(np.asarray(small, dtype=np.float32) / 255)
