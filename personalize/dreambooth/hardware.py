"""Hardware: what fits the card, how much arithmetic a step is, and what share of the card's peak was reached."""

from __future__ import annotations

import contextlib
import functools
import json
import sys
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from personalize.dreambooth import lora
from personalize.dreambooth.conditioning import Denoiser
from personalize.photographs.prompts import MAX_TOKENS

Memory = Literal["fast", "balanced", "low"]

PEAK_TFLOPS = {
    "H200": 989.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "A10G": 70.0,
    "A10": 125.0,
    "L4": 121.0,
    "4090": 165.0,
    "3090": 71.0,
    "T4": 65.0,
}
"""Dense bfloat16 (T4: float16) arithmetic per second by a part of the device's name, from the makers' data sheets."""


ACTIVATIONS = {"fast": 7.1e9, "balanced": 0.9e9}
"""What the backward pass of SDXL's UNet keeps for one picture of 1024 px in half precision, in bytes; in proportion to
pixels and precision. Counted by benchmarks/memory.py (adapters of rank 16 on all layers), not measured on a card."""

DECODING = 4.1e9
"""What the VAE takes in float32 to decode a picture of 1024 px, in bytes, measured on a CPU. Checkpoints draw between
steps."""

OTHERS = 1.5e9
"""Adapters, their optimiser state, the judges, kernels' own room and CUDA itself, in bytes."""


def peak_tflops(device: torch.device) -> float | None:
    """The published peak, or None for a device that is not in the list (a CPU). The longest matching name wins."""
    device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    found = [name for name in PEAK_TFLOPS if name in device_name]
    return PEAK_TFLOPS[max(found, key=len)] if found else None


def choose_memory(
    asked: str, total_bytes: int | None, base_bytes: int, samples: int, pixels: int, width: int
) -> Memory:
    """`auto` is the fastest level at which a micro-batch of `samples` pictures of `pixels` each fits the card.

    `base_bytes` are the frozen UNet's, `width` the bytes of a value in it. Without a card: fast.
    """
    if asked != "auto":
        return asked  # type: ignore[return-value]
    if total_bytes is None:
        return "fast"
    levels: tuple[Memory, ...] = ("fast", "balanced")
    for level in levels:
        if needed_bytes(level, base_bytes, samples, pixels, width) <= total_bytes:
            return level
    return "low"


def needed_bytes(level: Memory, base_bytes: int, samples: int, pixels: int, width: int) -> float:
    """What training takes of a card at a level that does not quantise; the arguments are `choose_memory`'s."""
    picture = pixels / 1024**2
    return base_bytes + max(ACTIVATIONS[level] * samples * picture * width / 2, DECODING * picture) + OTHERS


def quantise(unet: Any) -> None:
    """Linear weights of the frozen UNet to int8 (a scale for each output row), half the memory of bfloat16.

    Raises ValueError with the way out where torchao is missing.
    """
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ImportError as error:
        raise ValueError(
            "memory: low needs the package torchao, which is not installed. Install it "
            "(`pip install torchao==0.17.0`) or use "
            "memory: balanced."
        ) from error
    # peft warns that such layers cannot be merged; an adapter that learns is never merged
    warnings.filterwarnings("ignore", message="TorchaoLoraLinear was instantiated")
    quantize_(unet, Int8WeightOnlyConfig(version=2))


def decode_in_tiles(vae: Any) -> None:
    """Large pictures come out of the VAE in overlapping tiles of 512 pixels: 1 GB instead of 4 for one of 1024.

    They differ from the whole picture by less than can be seen (over 40 dB on photographs, with the miniature's VAE).
    """
    vae.enable_tiling()
    vae.tile_sample_min_size, vae.tile_latent_min_size = 512, 64


def count_flops(parts: lora.Parts, spec: lora.LoraSpec, samples: int, side: int, asked: int = 0) -> float:
    """Arithmetic of a micro-batch of `samples` square pictures of `side` latent pixels, forward and backward pass.

    asked: of how many of them the base without the adapter is asked first.

    A multiply-add counts as two. Counted without computing: the same model is built anew on torch's meta device, where
    tensors have sizes and no contents; that takes seconds, so a process counts the same only once. Nothing is
    recomputed there, whatever the memory level: recomputing is a price of memory, not work of the method.
    """
    built = tuple((name, type(part), _configuration(part)) for name, part in parts.items())
    return _counted(built, spec, samples, side, asked)


def _configuration(part: Any) -> str:
    """What diffusers or transformers builds such a model from, without what depends on where this one came from."""
    config = part if hasattr(part, "from_config") else part.config
    known = {key: value for key, value in json.loads(config.to_json_string()).items() if key != "_name_or_path"}
    return json.dumps(known, sort_keys=True)


@functools.cache
def _counted(
    built: tuple[tuple[str, Any, str], ...], spec: lora.LoraSpec, samples: int, side: int, asked: int
) -> float:
    with torch.device("meta"):
        empty: dict[str, Any] = {name: _unfilled(kind, json.loads(config)) for name, kind, config in built}
        lora.add(empty, spec, seed=0)
        unet, encoders = empty["unet"], [part for name, part in empty.items() if name != "unet"]
        noisy = torch.empty(samples, unet.config.in_channels, side, side)
        timesteps, time_ids = torch.empty(samples, dtype=torch.int64), torch.empty(samples, 6)
        ids, mask = torch.empty(samples, 2, MAX_TOKENS, dtype=torch.int64), torch.empty(samples)
        pooled = unet.add_embedding.linear_1.in_features - 6 * unet.config.addition_time_embed_dim
        known = torch.empty(samples, MAX_TOKENS, unet.config.cross_attention_dim), torch.empty(samples, pooled)
    denoiser = Denoiser(unet, encoders).train()
    texts = (ids, mask) if encoders else known
    with _Flops() as counted:
        if asked:
            with torch.no_grad(), lora.base_alone(empty):
                denoiser(noisy[:asked], timesteps[:asked], time_ids[:asked], *(values[:asked] for values in texts))
        denoiser(noisy, timesteps, time_ids, *texts).square().mean().backward()
    return counted.total


class _Flops(TorchDispatchMode):
    """Adds up what operations cost. (torch's FlopCounterMode takes apart all those that cost nothing, for seconds.)"""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0.0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        if price := flop_registry.get(function._overloadpacket):
            self.total += price(*args, **(kwargs or {}), out_val=made)
        return made


def _unfilled(kind: Any, config: dict[str, Any]) -> Any:
    """A model of this architecture, its base without an adapter."""
    return kind.from_config(config) if hasattr(kind, "from_config") else kind(kind.config_class.from_dict(config))


@contextlib.contextmanager
def working_on(device: torch.device, *parts: nn.Module) -> Iterator[None]:
    """Has parts of the base on the device for as long as they work, and in the host's memory afterwards."""
    for part in parts:
        part.to(device)
    try:
        yield
    finally:
        for part in parts:
            part.to("cpu")
        release_memory()


def release_memory() -> None:
    """Gives back what torch keeps of a GPU's memory and does not use."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def peak_memory_gb(device: torch.device) -> float:
    """The most memory held so far: of the card, or of the process where there is none. In 10⁹ bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
