"""Drawings: what one model drew, as files, beside `questions.json`: what it was asked, and under which conditions.

Only pictures that were drawn alike may be compared, so the conditions hold everything that decides a picture to the
last bit and is not the adapter: base model, sampling, precision, batch size, and what computed it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personalize.evaluation.questions import Answers, Questions
from personalize.files import read_json, write_json

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Drawings:
    """One model's pictures in `folder`, one for each row of `questions`. `conditions` are plain values for JSON."""

    folder: Path
    questions: Questions
    conditions: Mapping[str, Any]

    @cached_property
    def paths(self) -> Answers[Path]:
        return Answers(self.questions, [self.folder / name for name in self.questions.files])


@dataclass(frozen=True)
class Photograph:
    """One of a subject's photographs: what it shows, in words without the token, and whether training never saw it."""

    path: Path
    caption: str
    held_out: bool

    @property
    def name(self) -> str:
        return f"{self.path.name} (held out)" if self.held_out else self.path.name


def save(folder: Path, questions: Questions, conditions: Mapping[str, Any], pictures: Sequence[Image]) -> Drawings:
    """Writes `pictures`, in the order of `Questions.rows`, lossless, so that anybody can score them again."""
    drawings = Drawings(folder, questions, conditions)
    for path, picture in zip(drawings.paths.flat, pictures, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    write_json(folder / "questions.json", _as_json(drawings))
    return drawings


def load(folder: Path) -> Drawings:
    """What `save` left in `folder`. Raises OSError or ValueError where it is not that."""
    file = folder / "questions.json"
    content = read_json(file)
    try:
        subjects = [(subject["token"], subject["class_noun"]) for subject in content.pop("subjects")]
        conditions = content.pop("conditions")
        return Drawings(folder, Questions(subjects, **content), conditions)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} does not say what was asked ({type(error).__name__}: {error})") from error


def differences(base: Drawings, tuned: Drawings) -> list[str]:
    """What two models were not asked alike, in words: "sampling_steps 25 and 30". Empty when they can be compared."""
    ours, theirs = ({**content.pop("conditions"), **content} for content in (_as_json(base), _as_json(tuned)))
    return [f"{key} {ours.get(key)} and {theirs.get(key)}" for key in ours if ours[key] != theirs.get(key)]


def _as_json(drawings: Drawings) -> dict[str, Any]:
    asked = drawings.questions
    return {
        "subjects": [{"token": token, "class_noun": noun} for token, noun in asked.subjects],
        "prompts": list(asked.prompts),
        "seeds_per_prompt": asked.seeds_per_prompt,
        "first_seed": asked.first_seed,
        "conditions": dict(drawings.conditions),
    }
