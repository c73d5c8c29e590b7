"""LoRA: small trainable matrices beside frozen weights, always float32, always reloaded at the scale they had.

W' = W + s · B A with s = alpha / rank (alpha / √rank with rsLoRA); Hu et al. 2021, Kalajdzievski 2023. The scale is not
in the matrices: a file without it is reloaded with s = 1 whatever was trained. So it is in every file written here.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from personalize.dreambooth import adapter_files, tensorfile
from personalize.dreambooth.randomness import derive
from personalize.dreambooth.settings import Targets

Parts = Mapping[str, nn.Module]
"""The adapted modules under diffusers' names: unet, and text_encoder and text_encoder_2 where they learn too."""

ADAPTER = "default"
WEIGHTS = adapter_files.DIFFUSERS

DECIDING = (
    *("peft_type", "r", "lora_alpha", "target_modules", "use_rslora", "use_dora", "lora_dropout", "bias"),
    *("rank_pattern", "alpha_pattern"),
)
"""The fields of peft's LoraConfig that decide an adapter's function. A file names no others: diffusers hands what it
finds to the LoraConfig of whoever loads it, and one that does not know a field loads nothing."""

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


def fuse(parts: Parts) -> int:
    """Lets the adapted linear layers of `parts` compute by `LoraLinear` -> how many could.

    Left to peft: convolutions, DoRA, dropout inside the adapter, quantised bases.
    """
    fitting = [layer for part in parts.values() for layer in layers(part).values() if _fits(layer)]
    for layer in fitting:
        layer.forward = functools.partial(_fused_forward, layer, layer.forward)
    return len(fitting)


def _fits(layer: Any) -> bool:
    base = layer.get_base_layer()
    return (
        type(base) is nn.Linear
        and type(base.weight) is nn.Parameter
        and not layer.lora_variant
        and isinstance(layer.lora_dropout[ADAPTER], nn.Identity)
    )


def _fused_forward(layer: Any, original: Callable[..., Tensor], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    base, down, up = layer.get_base_layer(), layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    plain = not (args or kwargs or layer.disable_adapters or layer.merged)
    if not plain or layer.active_adapters != [ADAPTER] or base.weight.dtype != dtype:
        return original(x, *args, **kwargs)
    return LoraLinear.apply(x.to(dtype), base.weight, base.bias, down.to(dtype), up.to(dtype), layer.scaling[ADAPTER])


class LoraLinear(torch.autograd.Function):
    """y = W x + b + s · B A x for x [..., m], W [n, m], A [r, m], B [n, r], all of one dtype; W and b are frozen.

    peft computes W x, A x, B (A x), the scaling and the sum as operations of their own: each writes its result, and
    most keep their input for the backward pass. Here sum and scaling happen inside the matrix products, and only x and
    A x are kept (cf. LoRAFusion, Zhu et al. 2025). Same function, same gradients up to the order of additions.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        inner = rows @ a.T
        y = rows @ weight.T if bias is None else torch.addmm(bias, rows, weight.T)
        torch.addmm(y, inner, b.T, alpha=scale, out=y)
        ctx.save_for_backward(rows, inner, weight, a, b)
        ctx.scale, ctx.shape = scale, x.shape
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, Tensor, Tensor, None]:
        rows, inner, weight, a, b = ctx.saved_tensors
        g = gradient.reshape(-1, gradient.shape[-1])
        at_inner = (g @ b).mul_(ctx.scale)
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = g @ weight
            torch.addmm(to_x, at_inner, a, out=to_x)
            to_x = to_x.view(ctx.shape)
        return to_x, None, None, at_inner.T @ rows, (g.T @ inner).mul_(ctx.scale), None


@contextlib.contextmanager
def base_alone(parts: Parts) -> Iterator[None]:
    """The parts compute as if they had no adapter, whose weights stay as they are."""
    adapted = [layer for part in parts.values() for layer in layers(part).values()]
    for layer in adapted:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in adapted:
            layer.enable_adapters(True)


def state(parts: Parts) -> dict[str, Tensor]:
    """The adapter's tensors under diffusers' file names, e.g. `unet.mid_block...to_q.lora_A.weight`."""
    from peft import get_peft_model_state_dict

    return {
        file_name(name, path): tensor.detach()
        for name, part in parts.items()
        for path, tensor in get_peft_model_state_dict(part, adapter_name=ADAPTER).items()
    }


def file_name(part: str, path: str) -> str:
    """The name in a diffusers file of what lies at `path` in a part."""
    return f"{part}.{path if part == 'unet' else clip_path(path)}"


def clip_path(path: str) -> str:
    """A text encoder's path as files have it. transformers 5 dropped the `text_model` level from CLIPTextModel."""
    return path if path.startswith("text_model.") else f"text_model.{path}"


def metadata(parts: Parts) -> dict[str, Any]:
    """Each part's LoRA configuration in the form that diffusers reads back (`lora_adapter_metadata`)."""
    packed: dict[str, Any] = {}
    for name, part in parts.items():
        config: dict[str, Any] = part.peft_config[ADAPTER].to_dict()  # type: ignore[union-attr,index]
        for key in DECIDING:
            packed[f"{name}.{key}"] = sorted(config[key]) if isinstance(config[key], set) else config[key]
    return packed


def save(folder: Path, parts: Parts) -> Path:
    """Writes `pytorch_lora_weights.safetensors`, which diffusers reloads at exactly the trained scale."""
    file = folder / WEIGHTS
    packed = json.dumps(metadata(parts), sort_keys=True, default=str)
    tensorfile.save(file, state(parts), {"lora_adapter_metadata": packed})
    return file
