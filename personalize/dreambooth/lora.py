"""LoRA: small trainable matrices beside frozen weights, always float32, always reloaded at the scale they had.

W' = W + s · B A with s = alpha / rank (alpha / √rank with rsLoRA); Hu et al. 2021, Kalajdzievski 2023. The scale is not
in the matrices: a file without it is reloaded with s = 1 whatever was trained. So it is in every file written here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from personalize.dreambooth import tensorfile
from personalize.dreambooth.randomness import derive

Targets = Literal["attention", "attention+feed-forward", "all"]
Parts = Mapping[str, nn.Module]
"""The adapted modules under diffusers' names: unet, and text_encoder and text_encoder_2 where they learn too."""

ADAPTER = "default"
WEIGHTS = "pytorch_lora_weights.safetensors"

_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_FEED_FORWARD = ("proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
_CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv")
UNET_TARGETS: dict[Targets, tuple[str, ...]] = {
    "attention": _ATTENTION,
    "attention+feed-forward": _ATTENTION + _FEED_FORWARD,
    "all": _ATTENTION + _FEED_FORWARD + _CONVOLUTIONS,
}
TEXT_ENCODER_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")


@dataclass(frozen=True)
class LoraSpec:
    """What is added to each targeted layer. `alpha` over `rank` is the strength at which it acts."""

    rank: int = 16
    alpha: float = 16.0
    targets: Targets = "attention+feed-forward"
    dropout: float = 0.0
    use_dora: bool = False
    use_rslora: bool = False

    @property
    def scale(self) -> float:
        return float(self.alpha / (self.rank**0.5 if self.use_rslora else self.rank))


def add(parts: Parts, spec: LoraSpec, seed: int) -> dict[str, nn.Parameter]:
    """Adds an adapter to each part, float32 whatever the part's dtype, and returns what is to be trained by name.

    A starts random (from `seed` alone: the caller's generators are left as they were), B at zero, so that the first
    step sees the base model itself. In bfloat16 most updates of a LoRA learning rate would round to nothing.
    """
    from peft import LoraConfig

    trainable: dict[str, nn.Parameter] = {}
    for name, part in parts.items():
        with torch.random.fork_rng():
            torch.manual_seed(derive(seed, "lora", name))
            part.requires_grad_(False)
            config = LoraConfig(
                r=spec.rank,
                lora_alpha=spec.alpha,  # type: ignore[arg-type]  # peft computes with it; fractions work
                target_modules=list(UNET_TARGETS[spec.targets] if name == "unet" else TEXT_ENCODER_TARGETS),
                lora_dropout=spec.dropout,
                use_dora=spec.use_dora,
                use_rslora=spec.use_rslora,
            )
            part.add_adapter(config, ADAPTER)  # type: ignore[operator]
        for path, parameter in part.named_parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
                trainable[f"{name}.{path}"] = parameter
    return trainable


def layers(part: nn.Module) -> dict[str, Any]:
    """The adapted layers of a part by module path."""
    from peft.tuners.lora import LoraLayer

    return {path: module for path, module in part.named_modules() if isinstance(module, LoraLayer) and module.r}


def scales(part: nn.Module, adapter: str = ADAPTER) -> set[float]:
    """The strengths at which an adapter acts in a part; one number when all is well."""
    return {float(layer.scaling[adapter]) for layer in layers(part).values()}


def state(parts: Parts) -> dict[str, Tensor]:
    """The adapter's tensors under diffusers' file names, e.g. `unet.mid_block...to_q.lora_A.weight`."""
    from peft import get_peft_model_state_dict

    return {
        f"{name}.{path}": tensor.detach()
        for name, part in parts.items()
        for path, tensor in get_peft_model_state_dict(part, adapter_name=ADAPTER).items()
    }


def metadata(parts: Parts) -> dict[str, Any]:
    """Each part's LoRA configuration in the form that diffusers reads back (`lora_adapter_metadata`), sorted."""
    packed: dict[str, Any] = {}
    for name, part in parts.items():
        config: dict[str, Any] = part.peft_config[ADAPTER].to_dict()  # type: ignore[union-attr,index]
        for key, value in config.items():
            packed[f"{name}.{key}"] = sorted(value) if isinstance(value, set) else value
    return packed


def save(folder: Path, parts: Parts) -> Path:
    """Writes `pytorch_lora_weights.safetensors`, which diffusers reloads at exactly the trained scale."""
    file = folder / WEIGHTS
    packed = json.dumps(metadata(parts), sort_keys=True, default=str)
    tensorfile.save(file, state(parts), {"lora_adapter_metadata": packed})
    return file


def load(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and LoRA configuration of a file written by `save`."""
    from safetensors import safe_open

    with safe_open(str(file), framework="pt") as tensors:
        found = {key: tensors.get_tensor(key) for key in tensors.keys()}  # noqa: SIM118  (not a dict)
        packed = (tensors.metadata() or {}).get("lora_adapter_metadata")
    if packed is None:
        raise ValueError(f"{file} does not say its alpha, so the scale it was trained with is unknown.")
    return found, json.loads(packed)
