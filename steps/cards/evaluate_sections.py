"""What every section of the evaluation card draws from, and how it writes a number and shows a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from personalize.cards import Shot
from personalize.evaluation.drawings import Drawings, Photograph
from personalize.evaluation.gates import METRICS
from personalize.evaluation.questions import Questions

if TYPE_CHECKING:
    from PIL.Image import Image

SIDES = ("base", "champion", "tuned")
"""Models in the order in which they stand beside each other; there need not be a champion."""


@dataclass(frozen=True)
class Evaluation:
    """What the card is drawn from.

    `result` is scores.json; `photographs[s]` are a subject's, as they were scored; `drawn` what each model drew;
    `places` the address of the folder that a model's pictures lie in, as far as known.
    """

    result: Mapping[str, Any]
    photographs: Sequence[Sequence[Photograph]]
    drawn: Mapping[str, Drawings]
    places: Mapping[str, str] = field(default_factory=dict)

    @property
    def sides(self) -> list[str]:
        return [side for side in SIDES if side in self.drawn]

    @property
    def base(self) -> Drawings:
        return self.drawn["base"]

    @property
    def tuned(self) -> Drawings:
        return self.drawn["tuned"]

    @property
    def questions(self) -> Questions:
        return self.base.questions

    @property
    def level(self) -> str:
        """The intervals' confidence: "95 %"."""
        return f"{100 * self.result['settings']['level']:g} %"

    @cached_property
    def rows(self) -> list[Mapping[str, Any]]:
        """One for each picture, in the order in which they were asked for."""
        return list(self.result["pictures"])

    def ceiling(self, row: Mapping[str, Any]) -> float:
        """The likeness among the photographs of a row's subject; 1 where there is one photograph."""
        return self.result["subjects"][row["at"][0]]["ceiling"]["likeness"] or 1.0

    def files(self, at: Sequence[int]) -> list[Path]:
        """Every model's picture of one question."""
        return [self.drawn[side].paths.of(at[0], at[1], at[2]) for side in self.sides]

    def shot(
        self, at: Sequence[int], caption: str, note: str = "", facets: Sequence[str] = (), first: Path | None = None
    ) -> Shot:
        """Every model's picture of one question, with where it lies in full size; `first` is shown before them."""
        files = self.files(at)
        links = [self._link(side, file) for side, file in zip(self.sides, files, strict=True)]
        before = [first] if first else []
        return Shot(caption, [*before, *files], [*("" for _ in before), *links], facets, note)

    def _link(self, side: str, file: Path) -> str:
        if not self.places.get(side):
            return ""
        return quote(f"{self.places[side]}/{file.relative_to(self.drawn[side].folder).as_posix()}", safe="/:")

    def strip(self, row: Mapping[str, Any]) -> list[Image]:
        """The nearest photograph, and every model's answer."""
        return [thumbnail(self.nearest_photograph(row)), *map(thumbnail, self.files(row["at"]))]

    def nearest_photograph(self, row: Mapping[str, Any]) -> Path:
        """The one that a picture comes nearest to."""
        of_subject = self.photographs[row["at"][0]]
        return next(photo.path for photo in of_subject if photo.name == row["nearest_photograph"])


def values(score: Mapping[str, Any], sides: Sequence[str], metric: str) -> list[str]:
    """A compared score of each model, as it is written."""
    return ["–" if score.get(side) is None else METRICS[metric].write(score[side]) for side in sides]


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


def prompt_and_seed(row: Mapping[str, Any]) -> str:
    return f"{row['prompt']}, seed {row['seed']}"


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:z.2f}"


def spread(count: int, most: int) -> list[int]:
    """Up to `most` indices, evenly over `count`."""
    most = min(count, most)
    return [round(i * (count - 1) / max(most - 1, 1)) for i in range(most)]


def thumbnail(file: Path, side: int = 256) -> Image:
    """The middle square, small enough to be carried many times over in a card."""
    from PIL import Image, ImageOps

    with Image.open(file) as image:
        return ImageOps.fit(image.convert("RGB"), (min(side, *image.size),) * 2)
