"""Denoiser: what learns, as one module, so that one wrapper (DDP, autocast) serves the UNet and its text encoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn

from personalize.dreambooth import conditioning


class Denoiser(nn.Module):
    """The UNet and, where they learn too, the text encoders.

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
            hidden, pooled = conditioning.encode(list(self.text_encoders), text)
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
