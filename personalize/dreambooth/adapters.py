"""Adapters by row: each row of a batch hears its own adapter, at its own strength, or none.

y_i = W x_i + s_i · B_a(i) A_a(i) x_i for row i, with W shared by all. Rows of one adapter and strength lie next to each
other, so that their part of x and y is a view, and sum and scaling happen inside the product: a batch with one adapter
costs what peft's own layer costs or less, a mixed one the low-rank products of each part (cf. S-LoRA, Sheng et al.
2023).

One adapter, h, may be merged: W_h = W + s B_h A_h. Its rows at full strength then cost what the base costs, and every
other row takes back what it did not ask for: W_h x - (1 - s_i) s B_h A_h x for h at another strength,
W_h x - s B_h A_h x + s_i B_a A_a x for adapter a. What a row gets does not depend on who else is in the batch.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from personalize.dreambooth import lora
from personalize.dreambooth.backbone import Pipeline
from personalize.dreambooth.sampling import load_adapter

Voice = tuple[str, float]
"""An adapter's name and its strength: 1 as trained. `SILENT` is the base."""

SILENT: Voice = ("", 0.0)


@dataclass
class Adapters:
    """The adapters of one pipeline. Not for several threads at once: what a batch hears is a state of its layers."""

    pipe: Pipeline
    voices: list[tuple[Voice, slice]] = field(default_factory=list)
    units: dict[str, dict[Any, float]] = field(default_factory=dict)
    with_text: set[str] = field(default_factory=set)
    merged: str = ""

    def load(self, file: str | Path, name: str) -> None:
        """Loads a diffusers or kohya file, see `sampling.load_adapter`. Raises ValueError where it does not fit."""
        load_adapter(self.pipe, file, name)
        layers = lora.layers(self.pipe.unet).values()
        self.units[name] = {layer: layer.scaling[name] for layer in layers if name in layer.scaling}
        for layer in layers:
            if not isinstance(layer.forward, functools.partial):
                layer.forward = functools.partial(_by_row, layer, self)
        encoders = (self.pipe.text_encoder, self.pipe.text_encoder_2)
        if any(name in layer.scaling for encoder in encoders for layer in lora.layers(encoder).values()):
            self.with_text.add(name)

    def merge(self, name: str) -> bool:
        """Adds an adapter to the UNet's weights, once and for good -> whether it could be.

        In half precision it stays beside them, since many of its changes are smaller than what such a weight can tell
        apart; so does DoRA, whose change is no sum.
        """
        layers = self.units[name]
        fits = self.pipe.unet.dtype == torch.float32 and not any(name in layer.lora_variant for layer in layers)
        if fits and not self.merged:
            self.merged = name
            for layer in layers:
                layer.get_base_layer().weight.data += layer.get_delta_weight(name)
        return self.merged == name

    def heard_in_text(self, voice: Voice) -> Voice:
        """The voice as the text encoders know it: silent for an adapter that leaves them alone."""
        return voice if voice[0] in self.with_text else SILENT

    @contextmanager
    def speaking(self, rows: Sequence[Voice]) -> Iterator[None]:
        """While it lasts the UNet takes batches of `len(rows)` rows; equal voices must be neighbours."""
        self.voices, start = [], 0
        for voice, same in groupby(rows):
            part = slice(start, start + len(list(same)))
            strengths = {voice[0]: voice[1]}
            if self.merged:
                strengths[self.merged] = strengths.get(self.merged, 0.0) - 1
            self.voices += [((name, strength), part) for name, strength in strengths.items() if name and strength]
            start = part.stop
        try:
            yield
        finally:
            self.voices = []

    def speak_in_text(self, voice: Voice) -> None:
        """What the text encoders hear from now on."""
        for encoder in (self.pipe.text_encoder, self.pipe.text_encoder_2):
            for layer in lora.layers(encoder).values():
                layer._active_adapter = [voice[0]] if voice[0] in layer.scaling else []
                layer.set_scale(*voice)


def _by_row(layer: Any, adapters: Adapters, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    base = layer.get_base_layer()
    y: Tensor = base(x, *args, **kwargs)
    for (name, strength), rows in adapters.voices:
        if name not in layer.scaling:
            continue
        scale = strength * adapters.units[name][layer]
        down, up, part = layer.lora_A[name], layer.lora_B[name], y[rows]
        if name in layer.lora_variant:  # DoRA: not a sum of products, so peft's own
            layer.scaling[name] = scale
            y[rows] = layer.lora_variant[name].forward(layer, active_adapter=name, x=x[rows], result=part)
        elif down.weight.dtype != x.dtype:
            y[rows] = part + up(down(x[rows].to(down.weight.dtype))) * scale
        elif type(base) is nn.Linear and part.is_contiguous():
            inner = x[rows].reshape(-1, x.shape[-1]) @ down.weight.T
            part.view(-1, part.shape[-1]).addmm_(inner, up.weight.T, alpha=scale)
        else:
            part.add_(up(down(x[rows])), alpha=scale)
    return y
