"""Conditioning: what the UNet is told beside the noisy latents - the caption, and the size and crop of the picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from personalize.dreambooth.randomness import uniform
from personalize.photographs.prompts import MAX_TOKENS, check_prompt

NO_CAPTION = 0
"""Row of a text table that stands for the dropped caption."""


class Size(NamedTuple):
    height: int
    width: int


def time_ids(original: Size, crop: tuple[int, int], target: Size) -> Tensor:
    """SDXL's micro-conditioning, [6] float32: original height and width, crop top and left, target height and width.

    All in pixels; the crop corner is counted in the resized picture. Sec. 2.2, Podell et al. 2023.
    """
    return torch.tensor([*original, *crop, *target], dtype=torch.float32)


def drops_caption(seed: int, step: int, sample: int, probability: float) -> bool:
    """Whether this sample is trained without its caption, which is what classifier-free guidance needs."""
    return uniform(seed, "caption dropout", step, sample) < probability


def token_ids(tokenizers: Sequence[Any], captions: Sequence[str]) -> Tensor:
    """[n, tokenizers, 77] int64. Raises ValueError for a caption that would be cut."""
    for caption in captions:
        check_prompt(tokenizers, caption)
    columns = [
        tokenizer(list(captions), padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
        for tokenizer in tokenizers
    ]
    return torch.stack([column.input_ids for column in columns], dim=1)


def encode(text_encoders: Sequence[Any], ids: Tensor) -> tuple[Tensor, Tensor]:
    """Token ids [n, 2, 77] -> hidden states [n, 77, D1 + D2] and pooled embedding [n, P], as SDXL reads them:

    the penultimate layer of both encoders side by side, and the projected end token of the second one.
    """
    states = []
    for column, encoder in enumerate(text_encoders):
        out = encoder(ids[:, column].to(encoder.device), output_hidden_states=True)
        states.append(out.hidden_states[-2])
    return torch.cat(states, dim=-1), out.text_embeds


class TextTable:
    """Every caption of a run encoded once; a batch then only looks rows up.

    Row 0 is the dropped caption: zeros where the base says so (`force_zeros_for_empty_prompt`, as SDXL was trained),
    the encoded empty prompt elsewhere. `hidden` is [n, 77, D], `pooled` [n, P].
    """

    def __init__(self, captions: Iterable[str], zeros_for_empty: bool) -> None:
        self.captions = ["", *sorted(set(captions) - {""})]
        self.rows = {caption: row for row, caption in enumerate(self.captions)}
        self.zeros_for_empty = zeros_for_empty
        self.ids = torch.empty(0)
        self.hidden = torch.empty(0)
        self.pooled = torch.empty(0)

    def row(self, caption: str) -> int:
        return self.rows[caption]

    def tokenize(self, tokenizers: Sequence[Any]) -> TextTable:
        self.ids = token_ids(tokenizers, self.captions)
        return self

    @torch.no_grad()
    def encode(self, text_encoders: Sequence[Any], batch_size: int = 32) -> TextTable:
        """Fills `hidden` and `pooled` on the encoders' device, in their dtype."""
        parts = [encode(text_encoders, ids) for ids in self.ids.split(batch_size)]
        self.hidden = torch.cat([hidden for hidden, _ in parts])
        self.pooled = torch.cat([pooled for _, pooled in parts])
        if self.zeros_for_empty:
            self.hidden[NO_CAPTION] = 0
            self.pooled[NO_CAPTION] = 0
        return self

    def lookup(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states [B, 77, D] and pooled embeddings [B, P] of the captions in `rows` [B]."""
        return self.hidden[rows], self.pooled[rows]
