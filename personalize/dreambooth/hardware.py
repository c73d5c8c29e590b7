"""Hardware: what fits the card, how much arithmetic a step is, and what share of the card's peak was reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from personalize.dreambooth import lora

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


def peak_tflops(device_name: str) -> float | None:
    """The published peak, or None for an unknown device (a CPU). The longest matching name wins."""
    found = [name for name in PEAK_TFLOPS if name in device_name]
    return PEAK_TFLOPS[max(found, key=len)] if found else None


def choose_memory(asked: str, total_bytes: int | None) -> Memory:
    """`auto` by the card's memory: fast from 22 GB, balanced from 14, low below. Without a card: fast."""
    if asked != "auto":
        return asked  # type: ignore[return-value]
    if total_bytes is None or total_bytes >= 22e9:
        return "fast"
    return "balanced" if total_bytes >= 14e9 else "low"


def quantise(unet: Any) -> None:
    """Linear weights of the frozen UNet to int8 (a scale for each output row), half the memory of bfloat16.

    Raises ValueError with the way out where torchao is missing.
    """
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ImportError as error:
        raise ValueError(
            "memory: low needs the package torchao, which is not installed. Install it (`pip install torchao`) or use "
            "memory: balanced."
        ) from error
    quantize_(unet, Int8WeightOnlyConfig())


@torch.enable_grad()
def training_flops(unet_config: Any, spec: lora.LoraSpec, height: int, width: int, tokens: int = 77) -> float:
    """Floating-point operations of one sample's forward and backward pass, [height, width] in latent pixels.

    Counted on meta tensors, so it takes neither memory nor arithmetic. A multiply-add counts as two; recomputed
    activations do not count, since they are a cost of memory and not of the method.
    """
    from diffusers import UNet2DConditionModel
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        unet: Any = UNet2DConditionModel.from_config(unet_config)
        lora.add({"unet": unet}, spec, seed=0)
        unet.train()
        pooled = unet_config.projection_class_embeddings_input_dim - 6 * unet_config.addition_time_embed_dim
        counter = FlopCounterMode(display=False)
        with counter:
            prediction = unet(
                torch.empty(1, unet_config.in_channels, height, width),
                torch.empty(1, dtype=torch.int64),
                encoder_hidden_states=torch.empty(1, tokens, unet_config.cross_attention_dim),
                added_cond_kwargs={"text_embeds": torch.empty(1, pooled), "time_ids": torch.empty(1, 6)},
                return_dict=False,
            )[0]
            prediction.sum().backward()
    return float(counter.get_total_flops())


@dataclass
class Meter:
    """Speed of a run: seconds spent in training steps (validation and saving left out) and what was done in them."""

    images_a_step: int
    flops_a_step: float
    devices: int
    peak: float | None
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
        tflops = self.flops_a_step * steps / seconds / 1e12
        speed = {"images_per_second": self.images_a_step * steps / seconds, "tflop_per_second": tflops}
        if self.peak:
            speed["mfu"] = tflops / (self.peak * self.devices)
        return speed


def peak_memory_gb(device: torch.device) -> float:
    """The most memory held so far: of the device, or of the process on a CPU. In 10⁹ bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
