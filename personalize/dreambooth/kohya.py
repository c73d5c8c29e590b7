"""Kohya: the adapter in the naming that ComfyUI, A1111, Forge and sd-scripts load, with modelspec metadata.

`lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lora_down.weight`: the original SDXL UNet's block numbers,
lora_down and lora_up for A and B, and each layer's alpha. See networks/lora.py in kohya-ss/sd-scripts and
https://github.com/Stability-AI/ModelSpec.

LoRA is the same function there, every layer of it. DoRA is not (`adapter_files.DORA_ELSEWHERE`). The layers that bring
the timestep into the residual blocks (`emb_layers_1`, 17 of them), which sd-scripts can train, are in no target here.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from personalize.dreambooth import adapter_files, lora, tensorfile
from personalize.dreambooth.lora import Parts

_PREFIX = {"unet": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}
_SUFFIX = {
    "lora_A.weight": "lora_down.weight",
    "lora_B.weight": "lora_up.weight",
    "lora_magnitude_vector": "dora_scale",
}
_RESNET = {"conv1": "in_layers_2", "conv2": "out_layers_3", "conv_shortcut": "skip_connection"}


def unet_name(path: str, layers_per_block: int, attention_in: Sequence[bool]) -> str:
    """diffusers' path of a UNet module -> the original UNet's, with underscores.

    `attention_in` tells for each up block whether it has attention, which decides where its upsampler stands.
    """
    per_block = layers_per_block + 1
    if match := re.match(r"down_blocks\.(\d+)\.(resnets|attentions|downsamplers)\.(\d+)\.(.+)", path):
        block, kind, index, rest = int(match[1]), match[2], int(match[3]), match[4]
        if kind == "downsamplers":
            return f"input_blocks_{(block + 1) * per_block}_0_op"
        return f"input_blocks_{1 + block * per_block + index}_" + _inner(kind, rest)
    if match := re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", path):
        kind, index, rest = match[1], int(match[2]), match[3]
        return f"middle_block_{1 if kind == 'attentions' else 2 * index}_" + _inner(kind, rest)[2:]
    if match := re.match(r"up_blocks\.(\d+)\.(resnets|attentions|upsamplers)\.(\d+)\.(.+)", path):
        block, kind, index, rest = int(match[1]), match[2], int(match[3]), match[4]
        if kind == "upsamplers":
            return f"output_blocks_{(block + 1) * per_block - 1}_{2 if attention_in[block] else 1}_conv"
        return f"output_blocks_{block * per_block + index}_" + _inner(kind, rest)
    raise ValueError(f"{path} has no name in kohya's format.")


def _inner(kind: str, rest: str) -> str:
    if kind == "attentions":
        return "1_" + rest.replace(".", "_")
    if rest in _RESNET:
        return f"0_{_RESNET[rest]}"
    raise ValueError(f"a residual block's {rest} has no name in kohya's format.")


def layer_names(parts: Parts) -> dict[str, str]:
    """The name of each adapted layer in a diffusers file -> kohya's."""
    names = {}
    for part_name, part in parts.items():
        for path in lora.layers(part):
            if part_name == "unet":
                unet: Any = part
                attention_in = ["CrossAttn" in kind for kind in unet.config.up_block_types]
                inner = unet_name(path, unet.config.layers_per_block, attention_in)
            else:
                inner = lora.clip_path(path).replace(".", "_")
            names[lora.file_name(part_name, path)] = _PREFIX[part_name] + inner
    return names


def to_kohya(parts: Parts, spec: lora.LoraSpec) -> dict[str, Tensor]:
    """The adapter under kohya's names, float32. alpha is written so that alpha / rank is the trained scale, rsLoRA too.

    DoRA's magnitudes become `dora_scale`; who reads it computes with it in a way of its own.
    """
    names = layer_names(parts)
    dimensions = _weight_dimensions(parts)
    tensors: dict[str, Tensor] = {}
    for key, tensor in lora.state(parts).items():
        layer, suffix = _split(key)
        if suffix == "lora_magnitude_vector":
            tensor = tensor.reshape(-1, *[1] * (dimensions[layer] - 1))
        tensors[f"{names[layer]}.{_SUFFIX[suffix]}"] = tensor.contiguous()
    for name in names.values():
        tensors[f"{name}.alpha"] = torch.tensor(spec.scale * spec.rank, dtype=torch.float32)
    return tensors


def _weight_dimensions(parts: Parts) -> dict[str, int]:
    """Of each adapted layer's own weight: 2 for a linear layer, 4 for a convolution."""
    return {
        lora.file_name(name, path): int(layer.base_layer.weight.dim())
        for name, part in parts.items()
        for path, layer in lora.layers(part).items()
    }


def _split(key: str) -> tuple[str, str]:
    for suffix in _SUFFIX:
        if key.endswith("." + suffix):
            return key.removesuffix("." + suffix), suffix
    raise ValueError(f"{key} is not a LoRA tensor.")


def modelspec(
    tensors: Mapping[str, Tensor],
    spec: lora.LoraSpec,
    *,
    base: str,
    title: str,
    trigger_words: Sequence[str],
    resolution: int,
    prediction_type: str,
    steps: int,
    images: Mapping[str, int],
) -> dict[str, str]:
    """ModelSpec 1.0 fields and the `ss_` fields that user interfaces show. Without a date: same run, same bytes.

    `images` counts the photographs of each trigger word.
    """
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": title,
        "modelspec.trigger_phrase": ", ".join(trigger_words),
        "modelspec.resolution": f"{resolution}x{resolution}",
        "modelspec.prediction_type": "v" if prediction_type == "v_prediction" else prediction_type,
        "modelspec.hash_sha256": "0x" + tensorfile.content_hash(tensors),
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_sd_model_name": base,
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(spec.rank),
        "ss_network_alpha": f"{spec.scale * spec.rank:g}",
        "ss_resolution": f"({resolution}, {resolution})",
        "ss_steps": str(steps),
        "ss_v2": "False",
        "ss_tag_frequency": json.dumps({"photographs": dict(sorted(images.items()))}),
    }


def export(file: Path, parts: Parts, spec: lora.LoraSpec, **about: Any) -> Path:
    """Writes the kohya file; `about` are `modelspec`'s keyword arguments. Warns of DoRA."""
    if spec.use_dora:
        warnings.warn(adapter_files.DORA_ELSEWHERE, stacklevel=2)
    tensors = to_kohya(parts, spec)
    tensorfile.save(file, tensors, modelspec(tensors, spec, **about))
    return file
