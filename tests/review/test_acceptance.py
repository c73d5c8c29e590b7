"""What a sample says of the rest: exact, checked against sums by hand and against chance."""

from __future__ import annotations

import math
import random

import pytest

from personalize.review.acceptance import drawn, most_bad, sample_size, sentence


def chance(population: int, bad: int, sample: int, seen: int) -> float:
    """P(X <= seen), as the textbook writes it."""
    ways = math.comb(population, sample)
    return sum(math.comb(bad, k) * math.comb(population - bad, sample - k) for k in range(seen + 1)) / ways


@pytest.mark.parametrize(
    ("population", "sample", "seen"), [(50, 10, 0), (50, 10, 2), (300, 59, 0), (300, 59, 1), (7, 7, 3)]
)
def test_the_bound_is_the_last_number_that_the_sample_does_not_rule_out(
    population: int, sample: int, seen: int
) -> None:
    most = most_bad(population, sample, seen)
    assert chance(population, most, sample, seen) > 0.05
    if most < population - (sample - seen):
        assert chance(population, most + 1, sample, seen) <= 0.05


def test_what_was_all_looked_at_is_known() -> None:
    assert most_bad(40, 40, 0) == 0
    assert most_bad(40, 40, 3) == 3
    assert most_bad(0, 0, 0) == 0
    assert most_bad(40, 0, 0) == 40


def test_of_many_it_comes_to_the_rule_of_three() -> None:
    assert most_bad(1_000_000, 300, 0) / 1_000_000 == pytest.approx(3 / 300, rel=0.01)


def test_it_holds_in_nineteen_of_twenty_samples() -> None:
    chance_of = random.Random(0)
    held = 0
    for _ in range(2000):
        seen = sum(number < 12 for number in chance_of.sample(range(200), 40))  # 12 of 200 are bad
        held += most_bad(200, 40, seen) >= 12
    assert held / 2000 >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 2000)


@pytest.mark.parametrize("population", [1, 10, 59, 200, 4000])
def test_the_sample_is_as_small_as_it_can_be(population: int) -> None:
    size = sample_size(population, 0.05)
    assert most_bad(population, size, 0) <= 0.05 * population
    assert size == 1 or most_bad(population, size - 1, 0) > 0.05 * population
    assert size <= 59


def test_a_larger_sample_holds_the_smaller_and_nobody_chooses_it() -> None:
    names = [f"tok{number}" for number in range(100)]
    assert drawn(names, 20, "run")[:10] == drawn(list(reversed(names)), 10, "run")
    assert drawn(names, 10, "another run") != drawn(names, 10, "run")


def test_the_sentence_says_it() -> None:
    assert (
        sentence(3214, 59, 0) == "59 of 3214 looked at, none bad: at most 4.9 % of all are (157), with 95 % confidence"
    )
    assert sentence(10, 10, 1).startswith("10 of 10 looked at, 1 bad: at most 10.0 % of all are (1)")
    with pytest.raises(ValueError, match="cannot be"):
        most_bad(10, 5, 6)
