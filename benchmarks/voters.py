"""Do the statistics of a review find what is wrong with voters? People whose ways are known vote; what is said of them?

    python -m benchmarks.voters

Prints four Markdown tables: how often the win rate's interval holds the truth, what happens to voters of each kind, how
well alpha tells taste from agreement, and how often the votes that are advised settle it.

The chance that a voter prefers the tuned model's picture is logistic in its overall advantage, in luck of the prompt
and of the picture, and in the voter's own taste. What a voter answers may depend on the side it is shown on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from personalize.review.agreement import alpha, attentive, voters, win_rate
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
        lots = rng.random(len(asked)) < 0.5
        first_left = np.where(np.arange(len(asked)) % 2 == 0, lots, ~np.roll(lots, 1))  # one each in every two
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


ATTENTIVE, CLICKER = Person(), Person(attention=0.5)
KINDS = {
    "attentive": ATTENTIVE,
    "clicks at random": CLICKER,
    "always left": Person(left=1.0),
    "leans left in half of the pairs": Person(left=0.5),
    "prefers what the others do not": Person(contrary=True),
}
RUNS = 400


def coverage(runs: int = RUNS) -> list[str]:
    """Of the 95 % interval of the win rate, over worlds and panels."""
    lines = [
        "| tuned model ahead | people | prompts x pictures | truth | interval holds it | width |",
        "|---|---|---|---|---|---|",
    ]
    person = Person(attention=1.0, ties=0.0)
    for ahead in (0.0, 1.0, 2.5):
        for people, prompts, pictures in ((5, 24, 1), (8, 24, 1), (12, 24, 2), (20, 10, 1)):
            world, rng = World(ahead=ahead), np.random.default_rng(1)
            right = truth(world)
            found = [win_rate(elect(rng, [person] * people, world, prompts, pictures, 0)) for _ in range(runs)]
            held = np.mean([one.low <= right <= one.high for one in found])
            width = np.mean([one.high - one.low for one in found])
            lines.append(
                f"| {ahead:g} | {people} | {prompts} x {pictures} | {100 * right:.0f} % | {100 * held:.1f} % "
                f"| {width:.2f} |"
            )
    return lines


def detection(runs: int = RUNS // 4) -> list[str]:
    """One voter of each kind among five attentive ones: 24 pairs and 8 checks each, then three times as many."""
    lines = [
        "| the sixth voter | pairs | does not count | called one-sided | called contrary |",
        "|---|---|---|---|---|",
    ]
    for name, person in KINDS.items():
        for pictures in (1, 3):
            rng = np.random.default_rng(2)
            panels = [
                elect(rng, [ATTENTIVE] * 5 + [person], World(ahead=1.5), 24, pictures, 8 * pictures)
                for _ in range(runs)
            ]
            said = [voters(votes)[-1] for votes in panels]
            found = [[not one.counts, bool(one.one_sided), one.contrary] for one in said]
            shares = " | ".join(f"{100 * share:.0f} %" for share in np.mean(found, axis=0))
            lines.append(f"| {name} | {24 * pictures} | {shares} |")
    return lines


def agreement(runs: int = RUNS // 4) -> list[str]:
    """Alpha where the pictures decide, and where it is a matter of taste."""
    lines = ["| what decides | alpha, median of the panels |", "|---|---|"]
    for name, world in {
        "the pictures": World(0.0, of_prompts=3.0, of_pictures=3.0, of_people=0.2),
        "the pictures, less clearly": World(0.0, of_prompts=1.5, of_pictures=1.5, of_people=0.5),
        "chance": World(0.0, 0.0, 0.0, 0.0),
    }.items():
        rng = np.random.default_rng(3)
        found = [alpha(attentive(elect(rng, [ATTENTIVE] * 6, world)))[0] for _ in range(runs)]
        lines.append(f"| {name} | {np.median([one for one in found if one is not None]):.2f} |")
    return lines


def advice(runs: int = RUNS) -> list[str]:
    """A weak preference is left open; as many more votes as advised, on other prompts, settle it mostly."""
    lines = [
        "| tuned model ahead | open after 6 people x 12 prompts | more votes advised, median | settled with so many |",
        "|---|---|---|---|",
    ]
    for ahead in (0.2, 0.5):
        world, rng, more, settled, left_open = World(ahead=ahead, of_people=0.2), np.random.default_rng(4), [], [], 0
        person = Person(attention=1.0)
        for _ in range(runs):
            first = win_rate(elect(rng, [person] * 6, world, 12, 1, 0))
            left_open += not first.settled
            if first.more:
                more.append(first.more)
        median = int(np.median(more))
        prompts = 12 + round(median / 6)
        for _ in range(runs):
            settled.append(win_rate(elect(rng, [person] * 6, world, prompts, 1, 0)).settled == "better")
        lines.append(f"| {ahead:g} | {100 * left_open / runs:.0f} % | {median} | {100 * np.mean(settled):.0f} % |")
    return lines


def main() -> None:
    for part in (coverage, detection, agreement, advice):
        print(*part(), sep="\n", end="\n\n")


if __name__ == "__main__":
    main()
