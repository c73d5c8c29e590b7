"""Contrastive learning where captions repeat: every image has one caption a facet, equal captions share their images.

A batch of scenes holds many chairs, so `a photo of a chair` has many positives; a plain InfoNCE loss would push them
apart. Here the captions of one facet (class, colour and class, class and place, all) are made distinct first: an image
must find its own among them, and a caption must find all its images. No label but the captions is used.

Contrast alone stays long on a plateau while both towers are blank, so the image tower also names the words of its
captions (SuperClass: Huang et al. 2024, "Classification Done Right for Vision-Language Pre-Training").
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .data import FACETS, Scenes, natural, wording
from .tokens import world_words

LOTS = (0.5, 0.3, 0.2)
"""How often class, colour and place are drawn: what is hardest to see most often."""


class WordsHead(nn.Module):
    """Image features -> the words of the image's captions; thrown away after training."""

    def __init__(self, width: int, scenes: Scenes) -> None:
        super().__init__()
        self.places = {word: index for index, word in enumerate(world_words())}
        self.linear = nn.Linear(width, len(self.places))
        seen = np.zeros(len(self.places))
        sample = scenes.rows[:2000]
        for row in sample:
            seen[self._words(row)] += 1
        weights = np.log(len(sample) / seen.clip(1)) * (seen > 0)
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32))

    def _words(self, row: dict) -> list[int]:
        """Distinct words of all that is said of a scene."""
        captions = " ".join([*row.get("captions", ()), wording(row, "whole")]).replace(",", " ")
        return sorted({self.places[word] for word in captions.split() if word in self.places})

    def loss(self, features: Tensor, rows: list[dict]) -> Tensor:
        """Cross-entropy of features [b, width] with the rows' words, weighted by inverse document frequency."""
        target = torch.zeros(len(rows), len(self.places), device=features.device)
        for index, row in enumerate(rows):
            target[index, self._words(row)] = 1
        target = target * self.weights
        logits = self.linear(features).float()
        return functional.cross_entropy(logits, target / target.sum(dim=1, keepdim=True).clamp(min=1e-6))


def captions_by_facet(scenes: Scenes, rows: np.ndarray, random: np.random.Generator) -> dict[str, list[str]]:
    """One facet drawn by lot, and the whole: b captions each.

    A facet keeps one prefix a batch, so that its captions are told apart by facts.
    """
    lists = {}
    for facet in (str(random.choice(FACETS[:-1], p=LOTS)), FACETS[-1]):
        if facet == "whole":
            said = [scenes.rows[row] for row in rows]
            plain = random.random(len(said)) < 0.5
            lists[facet] = [
                wording(row, facet, random) if in_plain_words else natural(row, random)
                for row, in_plain_words in zip(said, plain, strict=True)
            ]
        else:
            seed = int(random.integers(1 << 31))
            by_truth = [wording(scenes.rows[row], facet, np.random.default_rng(seed)) for row in rows]
            lists[facet] = by_truth
    return lists


def facet_loss(
    images: Tensor, encode: Callable[[list[str]], Tensor], facets: dict[str, list[str]], scale: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """Mean over facets of the symmetric cross-entropy; images [b, d] and texts [m, d] of unit norm.

    Image to text: softmax over the facet's distinct captions. Text to image: the target is uniform over the images that
    bear the caption. Also gives the accuracy of image to text a facet.
    """
    distinct = [sorted(set(captions)) for captions in facets.values()]
    texts = encode([caption for captions in distinct for caption in captions])
    losses, accuracies = [], {}
    for name, captions, names, embedded in zip(
        facets, facets.values(), distinct, texts.split([len(names) for names in distinct]), strict=True
    ):
        place = {caption: index for index, caption in enumerate(names)}
        target = torch.tensor([place[caption] for caption in captions], device=images.device)
        logits = scale * images @ embedded.T
        shared = functional.one_hot(target, len(names)).T.float()
        shared = shared / shared.sum(dim=1, keepdim=True)
        losses.append(functional.cross_entropy(logits, target) + 0.5 * functional.cross_entropy(logits.T, shared))
        accuracies[name] = float((logits.argmax(dim=1) == target).float().mean())
    return torch.stack(losses).mean(), accuracies
