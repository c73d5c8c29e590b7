"""How sure is a mean: intervals that cover, tests that correct for being many."""

import numpy as np
import pytest

from personalize.evaluation import statistics


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 999)


@pytest.mark.usefixtures("quick")
def test_interval_covers_the_truth_as_often_as_it_says_though_pictures_of_a_prompt_resemble_each_other():
    rng, truth, trials = np.random.default_rng(7), 0.3, 200
    covered = naive = 0
    for trial in range(trials):
        prompt = 0.1 * rng.normal(size=(1, 8, 1))
        scores = truth + prompt + 0.05 * rng.normal(size=(5, 8, 2))
        found = statistics.estimate(scores, seed=trial)
        covered += found.low <= truth <= found.high
        error = scores.std(ddof=1) / np.sqrt(scores.size)  # as if all 80 pictures were independent
        naive += abs(scores.mean() - truth) <= 1.96 * error
    assert 0.90 <= covered / trials <= 0.99
    assert naive / trials < 0.75


def test_interval_is_the_same_each_time():
    scores = np.random.default_rng(0).normal(size=(2, 6, 3))
    assert statistics.estimate(scores) == statistics.estimate(scores)


def test_interval_of_a_mean_is_about_as_wide_as_students():
    scores = np.random.default_rng(3).normal(size=(1, 8, 1))
    found = statistics.estimate(scores)
    t = statistics.stats.t.interval(0.95, 7, scores.mean(), scores.std(ddof=1) / np.sqrt(8))
    assert (found.high - found.low) / (t[1] - t[0]) == pytest.approx(1, abs=0.25)


def test_paired_difference_cancels_the_luck_of_prompts_and_seeds():
    rng = np.random.default_rng(1)
    base = 0.5 + 0.2 * rng.normal(size=(3, 6, 3))
    tuned = base + 0.02 + 0.005 * rng.normal(size=base.shape)
    assert statistics.estimate(tuned - base).low > 0
    apart = statistics.estimate(tuned, statistic=lambda x, axis: x.mean(axis)).low
    assert apart < statistics.estimate(base).high


def test_too_few_prompts_give_a_value_without_an_interval():
    found = statistics.estimate(np.random.default_rng(0).normal(size=(5, 4, 9)))
    assert not found.known
    assert np.isfinite(found.value)


def test_a_share_of_ten_out_of_ten_is_not_certainty():
    found = statistics.share(np.ones((1, 5, 2)))
    assert found.value == found.high == 1
    assert 0.6 < found.low < 0.8


def test_holm_is_stricter_than_each_test_alone_and_keeps_their_order():
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0]


def test_p_value_of_identical_models_is_one():
    assert statistics.p_value(np.zeros((2, 6, 2))) == 1


def test_the_minimum_detectable_effect_is_detected_four_times_in_five():
    rng = np.random.default_rng(5)
    effect = 0.1 * (statistics.stats.t.ppf(0.975, 7) + statistics.stats.t.ppf(0.8, 7)) / np.sqrt(8)
    found = [statistics.minimum_detectable_effect(0.1 * rng.normal(size=(1, 8, 1))) for _ in range(300)]
    assert np.mean(found) == pytest.approx(effect, rel=0.1)

    draws = effect + 0.1 * rng.normal(size=(400, 8))
    t = statistics.stats.ttest_1samp(draws, 0, axis=1).pvalue
    assert np.mean(t < 0.05) == pytest.approx(0.8, abs=0.08)
