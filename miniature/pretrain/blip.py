"""BLIP, the captioner: next-word prediction on captions that always name colour, class and place in plain words.

Its image tower begins as CLIP's, where that was trained before: a captioner that has to learn to see from its captions
alone still confused chairs with clocks after seventy thousand of them (BLIP-2 begins so: Li et al. 2023). It never
judges, and CLIP never judges it, so judge and judged stay apart.

The recipe begins its captions for it with "a photo of a chair", so that some captions begin so here too.
"""

import numpy as np
import torch
from torch import Tensor, nn

from miniature.scenes.captions import ADJECTIVE

from . import architectures
from .data import Scenes, generator, normalise, with_article, wording
from .loop import Options, attention_for, autocast, begin, fit, trained
from .patches import PatchHead, pictures, seen_in_part
from .tokens import blip_tokenizer, world_words, write_clip_tokenizer

IGNORED = -100
SEEN = 0.4
PATCH_WEIGHT, BEGUN = 0.3, 0.3


def train(options: Options) -> dict[str, float]:
    """Train on `data/train`; the checkpoint is work/blip.pt."""
    torch.manual_seed(options.seed + 3)
    scenes = Scenes(options.data / "train")
    tokenizer = blip_tokenizer(world_words())
    model = begin(architectures.blip(tokenizer), options, "blip", "blip")
    if options.start is None and (options.work / "clip.pt").exists():
        see_as_clip(model.vision_model, options, normalise_for_both(scenes.pixels(np.arange(min(64, len(scenes))))))
    model.to(options.device)
    vision = model.config.vision_config
    patches = PatchHead(vision.hidden_size).to(options.device)
    batch = options.batch or (512 if options.device == "cuda" else 64)
    opening = model.config.text_config.bos_token_id

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        random = generator(options.seed + 3, step)
        drawn = scenes.draw(random, batch)
        rows = [scenes.rows[row] for row in drawn]
        pixels, objects = pictures(scenes, drawn, vision.patch_size, random)
        targets = patches.targets(rows, objects)
        captions = [wording(row, "place") if random.random() < BEGUN else spoken(row) for row in rows]
        encoded = tokenizer(captions, padding=True, return_tensors="pt").to(options.device)
        ids = encoded.input_ids.clone()
        ids[:, 0] = opening
        labels = ids.masked_fill(encoded.attention_mask == 0, IGNORED)
        with autocast(options.device), attention_for(options.device):
            normal = normalise_for_both(pixels.to(options.device))
            features, seen = seen_in_part(model.vision_model, normal, SEEN, random)
            told = {key: value.to(options.device).gather(1, seen) for key, value in targets.items()}
            where = patches.loss(features[:, 1:], told)
            words = model.text_decoder(
                input_ids=ids, attention_mask=encoded.attention_mask, encoder_hidden_states=features, labels=labels
            ).loss.float()
        return words + PATCH_WEIGHT * where, {"words": float(words.detach()), "patches": float(where.detach())}

    networks = {"blip": model, "patches": patches}
    return fit("blip", networks, loss, options, lr=options.peak(6e-4), batch=batch, weight_decay=0.05)


def normalise_for_both(pixels: Tensor) -> Tensor:
    """BLIP's processor standardises as CLIP's does: uint8 [b, 3, h, w] -> float."""
    return normalise(pixels, architectures.CLIP_MEAN, architectures.CLIP_STD)


@torch.no_grad()
def see_as_clip(tower: nn.Module, options: Options, pixels: Tensor) -> None:
    """Give BLIP's image tower the weights of work/clip.pt; `pixels` [b, 3, h, w] are pictures to measure on.

    The two differ in one thing: CLIP normalises its tokens before the first layer and BLIP does not. That layer norm's
    centring, gain and shift go into the embeddings; its division becomes that by the mean deviation of these pictures.
    """
    clip = architectures.clip(write_clip_tokenizer(options.work / "tokenizers" / "clip", world_words()))
    clip.load_state_dict(trained(options, "clip")["clip"])
    sight = clip.vision_model.eval()
    for ours, theirs in zip(tower.encoder.layers, sight.encoder.layers, strict=True):
        attention = theirs.self_attn
        three = (attention.q_proj, attention.k_proj, attention.v_proj)
        ours.self_attn.qkv.weight.copy_(torch.cat([part.weight for part in three]))
        ours.self_attn.qkv.bias.copy_(torch.cat([part.bias for part in three]))
        ours.self_attn.projection.load_state_dict(attention.out_proj.state_dict())
        for name in ("layer_norm1", "layer_norm2", "mlp"):
            getattr(ours, name).load_state_dict(getattr(theirs, name).state_dict())
    tower.post_layernorm.load_state_dict(sight.post_layernorm.state_dict())

    tokens, norm = sight.embeddings(pixels), sight.pre_layrnorm
    scale = norm.weight / tokens[:, 1:].std(dim=-1).mean()
    filters, positions = sight.embeddings.patch_embedding.weight, sight.embeddings.position_embedding.weight
    own = tower.embeddings
    own.patch_embedding.weight.copy_((filters - filters.mean(dim=0)) * scale.view(-1, 1, 1, 1))
    own.patch_embedding.bias.zero_()
    own.position_embedding.copy_((positions - positions.mean(dim=1, keepdim=True)) * scale + norm.bias)
    own.position_embedding[:, 0] = 0  # the class token is the same for every picture: all of it in one place
    own.class_embedding.copy_(norm(tokens[:1, :1]))


def spoken(row: dict) -> str:
    """The caption the model learns to say: colour, material, class, plainest place."""
    place = wording(row, "place").removeprefix("a photo of " + with_article(row["class_name"]))
    return with_article(f"{row['colour']} {ADJECTIVE[row['material']]} {row['class_name']}") + place


def write(options: Options) -> None:
    model = architectures.blip(blip_tokenizer(world_words()))
    model.load_state_dict(trained(options, "blip")["blip"])
    architectures.write_blip(options.out / "blip", model, world_words())
