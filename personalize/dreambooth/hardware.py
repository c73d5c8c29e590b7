"""Hardware: what fits the card, how much arithmetic a step is, and what share of the card's peak was reached."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch

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


def peak_tflops(device_name: str) -> float | None:
    """The published peak, or None for an unknown device (a CPU). The longest matching name wins."""
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
    picture = pixels / 1024**2
    levels: tuple[Memory, ...] = ("fast", "balanced")
    for level in levels:
        working = max(ACTIVATIONS[level] * samples * picture * width / 2, DECODING * picture)
        if base_bytes + working + OTHERS <= total_bytes:
            return level
    return "low"


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


class FlopCount:
    """Counts the arithmetic of the first micro-batch's forward and backward pass; a multiply-add counts as two.

    Where activations are recomputed, the backward pass holds the forward pass a second time, so that it alone is
    counted: recomputing is a price of memory, not work of the method. A compiled model cannot be watched; the same
    model before it is compiled can.
    """

    def __init__(self, recomputes: bool) -> None:
        self.recomputes = recomputes
        self.flops = 0.0
        self.counted: set[str] = set()

    def know(self, flops: float) -> None:
        """Takes what an earlier part of the run has counted; nothing is watched then."""
        self.flops, self.counted = flops, {"forward", "backward"}

    @contextlib.contextmanager
    def watch(self, what: Literal["forward", "backward"]) -> Iterator[None]:
        from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

        aten: Any = torch.ops.aten
        on_cpu = {  # torch counts the attention of GPUs only
            aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
            aten._scaled_dot_product_flash_attention_for_cpu_backward: (
                lambda grad, q, k, v, *_, **__: sdpa_backward_flop_count(grad, q, k, v)
            ),
        }
        if what in self.counted:
            yield
            return
        self.counted.add(what)
        with FlopCounterMode(display=False, custom_mapping=on_cpu) as counter:
            yield
        if what == "backward" or not self.recomputes:
            self.flops += counter.get_total_flops()


@dataclass
class Meter:
    """Speed of a run: seconds spent in training steps (validation and saving left out) and what was done in them."""

    images_a_step: int
    devices: int
    peak: float | None
    flops_a_step: float = 0.0
    seconds: float = 0.0
    steps: int = 0

    def add(self, steps: int, seconds: float) -> dict[str, float]:
        """Counts `steps` steps that took `seconds`; returns the speed of these."""
        self.steps += steps
        self.seconds += seconds
        return self._speed(steps, seconds)

    def total(self) -> dict[str, float]:
        """The speed of the whole run."""
        return self._speed(self.steps, self.seconds)

    def _speed(self, steps: int, seconds: float) -> dict[str, float]:
        if not steps or seconds <= 0:
            return {}
        speed = {"images_per_second": self.images_a_step * steps / seconds}
        if not self.flops_a_step:
            return speed
        tflops = self.flops_a_step * steps / seconds / 1e12
        speed["tflop_per_second"] = tflops
        if self.peak:
            speed["mfu"] = tflops / (self.peak * self.devices)
        return speed


def peak_memory_gb(device: torch.device) -> float:
    """The most memory held so far: of the device, or of the process on a CPU. In 10⁹ bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
