"""What both models are asked: every subject in every prompt from the same seeds, and the plain class noun too."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from numpy.typing import NDArray

SLOT = "{token_noun}"
T = TypeVar("T")


def check_prompts(prompts: Sequence[str]) -> None:
    """Raises ValueError for prompts without a place for the subject's name, or asked twice."""
    for prompt in prompts:
        if prompt.count(SLOT) != 1:
            raise ValueError(f"prompt {prompt!r} must hold {SLOT} once, where the subject's name goes")
        if list(prompts).count(prompt) > 1:
            raise ValueError(f"prompt {prompt!r} is given twice, and would count as two questions")


@dataclass(frozen=True)
class Questions:
    """`prompts` hold `{token_noun}`; `subjects` are (token, class noun). Every picture has a seed of its own.

    Seeds count up from `first_seed`, so that they are easy to keep apart from those that chose the checkpoint.

    Raises ValueError for prompts that cannot be asked.
    """

    subjects: Sequence[tuple[str, str]]
    prompts: Sequence[str]
    seeds_per_prompt: int
    first_seed: int

    def __post_init__(self) -> None:
        check_prompts(self.prompts)

    @property
    def nouns(self) -> list[str]:
        return list(dict.fromkeys(noun for _, noun in self.subjects))

    @property
    def names(self) -> list[str]:
        """What stands in the slot: the subjects, then the plain class nouns."""
        return [f"{token} {noun}" for token, noun in self.subjects] + self.nouns

    @property
    def seeds(self) -> NDArray[Any]:
        """`[names, prompts, seeds]`, int64."""
        import numpy as np

        shape = len(self.names), len(self.prompts), self.seeds_per_prompt
        return self.first_seed + np.arange(np.prod(shape), dtype=np.int64).reshape(shape)

    @property
    def texts(self) -> list[list[str]]:
        """The prompts with the class noun alone, `[subjects][prompts]`: CLIP never learnt the token."""
        return [[self.prompt(prompt, noun) for prompt in self.prompts] for _, noun in self.subjects]

    @property
    def labels(self) -> list[str]:
        """The prompts without their beginning, where all begin alike: "on the beach"."""
        before, after = zip(*(prompt.split(SLOT) for prompt in self.prompts), strict=True)
        if len(set(before)) > 1:
            return [prompt.replace(SLOT, "…") for prompt in self.prompts]
        return [text.strip(" ,.") or "nothing more asked" for text in after]

    @staticmethod
    def prompt(template: str, name: str) -> str:
        return template.replace(SLOT, name)

    @property
    def files(self) -> list[str]:
        """A picture's file for each row: `images/<subject>/<prompt>-<seed>.png`."""
        folders = [re.sub(r"[^\w-]+", "_", name) for name in self.names]
        return [
            f"images/{folder}/{p:02}-{seed}.png"
            for folder, seeds in zip(folders, self.seeds, strict=True)
            for p, row in enumerate(seeds)
            for seed in row
        ]

    def rows(self) -> tuple[list[str], list[int]]:
        """Prompts and seeds, one per picture, in the order in which `Answers` takes them."""
        prompts = [
            self.prompt(p, name) for name in self.names for p in self.prompts for _ in range(self.seeds_per_prompt)
        ]
        return prompts, [int(seed) for seed in self.seeds.ravel()]


@dataclass(frozen=True)
class Answers(Generic[T]):
    """One model's pictures (or features, or file names) in the order of `Questions.rows`."""

    questions: Questions
    flat: Sequence[T]

    def of(self, name: int, prompt: int, seed: int) -> T:
        """`name` counts the subjects, then the class nouns."""
        asked = self.questions
        return self.flat[(name * len(asked.prompts) + prompt) * asked.seeds_per_prompt + seed]

    def plain(self, noun: int, prompt: int, seed: int) -> T:
        return self.of(len(self.questions.subjects) + noun, prompt, seed)
