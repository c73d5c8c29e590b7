"""Simulated voters whose ways are known, so that what the statistics say of them can be checked.

The chance that a voter prefers the tuned model's picture is logistic in its overall advantage, in luck of the prompt
and of the picture, and in the voter's own taste. What a voter answers may depend on the side it is shown on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from personalize.review.votes import CONTROL, Vote


@dataclass(frozen=True)
class Person:
    """attention: share of checks answered right (and of pairs looked at; else a coin). left: pull to the left side.

    contrary: prefers what the others do not, in pairs that show models.
    """

    attention: float = 0.97
    left: float = 0.0
    contrary: bool = False
    ties: float = 0.05


@dataclass(frozen=True)
class World:
    """How far the tuned model is ahead, on the logit scale, and how much prompts, pictures and tastes vary."""

    ahead: float = 1.0
    of_prompts: float = 0.7
    of_pictures: float = 0.7
    of_people: float = 0.5


def elect(
    rng: Generator, people: Sequence[Person], world: World, prompts: int = 24, pictures: int = 1, checks: int = 8
) -> list[Vote]:
    """Everybody answers `prompts` times `pictures` pairs and `checks` checks, on sides drawn by lot."""
    of_prompt = rng.normal(0, world.of_prompts, prompts)
    of_picture = rng.normal(0, world.of_pictures, (prompts, pictures))
    tastes = rng.normal(0, world.of_people, len(people))
    votes = []
    for number, (person, taste) in enumerate(zip(people, tastes, strict=True)):
        asked = [(CONTROL, 0, each) for each in range(checks)]
        asked += [("base", prompt, each) for prompt in range(prompts) for each in range(pictures)]
        first_left = rng.permutation(np.arange(len(asked)) % 2 == 0)
        for (kind, prompt, each), is_left in zip(asked, first_left, strict=True):
            if kind == CONTROL:
                first = rng.random() < person.attention if person.attention > 0.5 else rng.random() < 0.5
            else:
                logit = world.ahead + of_prompt[prompt] + of_picture[prompt, each] + taste
                first = rng.random() < 1 / (1 + np.exp(-logit))
                if rng.random() > person.attention:
                    first = rng.random() < 0.5
                first ^= person.contrary
            left = bool(first == is_left)
            if rng.random() < person.left:
                left = True
            choice = "neither" if kind != CONTROL and rng.random() < person.ties else "left" if left else "right"
            worth = 0.5 if choice == "neither" else float((choice == "left") == is_left)
            sides = ("tuned", "base") if is_left else ("base", "tuned")
            votes.append(
                Vote(
                    voter=f"voter {number}", pair=f"{kind}-{prompt}-{each}", kind=kind, subject="zwvchr",
                    prompt=f"prompt {prompt}", seed=each, left=sides[0], right=sides[1], choice=choice, worth=worth,
                    at=f"2026-01-01T00:00:{len(votes):06}", seconds=4.0, evaluation="e",
                )
            )  # fmt: skip
    return votes


def truth(world: World, samples: int = 400_000) -> float:
    """The share of votes that the tuned model wins among all such people, prompts and pictures, ties left out."""
    spread = np.sqrt(world.of_prompts**2 + world.of_pictures**2 + world.of_people**2)
    return float((1 / (1 + np.exp(-np.random.default_rng(0).normal(world.ahead, spread, samples)))).mean())
