"""SDXL made from its configuration, with random weights: weights change no speed and no memory.

`FULL` are the sizes of SDXL 1.0, `TINY` the same pattern of blocks at a width that a CPU steps in milliseconds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Sizes:
    channels: tuple[int, int, int]
    transformer_layers: tuple[int, int, int]
    heads: tuple[int, int, int]
    layers_per_block: int
    text: tuple[tuple[int, int, int], tuple[int, int, int]]
    """width, layers and heads of each text encoder"""
    vae: tuple[int, int, int, int]
    time_width: int
    resolution: int
    vocabulary: int = 0
    """0: the tokenizer's own"""


FULL = Sizes((320, 640, 1280), (1, 2, 10), (5, 10, 20), 2, ((768, 12, 12), (1280, 32, 20)), (128, 256, 512, 512), 256,
             1024, 49408)  # fmt: skip
TINY = Sizes((32, 64, 64), (1, 1, 1), (1, 2, 2), 1, ((32, 2, 1), (64, 2, 2)), (32, 32, 32, 32), 32, 64)


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def unet(sizes: Sizes = FULL, dtype: torch.dtype = torch.bfloat16) -> Any:
    from diffusers import UNet2DConditionModel

    (first, *_), (second, *_) = sizes.text
    with default_dtype(dtype):
        return UNet2DConditionModel(
            sample_size=sizes.resolution // 8, block_out_channels=sizes.channels,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=sizes.layers_per_block, transformer_layers_per_block=sizes.transformer_layers,
            attention_head_dim=sizes.heads, cross_attention_dim=first + second, use_linear_projection=True,
            addition_embed_type="text_time", addition_time_embed_dim=sizes.time_width,
            projection_class_embeddings_input_dim=6 * sizes.time_width + second,
        )  # fmt: skip


def write(folder: Path, sizes: Sizes, dtype: torch.dtype = torch.bfloat16, device: str = "cpu") -> Path:
    """A folder in diffusers' layout, seed 0. device: where the weights are made; on a card that takes seconds."""
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from miniature.pretrain.tokens import write_clip_tokenizer

    tokenizers = [
        write_clip_tokenizer(folder / f"tokenizer{end}", [], pad) for end, pad in (("", "<|endoftext|>"), ("_2", "!"))
    ]

    def text(which: int, activation: str) -> CLIPTextConfig:
        (width, layers, heads), tokenizer = sizes.text[which], tokenizers[which]
        return CLIPTextConfig(
            vocab_size=sizes.vocabulary or len(tokenizer), hidden_size=width, intermediate_size=4 * width,
            num_hidden_layers=layers, num_attention_heads=heads, hidden_act=activation, projection_dim=width,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip

    with torch.random.fork_rng(devices=None if device.startswith("cuda") else []), torch.device(device):
        torch.manual_seed(0)
        with default_dtype(dtype):
            vae = AutoencoderKL(
                block_out_channels=sizes.vae, down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=sizes.layers_per_block,
                sample_size=sizes.resolution, scaling_factor=0.13025, force_upcast=True,
            )  # fmt: skip
            encoders = CLIPTextModel(text(0, "quick_gelu")), CLIPTextModelWithProjection(text(1, "gelu"))
        pipe = StableDiffusionXLPipeline(
            vae=vae, text_encoder=encoders[0], text_encoder_2=encoders[1], unet=unet(sizes, dtype),
            tokenizer=tokenizers[0], tokenizer_2=tokenizers[1], add_watermarker=False,
            force_zeros_for_empty_prompt=True,
            scheduler=EulerDiscreteScheduler(
                beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading",
                steps_offset=1,
            ),
        )  # fmt: skip
    pipe.save_pretrained(folder, safe_serialization=True, max_shard_size="20GB")  # SDXL has one file a component
    return folder
