"""Acceptance sampling: what a random sample that somebody has looked at says of all that were not looked at.

The number of bad ones among n out of N without replacement is hypergeometric; a bound is exact where it is found by
inverting that (Clopper and Pearson 1934 for the binomial; Buonaccorsi 1987 for the hypergeometric). No normal
approximation: with no bad one found it would say that there is none.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

CONFIDENCE = 0.95


def most_bad(population: int, sample: int, bad: int, confidence: float = CONFIDENCE) -> int:
    """The most bad ones among `population` that `bad` of `sample` leave possible: an upper bound at `confidence`.

    max {D : P(X <= bad | N, D, n) > 1 - confidence}. Raises ValueError for numbers that cannot be.
    """
    from scipy.stats import hypergeom

    if not 0 <= bad <= sample <= population:
        raise ValueError(f"{bad} bad of {sample} looked at of {population} cannot be")
    low, high = bad, population - (sample - bad)  # as many as were seen good are good
    while low < high:
        middle = (low + high + 1) // 2
        if hypergeom.cdf(bad, population, middle, sample) > 1 - confidence:
            low = middle
        else:
            high = middle - 1
    return low


def sample_size(population: int, at_most: float, confidence: float = CONFIDENCE) -> int:
    """The fewest to look at so that, none of them bad, at most the share `at_most` of all is."""
    low, high = 1, max(1, population)
    while low < high:
        middle = (low + high) // 2
        if most_bad(population, middle, 0, confidence) <= at_most * population:
            high = middle
        else:
            low = middle + 1
    return min(low, population)


def drawn(members: Sequence[str], size: int, seed: str) -> list[str]:
    """A random sample; a larger one of the same seed holds the smaller, so that nobody starts anew to look at more."""
    order = sorted(members)
    random.Random(seed).shuffle(order)
    return order[:size]


def sentence(population: int, sample: int, bad: int, confidence: float = CONFIDENCE) -> str:
    """`59 of 3214 looked at, none bad: at most 4.9 % of all are, with 95 % confidence`."""
    most = most_bad(population, sample, bad, confidence)
    found = "none bad" if not bad else f"{bad} bad"
    share = 100 * most / population if population else 0.0
    digits = 0 if share in (0, 100) else 1
    return (
        f"{sample} of {population} looked at, {found}: at most {share:.{digits}f} % of all are ({most}), "
        f"with {100 * confidence:g} % confidence"
    )
