"""Checkpoints: what the few pictures that a model draws while it learns are worth, in numbers a step is chosen by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from personalize.evaluation.images import open_rgb
from personalize.evaluation.judges import reader
from personalize.evaluation.metrics import Array, prompt_following, similarity

if TYPE_CHECKING:
    from PIL import Image

    from personalize.evaluation.judges import Judge


class Asked(Protocol):
    """What a picture was drawn for. `plain` is its prompt without the token; `token` is empty for a class picture."""

    @property
    def token(self) -> str: ...
    @property
    def class_noun(self) -> str: ...
    @property
    def plain(self) -> str: ...


@dataclass(frozen=True)
class Photographed:
    """A subject's photographs: those it is learnt from, and those kept back, of which there may be none."""

    token: str
    class_noun: str
    learnt: Sequence[Path]
    held_out: Sequence[Path]

    @property
    def references(self) -> Sequence[Path]:
        """What its pictures are compared with."""
        return self.held_out or self.learnt


class CheckpointScorer:
    """The judges on a checkpoint's pictures; they are loaded when the first are scored."""

    def __init__(self, subjects: Sequence[Photographed], load: Callable[[], Sequence[Judge]]) -> None:
        self.subjects = {subject.token: subject for subject in subjects}
        self.load = load

    @cached_property
    def judges(self) -> dict[str, Judge]:
        return {judge.name: judge for judge in self.load()}

    @cached_property
    def references(self) -> dict[str, dict[str, Array]]:
        return {token: self._encoded(subject.references) for token, subject in self.subjects.items()}

    @cached_property
    def ceiling(self) -> float | None:
        """Likeness of the photographs that are learnt to those held out: what a picture can hardly exceed.

        Mean over subjects and judges; None where no subject has photographs held out.
        """
        found = [
            similarity(learnt[name], self.references[subject.token][name]).mean()
            for subject in self.subjects.values()
            if subject.held_out
            for learnt in (self._encoded(subject.learnt),)
            for name in self.judges
        ]
        return float(np.mean(found)) if found else None

    def __call__(self, images: Sequence[Image.Image], asked: Sequence[Asked]) -> dict[str, float]:
        """-> each judge's likeness under its name, their mean `fidelity`, `prompt`, `drift`, `ceiling` where known.

        `fidelity` is a subject's pictures' likeness to its reference photographs, `drift` that of its class's plain
        pictures; `prompt` is CLIP-T of the judge that reads. All are mean cosines. Raises ValueError where none reads.
        """
        features = {name: judge.images(images) for name, judge in self.judges.items()}
        own = [(row, one.token) for row, one in enumerate(asked) if one.token]
        near = [
            (row, subject.token)
            for row, one in enumerate(asked)
            if not one.token
            for subject in self.subjects.values()
            if subject.class_noun == one.class_noun
        ]

        def likeness(name: str, pairs: Sequence[tuple[int, str]]) -> float:
            return float(
                np.mean([similarity(features[name][row], self.references[token][name]) for row, token in pairs])
            )

        rows = [row for row, _ in own]
        hears = reader(list(self.judges.values()))
        texts = hears.texts([asked[row].plain for row in rows])
        alike = {name: likeness(name, own) for name in self.judges}
        known = {} if self.ceiling is None else {"ceiling": self.ceiling}
        return {
            **alike,
            "fidelity": float(np.mean(list(alike.values()))),
            "prompt": float(prompt_following(features[hears.name][rows], texts).mean()),
            "drift": float(np.mean([likeness(name, near) for name in self.judges])),
            **known,
        }

    def _encoded(self, paths: Sequence[Path]) -> dict[str, Array]:
        images = [open_rgb(path) for path in paths]
        return {name: judge.images(images) for name, judge in self.judges.items()}
