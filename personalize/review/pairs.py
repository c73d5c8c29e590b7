"""Pairs: what is put before people, in which order and on which side.

A pair shows the tuned model's picture beside the base's or the champion's for the same question, or is a *check*: an
own photograph of the subject beside another subject's (with one subject: beside what the base draws, which knows no
subject), so that the right answer is known without asking any model.

Everybody is asked in the same blocks, each of which has every prompt once, so that few votes already cover all prompts
and different people judge the same pairs; within a block everybody has an order and sides of their own.
"""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from personalize.review.votes import CONTROL

CHECK_EVERY = 3
"""Pairs of models for each check: five checks, the fewest that tell, come within the first twenty pairs or so."""
SHOWN_PHOTOGRAPHS = 3
TUNED, BASE, CHAMPION, PHOTOGRAPH, OTHER = "tuned", "base", "champion", "photograph", "photograph of another"


@dataclass(frozen=True)
class Question:
    """What all models were asked. prompt: with the token left out; pictures: one a model, by `TUNED`, `BASE`, ..."""

    token: str
    class_noun: str
    prompt: str
    seed: int
    pictures: Mapping[str, Path]


@dataclass(frozen=True)
class Photograph:
    """One of a subject's photographs, and what it shows, in words without the token."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Material:
    """What pairs are made of. champion: the run that the champion's pictures are from, where there is one."""

    key: str
    questions: Sequence[Question]
    photographs: Mapping[str, Sequence[Photograph]]
    champion: str = ""


@dataclass(frozen=True)
class Side:
    what: str
    path: Path


@dataclass(frozen=True)
class Pair:
    """first: what a vote of worth 1 chose. references: photographs of the subject to compare with."""

    id: str
    kind: str
    token: str
    class_noun: str
    prompt: str
    seed: int | None
    first: Side
    second: Side
    references: tuple[Path, ...]


@dataclass(frozen=True)
class Shown:
    """A pair as one voter sees it."""

    pair: Pair
    first_is_left: bool

    @property
    def left(self) -> Side:
        return self.pair.first if self.first_is_left else self.pair.second

    @property
    def right(self) -> Side:
        return self.pair.second if self.first_is_left else self.pair.first

    def worth(self, choice: str) -> float:
        """Of a choice (`left`, `right`, `neither`): 1, 0 or 0.5. A check with no difference is not answered right."""
        if choice == "neither":
            return 0.5
        return float((choice == "left") == self.first_is_left)


def blocks(material: Material) -> list[list[Pair]]:
    """All pairs in the order everybody is asked them; what is within a block everybody is asked in their own order."""
    rng = random.Random(material.key)
    by_prompt: dict[str, list[Pair]] = defaultdict(list)
    for question in material.questions:
        for against in (CHAMPION, BASE):
            if against in question.pictures:
                by_prompt[question.prompt].append(_of_models(material, question, against))
    for pairs in by_prompt.values():
        rng.shuffle(pairs)
    checks = _checks(material, rng)
    found = []
    for number in range(max(map(len, by_prompt.values()), default=0)):
        block = [pairs[number] for pairs in by_prompt.values() if number < len(pairs)]
        wanted = round(len(block) / CHECK_EVERY)
        found.append(block + [checks.pop() for _ in range(min(wanted, len(checks)))])
    return found


def order_for(voter: str, material: Material) -> list[Shown]:
    """Every pair as this voter is asked it: the same whenever it is asked for.

    Of any two checks in a row one has its right answer on the left, and so with any two pairs of models: who always
    chooses one side gets half of the checks right, and moves no result.
    """
    rng = random.Random(f"{material.key}\n{voter.casefold()}")
    shown = []
    sides = {True: _balanced(rng), False: _balanced(rng)}
    for block in blocks(material):
        pairs = list(block)
        rng.shuffle(pairs)
        shown += [Shown(pair, next(sides[pair.kind == CONTROL])) for pair in pairs]
    return shown


def _balanced(rng: random.Random) -> Iterator[bool]:
    """Without end: true and false, one each in every two, in an order drawn by lot."""
    while True:
        first = rng.random() < 0.5
        yield first
        yield not first


def _of_models(material: Material, question: Question, against: str) -> Pair:
    other = material.champion if against == CHAMPION else ""
    return Pair(
        _id(against, other, question.token, question.prompt, str(question.seed)),
        against,
        question.token,
        question.class_noun,
        question.prompt,
        question.seed,
        Side(TUNED, question.pictures[TUNED]),
        Side(against, question.pictures[against]),
        tuple(each.path for each in material.photographs[question.token][:SHOWN_PHOTOGRAPHS]),
    )


def _checks(material: Material, rng: random.Random) -> list[Pair]:
    """One for each photograph, in random order; none for a subject whose only photograph has to be shown above it."""
    found = []
    for question in {each.token: each for each in material.questions}.values():
        own = material.photographs[question.token]
        others = [p for token, photos in material.photographs.items() if token != question.token for p in photos]
        drawn = [each.pictures[BASE] for each in material.questions if each.token == question.token]
        for number, photograph in enumerate(own if len(own) > 1 else ()):
            second = Side(OTHER, rng.choice(others).path) if others else Side(BASE, rng.choice(drawn))
            rest = [each.path for each in own if each is not photograph]
            found.append(
                Pair(
                    _id(CONTROL, "", question.token, photograph.caption, str(number)),
                    CONTROL,
                    question.token,
                    question.class_noun,
                    photograph.caption,
                    None,
                    Side(PHOTOGRAPH, photograph.path),
                    second,
                    tuple(rest[:SHOWN_PHOTOGRAPHS]),
                )
            )
    rng.shuffle(found)
    return found


def _id(*parts: str) -> str:
    """Says nothing of what is shown."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
