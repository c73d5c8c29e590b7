"""Presentation: how the evaluation card writes a number and shows a picture, and what it asks of a card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from personalize.evaluation.gates import METRICS

if TYPE_CHECKING:
    from PIL.Image import Image


class Card(Protocol):
    """What is asked of a card; the engine's has it."""

    def text(self, text: str) -> None: ...
    def verdict(self, status: Any, headline: str, reasons: Sequence[str] = ()) -> None: ...
    def facts(self, facts: Mapping[str, Any]) -> None: ...
    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None: ...
    def images(self, title: str, images: Sequence[tuple[Any, str]], columns: int = 5, width: int = 160) -> None: ...
    def grid(
        self, title: str, column_labels: Sequence[str], rows: Sequence[tuple[str, Sequence[Any]]], width: int = 160
    ) -> None: ...
    def code(self, title: str, text: str) -> None: ...
    def warning(self, text: str) -> None: ...
    def section(self, name: str, open: bool = True) -> AbstractContextManager[None]: ...


def with_span(estimate: Mapping[str, Any] | None, metric: str, sign: bool = False) -> str:
    """ "+0.210 (0.150 to 0.270)", or a dash."""
    if estimate is None or estimate["value"] is None:
        return "–"
    value = METRICS[metric].write(estimate["value"], sign=sign)
    return f"{value} ({span(estimate['ci'], metric, sign)})"


def span(interval: Sequence[float] | None, metric: str, sign: bool = False) -> str:
    if not interval:
        return "not known"
    low, high = interval
    return METRICS[metric].span(low, high, sign)


def asked(row: Mapping[str, Any]) -> str:
    return f"{row['prompt']}, seed {row['seed']}"


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def spread(count: int, most: int) -> list[int]:
    """Up to `most` indices, evenly over `count`."""
    most = min(count, most)
    return [round(i * (count - 1) / max(most - 1, 1)) for i in range(most)]


def fit(image: Image | None, side: int = 256) -> Image | None:
    """The middle square, small enough to be carried many times over in a card."""
    from PIL import ImageOps

    return None if image is None else ImageOps.fit(image, (min(side, *image.size),) * 2)
