"""Conditioning: what the UNet is told of a caption, encoded once for a run, or in every step where encoders learn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from personalize.dreambooth.randomness import uniform
from personalize.photographs.prompts import MAX_TOKENS, check_prompt

NO_CAPTION = 0
"""Row of a text table that stands for the dropped caption."""


def drops_caption(seed: int, step: int, sample: int, probability: float) -> bool:
    """Whether this sample is trained without its caption, which is what classifier-free guidance needs."""
    return uniform(seed, "caption dropout", step, sample) < probability


@dataclass(frozen=True)
class TextTable:
    """Every caption of a run, encoded once; a batch then only looks rows up.

    Row 0 is the dropped caption: zeros where the base says so (`force_zeros_for_empty_prompt`, as SDXL was trained),
    the encoded empty prompt elsewhere.
    """

    rows: Mapping[str, int]
    """the row of each caption"""
    ids: Tensor
    """[n, 2, 77] int64, the captions' tokens"""
    hidden: Tensor
    """[n, 77, D]"""
    pooled: Tensor
    """[n, P]"""
    zeros_for_empty: bool

    def lookup(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states [B, 77, D] and pooled embeddings [B, P] of the captions in `rows` [B]."""
        return self.hidden[rows], self.pooled[rows]

    def tokens(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids [B, 2, 77] of the captions in `rows` [B], and a mask [B] that is 0 where zeros stand for them."""
        kept = (rows != NO_CAPTION) if self.zeros_for_empty else torch.ones_like(rows, dtype=torch.bool)
        return self.ids[rows], kept.to(torch.float32)

    @torch.no_grad()
    def encoded_by(self, text_encoders: Sequence[Any], batch_size: int = 32) -> TextTable:
        """The same captions as these encoders read them, on the encoders' device and in their dtype."""
        parts = [encode_tokens(text_encoders, ids) for ids in self.ids.split(batch_size)]
        hidden, pooled = torch.cat([hidden for hidden, _ in parts]), torch.cat([pooled for _, pooled in parts])
        if self.zeros_for_empty:
            hidden[NO_CAPTION] = 0
            pooled[NO_CAPTION] = 0
        return replace(self, ids=self.ids.to(hidden.device), hidden=hidden, pooled=pooled)


def encode_captions(
    captions: Iterable[str], tokenizers: Sequence[Any], text_encoders: Sequence[Any], zeros_for_empty: bool
) -> TextTable:
    """The table of these captions. Raises ValueError for one that would be cut at 77 tokens."""
    rows = caption_rows(captions)
    unread = TextTable(rows, token_ids(tokenizers, list(rows)), torch.empty(0), torch.empty(0), zeros_for_empty)
    return unread.encoded_by(text_encoders)


def caption_rows(captions: Iterable[str]) -> dict[str, int]:
    """A row for each caption, in the alphabet's order; the empty one first."""
    return {caption: row for row, caption in enumerate(["", *sorted(set(captions) - {""})])}


def token_ids(tokenizers: Sequence[Any], captions: Sequence[str]) -> Tensor:
    """[n, tokenizers, 77] int64. Raises ValueError for a caption that would be cut."""
    for caption in captions:
        check_prompt(tokenizers, caption)
    columns = [
        tokenizer(list(captions), padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
        for tokenizer in tokenizers
    ]
    return torch.stack([column.input_ids for column in columns], dim=1)


def encode_tokens(text_encoders: Sequence[Any], ids: Tensor) -> tuple[Tensor, Tensor]:
    """Token ids [n, 2, 77] -> hidden states [n, 77, D1 + D2] and pooled embedding [n, P], as SDXL reads them:

    the penultimate layer of both encoders side by side, and the projected end token of the second one.
    """
    states = []
    for column, encoder in enumerate(text_encoders):
        out = encoder(ids[:, column].to(encoder.device), output_hidden_states=True)
        states.append(out.hidden_states[-2])
    return torch.cat(states, dim=-1), out.text_embeds


class Denoiser(nn.Module):
    """The UNet and, where they learn too, the text encoders: one module for one wrapper (DDP, autocast).

    forward: noisy [B, C, h, w], timesteps [B], time_ids [B, 6], and either hidden states [B, 77, D] with pooled
    embeddings [B, P], or token ids [B, 2, 77] with a mask [B] that is 0 for a dropped caption. -> [B, C, h, w].
    """

    def __init__(self, unet: nn.Module, text_encoders: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoders = nn.ModuleList(text_encoders)

    def forward(
        self, noisy: Tensor, timesteps: Tensor, time_ids: Tensor, text: Tensor, pooled_or_mask: Tensor
    ) -> Tensor:
        hidden, pooled = text, pooled_or_mask
        if len(self.text_encoders):
            hidden, pooled = encode_tokens(list(self.text_encoders), text)
            hidden, pooled = hidden * pooled_or_mask[:, None, None], pooled * pooled_or_mask[:, None]
        added = {"text_embeds": pooled, "time_ids": time_ids}
        unet: Any = self.unet
        dtype = next(p.dtype for p in unet.conv_in.parameters())
        return cast(
            Tensor,
            unet(
                noisy.to(dtype),
                timesteps,
                encoder_hidden_states=hidden.to(dtype),
                added_cond_kwargs=added,
                return_dict=False,
            )[0],
        )
