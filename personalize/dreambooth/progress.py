"""Progress: what each step lost and how fast it went, and the end of a run whose loss is no longer a number."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from personalize.dreambooth import hardware
from personalize.dreambooth.setup import Setup


@dataclass
class Meter:
    """Speed of a run: seconds spent in training steps (validation and saving left out) and what was done in them."""

    images_a_step: int
    flops_a_step: float
    devices: int = 1
    peak: float | None = None
    """TFLOP a second of one device"""
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


def speed_meter(run: Setup) -> Meter:
    """A meter that knows what a step of this run holds, on all its devices."""
    s, accelerator = run.settings, run.place.accelerator
    micro_batch = s.batch_size + s.class_images_a_step
    micro_batches = s.gradient_accumulation * accelerator.num_processes
    side = s.resolution // run.model.pipe.vae_scale_factor
    asked = s.class_images_a_step if s.distils else 0
    flops = hardware.count_flops(run.model.parts, run.model.spec, micro_batch, side, asked)
    return Meter(
        micro_batch * micro_batches,
        flops * micro_batches,
        accelerator.num_processes,
        hardware.peak_tflops(accelerator.device),
    )


class Diverged(ValueError):
    """The loss or its gradient is no longer a number."""


class LossLog:
    """Losses that are still on the device. They are read together, so that the device never waits for the host."""

    def __init__(self, run: Setup, history: dict[str, Any]) -> None:
        self.run, self.history, self.meter = run, history, speed_meter(run)
        self.loss = torch.zeros((), device=run.place.accelerator.device)
        self.rows: list[Tensor] = []
        self.rates: list[float] = []
        self.timed = 0
        self.since = time.perf_counter()

    def close_step(self, norm: Tensor, rate: float) -> None:
        """Closes a step: its loss and gradient norm go to the rows that wait."""
        self.rows.append(torch.stack([self.loss, torch.as_tensor(norm, device=self.loss.device).float()]))
        self.rates.append(rate)
        self.loss = torch.zeros_like(self.loss)
        self.timed += 1

    def wait(self) -> None:
        """Until the device has done everything it was given."""
        self.loss.item()

    def restart(self) -> None:
        """Starts the clock again after something that is not training."""
        self.timed, self.since = 0, time.perf_counter()

    def flush(self, step: int) -> dict[str, float]:
        """Reads what waits (mean over processes), puts it into the history, and gives the newest numbers and the speed.

        Raises Diverged for the first of these steps whose loss or gradient is not finite.
        """
        run, first = self.run, step - len(self.rows)
        values = run.place.accelerator.reduce(torch.stack(self.rows), "mean").tolist()
        for index, ((loss, norm), rate) in enumerate(zip(values, self.rates, strict=True)):
            finite = torch.isfinite(torch.tensor([loss, norm]))
            # with float16 an overflowing gradient is expected now and then: the scaler skips the step
            if not finite[0] or (not finite[1] and run.place.accelerator.scaler is None):
                raise Diverged(_divergence(run, first + index, loss, norm))
            self.history["steps"].append(
                {
                    "step": first + index + 1,
                    "loss": loss,
                    "gradient_norm": norm,
                    "learning_rate": rate * run.model.base_rates[0],
                }
            )
        mean_loss = sum(loss for loss, _ in values) / len(values)
        speed = self.meter.add(self.timed, time.perf_counter() - self.since)
        newest = {
            "loss": mean_loss,
            "gradient_norm": values[-1][1],
            "learning_rate": self.rates[-1] * run.model.base_rates[0],
        }
        self.rows, self.rates = [], []
        self.restart()
        return newest | speed


def _divergence(run: Setup, step: int, loss: float, norm: float) -> str:
    s = run.settings
    files = sorted({f for micro in range(s.gradient_accumulation) for f in run.data.maker.batch(step, micro).files})
    half = " or `dtype: bfloat16` (float16 overflows easily)" if run.place.dtype == torch.float16 else ""
    return (
        f"training stopped at step {step + 1}: loss {loss:g}, gradient norm {norm:g}. Nothing was saved as "
        f"finished. The batch held {', '.join(files)}. Try a lower learning_rate than {s.learning_rate:g} (a "
        f"third of it){half}, a longer warmup, or a lower max_grad_norm; if it is always these pictures, look at them."
    )
