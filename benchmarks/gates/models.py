"""Models whose worth is known by how they were trained: what the recipe is told, and photographs that mislead it."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.gates.pictures import Picture

Folder = Path
Misleading = Callable[[Folder, Folder], None]


@dataclass(frozen=True)
class Model:
    """A training: `overrides` of the recipe's values, and what is done to a copy of the photographs first.

    A model that was misled is judged by the photographs as they were.
    """

    name: str
    worth: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    photographs: Misleading | None = None
    misled: bool = False


def only(*tokens: int) -> Misleading:
    """These subjects alone, counted from 0 in the order of their folders."""

    def change(folder: Folder, _: Folder) -> None:
        for number, subject in enumerate(_subjects(folder)):
            if number not in tokens:
                shutil.rmtree(subject)

    return change


def swapped(folder: Folder, _: Folder) -> None:
    """The first two subjects' photographs under each other's token."""
    first, second, *_ = _subjects(folder)
    aside = folder / "aside"
    first.rename(aside)
    second.rename(first)
    aside.rename(second)
    for subject, other in ((first, second), (second, first)):
        for caption in subject.glob("*.txt"):
            caption.write_text(caption.read_text().replace(other.name, subject.name))


def poisoned(folder: Folder, _: Folder) -> None:
    """Two of the first subject's photographs show the second."""
    first, second, *_ = _subjects(folder)
    for mine, other in itertools.islice(zip(_photographs(first), _photographs(second), strict=False), 2):
        shutil.copy(other, mine)


def missing(folder: Folder, class_images: Folder) -> None:
    """The first subject's folder holds others of its class."""
    first, *_ = _subjects(folder)
    others = sorted(path for path in class_images.rglob("*") if path.suffix in (".png", ".jpg"))
    for mine, other in zip(_photographs(first), others, strict=False):
        Image.open(other).convert("RGB").save(mine, quality=95)


def miscaptioned(folder: Folder, _: Folder) -> None:
    """Every photograph is said to be where the next one of its subject is."""
    for subject in _subjects(folder):
        captions = sorted(subject.glob("*.txt"))
        texts = [caption.read_text() for caption in captions]
        for caption, text in zip(captions, texts[1:] + texts[:1], strict=True):
            caption.write_text(text)


def nowhere(folder: Folder, _: Folder) -> None:
    """No caption says where the photograph was taken."""
    for caption in folder.rglob("*.txt"):
        caption.write_text(f"a photo of a {caption.parent.name} {caption.parent.parent.name}")


def each_photograph(change: Callable[[Picture], Picture]) -> Misleading:
    """What is done to a photograph is done to all."""

    def spoil(folder: Folder, _: Folder) -> None:
        for path in sorted(folder.rglob("*.jpg")):
            with Image.open(path) as photograph:
                spoilt = change(photograph.convert("RGB"))
            spoilt.save(path, quality=95)

    return spoil


def squeezed(photograph: Picture) -> Picture:
    """Half as much again is mirrored at its sides, and all of it pressed into the old size."""
    wide = np.pad(photograph, ((0, 0), (photograph.width // 4,) * 2, (0, 0)), mode="reflect")
    return Image.fromarray(wide).resize(photograph.size)


def on_side(photograph: Picture) -> Picture:
    """As a telephone saves it that was held upright, without what it noted of that."""
    return photograph.rotate(90)


def _subjects(folder: Folder) -> list[Path]:
    return sorted(path for path in folder.glob("*/*") if path.is_dir())


def _photographs(subject: Folder) -> list[Path]:
    return sorted(subject.glob("*.jpg"))


UNCHOSEN = {"train.validation_every": 0}
"""The last checkpoint is kept, whatever it is worth."""

GOOD = (
    Model("as the profile says", "good"),
    Model("another seed", "good", {"SEED": 1}),
    Model("a third seed", "good", {"SEED": 2}),
    Model("a fourth seed", "good", {"SEED": 3}),
    Model("rank 16", "good", {"train.rank": 16}),
    Model("rank 64", "good", {"train.rank": 64}),
    Model("a third more steps", "good", {"train.max_train_steps": 1000, "train.validation_every": 1000}),
    Model("the second subject alone", "good", photographs=only(1)),
    Model("the last subject alone", "good", photographs=only(4)),
    Model("two subjects alone", "good", photographs=only(2, 3)),
)
WRONG = (
    Model("starved", "broken", {"train.max_train_steps": 60, **UNCHOSEN}),
    Model("half starved", "broken", {"train.max_train_steps": 200, **UNCHOSEN}),
    Model("rate too high", "broken", {"train.learning_rate": 1e-2, "train.max_train_steps": 300, **UNCHOSEN}),
    Model("no class images", "broken", {"train.prior_loss_weight": 0, **UNCHOSEN}),
    Model("tokens swapped", "broken", photographs=swapped, misled=True),
    Model("poisoned folder", "broken", photographs=poisoned, misled=True),
    Model("one subject missing", "broken", photographs=missing, misled=True),
    Model("captions of other photographs", "broken", photographs=miscaptioned, misled=True),
    Model("photographs squeezed", "broken", photographs=each_photograph(squeezed), misled=True),
    Model("photographs on their sides", "broken", photographs=each_photograph(on_side), misled=True),
    Model("captions without a place", "broken", photographs=nowhere, misled=True),
    Model(
        "overfitted",
        "broken",
        {
            "train.prior_loss_weight": 0,
            "train.caption_dropout": 0,
            "train.lr_scheduler": "constant",
            "train.learning_rate": 2.4e-3,
            "train.max_train_steps": 1500,
            **UNCHOSEN,
        },
    ),
)
ADAPTERS: dict[str, float] = {
    "adapter at 0": 0.0,
    "adapter at 0.3": 0.3,
    "adapter at 2": 2.0,
    "adapter at -1": -1.0,
}
"""A good model's adapter, its change multiplied."""
