"""What votes are worth: voters whose ways are known are found out, and the win rate is as sure as it says."""

import numpy as np
import pytest

from benchmarks.voters import ATTENTIVE, CLICKER, Person, World, elect, truth
from personalize.review import agreement
from personalize.review.agreement import alpha, attentive, summary, voters, win_rate
from personalize.review.votes import CONTROL, Vote


def panel(*people: Person, world: World = World(ahead=1.5), seed: int = 0, **size: int) -> list[Vote]:  # noqa: B008
    return elect(np.random.default_rng(seed), people, world, **size)


def test_a_random_clicker_does_not_count_and_attentive_people_do():
    said = [voters(panel(*[ATTENTIVE] * 4, CLICKER, seed=seed)) for seed in range(60)]
    assert np.mean([voter.counts for of in said for voter in of[:4]]) > 0.95
    assert np.mean([of[4].counts for of in said]) < 0.1
    for of in said:
        if not of[4].counts:
            assert "checks right" in of[4].why


def test_who_always_chooses_one_side_gets_half_of_the_checks_right_and_is_named():
    for seed in range(20):
        lefty = voters(panel(*[ATTENTIVE] * 4, Person(left=1.0, ties=0.0), seed=seed))[-1]
        assert not lefty.counts
        assert lefty.one_sided == "left"
        assert "chose the left side" in agreement.ways(lefty)[0]


def test_a_lean_to_the_left_is_named_and_moves_no_result():
    leaning = Person(left=0.6, ties=0.0)
    said = [voters(panel(*[ATTENTIVE] * 4, leaning, seed=s, pictures=2))[-1].one_sided for s in range(40)]
    assert np.mean([one == "left" for one in said]) > 0.9
    even = World(0.0, 0.3, 0.3, 0.3)
    rates = [win_rate(panel(*[Person(left=0.6)] * 6, world=even, seed=s, checks=0)).value for s in range(60)]
    assert np.mean(rates) == pytest.approx(0.5, abs=0.02)


def test_a_contrarian_who_looks_counts_and_is_named():
    people = [*[ATTENTIVE] * 5, Person(contrary=True)]
    found = [voters(panel(*people, seed=seed, pictures=3))[-1] for seed in range(40)]
    assert np.mean([one.contrary for one in found]) > 0.8
    assert all(one.counts for one in found)
    honest = [voter for seed in range(40) for voter in voters(panel(*[ATTENTIVE] * 6, seed=seed))]
    assert np.mean([one.contrary for one in honest]) < 0.03


def test_the_interval_of_the_win_rate_holds_the_truth_as_often_as_it_says():
    world, person = World(ahead=1.0), Person(attention=1.0, ties=0.0)
    right = truth(world)
    found = [win_rate(panel(*[person] * 8, world=world, seed=seed, checks=0)) for seed in range(300)]
    held = np.mean([one.low <= right <= one.high for one in found])
    assert 0.915 <= held <= 0.985  # 95 % within three standard errors of 300 panels


def test_votes_of_one_prompt_or_one_person_are_not_taken_for_many():
    """Six people who say the same of eight prompts are not 48 independent votes."""
    world = World(0.0, of_prompts=6.0, of_pictures=0.0, of_people=0.0)
    found = [win_rate(panel(*[Person(1.0)] * 6, world=world, seed=s, prompts=8, checks=0)) for s in range(200)]
    assert np.mean([bool(one.settled) for one in found]) < 0.12
    naive = [abs(one.value - 0.5) > 1.96 * np.sqrt(0.25 / one.votes) for one in found]
    assert np.mean(naive) > 0.3


def test_a_weak_preference_is_left_open_and_as_many_more_votes_as_advised_settle_it_mostly():
    world, people = World(ahead=0.5, of_people=0.2), [Person(attention=1.0)] * 6
    first = [win_rate(panel(*people, world=world, seed=s, prompts=12, checks=0)) for s in range(120)]
    assert np.mean([not one.settled for one in first]) > 0.5
    more = int(np.median([one.more for one in first if one.more]))
    prompts = 12 + round(more / 6)
    then = [win_rate(panel(*people, world=world, seed=1000 + s, prompts=prompts, checks=0)) for s in range(120)]
    assert np.mean([one.settled == "better" for one in then]) > 0.6


def test_few_people_are_spoken_of_as_themselves_and_few_prompts_not_at_all():
    few = win_rate(panel(*[ATTENTIVE] * 3, checks=0))
    assert not few.people
    assert "for these people and prompts like these" in few.words
    assert "for people and prompts like these" in win_rate(panel(*[ATTENTIVE] * 5, checks=0)).words
    unknown = win_rate(panel(*[ATTENTIVE] * 5, prompts=4, checks=0))
    assert not unknown.known
    assert "at least 5 prompts" in unknown.words
    assert win_rate([]) is None


def test_all_votes_alike_are_no_certainty():
    certain = win_rate(panel(*[Person(1.0, ties=0.0)] * 5, world=World(ahead=50.0), prompts=10, checks=0))
    assert certain.value == 1
    assert 0.6 < certain.low < 0.8


def test_alpha_tells_agreement_from_taste():
    alike = World(0.0, of_prompts=4.0, of_pictures=4.0, of_people=0.0)
    assert alpha(panel(*[ATTENTIVE] * 6, world=alike))[0] > 0.5
    coin = World(0.0, 0.0, 0.0, 0.0)
    assert abs(np.mean([alpha(panel(*[ATTENTIVE] * 6, world=coin, seed=s))[0] for s in range(20)])) < 0.05


def test_alpha_is_that_of_the_published_example():
    """Krippendorff 2011, "Computing Krippendorff's alpha-reliability", section C: nominal data would give 0.743."""
    import krippendorff

    data = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, np.nan, np.nan, np.nan],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, np.nan, 3],
        [np.nan, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, np.nan],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, np.nan],
    ]
    assert krippendorff.alpha(data, level_of_measurement="nominal") == pytest.approx(0.743, abs=0.001)
    assert krippendorff.alpha(data, level_of_measurement="ordinal") == pytest.approx(0.815, abs=0.001)


def test_alpha_of_nothing_shared_or_nothing_unlike_is_none():
    assert alpha(panel(ATTENTIVE)) == (None, 0)
    value, shared = alpha(panel(*[Person(1.0, ties=0.0)] * 3, world=World(ahead=50.0)))
    assert (value, shared) == (None, 24)


def test_checks_are_no_part_of_the_result():
    votes = panel(*[ATTENTIVE] * 5, checks=8)
    found = summary(votes)
    assert found["checks"] == 5 * 8
    assert found["votes"] == 5 * 24
    assert all(vote.kind != CONTROL for vote in attentive(votes))
    assert found["against"]["base"]["votes"] == found["counted"] == 5 * 24


def test_the_summary_of_no_votes_can_be_shown():
    found = summary([])
    assert (found["votes"], found["against"], found["alpha"], found["voters"]) == (0, {}, None, [])
