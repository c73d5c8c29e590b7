"""Cards: one self-contained HTML file for a step, and the same facts as JSON beside it.

Everything a step says is data: it is escaped, and nothing is loaded from a network. Cards with a gallery, comparison or
roster carry one script, always the same to the byte: it holds no data, and without it all is there, only unfiltered.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from personalize.cards import charts, pictures
from personalize.cards.commands import command

Verdict = Literal["passed", "failed", "undecided"]
VERDICTS: tuple[Verdict, ...] = ("passed", "failed", "undecided")
PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
Block = dict[str, Any]
SCHEMA = 1
"""Number of card.json's format: docs/schemas/card.json describes it."""

GALLERY, COMPARED = 9_000_000, 3_000_000
"""Characters of a page that the pictures of its galleries may take, and those of its comparisons at full size."""
GALLERY_SIDES = (288, 240, 192, 160, 128, 112, 96, 80, 64, 48)
COMPARED_SIDES = (1536, 1024, 768, 512, 384, 256, 128)


@dataclass(frozen=True)
class Shot:
    """Pictures that belong together (PIL images or paths), one for each side of a gallery or comparison.

    links: an address for each (see `links.address`) where it lies in full size; may be empty. facets: by what a gallery
    is filtered.
    """

    caption: str
    pictures: Sequence[Any]
    links: Sequence[str] = ()
    facets: Sequence[str] = ()
    note: str = ""


@dataclass(frozen=True)
class Line:
    """A row of a roster. link: an address (see `links.address`) of its first cell; tone: a verdict that colours it."""

    cells: Sequence[Any]
    facets: Sequence[str] = ()
    link: str = ""
    tone: str = ""
    picture: pictures.Picture | None = None


@dataclass(frozen=True)
class Advice:
    """Something to do: what speaks for it, what it is, and how it is typed where it can be."""

    because: str
    do: str
    command: str = ""


class Card:
    """What a step tells people. Blocks appear in the order they are added. run_id: of the run that is shown."""

    def __init__(self, step: str = "", title: str = "", about: str = "") -> None:
        self.step = step
        self.title = title or step.replace("_", " ").capitalize()
        self.about = about
        self.run_id = ""
        self.blocks: list[Block] = []
        self.came_to = ""
        self.words: dict[str, str] = {}
        self._open: list[list[Block]] = [self.blocks]

    command = staticmethod(command)

    def text(self, text: str) -> None:
        """A paragraph of plain text."""
        self._add("text", text=str(text))

    def verdict(self, status: Verdict, headline: str, reasons: Sequence[str] = (), stamp: str = "") -> None:
        """The decision of the step, shown as a banner at the top. stamp: its one word, where not the usual."""
        if status not in VERDICTS:
            raise ValueError(f"a verdict is one of {', '.join(VERDICTS)}, not {status!r}")
        self.blocks[:] = [block for block in self.blocks if block["kind"] != "verdict"]
        stamp = stamp or {"passed": "Passed", "failed": "Not passed", "undecided": "Undecided"}[status]
        said = {"headline": str(headline), "reasons": [str(reason) for reason in reasons], "stamp": stamp}
        self.blocks.insert(0, {"kind": "verdict", "status": status, **said})
        self.came_to = str(status)

    def outcome(self, came_to: str, **words: str) -> None:
        """What the step came to, in one word (default: its verdict). It picks what recipe.yaml's `next:` says there.

        words: what stands for `{their name}` in that text.
        """
        self.came_to, self.words = str(came_to), {name: str(word) for name, word in words.items()}

    def facts(self, facts: Mapping[str, Any]) -> None:
        """A handful of labelled values, set large."""
        self._add("facts", facts=[(str(label), _cell(value)) for label, value in facts.items()])

    def table(
        self,
        title: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[Any]],
        stacked: bool = False,
        tones: Sequence[str] = (),
    ) -> None:
        """Rows of str, int, float, bool, None, PIL images or picture paths (both shown as thumbnails).

        stacked: on a narrow screen each row is a block of its own, with the columns' names in it. tones: a verdict for
        each row, in whose colour its first cell is set.
        """
        for row in rows:
            if len(row) != len(columns):
                raise ValueError(
                    f"table '{title}' has {len(columns)} columns but a row of {len(row)} cells: {list(row)!r}"
                )
        cells = [[_cell(value) for value in row] for row in rows]
        named = [str(column) for column in columns]
        self._add("table", title=str(title), columns=named, rows=cells, stacked=stacked, tones=list(tones))

    def heat(
        self,
        title: str,
        columns: Sequence[str],
        rows: Sequence[tuple[str, Sequence[float | None]]],
        span: tuple[float, float],
        digits: int = 2,
        percent: bool = False,
        note: str = "",
    ) -> None:
        """Labelled rows of numbers, each on a background that is the deeper the nearer it is to the end of `span`."""
        low, high = span

        def depth(value: float) -> float:
            return round(min(1.0, max(0.0, (value - low) / (high - low) if high > low else 1.0)), 3)

        def text(value: float) -> str:
            return f"{100 * value:.0f} %" if percent else f"{value:.{digits}f}"

        cells = [
            {
                "label": str(label),
                "cells": [
                    None if value is None else {"value": value, "text": text(value), "depth": depth(value)}
                    for value in values
                ],
            }
            for label, values in rows
        ]
        self._add("heat", title=str(title), columns=[str(column) for column in columns], rows=cells, note=str(note))

    def advice(self, title: str, items: Sequence[Advice]) -> None:
        """What to do, in the order in which to try it; the commands are in full view."""
        said = [{"because": each.because, "do": each.do, "command": each.command} for each in items]
        self._add("advice", title=str(title), items=said)

    def compare(self, title: str, sides: Sequence[str], shots: Sequence[Shot]) -> None:
        """A few pictures to be looked at closely: side by side, under a slider, and pixel by pixel.

        Every shot has a picture for each side; the last side is the one that is compared with the others.
        """
        self._add(
            "compare", title=str(title), sides=list(map(str, sides)), shots=_shown(shots, COMPARED, COMPARED_SIDES)
        )

    def gallery(self, title: str, sides: Sequence[str], facets: Sequence[str], shots: Sequence[Shot]) -> None:
        """Any number of pictures, small enough to stay within the page's bounds, to be filtered by their facets."""
        for shot in shots:
            if len(shot.facets) != len(facets):
                raise ValueError(f"'{shot.caption}' has {len(shot.facets)} facets, the gallery {len(facets)}")
        shown = _shown(shots, GALLERY, GALLERY_SIDES)
        values = [list(dict.fromkeys(str(shot.facets[f]) for shot in shots)) for f in range(len(facets))]
        for each, shot in zip(shown, shots, strict=True):
            each["facets"] = [of.index(str(value)) for of, value in zip(values, shot.facets, strict=True)]
        named = [{"name": str(name), "values": of} for name, of in zip(facets, values, strict=True)]
        self._add("gallery", title=str(title), sides=list(map(str, sides)), facets=named, shots=shown)

    def roster(
        self, title: str, columns: Sequence[str], facets: Sequence[str], lines: Sequence["Line"], note: str = ""
    ) -> None:
        """Any number of rows with a small picture each, to be filtered by their facets; the first cell is the link.

        The pictures of the first rows are shown, as many as the page's bounds allow.
        """
        values = [list(dict.fromkeys(str(line.facets[f]) for line in lines)) for f in range(len(facets))]
        places = [{value: index for index, value in enumerate(of)} for of in values]
        room, shown = GALLERY, []
        for line in lines:
            if len(line.cells) != len(columns) or len(line.facets) != len(facets):
                raise ValueError(
                    f"roster '{title}' has {len(columns)} columns and {len(facets)} facets, unlike {line!r}"
                )
            room -= len(line.picture.uri) if line.picture else 0
            shown.append(
                {
                    "picture": line.picture if room >= 0 else None,
                    "cells": [_cell(value) for value in line.cells],
                    "link": line.link,
                    "tone": line.tone,
                    "facets": [of[str(value)] for of, value in zip(places, line.facets, strict=True)],
                }
            )
        named = [{"name": str(name), "values": of} for name, of in zip(facets, values, strict=True)]
        self._add("roster", title=str(title), columns=list(map(str, columns)), facets=named, rows=shown, note=str(note))

    def histogram(self, title: str, groups: Mapping[str, Sequence[float]], x: str = "", percent: bool = False) -> None:
        """How values are spread: stacked bars, a colour for each group; those that are not finite are left out."""
        named = {str(name): [float(value) for value in values] for name, values in groups.items()}
        edges, counts = charts.binned(named)
        svg = charts.bars(edges, counts, x, title, percent)
        self._add("histogram", title=str(title), x=str(x), edges=edges, counts=counts, svg=svg)

    def images(self, title: str, images: Sequence[tuple[Any, str]], columns: int = 5, width: int = 160) -> None:
        """A contact sheet of (PIL image or path, caption)."""
        shown = [{"picture": pictures.encode(image, width), "caption": str(caption)} for image, caption in images]
        self._add("images", title=str(title), images=shown, columns=int(columns), width=int(width))

    def grid(
        self, title: str, column_labels: Sequence[str], rows: Sequence[tuple[str, Sequence[Any]]], width: int = 160
    ) -> None:
        """Labelled rows of pictures under labelled columns; None leaves a place empty."""
        shown = [
            {
                "label": str(label),
                "cells": [None if image is None else pictures.encode(image, width) for image in images],
            }
            for label, images in rows
        ]
        self._add(
            "grid", title=str(title), columns=[str(label) for label in column_labels], rows=shown, width=int(width)
        )

    def chart(
        self,
        title: str,
        series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
        x: str = "step",
        y: str = "",
        marks: Mapping[str, float] | None = None,
    ) -> None:
        """Lines over x; each mark is a labelled vertical line. Points that are not finite are left out and counted."""
        lines = {str(name): (list(map(float, xs)), list(map(float, ys))) for name, (xs, ys) in series.items()}
        placed = {str(label): float(at) for label, at in (marks or {}).items() if at is not None}
        self._add(
            "chart",
            title=str(title),
            series=lines,
            x=x,
            y=y,
            marks=placed,
            svg=charts.lines(lines, x, y, placed, title),
        )

    def drawing(self, title: str, svg: str) -> None:
        """A drawing of the engine's own (trusted SVG, its labels escaped where it was made)."""
        self._add("chart", title=str(title), svg=svg)

    def code(self, title: str, text: str) -> None:
        """Verbatim text, folded away under its title."""
        self._add("code", title=str(title), text=str(text))

    def warning(self, text: str) -> None:
        """Something a person should know before trusting the rest."""
        self._add("warning", text=str(text))

    @contextmanager
    def section(self, name: str, open: bool = True) -> Iterator[None]:
        """Group what is added inside under a heading that folds; top-level sections make the card's contents list."""
        blocks: list[Block] = []
        self._add("section", name=str(name), blocks=blocks, open=open)
        self._open.append(blocks)
        try:
            yield
        finally:
            self._open.pop()

    def as_dict(self) -> dict[str, Any]:
        """The card's facts as plain JSON values; pictures by their size, captions kept."""
        return {
            "schema": SCHEMA,
            "step": self.step,
            "title": self.title,
            "about": self.about,
            "blocks": [_plain(block) for block in self.blocks],
        }

    def html(self, footer: Mapping[str, Any] | None = None) -> str:
        """The self-contained page. footer: how the step was made (see `page.page`)."""
        from personalize.cards.page import page

        return page(self, footer or {})

    def _repr_html_(self) -> str:
        from personalize.cards.page import frame

        return frame(self.html())

    def _add(self, kind: str, **content: Any) -> None:
        self._open[-1].append({"kind": kind, **content})


def _cell(value: Any) -> Any:
    if pictures.is_picture(value) or (isinstance(value, Path) and value.suffix.lower() in PICTURE_SUFFIXES):
        return pictures.encode(value, 96)
    if value is None or isinstance(value, bool | int | str):
        return value
    if hasattr(value, "item") and getattr(value, "size", 1) == 1:  # a numpy scalar
        value = value.item()
    return value if isinstance(value, float | int | bool) else str(value)


def _shown(shots: Sequence[Shot], budget: int, sides: Sequence[int]) -> list[Block]:
    """Shots with their pictures encoded, all of them to one size."""
    encoded = iter(
        pictures.encode_all([each for shot in shots for each in shot.pictures], budget, sides) if shots else []
    )
    return [
        {
            "caption": str(shot.caption),
            "note": str(shot.note),
            "pictures": [
                {"picture": next(encoded), "link": link}
                for _, link in zip(shot.pictures, shot.links or [""] * len(shot.pictures), strict=True)
            ],
        }
        for shot in shots
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, pictures.Picture):
        return {"picture": list(value.size)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if key != "svg"}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
