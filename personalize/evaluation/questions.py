"""What models are asked: every subject in every prompt, and the plain class noun too, from the same noise.

The base knows no subject, so it is asked about the class nouns alone: what it draws for a noun, prompt and seed is its
answer about every subject of that noun.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SLOT = "{token_noun}"
T = TypeVar("T")


@dataclass(frozen=True)
class Prompt:
    """A question: its short name, the category it belongs to, and its text with `{token_noun}` for the subject."""

    name: str
    category: str
    text: str

    def about(self, name: str) -> str:
        return self.text.replace(SLOT, name)


def as_prompts(named: Mapping[str, Mapping[str, str]]) -> tuple[Prompt, ...]:
    """Prompts from {category: {name: text}}.

    Raises ValueError for texts without a place for the subject's name, asked twice, or under a name that is taken.
    """
    prompts = tuple(Prompt(name, category, text) for category, of in named.items() for name, text in of.items())
    if not prompts:
        raise ValueError("there is no prompt: nothing would be asked")
    for what, values in (("name", [p.name for p in prompts]), ("text", [p.text for p in prompts])):
        if twice := next((value for value in values if values.count(value) > 1), None):
            raise ValueError(f"the prompt {what} {twice!r} is given twice, and would count as two questions")
    for prompt in prompts:
        if prompt.text.count(SLOT) != 1:
            raise ValueError(f"prompt {prompt.text!r} must hold {SLOT} once, where the subject's name goes")
        if not _slug(prompt.name):
            raise ValueError(f"prompt {prompt.text!r} needs a name of letters or digits, not {prompt.name!r}")
    slugs = [_slug(prompt.name) for prompt in prompts]
    if len(set(slugs)) < len(slugs):
        raise ValueError(f"two prompts' names make one file name: {', '.join(p.name for p in prompts)}")
    return prompts


def by_look(prompts: Sequence[Prompt], looks: Sequence[int]) -> list[Sequence[Prompt]]:
    """What has been asked at each look: the first `looks[0]` prompts, the first `looks[1]`, ..., and last all of them.

    Every part has its share of each category. Looks at as many prompts as there are, or more, are the last one.
    """
    within = Counter[str]()
    of = Counter(prompt.category for prompt in prompts)
    place = {}
    for number, prompt in enumerate(prompts):
        place[prompt.name] = ((within[prompt.category] + 0.5) / of[prompt.category], number)
        within[prompt.category] += 1
    order = sorted(prompts, key=lambda prompt: place[prompt.name])
    counts = [count for count in looks if count < len(prompts)] + [len(prompts)]
    parts = [order[start:end] for start, end in itertools.pairwise([0, *counts])]
    in_order = [sorted(part, key=lambda prompt: place[prompt.name][1]) for part in parts]
    return [[prompt for part in in_order[: look + 1] for prompt in part] for look in range(len(counts))]


@dataclass(frozen=True)
class Questions:
    """`subjects` are (token, class noun).

    A picture's seed follows from class noun, prompt and which of that kind it is: so a subject and the plain thing of
    its class are drawn from the same noise, and more subjects, prompts or seeds leave the pictures there are as they
    are. Another `seed` is another draw of all of them. Seeds are below 2³¹. `looks`: where the verdict is asked several
    times while more prompts are drawn, after how many of them; these are as many as one of them says, out of
    the prompts whose digest is `whole`.
    """

    subjects: Sequence[tuple[str, str]]
    prompts: Sequence[Prompt]
    seeds_per_prompt: int
    seed: int
    looks: Sequence[int] = ()
    whole: str = ""

    @property
    def look(self) -> int:
        """Which of `looks` this is, from 1."""
        return self.looks.index(len(self.prompts)) + 1 if self.looks else 1

    @property
    def nouns(self) -> list[str]:
        return list(dict.fromkeys(noun for _, noun in self.subjects))

    @property
    def names(self) -> list[str]:
        """What stands in the slot: the subjects, then the plain class nouns."""
        return [f"{token} {noun}" for token, noun in self.subjects] + self.nouns

    @property
    def seeds(self) -> NDArray[np.int64]:
        """`[names, prompts, seeds]`."""
        import numpy as np

        of_nouns = [
            [[self._seed(noun, prompt, k) for k in range(self.seeds_per_prompt)] for prompt in self.prompts]
            for noun in self.nouns
        ]
        return np.array([of_nouns[noun] for noun in self.noun_of], np.int64)

    @property
    def noun_of(self) -> list[int]:
        """Which of `nouns` each of `names` is, or is about."""
        nouns = self.nouns
        return [nouns.index(noun) for _, noun in self.subjects] + list(range(len(nouns)))

    def _seed(self, noun: str, prompt: Prompt, k: int) -> int:
        what = f"evaluation\n{self.seed}\n{noun}\n{prompt.text}\n{k}"
        return int.from_bytes(hashlib.sha256(what.encode()).digest()[:8], "big") % 2**31

    @property
    def texts(self) -> list[list[str]]:
        """The prompts with the class noun alone, `[nouns][prompts]`: CLIP never learnt the token."""
        return [[prompt.about(noun) for prompt in self.prompts] for noun in self.nouns]

    @property
    def labels(self) -> list[str]:
        return [prompt.name for prompt in self.prompts]

    @property
    def files(self) -> list[str]:
        """A picture's file for each row: `images/<subject>/<prompt>-<seed>.png`."""
        folders = [_slug(name) for name in self.names]
        return [
            f"images/{folder}/{_slug(prompt.name)}-{seed}.png"
            for folder, of_name in zip(folders, self.seeds, strict=True)
            for prompt, of_prompt in zip(self.prompts, of_name, strict=True)
            for seed in of_prompt
        ]

    @property
    def plain_files(self) -> list[str]:
        """For each row the file of the plain class picture from the same noise: the base's answer."""
        files, each = self.files, len(self.prompts) * self.seeds_per_prompt
        first = len(self.subjects)
        return [file for n in self.noun_of for file in files[(first + n) * each : (first + n + 1) * each]]

    def rows(self) -> tuple[list[str], list[int]]:
        """Prompts and seeds, one per picture, in the order in which `Answers` takes them."""
        prompts = [p.about(name) for name in self.names for p in self.prompts for _ in range(self.seeds_per_prompt)]
        return prompts, [int(seed) for seed in self.seeds.ravel()]

    def batches(self, size: int, plain: bool = False) -> list[list[int]]:
        """Rows to be drawn together, at most `size`: seed by seed, prompt by prompt, all names of a prompt in a row.

        So more prompts at the end, or more seeds, leave all full batches as they were, and with them every last bit.
        Class nouns are drawn apart from subjects, and so alike where they alone are asked for (`plain`).
        """
        of_nouns = range(len(self.subjects), len(self.names))
        return [
            order[start : start + size]
            for names in ([of_nouns] if plain else [range(len(self.subjects)), of_nouns])
            for order in [self._order(names, k) for k in range(self.seeds_per_prompt)]
            for start in range(0, len(order), size)
        ]

    def _order(self, names: Sequence[int], k: int) -> list[int]:
        prompts, seeds = len(self.prompts), self.seeds_per_prompt
        return [(name * prompts + p) * seeds + k for p in range(prompts) for name in names]


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


def _slug(name: str) -> str:
    return re.sub(r"[^\w-]+", "_", name).strip("_")
