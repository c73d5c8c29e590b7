"""Drawings: what one model drew, as files, beside `questions.json`: what it was asked, and under which conditions.

Only pictures that were drawn alike may be compared, so the conditions hold everything that decides a picture to the
last bit and is not the adapter: base model, sampling, precision, batch size, and what computed it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personalize.evaluation.questions import Answers, Questions, as_prompts
from personalize.files import read_json, value_digest, whole, write_json

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Drawings:
    """One model's pictures in `folder`. `conditions` are plain values for JSON.

    There is one for each row of `questions`, or, of a model that was asked about the class nouns alone (`plain`), one
    for each row about a noun.
    """

    folder: Path
    questions: Questions
    conditions: Mapping[str, Any]
    plain: bool = False

    @cached_property
    def paths(self) -> Answers[Path]:
        """The answer to each row; of a `plain` model several rows have the same."""
        files = self.questions.plain_files if self.plain else self.questions.files
        return Answers(self.questions, [self.folder / name for name in files])

    @property
    def files(self) -> list[Path]:
        """Every picture there is, once."""
        return list(dict.fromkeys(self.paths.flat))

    def as_json(self) -> dict[str, Any]:
        """What was asked, and under which conditions: the content of questions.json."""
        asked = self.questions
        return {
            "subjects": [{"token": token, "class_noun": noun} for token, noun in asked.subjects],
            "prompts": {
                category: {prompt.name: prompt.text for prompt in asked.prompts if prompt.category == category}
                for category in dict.fromkeys(prompt.category for prompt in asked.prompts)
            },
            "seeds_per_prompt": asked.seeds_per_prompt,
            "seed": asked.seed,
            "looks": list(asked.looks),
            "whole": asked.whole,
            "plain": self.plain,
            "conditions": dict(self.conditions),
        }


@dataclass(frozen=True)
class Photograph:
    """One of a subject's photographs: what it shows, in words without the token, and whether training never saw it."""

    path: Path
    caption: str
    held_out: bool

    @property
    def name(self) -> str:
        return f"{self.path.name} (held out)" if self.held_out else self.path.name


def save(drawings: Drawings, pictures: Mapping[int, Path]) -> None:
    """Copies the picture of each row that was asked to its place, lossless, so that anybody can score it again."""
    for row, picture in pictures.items():
        path = drawings.paths.flat[row]
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, path)
    write_json(drawings.folder / "questions.json", drawings.as_json())


class Sketchbook:
    """Pictures that were drawn before, by what decides them: a batch that is there need not be drawn again.

    `about` is all that decides a picture to the last bit but its prompt and seed (and those beside it in its batch).
    So a drawing that was killed goes on, and one that is asked a few prompts more draws those.
    """

    MOST = 4 * 2**30
    """Bytes kept; the batches that were used longest ago go first."""

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.folder, self.about = folder, about

    def page(self, rows: Sequence[tuple[str, int]]) -> Path:
        """Where a batch of (prompt, seed) lies, or will."""
        return self.folder / value_digest([self.about, list(rows)])[:32]

    def drawn(
        self, rows: Sequence[tuple[str, int]], draw: Callable[[Sequence[tuple[str, int]]], Sequence[Image]]
    ) -> list[Path]:
        """The files of a batch, drawn where they are not there."""
        page = self.page(rows)
        if not page.is_dir():
            with whole(page, first_wins=True) as part:
                part.mkdir()
                for index, picture in enumerate(draw(rows)):
                    picture.save(part / f"{index:03}.png")
        os.utime(page)
        return [page / f"{index:03}.png" for index in range(len(rows))]

    def tidy(self) -> None:
        pages = [page for page in self.folder.iterdir() if page.is_dir() and not page.name.startswith(".")]
        room = self.MOST
        for page in sorted(pages, key=lambda page: -page.stat().st_mtime):
            room -= sum(file.stat().st_size for file in page.iterdir())
            if room < 0:
                shutil.rmtree(page, ignore_errors=True)


def load(folder: Path) -> Drawings:
    """What `save` left in `folder`. Raises OSError or ValueError where it is not that."""
    file = folder / "questions.json"
    content = read_json(file)
    try:
        subjects = [(subject["token"], subject["class_noun"]) for subject in content.pop("subjects")]
        conditions, plain = content.pop("conditions"), content.pop("plain")
        prompts = as_prompts(content.pop("prompts"))
        return Drawings(folder, Questions(subjects, prompts, **content), conditions, plain)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} does not say what was asked ({type(error).__name__}: {error})") from error


def differences(base: Drawings, tuned: Drawings) -> list[str]:
    """What two models were not asked alike, in words: "sampling_steps 25 and 30". Empty when they can be compared."""
    ours, theirs = ({**content.pop("conditions"), **content} for content in (base.as_json(), tuned.as_json()))
    asked = [key for key in ours if key != "plain"]
    return [f"{key} {ours.get(key)} and {theirs.get(key)}" for key in asked if ours[key] != theirs.get(key)]
