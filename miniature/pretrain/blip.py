"""BLIP, the captioner: next-word prediction on captions that always name colour, class and place in plain words."""

import torch
from torch import Tensor

from miniature.scenes.captions import ADJECTIVE

from . import architectures
from .data import Scenes, generator, jitter, normalise, with_article, wording
from .loop import Options, attention_for, autocast, begin, fit, trained
from .tokens import blip_tokenizer, world_words

IGNORED = -100


def train(options: Options) -> dict[str, float]:
    """Train on `data/train`; the checkpoint is work/blip.pt."""
    torch.manual_seed(options.seed + 3)
    scenes = Scenes(options.data / "train")
    tokenizer = blip_tokenizer(world_words())
    model = begin(architectures.blip(tokenizer), options, "blip", "blip").to(options.device)
    batch = options.batch or (512 if options.device == "cuda" else 64)
    opening = model.config.text_config.bos_token_id

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        random = generator(options.seed + 3, step)
        rows = scenes.draw(random, batch)
        pixels = jitter(scenes.pixels(rows), random).to(options.device)
        captions = [spoken(scenes.rows[row]) for row in rows]
        encoded = tokenizer(captions, padding=True, return_tensors="pt").to(options.device)
        ids = encoded.input_ids.clone()
        ids[:, 0] = opening
        labels = ids.masked_fill(encoded.attention_mask == 0, IGNORED)
        with autocast(options.device), attention_for(options.device):
            normal = normalise(pixels, architectures.CLIP_MEAN, architectures.CLIP_STD)
            value = model(pixel_values=normal, input_ids=ids, attention_mask=encoded.attention_mask, labels=labels).loss
        return value.float(), {}

    return fit("blip", {"blip": model}, loss, options, lr=6e-4, batch=batch, weight_decay=0.05)


def spoken(row: dict) -> str:
    """The caption the model learns to say: colour, material, class, plainest place."""
    place = wording(row, "place").removeprefix("a photo of " + with_article(row["class_name"]))
    return with_article(f"{row['colour']} {ADJECTIVE[row['material']]} {row['class_name']}") + place


def write(options: Options) -> None:
    model = architectures.blip(blip_tokenizer(world_words()))
    model.load_state_dict(trained(options, "blip")["blip"])
    architectures.write_blip(options.out / "blip", model, world_words())
