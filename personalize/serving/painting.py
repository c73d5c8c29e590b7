"""Pictures outside a server: a model that is loaded once and draws what is ordered, into files.

painter = Painter(model, device="cuda", dtype="bfloat16", merged=True)
for part in parts(orders, range(len(orders)), 8):
    files = painter.files([orders[index] for index in part])
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personalize import hub
from personalize.dreambooth.adapters import SILENT
from personalize.dreambooth.denoising import Denoising
from personalize.dreambooth.sampling import load_pipeline
from personalize.evidence.package import origin
from personalize.photographs.prompts import Subject, load_subjects
from personalize.serving.encoding import encode

if TYPE_CHECKING:
    from PIL.Image import Image

    from personalize.evidence.manifest import Signing
    from personalize.serving.request import Order


@dataclass(frozen=True)
class Model:
    """What draws: a base, an adapter where there is one, and what to call them."""

    label: str
    base: str
    revision: str | None = None
    adapter: Path | None = None
    name: str = ""
    version: str = ""

    def facts(self, order: Order) -> dict[str, Any]:
        """What a picture is made from, and by whom."""
        return {**order.facts, "model": self.label}

    @property
    def origin(self) -> Mapping[str, Any]:
        """What its pictures' manifests say of it."""
        if self.adapter is None:
            return {"base": hub.identity(self.base, self.revision)}
        return {**origin(self.adapter.parents[1]), "registered_model": self.name, "version": self.version}

    @property
    def subjects(self) -> list[Subject]:
        """What it was taught."""
        return load_subjects(self.adapter) if self.adapter else []


class Painter:
    """Loads a model once. merged: its adapter lies in the base's weights, for orders that all ask for strength 1."""

    def __init__(self, model: Model, device: str, dtype: str, merged: bool, signing: Signing | None = None) -> None:
        self.model, self.signing = model, signing
        self.denoising = Denoising(load_pipeline(model.base, revision=model.revision, device=device, dtype=dtype))
        self.adapter = self.denoising.adapters.load(model.adapter, "own") if model.adapter else None
        if self.adapter is not None and merged:
            self.denoising.adapters.merge(self.adapter)

    def pictures(self, orders: Sequence[Order]) -> list[Image]:
        """orders: of one size and number of steps; they are drawn together."""
        rows = []
        for order in orders:
            voice = (self.adapter, order.adapter_scale) if self.adapter else SILENT
            rows.append(self.denoising.begin(order.prompt, order.seed, order.sampling, voice))
        while rows[0].left:
            self.denoising.step(rows)
        return self.denoising.finish(rows)

    def files(self, orders: Sequence[Order]) -> list[bytes]:
        """The same, each in the format that its order asks for, with what it is made from."""
        pictures = zip(orders, self.pictures(orders), strict=True)
        return [encode(picture, order.format, self.model.facts(order), self.signing) for order, picture in pictures]


def parts(orders: Sequence[Order], left: Iterable[int], most: int) -> Iterator[list[int]]:
    """Places of orders that can be drawn together, at most so many; `left` are the places that are asked for."""

    def alike(index: int) -> tuple[int, int, int]:
        sampling = orders[index].sampling
        return sampling.width, sampling.height, sampling.steps

    for _, same in groupby(sorted(left, key=alike), key=alike):
        while part := list(islice(same, most)):  # itertools.batched is in Python from 3.12 on
            yield part
