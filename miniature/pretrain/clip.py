"""CLIP, the judge: trained on images, captions and seeds the generator never saw, so that it does not grade itself.

Things are small in these pictures, so patches are of 8 px; while it learns the image tower sees only a third of them,
which is three times faster (FLIP: Li et al. 2023). Beside the captions it is told what stands where, from the scenes'
own truth: each patch of a thing must know the thing's class and colour. Otherwise it takes very long to find out that
the class is about the few patches that are not surroundings.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from miniature import scenes as world

from . import architectures
from .contrast import WordsHead, captions_by_facet, facet_loss
from .data import Scenes, generator, moved, normalise, relit
from .loop import Options, attention_for, autocast, begin, fit, trained
from .tokens import world_words, write_clip_tokenizer

SEEN = 0.33
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


def train(options: Options) -> dict[str, float]:
    """Train on `data/judge`; the checkpoint is work/clip.pt."""
    torch.manual_seed(options.seed + 17)
    scenes = Scenes(options.data / "judge")
    tokenizer = write_clip_tokenizer(options.work / "tokenizers" / "clip", world_words())
    model = begin(architectures.clip(tokenizer), options, "clip", "clip").to(options.device)
    vision = model.config.vision_config
    words = WordsHead(vision.hidden_size, scenes).to(options.device)
    patches = PatchHead(vision.hidden_size).to(options.device)
    batch = options.batch or (1024 if options.device == "cuda" else 64)

    def texts(captions: list[str]) -> Tensor:
        encoded = tokenizer(captions, padding=True, truncation=True, return_tensors="pt").to(options.device)
        return functional.normalize(model.get_text_features(**encoded).pooler_output.float(), dim=-1)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        random = generator(options.seed + 17, step)
        drawn = scenes.draw(random, batch)
        rows = [scenes.rows[row] for row in drawn]
        pixels, objects = pictures(scenes, drawn, vision.patch_size, random)
        targets = patches.targets(rows, objects)
        facets = captions_by_facet(scenes, drawn, random)
        with autocast(options.device), attention_for(options.device):
            normal = normalise(pixels.to(options.device), architectures.CLIP_MEAN, architectures.CLIP_STD)
            tokens, seen = seen_in_part(model.vision_model, normal, SEEN, random)
            features = tokens[:, 0]
            told = {key: values.to(options.device).gather(1, seen) for key, values in targets.items()}
            where, named = patches.loss(tokens[:, 1:], told), words.loss(features, rows)
            images = functional.normalize(model.visual_projection(features).float(), dim=-1)
            contrast, accuracies = facet_loss(images, texts, facets, model.logit_scale.exp().clamp(max=100))
        losses = {"words": float(named.detach()), "patches": float(where.detach())}
        return contrast + named + where, accuracies | losses

    networks = {"clip": model, "words": words, "patches": patches}
    return fit("clip", networks, loss, options, lr=1e-3, batch=batch, weight_decay=0.05, muon=True)


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
    """Features [b, 1 + m, d] of the class token and m random patches, a `share` of all, and which [b, m] these are."""
    tokens = tower.embeddings(pixels)
    patches = tokens.shape[1] - 1
    kept = random.random((len(tokens), patches)).argsort(axis=1)[:, : max(1, round(share * patches))]
    seen = torch.from_numpy(kept).to(tokens.device)
    chosen = tokens.gather(1, 1 + seen[..., None].expand(-1, -1, tokens.shape[2]))
    tokens = tower.pre_layrnorm(torch.cat([tokens[:, :1], chosen], dim=1))
    return tower.post_layernorm(tower.encoder(inputs_embeds=tokens).last_hidden_state), seen


def write(options: Options) -> None:
    tokenizer = write_clip_tokenizer(options.work / "tokenizers" / "clip", world_words())
    model = architectures.clip(tokenizer)
    model.load_state_dict(trained(options, "clip")["clip"])
    architectures.write_clip(options.out / "clip", model, world_words())
