"""SDXL's two text encoders, trained contrastively: a caption must find the facts it states among those of a batch.

The other tower is a table of facts (class, colour, material, pattern, surroundings; each may be left unsaid) instead of
pictures: what words mean in the small world is known exactly, so minutes on one core are enough, and the encoders share
nothing with the judge.

Captions with made-up words teach the encoders to pass over them, and so well that `bcnchr` and `wngchr` become one to
the UNet, which then cannot learn to draw two subjects apart. A second stage therefore moves the embeddings of the word
pieces that no word of the world uses, and nothing else, until made-up words differ about as much as colours do: what
the encoders make of all other captions stays the same to the last bit.
"""

import copy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from miniature import scenes as world
from miniature.scenes.captions import ADJECTIVE, MADE_OF

from . import architectures
from .data import FACETS, Scenes, generator, made_up_word, natural, with_rare_word, wording
from .loop import Options, attention_for, autocast, begin, fit, trained
from .tokens import world_words

WIDTH = 192
APART, KEPT, LETTERS = 1.5, 0.2, "abcdefghijklmnopqrstuvwxyz0123456789"
KNOWN = (world.CLASSES, world.COLOURS, world.MATERIALS, world.PATTERNS, world.SURROUNDINGS)


class Towers(nn.Module):
    """Both text encoders, the tower of facts, and the projections that bring them to one space."""

    def __init__(self, tokenizers: tuple) -> None:
        super().__init__()
        self.text_encoder, self.text_encoder_2 = architectures.text_encoders(*tokenizers)
        self.facts = nn.ModuleList(nn.Embedding(1 + len(known), WIDTH) for known in KNOWN)
        self.from_facts = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, 2 * WIDTH))
        self.from_first = nn.Linear(architectures.TEXT_WIDTHS[0], WIDTH, bias=False)
        self.scale = nn.Parameter(torch.tensor(14.0).log())

    def stated(self, facts: Tensor) -> tuple[Tensor, Tensor]:
        """int [b, 5], 0 where unsaid -> two unit embeddings [b, 192], one for each text encoder."""
        summed = sum(table(column) for table, column in zip(self.facts, facts.unbind(dim=1), strict=True))
        first, second = self.from_facts(summed).chunk(2, dim=-1)
        return functional.normalize(first.float(), dim=-1), functional.normalize(second.float(), dim=-1)

    def first(self, ids: Tensor) -> Tensor:
        return functional.normalize(self.from_first(self.text_encoder(ids).pooler_output).float(), dim=-1)

    def second(self, ids: Tensor) -> Tensor:
        return functional.normalize(self.text_encoder_2(ids).text_embeds.float(), dim=-1)


def train(options: Options) -> dict[str, float]:
    """Train on the captions of `data/train`; the checkpoint is work/text.pt."""
    torch.manual_seed(options.seed + 1)
    scenes = Scenes(options.data / "train")
    tokenizers = architectures.write_sdxl_tokenizers(options.work / "tokenizers", world_words())
    towers = Towers(tokenizers).to(options.device)
    batch = options.batch or (1024 if options.device == "cuda" else 256)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        random = generator(options.seed + 1, step)
        rows = [scenes.rows[row] for row in scenes.draw(random, batch)]
        captions = [_caption(row, random) for row in rows]
        facts = torch.tensor([facts_of(row, caption) for row, caption in zip(rows, captions, strict=True)])
        facts = facts.to(options.device)
        heard = [with_rare_word(text, row, random) for text, row in zip(captions, rows, strict=True)]
        same = (facts[:, None] == facts[None]).all(dim=-1).float()
        same = same / same.sum(dim=1, keepdim=True)
        with autocast(options.device), attention_for(options.device):
            one, two = towers.stated(facts)
            first = towers.first(_ids(tokenizers[0], heard, options))
            second = towers.second(_ids(tokenizers[1], heard, options))
        scale = towers.scale.exp().clamp(max=100)
        pairs = [(scale * first @ one.T, "first"), (scale * second @ two.T, "second")]
        value = sum(
            functional.cross_entropy(logits, same) + functional.cross_entropy(logits.T, same) for logits, _ in pairs
        )
        found = {name: float((same.gather(1, s.argmax(dim=1, keepdim=True)) > 0).float().mean()) for s, name in pairs}
        return value, found

    return fit("text", {"towers": towers}, loss, options, lr=1e-3, batch=batch, weight_decay=0.05)


def train_letters(options: Options) -> dict[str, float]:
    """Tell made-up words apart; the checkpoint is work/letters.pt. Raises ValueError where there is no text.pt."""
    torch.manual_seed(options.seed + 7)
    scenes = Scenes(options.data / "train")
    towers = _towers(options, "text")
    before = copy.deepcopy(towers)
    tokenizers = architectures.write_sdxl_tokenizers(options.work / "tokenizers", world_words())
    encoders = (towers.text_encoder, towers.text_encoder_2)
    resting = (before.text_encoder.eval(), before.text_encoder_2.eval())
    towers.requires_grad_(False)
    for encoder, tokenizer in zip(encoders, tokenizers, strict=True):
        weight = encoder.get_input_embeddings().weight.requires_grad_(True)
        known = {index for word in world_words() for index in tokenizer(word).input_ids}
        free = torch.ones(len(weight), 1, device=weight.device)
        free[sorted(known)] = 0
        weight.register_hook(lambda gradient, free=free: gradient * free)
    batch = options.batch or 32

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        random = generator(options.seed + 7, step)
        row = scenes.rows[int(scenes.draw(random, 1)[0])]
        opening, _, ending = wording(row, "whole", random).partition(row["class_name"])
        words = [made_up_word(random, LETTERS) for _ in range(batch)]
        value, apart = torch.zeros((), device=options.device), []
        for encoder, old, tokenizer in zip(encoders, resting, tokenizers, strict=True):
            spans = []
            start = len(tokenizer(opening.strip()).input_ids) - 1
            for word in words:
                said = tokenizer(f"{opening}{word} {row['class_name']}{ending}", return_tensors="pt").to(options.device)
                end = start + len(tokenizer(word).input_ids) - 2
                states = encoder(said.input_ids, output_hidden_states=True).hidden_states[-2][0]
                with torch.no_grad():
                    kept = old(said.input_ids, output_hidden_states=True).hidden_states[-2][0]
                spans.append(states[start:end].mean(dim=0))
                value = value + KEPT * (states[end:] - kept[end:]).square().sum() / kept[end:].square().sum() / batch
            together = torch.stack(spans)
            size = together.norm(dim=1).mean().detach()
            distances = functional.pdist(together) / size
            value = value + (APART - distances).clamp(min=0).square().mean() * 4
            apart.append(float(distances.detach().mean()))
        return value, {"apart": sum(apart) / len(apart)}

    return fit("letters", {"towers": towers}, loss, options, lr=1e-2, batch=batch, weight_decay=0.0)


def facts_of(row: dict, caption: str) -> list[int]:
    """What the caption states of its scene, as places in KNOWN counted from 1; 0 for what it leaves unsaid."""
    words = caption.replace(",", " ").split()
    material = {ADJECTIVE[row["material"]], MADE_OF[row["material"]]} & set(words)
    place = any(phrase in caption for phrase in world.PLACES[row["surroundings"]])
    stated = (
        row["class_name"],
        row["colour"] if row["colour"] in words else None,
        row["material"] if material else None,
        row["pattern"] if row["pattern"] in words else None,
        row["surroundings"] if place else None,
    )
    return [0 if fact is None else 1 + known.index(fact) for fact, known in zip(stated, KNOWN, strict=True)]


def load(options: Options) -> Towers:
    """The trained towers, in evaluation mode; with made-up words told apart where that stage was run.

    Where neither stage was, and training begins from published weights, they hold the published encoders.
    """
    if options.start and not (options.work / "text.pt").exists():
        towers = Towers(architectures.write_sdxl_tokenizers(options.work / "tokenizers", world_words()))
        for name in ("text_encoder", "text_encoder_2"):
            begin(getattr(towers, name), options, "text", f"sdxl/{name}")
        return towers.to(options.device).eval().requires_grad_(False)
    return (
        _towers(options, "letters" if (options.work / "letters.pt").exists() else "text").eval().requires_grad_(False)
    )


def _towers(options: Options, name: str) -> Towers:
    towers = Towers(architectures.write_sdxl_tokenizers(options.work / "tokenizers", world_words()))
    towers.load_state_dict(trained(options, name)["towers"])
    return towers.to(options.device)


def _caption(row: dict, random: np.random.Generator) -> str:
    if random.random() < 0.6:
        return natural(row, random)
    return wording(row, str(random.choice([*FACETS, "material"])), random)


def _ids(tokenizer: object, texts: list[str], options: Options) -> Tensor:
    encoded = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    return encoded.input_ids.to(options.device)
