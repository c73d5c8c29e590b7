"""What votes are worth: who paid attention, whether people agree, how often the tuned model wins and how sure that is.

A vote is worth 1 where the first of a pair was chosen (the tuned model; in a check the right answer), 0 where the
second was, and 0.5 where the voter saw no difference.

Votes are crossed: every prompt is judged by several people, every person judges several prompts. Prompts stand for all
that will be asked, so they are random, and the pictures of one prompt go with it. People are random as well where there
are at least `FEWEST_PEOPLE`, and the interval then speaks of people like these; with fewer it speaks of these alone.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from personalize.review.votes import CONTROL, Vote

FEWEST_PROMPTS = 5
FEWEST_PEOPLE = 5
GUESSED = 0.05
"""A voter counts when guessing does as well on the checks in at most this share of cases: 5 of 5, 7 of 8, 9 of 10."""
OPPONENTS = ("base", "champion")
"""Kinds of pairs that show the tuned model, by what it is shown beside."""
AGREEMENT = (
    (0.8, "agree"),
    (0.667, "agree well enough for tentative conclusions"),
    (0.2, "agree somewhat, not enough for conclusions"),
    (-2.0, "hardly agree: it is a matter of taste"),
)
"""Krippendorff (2004) draws conclusions from 0.8, tentative ones from 0.667."""
CHECKS_THAT_TELL = math.ceil(-math.log2(GUESSED))
"""The fewest checks that can show it, all of them right."""
NOTABLE = 0.05
"""Chance of calling any voter one-sided or contrary where none is, over all voters."""


@dataclass(frozen=True)
class Voter:
    """One person's votes. guessed: how often guessing would answer as many checks right.

    one_sided: the side that was chosen far more often than chance, or empty. contrary: chose against the others far
    more often than with them.
    """

    name: str
    votes: int
    checks: int
    right: int
    guessed: float
    seconds: float | None
    left: int
    right_side: int
    one_sided: str
    with_others: int
    against_others: int
    contrary: bool

    @property
    def counts(self) -> bool:
        return self.guessed <= GUESSED

    @property
    def why(self) -> str:
        """In words, why the votes count or do not."""
        said = f"{self.right} of {self.checks} checks right" if self.checks else "no check answered yet"
        if self.counts or not self.checks:
            return said
        if self.checks - self.right > self.right and stats.binomtest(self.right, self.checks).pvalue <= GUESSED:
            return f"{said}, worse than guessing: the question may have been read the other way round"
        return f"{said}: guessing does as well in {100 * self.guessed:.0f} % of cases (at most {100 * GUESSED:.0f})"


@dataclass(frozen=True)
class WinRate:
    """How often the first of a pair won: `value` with its interval, NaN where there are too few prompts to tell.

    people: whether voters count as random, so that the interval speaks of people like these. more: votes that would
    probably (four times in five) settle it, should the rate stay; None where it is settled or so even that none would.
    """

    value: float
    low: float
    high: float
    level: float
    votes: int
    pictures: int
    prompts: int
    voters: int
    more: int | None

    @property
    def people(self) -> bool:
        return self.voters >= FEWEST_PEOPLE

    @property
    def known(self) -> bool:
        return math.isfinite(self.low)

    @property
    def settled(self) -> str:
        """`better`, `worse`, or empty while the interval holds one half."""
        return "better" if self.known and self.low > 0.5 else "worse" if self.known and self.high < 0.5 else ""

    @property
    def words(self) -> str:
        """The interval in a sentence."""
        counted = (
            f"{_many(self.votes, 'vote')} of {_many(self.voters, 'person', 'people')} on "
            f"{_many(self.pictures, 'pair')} in {_many(self.prompts, 'prompt')}"
        )
        if not self.known:
            return f"{100 * self.value:.0f} % of {counted}; at least {FEWEST_PROMPTS} prompts tell how sure that is."
        whom = "people and prompts like these" if self.people else "these people and prompts like these"
        verdict = {
            "better": "It is preferred.",
            "worse": "The other one is preferred.",
            "": f"About {_many(self.more, 'more vote')} on other pictures would probably settle it."
            if self.more
            else "As even as this, no reasonable number of votes will settle it.",
        }[self.settled]
        return (
            f"{100 * self.value:.0f} % ({100 * self.level:g} % interval {100 * self.low:.0f} to "
            f"{100 * self.high:.0f} %, for {whom}) of {counted}. {verdict}"
        )


MOST_VOTES = 5000
"""More than this nobody gives; what needs more is called even."""


def _many(count: int | None, one: str, more: str = "") -> str:
    return f"{count} {one if count == 1 else more or one + 's'}"


def voters(votes: Sequence[Vote]) -> list[Voter]:
    """Everybody who voted, in the order of their first vote."""
    by_name: dict[str, list[Vote]] = defaultdict(list)
    for vote in sorted(votes, key=lambda each: each.at):
        by_name[vote.voter].append(vote)
    others = _others(votes)
    strict = NOTABLE / max(1, len(by_name))
    return [_voter(name, own, others, strict) for name, own in by_name.items()]


def _others(votes: Iterable[Vote]) -> dict[str, dict[str, float]]:
    """Of each pair that shows models: what each voter said, by voter."""
    said: dict[str, dict[str, float]] = defaultdict(dict)
    for vote in votes:
        if vote.kind != CONTROL:
            said[vote.pair][vote.voter] = vote.worth
    return said


def _voter(name: str, own: Sequence[Vote], said: dict[str, dict[str, float]], strict: float) -> Voter:
    checks = [vote for vote in own if vote.kind == CONTROL]
    right = sum(vote.worth == 1 for vote in checks)
    sides = Counter(vote.choice for vote in own)
    left, right_side = sides["left"], sides["right"]
    one_sided = ""
    if left + right_side and stats.binomtest(left, left + right_side).pvalue < strict:
        one_sided = "left" if left > right_side else "right"
    agreed = []
    for vote in own:
        rest = [worth for voter, worth in said.get(vote.pair, {}).items() if voter != name]
        if vote.kind != CONTROL and rest and vote.worth != 0.5 and (mean := float(np.mean(rest))) != 0.5:
            agreed.append((vote.worth > 0.5) == (mean > 0.5))
    contrary = bool(agreed) and stats.binomtest(sum(agreed), len(agreed), alternative="less").pvalue < strict
    took = sorted(vote.seconds for vote in own if vote.seconds is not None)
    return Voter(
        name=name,
        votes=len(own) - len(checks),
        checks=len(checks),
        right=right,
        guessed=float(stats.binom.sf(right - 1, len(checks), 0.5)) if checks else 1.0,
        seconds=took[len(took) // 2] if took else None,
        left=left,
        right_side=right_side,
        one_sided=one_sided,
        with_others=sum(agreed),
        against_others=len(agreed) - sum(agreed),
        contrary=bool(contrary),
    )


def attentive(votes: Sequence[Vote]) -> list[Vote]:
    """The votes on models of those who passed the checks."""
    names = {voter.name for voter in voters(votes) if voter.counts}
    return [vote for vote in votes if vote.voter in names and vote.kind != CONTROL]


def alpha(votes: Iterable[Vote]) -> tuple[float | None, int]:
    """Krippendorff's alpha (ordinal: no difference lies between the two) and the pairs with two voters or more.

    1 is full agreement, 0 what chance gives; below 0.667 Krippendorff (2004) draws no conclusion. Checks do not count:
    they are meant to be easy. None where nothing is shared, or all said the same and nothing is left to chance.
    """
    import krippendorff

    said = _others(votes)
    shared = {pair: by for pair, by in said.items() if len(by) > 1}
    names = sorted({name for by in shared.values() for name in by})
    table = np.array([[by.get(name, np.nan) for by in shared.values()] for name in names], float)
    if not shared or len(np.unique(table[np.isfinite(table)])) < 2:
        return None, len(shared)
    return float(krippendorff.alpha(reliability_data=table, level_of_measurement="ordinal")), len(shared)


def win_rate(votes: Sequence[Vote], level: float = 0.95) -> WinRate | None:
    """The share of `votes` that the first of the pair won, or None without votes.

    Two-way cluster-robust variance (Cameron, Gelbach & Miller 2011) over prompts and, from `FEWEST_PEOPLE` on, voters;
    on the logit scale, so that it stays between 0 and 1; Student's t with Satterthwaite's degrees of freedom. Where all
    votes are alike it is Wilson's interval for as many pairs: ten of ten are not a certainty.
    """
    if not votes:
        return None
    worth = np.array([vote.worth for vote in votes])
    prompts, people, cells, pictures = (
        np.unique([key(vote) for vote in votes], return_inverse=True)[1]
        for key in (
            lambda vote: vote.prompt,
            lambda vote: vote.voter,
            lambda vote: f"{vote.voter}\n{vote.prompt}",
            lambda vote: vote.pair,
        )
    )
    count = {"votes": len(worth), "prompts": int(prompts.max()) + 1, "voters": int(people.max()) + 1}
    value, count["pictures"] = float(worth.mean()), int(pictures.max()) + 1
    if count["prompts"] < FEWEST_PROMPTS:
        return WinRate(value, math.nan, math.nan, level, more=None, **count)
    rest = worth - value
    of_prompts = _variance(rest, prompts)
    variance, freedom = of_prompts, count["prompts"] - 1.0
    if count["voters"] >= FEWEST_PEOPLE:
        of_people = _variance(rest, people)
        variance = max(of_prompts + of_people - _variance(rest, cells), of_prompts, of_people)
        parts = of_prompts**2 / (count["prompts"] - 1) + of_people**2 / (count["voters"] - 1)
        freedom = (of_prompts + of_people) ** 2 / parts if parts else freedom
    t = float(stats.t.ppf((1 + level) / 2, freedom))
    if 0 < value < 1:
        reach = t * math.sqrt(variance) / (value * (1 - value))
        low, high = _from_logit(_logit(value) - reach), _from_logit(_logit(value) + reach)
    else:
        low, high = _wilson(value * count["pictures"], count["pictures"], level)
    return WinRate(value, low, high, level, more=_more(value, low, high, len(worth), level), **count)


def _variance(rest: np.ndarray, clusters: np.ndarray) -> float:
    """Of the mean, when whole clusters are drawn: their squared sums of residuals / n^2, times G / (G - 1)."""
    sums = np.bincount(clusters, weights=rest)
    return float((sums**2).sum() / len(rest) ** 2 * len(sums) / max(1, len(sums) - 1))


def _wilson(wins: float, n: int, level: float) -> tuple[float, float]:
    z = float(stats.norm.ppf((1 + level) / 2))
    middle, room = (wins + z * z / 2) / (n + z * z), z * math.sqrt(wins * (n - wins) / n + z * z / 4) / (n + z * z)
    return max(0.0, middle - room), min(1.0, middle + room)


def _more(value: float, low: float, high: float, votes: int, level: float, power: float = 0.8) -> int | None:
    """Votes beyond these that settle it with that power, should they fall alike: width goes with their root."""
    if low > 0.5 or high < 0.5 or value == 0.5:
        return None
    z, extra = float(stats.norm.ppf((1 + level) / 2)), float(stats.norm.ppf(power))
    reach = (value - low if value > 0.5 else high - value) * (z + extra) / z
    needed = math.ceil(votes * (reach / abs(value - 0.5)) ** 2)
    return needed - votes if needed - votes <= MOST_VOTES else None


def _logit(share: float) -> float:
    return math.log(share / (1 - share))


def _from_logit(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value > -700 else 0.0


def summary(votes: Sequence[Vote], level: float = 0.95) -> dict[str, Any]:
    """All of it as plain values for JSON: each voter, the win rate against each opponent, and agreement."""
    people, counted = voters(votes), attentive(votes)
    agree, shared = alpha(counted)
    rates = {kind: win_rate([vote for vote in counted if vote.kind == kind], level) for kind in OPPONENTS}
    return {
        "votes": sum(vote.kind != CONTROL for vote in votes),
        "checks": sum(vote.kind == CONTROL for vote in votes),
        "counted": len(counted),
        "level": level,
        "against": {kind: _as_json(rate) for kind, rate in rates.items() if rate is not None},
        "alpha": None if agree is None else round(agree, 4),
        "shared": shared,
        "agreement": agreement_words(agree, shared),
        "voters": [
            {**asdict(voter), "counts": voter.counts, "why": voter.why, "ways": ways(voter)} for voter in people
        ],
    }


def _as_json(rate: WinRate) -> dict[str, Any]:
    numbers = {key: None if value != value else value for key, value in asdict(rate).items()}
    return {**numbers, "people": rate.people, "settled": rate.settled, "words": rate.words}


def agreement_words(agree: float | None, shared: int) -> str:
    if agree is None:
        return (
            f"All who judged the same {_many(shared, 'pair')} said the same: chance cannot be told from agreement."
            if shared
            else "No two people have judged the same pair yet."
        )
    how = next(words for least, words in AGREEMENT if agree >= least)
    return f"People {how} (Krippendorff's alpha {agree:.2f} on {_many(shared, 'pair')} that two or more judged)."


def ways(voter: Voter) -> list[str]:
    """What is unusual in how somebody voted, in words. It excludes nobody: sides are balanced, and taste is free."""
    said = []
    if voter.one_sided:
        chosen = voter.left if voter.one_sided == "left" else voter.right_side
        said.append(f"chose the {voter.one_sided} side {chosen} of {voter.left + voter.right_side} times")
    if voter.contrary:
        both = voter.with_others + voter.against_others
        said.append(f"chose against the others {voter.against_others} of {both} times")
    return said
