"""CLIP, the judge: trained on images, captions and seeds the generator never saw, so that it does not grade itself."""

import torch
from torch import Tensor
from torch.nn import functional

from . import architectures
from .contrast import WordsHead, captions_by_facet, facet_loss
from .data import Scenes, generator, jitter, normalise
from .loop import Options, attention_for, autocast, fit, trained
from .tokens import world_words, write_clip_tokenizer


def train(options: Options) -> dict[str, float]:
    """Train on `data/judge`; the checkpoint is work/clip.pt."""
    torch.manual_seed(options.seed + 17)
    scenes = Scenes(options.data / "judge")
    tokenizer = write_clip_tokenizer(options.work / "tokenizers" / "clip", world_words())
    model = architectures.clip(tokenizer).to(options.device)
    head = WordsHead(model.config.vision_config.hidden_size, scenes).to(options.device)
    batch = options.batch or (1024 if options.device == "cuda" else 128)

    def texts(captions: list[str]) -> Tensor:
        encoded = tokenizer(captions, padding=True, truncation=True, return_tensors="pt").to(options.device)
        return functional.normalize(model.get_text_features(**encoded).pooler_output.float(), dim=-1)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        random = generator(options.seed + 17, step)
        rows = scenes.draw(random, batch)
        pixels = jitter(scenes.pixels(rows), random).to(options.device)
        facets = captions_by_facet(scenes, rows, random)
        with autocast(options.device), attention_for(options.device):
            normal = normalise(pixels, architectures.CLIP_MEAN, architectures.CLIP_STD)
            features = model.vision_model(pixel_values=normal).pooler_output
            words = head.loss(features, [scenes.rows[row] for row in rows])
            images = functional.normalize(model.visual_projection(features).float(), dim=-1)
            contrast, accuracies = facet_loss(images, texts, facets, model.logit_scale.exp().clamp(max=100))
        return contrast + words, accuracies | {"words": float(words.detach())}

    return fit("clip", {"clip": model, "words": head}, loss, options, lr=1e-3, batch=batch, weight_decay=0.05)


def write(options: Options) -> None:
    tokenizer = write_clip_tokenizer(options.work / "tokenizers" / "clip", world_words())
    model = architectures.clip(tokenizer)
    model.load_state_dict(trained(options, "clip")["clip"])
    architectures.write_clip(options.out / "clip", model, world_words())
