"""SDXL's two text encoders, trained contrastively against an image tower of BLIP's shape (BLIP starts from it)."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BlipVisionModel

from . import architectures
from .contrast import captions_by_facet, facet_loss
from .data import Scenes, generator, jitter, normalise
from .loop import Options, attention_for, autocast, fit
from .tokens import blip_tokenizer, world_words

WIDTH = 192


class Towers(nn.Module):
    """Both text encoders, an image tower, and the projections that bring them to one space."""

    def __init__(self, tokenizers: tuple) -> None:
        super().__init__()
        self.text_encoder, self.text_encoder_2 = architectures.text_encoders(*tokenizers)
        self.image = BlipVisionModel(architectures.blip(blip_tokenizer(["a"])).config.vision_config)
        self.from_image = nn.Linear(WIDTH, 2 * WIDTH, bias=False)
        self.from_first = nn.Linear(architectures.TEXT_WIDTHS[0], WIDTH, bias=False)
        self.scale = nn.Parameter(torch.tensor(14.0).log())

    def images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """float [b, 3, 128, 128] -> two unit embeddings [b, 192], one for each text encoder."""
        hidden = self.image(pixel_values=pixels).last_hidden_state[:, 1:].mean(dim=1)
        first, second = self.from_image(hidden).chunk(2, dim=-1)
        return functional.normalize(first.float(), dim=-1), functional.normalize(second.float(), dim=-1)

    def first(self, ids: Tensor) -> Tensor:
        return functional.normalize(self.from_first(self.text_encoder(ids).pooler_output).float(), dim=-1)

    def second(self, ids: Tensor) -> Tensor:
        return functional.normalize(self.text_encoder_2(ids).text_embeds.float(), dim=-1)


def train(options: Options) -> dict[str, float]:
    """Train on the generator's part of `data/train`; the checkpoint is work/text.pt."""
    torch.manual_seed(options.seed + 1)
    scenes = Scenes(options.data / "train", "generator")
    tokenizers = architectures.write_sdxl_tokenizers(options.work / "tokenizers", world_words())
    towers = Towers(tokenizers).to(options.device)
    batch = options.batch or (1024 if options.device == "cuda" else 128)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        random = generator(options.seed + 1, step)
        rows = scenes.draw(random, batch)
        pixels = jitter(scenes.pixels(rows), random).to(options.device)
        facets = captions_by_facet(scenes, rows, random)
        with autocast(options.device), attention_for(options.device):
            first, second = towers.images(normalise(pixels, architectures.CLIP_MEAN, architectures.CLIP_STD))
            scale = towers.scale.exp().clamp(max=100)
            one, _ = facet_loss(first, lambda texts: towers.first(_ids(tokenizers[0], texts, options)), facets, scale)
            two, accuracies = facet_loss(
                second, lambda texts: towers.second(_ids(tokenizers[1], texts, options)), facets, scale
            )
        return one + two, accuracies

    return fit("text", {"towers": towers}, loss, options, lr=1e-3, batch=batch, weight_decay=0.05)


def load(options: Options) -> Towers:
    """The trained towers, in evaluation mode."""
    tokenizers = architectures.write_sdxl_tokenizers(options.work / "tokenizers", world_words())
    towers = Towers(tokenizers)
    saved = torch.load(options.work / "text.pt", map_location="cpu", weights_only=True)
    towers.load_state_dict(saved["networks"]["towers"])
    return towers.to(options.device).eval().requires_grad_(False)


def _ids(tokenizer: object, texts: list[str], options: Options) -> Tensor:
    encoded = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    return encoded.input_ids.to(options.device)
