"""How sure is a mean, a share, a ratio: intervals that cover. (benchmarks.coverage measures many more kinds.)"""

import numpy as np
import pytest

from personalize.evaluation import statistics


def coverage(trial, trials: int = 600) -> float:
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(trials):
        found, truth = trial(rng)
        held += found.low <= truth <= found.high
    return held / trials


def test_interval_covers_the_truth_as_often_as_it_says_though_pictures_of_a_prompt_resemble_each_other():
    naive = []

    def trial(rng):
        scores = 0.3 + 0.1 * rng.normal(size=(1, 12, 1)) + 0.05 * rng.normal(size=(5, 12, 2))
        error = scores.std(ddof=1) / np.sqrt(scores.size)  # as if all 120 pictures were independent
        naive.append(abs(scores.mean() - 0.3) <= 1.96 * error)
        return statistics.estimate(scores), 0.3

    assert 0.93 <= coverage(trial) <= 0.97
    assert np.mean(naive) < 0.75


def test_interval_of_a_skewed_score_misses_on_both_sides():
    """Student's interval of these misses below in one case of ten, and above hardly ever."""
    truth, sides = float(np.exp(0.125)), np.zeros(2)

    def trial(rng):
        found = statistics.estimate(rng.lognormal(0, 0.5, (1, 24, 1)))
        sides[:] += truth < found.low, truth > found.high
        return found, truth

    assert 0.92 <= coverage(trial) <= 0.97
    assert (sides / 600 < 0.06).all()


def test_interval_is_the_same_each_time():
    scores = np.random.default_rng(0).normal(size=(2, 6, 3))
    assert statistics.estimate(scores) == statistics.estimate(scores)


def test_interval_of_a_mean_without_skew_is_students():
    scores = np.array([-2.0, -1, -1, 0, 0, 1, 1, 2])[None, :, None]
    found = statistics.estimate(scores)
    low, high = statistics.stats.t.interval(0.95, 7, scores.mean(), scores.std(ddof=1) / np.sqrt(8))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_paired_differences_are_surer_than_both_apart():
    rng = np.random.default_rng(1)
    base = 0.5 + 0.2 * rng.normal(size=(3, 6, 3))
    tuned = base + 0.02 + 0.005 * rng.normal(size=base.shape)
    assert statistics.estimate(tuned - base).low > 0
    assert statistics.estimate(tuned).low < statistics.estimate(base).high


def test_too_few_prompts_give_a_value_without_an_interval():
    scores = np.random.default_rng(0).random((5, 4, 9))
    hits = (scores > 0.5).astype(float)
    for found in (
        statistics.estimate(scores),
        statistics.share(hits),
        statistics.difference_of_shares(hits, hits),
        statistics.ratio(scores, scores + 1),
    ):
        assert not found.known
        assert np.isfinite(found.value)


def test_a_share_without_a_failure_is_no_certainty_and_more_seeds_do_not_make_it_one():
    few, many = statistics.share(np.ones((1, 24, 1))), statistics.share(np.ones((1, 24, 50)))
    assert few.value == few.high == 1
    assert 0.82 < few.low < 0.88
    assert many.low == pytest.approx(few.low, abs=0.005)


def test_a_share_at_its_line_passes_no_oftener_than_it_may_where_prompts_fail_as_a_whole():
    """One prompt in six fails with all its pictures; a bound at 5/6 from below is wrong in 2.5 % of cases at most."""
    rng = np.random.default_rng(3)
    for prompts in (8, 24):
        hits = rng.random((800, prompts)) < 5 / 6
        low = [statistics.share(np.repeat(row, 2).reshape(1, prompts, 2).astype(float)).low for row in hits]
        assert np.mean(np.array(low) > 5 / 6) <= 0.03


def test_a_difference_of_shares_without_a_difference_is_no_certainty():
    same = np.ones((2, 24, 2))
    found = statistics.difference_of_shares(same, same)
    assert found.value == 0
    assert found.low < -0.05 < 0.05 < found.high


def test_a_ratio_is_as_sure_as_its_parts_and_what_comes_besides():
    rng = np.random.default_rng(0)
    below = 0.5 + 0.02 * rng.normal(size=(1, 24, 2))
    above = 0.7 * below + 0.02 * rng.normal(size=below.shape)
    alone, besides = statistics.ratio(above, below), statistics.ratio(above, below, besides=0.1)
    assert alone.low < 0.7 < alone.high < alone.value + 0.03
    assert besides.high - besides.value == pytest.approx(statistics._student(23, 0.95) * 0.1, rel=0.1)


def test_jackknife_gives_the_standard_error_of_a_mean():
    values = np.random.default_rng(0).normal(size=12)
    without = (values.sum() - values) / 11
    assert statistics.jackknife_error(without) == pytest.approx(values.std(ddof=1) / np.sqrt(12))


def test_the_minimum_detectable_effect_is_detected_four_times_in_five():
    rng = np.random.default_rng(5)
    effect = 0.1 * (statistics.stats.t.ppf(0.975, 23) + statistics.stats.t.ppf(0.8, 23)) / np.sqrt(24)
    found = [statistics.minimum_detectable_effect(0.1 * rng.normal(size=(1, 24, 1))) for _ in range(300)]
    assert np.mean(found) == pytest.approx(effect, rel=0.1)

    draws = effect + 0.1 * rng.normal(size=(400, 24))
    t = statistics.stats.ttest_1samp(draws, 0, axis=1).pvalue
    assert np.mean(t < 0.05) == pytest.approx(0.8, abs=0.06)


@pytest.mark.parametrize("looks", [(24, 72), (27, 54, 81), (10, 12)])
def test_intervals_at_several_looks_hold_together_as_often_as_one_says(looks):
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(2000):
        scores = rng.normal(size=(1, looks[-1], 1))
        found = [statistics.estimate(scores[:, :count], statistics.at_each_look(0.95, looks, count)) for count in looks]
        held += all(each.low <= 0 <= each.high for each in found)
    assert 0.935 <= held / 2000 <= 0.965


def test_the_first_look_is_little_wider_than_a_single_one_and_the_last_much_narrower():
    level = [statistics.at_each_look(0.95, (24, 72), prompts) for prompts in (24, 72)]
    scores = np.random.default_rng(0).normal(size=(1, 72, 1))
    once, first, last = (
        found.high - found.low
        for found in (
            statistics.estimate(scores[:, :24]),
            statistics.estimate(scores[:, :24], level[0]),
            statistics.estimate(scores, level[1]),
        )
    )
    assert 1 < first / once < 1.1
    assert last / once < 0.75
    assert statistics.at_each_look(0.95, (), 24) == 0.95
