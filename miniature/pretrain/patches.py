"""Patches: an image tower that is shown a part of each picture (FLIP: Li et al. 2023) and told what stands where in it.

A picture's class is about the few patches that are not surroundings, and from captions alone that takes very long to
find out. The scenes' own truth says which thing each patch shows.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from miniature import scenes as world

from .data import Scenes, moved, relit

NOTHING_WEIGHT = 0.15


class PatchHead(nn.Module):
    """Patch features -> class and colour of the thing there, or nothing; thrown away after training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.names = {"class_name": world.CLASSES, "colour": world.COLOURS}
        self.linears = nn.ModuleDict({key: nn.Linear(width, len(names) + 1) for key, names in self.names.items()})

    def targets(self, rows: list[dict], objects: Tensor) -> dict[str, Tensor]:
        """Indices [b, n] of classes and colours for `objects` [b, n] (0 nothing, 1 the thing, then its clutter)."""
        found = {}
        for key, names in self.names.items():
            table = torch.full((len(rows), 1 + max(len(row["clutter"]) for row in rows) + 1), len(names))
            for place, row in zip(table, rows, strict=True):
                things = [row[key], *(thing[key] for thing in row["clutter"])]
                place[1 : 1 + len(things)] = torch.tensor([names.index(thing) for thing in things])
            found[key] = table.gather(1, objects.long())
        return found

    def loss(self, features: Tensor, targets: dict[str, Tensor]) -> Tensor:
        """Cross-entropy of features [b, n, width], what is nothing counting little; summed over class and colour."""
        losses = []
        for key, linear in self.linears.items():
            weight = torch.ones(len(self.names[key]) + 1, device=features.device)
            weight[-1] = NOTHING_WEIGHT
            logits = linear(features).float()
            losses.append(functional.cross_entropy(logits.flatten(0, 1), targets[key].flatten(), weight=weight))
        return torch.stack(losses).sum()


def pictures(scenes: Scenes, drawn: np.ndarray, patch: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Jittered pixels uint8 [b, 3, h, w] and the object in the middle of each patch [b, n], moved with them."""
    pixels = scenes.pixels(drawn)
    size = pixels.shape[-1]
    maps = np.stack([world.objects(world.from_truth(scenes.rows[row]), size // patch) for row in drawn])
    wide = torch.from_numpy(maps.astype(np.uint8)).repeat_interleave(patch, 1).repeat_interleave(patch, 2)
    both = moved(torch.cat([pixels, wide[:, None]], dim=1), random)
    middle = patch // 2
    return relit(both[:, :3], random), both[:, 3, middle::patch, middle::patch].flatten(1)


def seen_in_part(tower: nn.Module, pixels: Tensor, share: float, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Features [b, 1 + m, d] of the class token and m random patches, a `share` of all, and which [b, m] these are.

    `tower` is the image tower of CLIP or BLIP.
    """
    tokens = tower.embeddings(pixels)
    patches = tokens.shape[1] - 1
    kept = random.random((len(tokens), patches)).argsort(axis=1)[:, : max(1, round(share * patches))]
    seen = torch.from_numpy(kept).to(tokens.device)
    chosen = tokens.gather(1, 1 + seen[..., None].expand(-1, -1, tokens.shape[2]))
    tokens = torch.cat([tokens[:, :1], chosen], dim=1)
    if hasattr(tower, "pre_layrnorm"):
        tokens = tower.pre_layrnorm(tokens)
    return tower.post_layernorm(tower.encoder(inputs_embeds=tokens).last_hidden_state), seen
