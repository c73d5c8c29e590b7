"""Fused: a LoRA linear layer as one autograd function, for the many small layers whose overhead is most of their price.

peft computes W x, A x, B (A x), the scaling and the sum as operations of their own: each writes its result, and most
keep their input for the backward pass. Here sum and scaling happen inside the matrix products, and only x and A x are
kept (cf. LoRAFusion, Zhu et al. 2025). Same function, same gradients up to the order of additions.

Keys and values of captions, where the text encoders rest, need less still: their frozen half is known beforehand.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from personalize.dreambooth.lora import ADAPTER, Parts, layers

READS_CAPTIONS = (".attn2.to_k", ".attn2.to_v")
"""How diffusers names the layers that make keys and values of the captions."""


class Captions:
    """Hidden states [n, 77, D] of a run's captions and, for each layer that makes keys or values of them, W h + b.

    The layers know a batch of captions again by the very tensor that `look_up` gave.
    """

    def __init__(self, hidden: Tensor) -> None:
        self.hidden = hidden
        self.frozen: dict[nn.Module, Tensor] = {}
        self.rows = self.given = torch.empty(0)

    def look_up(self, rows: Tensor) -> Tensor:
        """Hidden states [B, 77, D] of the captions in `rows` [B]."""
        self.rows, self.given = rows, self.hidden[rows]
        return self.given

    @torch.no_grad()
    def prepare(self, layer: Any) -> None:
        self.frozen[layer] = layer.get_base_layer()(self.hidden)

    def project(self, layer: nn.Module, a: Tensor, b: Tensor, scale: float) -> Tensor:
        """W h + b + s · B A h of the batch looked up last, [B, 77, n]."""
        inner = functional.linear(self.given.flatten(0, 1), a)
        frozen = self.frozen[layer][self.rows]
        return torch.addmm(frozen.flatten(0, 1), inner, b.T, alpha=scale).view(frozen.shape)


def install(parts: Parts, captions: Captions | None = None) -> int:
    """Lets the adapted linear layers of `parts` use the fused product -> how many could.

    Left to peft: convolutions, DoRA, dropout inside the adapter, quantised bases.
    """
    fitting = {name: layer for part in parts.values() for name, layer in layers(part).items() if _fits(layer)}
    for name, layer in fitting.items():
        if captions is not None and name.endswith(READS_CAPTIONS):
            captions.prepare(layer)
        layer.forward = functools.partial(_forward, layer, layer.forward, captions)
    return len(fitting)


def _fits(layer: Any) -> bool:
    base = layer.get_base_layer()
    return (
        type(base) is nn.Linear
        and type(base.weight) is nn.Parameter
        and not layer.lora_variant
        and isinstance(layer.lora_dropout[ADAPTER], nn.Identity)
    )


def _forward(
    layer: Any, original: Callable[..., Tensor], captions: Captions | None, x: Tensor, *args: Any, **kwargs: Any
) -> Tensor:
    base, down, up = layer.get_base_layer(), layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    plain = not (args or kwargs or layer.disable_adapters or layer.merged)
    if not plain or layer.active_adapters != [ADAPTER] or base.weight.dtype != dtype:
        return original(x, *args, **kwargs)
    learnt = (down.to(dtype), up.to(dtype), layer.scaling[ADAPTER])
    if captions is not None and x is captions.given and layer in captions.frozen:
        return captions.project(layer, *learnt)
    return LoraLinear.apply(x.to(dtype), base.weight, base.bias, *learnt)


class LoraLinear(torch.autograd.Function):
    """y = W x + b + s · B A x for x [..., m], W [n, m], A [r, m], B [n, r], all of one dtype; W and b are frozen."""

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
