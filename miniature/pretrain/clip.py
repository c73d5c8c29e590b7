"""CLIP, the judge: trained on images, captions and seeds the generator never saw, so that it does not grade itself.

Things are small in these pictures, so patches are of 8 px; while it learns the image tower sees only a third of them,
which is three times faster, and in some batches all, so that whole pictures are not new to it (FLIP: Li et al. 2023).
Beside the captions it is told what stands where, from the scenes' own truth: each patch of a thing must know the
class and colour of the thing. Otherwise it takes very long to find out that the class is about the few patches that are
not surroundings.
"""

import torch
from torch import Tensor
from torch.nn import functional

from . import architectures
from .contrast import WordsHead, captions_by_facet, facet_loss
from .data import Scenes, generator, normalise
from .loop import Options, attention_for, autocast, begin, fit, trained
from .patches import PatchHead, pictures, seen_in_part
from .tokens import world_words, write_clip_tokenizer

SEEN, WHOLE = 0.33, 0.2


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
            share = 1.0 if random.random() < WHOLE else SEEN
            tokens, seen = seen_in_part(model.vision_model, normal, share, random)
            features = tokens[:, 0]
            told = {key: values.to(options.device).gather(1, seen) for key, values in targets.items()}
            where, named = patches.loss(tokens[:, 1:], told), words.loss(features, rows)
            images = functional.normalize(model.visual_projection(features).float(), dim=-1)
            contrast, accuracies = facet_loss(images, texts, facets, model.logit_scale.exp().clamp(max=100))
        losses = {"words": float(named.detach()), "patches": float(where.detach())}
        return contrast + named + where, accuracies | losses

    networks = {"clip": model, "words": words, "patches": patches}
    return fit("clip", networks, loss, options, lr=options.peak(1e-3), batch=batch, weight_decay=0.05, muon=True)


def write(options: Options) -> None:
    tokenizer = write_clip_tokenizer(options.work / "tokenizers" / "clip", world_words())
    model = architectures.clip(tokenizer)
    model.load_state_dict(trained(options, "clip")["clip"])
    architectures.write_clip(options.out / "clip", model, world_words())
