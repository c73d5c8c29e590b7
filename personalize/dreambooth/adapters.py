"""Adapters by row: each row of a batch hears its own adapter, at its own strength, or none.

y_i = W x_i + s_i · B_a(i) A_a(i) x_i for row i, with W shared by all. Rows of one adapter and strength lie next to each
other, so that their part of x and y is a view, and sum and scaling happen inside the product: a mixed batch costs the
low-rank products of each part, and no more for being mixed (cf. S-LoRA, Sheng et al. 2023). Adapters need nothing in
common: rank, scale and layers are each one's own.

One adapter, h, may be merged: W_h = W + s B_h A_h. Its rows at full strength then cost what the base costs, and every
other row takes back what it did not ask for: W_h x - (1 - s_i) s B_h A_h x for h at another strength,
W_h x - s B_h A_h x + s_i B_a A_a x for adapter a. What a row gets does not depend on who else is in the batch.

An adapter is a few matrices, read from its file without touching the pipeline: diffusers and peft put modules into the
UNet instead, on the thread that draws, a second or more for SDXL, in which nothing is drawn.
"""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from personalize.dreambooth.backbone import Pipeline
from personalize.dreambooth.sampling import adapter_file

PARTS = ("unet", "text_encoder", "text_encoder_2")


@dataclass(frozen=True, eq=False)
class Dora:
    """m_j / ‖w_j + t b_j A‖ for each output j, at any t; Liu et al. 2024. Each tensor is [out].

    ‖w_j + t b_j A‖² = w_w + 2 t w_d + t² d_d, so that no strength needs the whole matrix again.
    """

    magnitude: Tensor
    w_w: Tensor
    w_d: Tensor
    d_d: Tensor

    def factor(self, t: float) -> Tensor:
        return self.magnitude / (self.w_w + 2 * t * self.w_d + t * t * self.d_d).clamp_min(0).sqrt()


@dataclass(frozen=True, eq=False)
class Product:
    """What an adapter adds to one layer, scale · up(down(x)): down [r, in(, kh, kw)], up [out, r(, 1, 1)]."""

    down: Tensor
    up: Tensor
    scale: float
    dora: Dora | None = None

    def delta(self) -> Tensor:
        """The change of the layer's weight, by the same kernels as peft's, so that merging gives the same bytes."""
        down, up = self.down, self.up
        if down.dim() == 2:
            return (up @ down) * self.scale
        if down.shape[2:] == (1, 1):
            return (up[:, :, 0, 0] @ down[:, :, 0, 0])[:, :, None, None] * self.scale
        return F.conv2d(down.transpose(0, 1), up).transpose(0, 1) * self.scale


@dataclass(frozen=True, eq=False)
class Adapter:
    """An adapter that was read. name: unique among those of a pipeline; products: by part and path of the module."""

    name: str
    products: Mapping[str, Product]

    @property
    def bytes(self) -> int:
        """Of its tensors."""
        return sum(each.down.nbytes + each.up.nbytes for each in self.products.values())

    @property
    def in_text(self) -> bool:
        """Whether the text encoders hear it."""
        return any(not path.startswith("unet.") for path in self.products)


Voice = tuple[Adapter | None, float]
"""An adapter and its strength: 1 as trained. `SILENT` is the base."""

SILENT: Voice = (None, 0.0)


@dataclass(eq=False)
class Site:
    """A layer of the base that some adapter changes. merged: what is in its weight for good."""

    path: str
    layer: Any
    forward: Any
    merged: Product | None = None


@dataclass(eq=False)
class Adapters:
    """Who is heard in the batches of one pipeline.

    Adapters may be read on any thread. What a batch hears is a state of the layers: one thread draws, and merges.
    """

    pipe: Pipeline
    voices: list[tuple[Adapter | None, float, slice]] = field(default_factory=list)
    merged: Adapter | None = None
    _sites: dict[str, Site] = field(default_factory=dict)
    _reading: threading.Lock = field(default_factory=threading.Lock)

    def load(self, file: str | Path, name: str) -> Adapter:
        """Reads the adapter of a folder or file; see `read`."""
        return self.read(adapter_file(file).read_bytes(), name)

    def read(self, data: bytes, name: str) -> Adapter:
        """An adapter from the bytes of the file that training leaves (`pytorch_lora_weights.safetensors`).

        Raises ValueError where it cannot be read, does not say its scale, or does not fit this base.
        """
        try:
            tensors, said = _tensors(data), _metadata(data)
            grouped: dict[str, dict[str, Tensor]] = {}
            for key, tensor in tensors.items():
                path, _, kind = key.rpartition(".lora_")
                grouped.setdefault(path, {})[kind] = tensor
            products, device = {}, self.pipe._execution_device  # which diffusers looks for in every module: once
            with self._reading:
                for path, of in sorted(grouped.items()):
                    site = self._site(path)
                    products[site.path] = self._product(site, of, _scale(said, path, of), device)
        except Exception as error:  # whatever a damaged file, or one of another architecture, makes the readers raise
            words = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise ValueError(f"adapter {name} does not fit this base model: {words}") from error
        return Adapter(name, products)

    def merge(self, adapter: Adapter) -> bool:
        """Adds an adapter to the UNet's weights, once and for good -> whether it could be.

        In half precision it stays beside them, since many of its changes are smaller than what such a weight can tell
        apart; so does DoRA, whose change is no sum.
        """
        inside = {path: product for path, product in adapter.products.items() if path.startswith("unet.")}
        fits = self.pipe.unet.dtype == torch.float32 and not any(product.dora for product in inside.values())
        if fits and self.merged is None:
            self.merged = adapter
            for path, product in inside.items():
                site = self._sites[path]
                site.layer.weight.data += product.delta().to(site.layer.weight.device)
                site.merged = product
        return self.merged is adapter

    @contextmanager
    def speaking(self, rows: Sequence[Voice]) -> Iterator[None]:
        """While it lasts UNet and text encoders take batches of `len(rows)` rows; equal voices must be neighbours."""
        self.voices, start = [], 0
        for (adapter, strength), same in groupby(rows):
            part = slice(start, start + len(list(same)))
            if adapter is not None or self.merged is not None:
                self.voices.append((adapter, strength, part))
            start = part.stop
        try:
            yield
        finally:
            self.voices = []

    def _site(self, path: str) -> Site:
        """The layer that a file's path means, made to listen. Raises ValueError where this base has none there."""
        part, _, inner = path.partition(".")
        try:
            module = getattr(self.pipe, part) if part in PARTS else None
            if module is None:
                raise AttributeError
            try:
                layer = module.get_submodule(inner)
            except AttributeError:  # transformers 5 dropped the level `text_model`, which files have (`lora.clip_path`)
                inner = inner.removeprefix("text_model.")
                layer = module.get_submodule(inner)
        except AttributeError:
            raise ValueError(f"it has no layer {path}") from None
        if not isinstance(layer, (nn.Linear, nn.Conv2d)):
            raise ValueError(f"{path} is a {type(layer).__name__}")
        key = f"{part}.{inner}"
        if key not in self._sites:
            self._sites[key] = Site(key, layer, layer.forward)
            setattr(layer, "forward", functools.partial(_by_row, self._sites[key], self))  # noqa: B010
        return self._sites[key]

    def _product(self, site: Site, of: Mapping[str, Tensor], scale: float, device: torch.device) -> Product:
        if set(of) - {"magnitude_vector"} != {"A.weight", "B.weight"}:
            raise ValueError(f"{site.path} has {', '.join(sorted(of))}")
        down, up = of["A.weight"], of["B.weight"]
        weight: Tensor = site.layer.weight.detach()
        fits = down.shape[1:] == weight.shape[1:] and up.shape[:2] == (len(weight), len(down))
        if not fits or up.shape[2:] != (1,) * (weight.dim() - 2) or getattr(site.layer, "groups", 1) != 1:
            raise ValueError(f"{site.path} is {tuple(weight.shape)}, not {tuple(up.shape)} by {tuple(down.shape)}")
        dora = self._dora(site, of["magnitude_vector"], down, up, device) if "magnitude_vector" in of else None
        return Product(down.to(device), up.to(device), scale, dora)

    def _dora(self, site: Site, magnitude: Tensor, down: Tensor, up: Tensor, device: torch.device) -> Dora:
        weight = site.layer.weight.detach()
        if magnitude.numel() != len(weight):
            raise ValueError(f"{site.path} has {magnitude.numel()} magnitudes for {len(weight)} outputs")
        own = weight.float() - (site.merged.delta().to(weight.device) if site.merged is not None else 0)
        change = Product(down.float(), up.float(), 1.0).delta().to(weight.device)
        sums = [(one * other).flatten(1).sum(1) for one, other in ((own, own), (own, change), (change, change))]
        return Dora(magnitude.flatten().float().to(device), *(each.to(device) for each in sums))


def _by_row(site: Site, adapters: Adapters, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    y: Tensor = site.forward(x, *args, **kwargs)
    for adapter, strength, rows in adapters.voices:
        if site.merged is not None:
            missing = (strength if adapter is adapters.merged else 0.0) - 1.0
            if missing:
                _add(site.layer, site.merged, missing, x[rows], y[rows])
            if adapter is adapters.merged:
                continue
        product = adapter.products.get(site.path) if adapter is not None else None
        if product is not None:
            _add(site.layer, product, strength, x[rows], y[rows])
    return y


def _add(layer: Any, product: Product, strength: float, x: Tensor, y: Tensor) -> None:
    """Adds to y, the layer's output for x, what an adapter makes of it."""
    t, down, up = strength * product.scale, product.down, product.up
    if product.dora is not None:
        factor = product.dora.factor(t)
        bias = 0 if layer.bias is None else layer.bias
        if isinstance(layer, nn.Conv2d):
            factor, bias = factor[:, None, None], bias if layer.bias is None else layer.bias[:, None, None]
        y.copy_(y + (factor - 1) * (y - bias) + factor * t * _low_rank(layer, product, x.to(down.dtype)))
    elif isinstance(layer, nn.Linear) and down.dtype == x.dtype and y.is_contiguous():
        y.view(-1, y.shape[-1]).addmm_(x.reshape(-1, x.shape[-1]) @ down.T, up.T, alpha=t)
    elif down.dtype == x.dtype:
        y.add_(_low_rank(layer, product, x), alpha=t)
    else:
        y.copy_(y + _low_rank(layer, product, x.to(down.dtype)) * t)


def _low_rank(layer: Any, product: Product, x: Tensor) -> Tensor:
    if isinstance(layer, nn.Linear):
        return F.linear(F.linear(x, product.down), product.up)
    inner = F.conv2d(x, product.down, None, layer.stride, layer.padding, layer.dilation)
    return F.conv2d(inner, product.up)


def _tensors(data: bytes) -> dict[str, Tensor]:
    from safetensors.torch import load

    return load(data)


def _metadata(data: bytes) -> dict[str, Any]:
    """What the file says of its LoRA configuration. Raises ValueError where it does not, or trained biases as well."""
    length = int.from_bytes(data[:8], "little")
    packed = json.loads(data[8 : 8 + length]).get("__metadata__", {}).get("lora_adapter_metadata")
    if packed is None:
        raise ValueError("it does not say its alpha, so the scale it was trained with is unknown")
    said: dict[str, Any] = json.loads(packed)
    for part in PARTS:
        if (bias := said.get(f"{part}.bias", "none")) != "none":
            raise ValueError(f"it has biases of its own ({bias!r})")
    return said


def _scale(said: Mapping[str, Any], path: str, of: Mapping[str, Tensor]) -> float:
    """alpha / rank of a layer, or alpha / √rank, as the file says. Raises KeyError where it does not."""
    from peft.utils.other import get_pattern_key

    part, _, inner = path.partition(".")
    patterns: Mapping[str, float] = said.get(f"{part}.alpha_pattern") or {}
    alpha: float = patterns.get(get_pattern_key(list(patterns), inner), said[f"{part}.lora_alpha"])
    rank = len(of["A.weight"])
    return float(alpha / (rank**0.5 if said.get(f"{part}.use_rslora") else rank))
