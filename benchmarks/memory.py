"""What the backward pass of SDXL's UNet keeps in memory for a picture, counted without a card and without weights.

    python -m benchmarks.memory

The UNet runs forward and backward on torch's meta device, where tensors have sizes and no contents, and every storage
is counted from the operation that makes it until nothing holds it. Attention is taken to be a flash kernel: its inputs,
its output and a number a row are kept. Half precision, adapters of rank 16, as `memory: auto` assumes
(`personalize.dreambooth.hardware.ACTIVATIONS`). A card needs some more: kernels have room of their own.
"""

from __future__ import annotations

import argparse
import weakref
from typing import Any, get_args
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks import sdxl
from personalize.dreambooth import lora


class Held(TorchDispatchMode):
    """Bytes of all tensors that operations made and something still holds: `now` and at most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            storage = tensor.untyped_storage() if isinstance(tensor, Tensor) else None
            if storage is not None and id(storage) not in self.known:
                self.known.add(id(storage))
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self.forget, id(storage), storage.nbytes())
        return made

    def forget(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


class Flash(torch.autograd.Function):
    """Attention that computes nothing and keeps what a flash kernel keeps."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out, torch.empty(query.shape[:-1], device=query.device))
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, _, _ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def kept(targets: lora.Targets, recomputes: bool, resolution: int) -> tuple[float, float]:
    """Bytes of the UNet with its adapter, and the most held beside it in a step of one picture."""
    with torch.device("meta"):
        unet: Any = sdxl.unet()
        lora.add({"unet": unet}, lora.LoraSpec(targets=targets), seed=0)
        for layer in lora.layers(unet).values():
            layer.cast_input_dtype_enabled = False
        lora.fuse({"unet": unet})
        if recomputes:
            unet.enable_gradient_checkpointing()
        unet.train()
        latents = torch.empty(1, 4, resolution // 8, resolution // 8, dtype=torch.bfloat16)
        caption = torch.empty(1, 77, 2048, dtype=torch.bfloat16)
        added = {"text_embeds": torch.empty(1, 1280), "time_ids": torch.empty(1, 6)}
        storages = [parameter.untyped_storage() for parameter in unet.parameters()]
        held = Held()
        held.known |= {id(storage) for storage in storages}
        with held:
            timestep = torch.empty(1, dtype=torch.int64)
            noise = unet(latents, timestep, encoder_hidden_states=caption, added_cond_kwargs=added, return_dict=False)
            noise[0].float().square().mean().backward()
    return sum(storage.nbytes() for storage in storages), held.most


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__.split("\n\n")[0])
    parser.add_argument("--resolution", type=int, default=1024)
    given = parser.parse_args()
    print("| adapters on | UNet, GB | fast, GB a picture | balanced, GB a picture |\n|---|---|---|---|")
    with (  # neither knows of the meta device
        mock.patch("torch.nn.functional.scaled_dot_product_attention", lambda q, k, v, **_: Flash.apply(q, k, v)),
        mock.patch("torch.is_autocast_enabled", return_value=False),
        mock.patch("torch.utils.checkpoint._infer_device_type", return_value="cpu"),
    ):
        for targets in get_args(lora.Targets):
            (base, fast), (_, balanced) = (kept(targets, recomputes, given.resolution) for recomputes in (False, True))
            print(f"| {targets} | {base / 1e9:.2f} | {fast / 1e9:.2f} | {balanced / 1e9:.2f} |", flush=True)


if __name__ == "__main__":
    main()
