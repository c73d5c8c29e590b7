"""Contrastive learning where captions repeat: every image has one caption a facet, equal captions share their images.

A batch of scenes holds many chairs, so `a photo of a chair` has many positives; a plain InfoNCE loss would push them
apart. Here the captions of one facet (class, colour and class, class and place, all) are made distinct first: an image
must find its own among them, and a caption must find all its images. No label but the captions is used.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .data import FACETS, Scenes, wording


def captions_by_facet(scenes: Scenes, rows: np.ndarray, random: np.random.Generator) -> list[list[str]]:
    """One list of b captions a facet; a facet keeps one prefix a batch, so that its classes are told apart by facts."""
    lists = []
    for facet in FACETS:
        if facet == "whole":
            lists.append([_natural(scenes.rows[row], random) for row in rows])
        else:
            seed = int(random.integers(1 << 31))
            by_truth = [wording(scenes.rows[row], facet, np.random.default_rng(seed)) for row in rows]
            lists.append(by_truth)
    return lists


def facet_loss(
    images: Tensor, encode: Callable[[list[str]], Tensor], facets: list[list[str]], scale: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """Mean over facets of the symmetric cross-entropy; images [b, d] and texts [m, d] of unit norm.

    Image to text: softmax over the facet's distinct captions. Text to image: the target is uniform over the images that
    bear the caption. Also gives the accuracy of image to text a facet.
    """
    distinct = [sorted(set(captions)) for captions in facets]
    texts = encode([caption for captions in distinct for caption in captions])
    losses, accuracies = [], {}
    for name, captions, names, embedded in zip(
        FACETS, facets, distinct, texts.split([len(names) for names in distinct]), strict=True
    ):
        place = {caption: index for index, caption in enumerate(names)}
        target = torch.tensor([place[caption] for caption in captions], device=images.device)
        logits = scale * images @ embedded.T
        shared = functional.one_hot(target, len(names)).T.float()
        shared = shared / shared.sum(dim=1, keepdim=True)
        losses.append(functional.cross_entropy(logits, target) + 0.5 * functional.cross_entropy(logits.T, shared))
        accuracies[name] = float((logits.argmax(dim=1) == target).float().mean())
    return torch.stack(losses).mean(), accuracies


def _natural(row: dict, random: np.random.Generator) -> str:
    if row.get("captions") and random.random() < 0.5:
        return str(random.choice(row["captions"]))
    return wording(row, "whole", random)
