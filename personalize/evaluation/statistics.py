"""How sure a mean of scores is: cluster bootstrap, minimum detectable effect, Holm.

Base and tuned model answer the same prompts from the same noise (common random numbers), so their difference is taken
picture by picture and the luck of a seed cancels. Scores are arrays `[s, p, k]`: subjects, prompts, seeds. The
subjects are the very ones that will be shipped, so they are fixed; the prompts stand for all that will be asked, so
they are the clusters that are resampled, each with all its subjects and seeds. (A seed more tells less than a prompt
more: pictures of one prompt resemble each other.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.floating]

RESAMPLES = 9_999
FEWEST_PROMPTS = 5
"""Below, resampling prompts cannot reach 95 % coverage: even the range of four values misses in one case of eight."""


@dataclass(frozen=True)
class Estimate:
    """A value with its two-sided confidence interval; `low` and `high` are NaN when there are too few prompts."""

    value: float
    low: float
    high: float
    level: float
    clusters: int

    @property
    def known(self) -> bool:
        return bool(np.isfinite([self.value, self.low, self.high]).all())


def by_prompt(scores: Array) -> Array:
    """`[s, p, k]` to the clusters' means `[p]`; an average over subjects counts each of them the same."""
    return np.asarray(scores, float).mean(axis=(0, 2))


def estimate(
    *scores: Array,
    statistic: Callable[..., Array] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """The statistic (default: the mean) of scores `[s, p, k]` over prompts, with its cluster-bootstrap interval.

    Several arrays are resampled together; `statistic(*arrays, axis)` gets their prompt means. Percentile intervals are
    too narrow for few clusters, so the percentiles are the expanded ones of Hesterberg 2015 (Sec. 3.4), which give a
    mean the width of Student's interval and keep the bootstrap's shape.
    """
    means = [by_prompt(each) for each in scores]
    return _bootstrap(means, statistic or _mean, level, seed)


def _mean(scores: Array, axis: int = -1) -> Array:
    return np.asarray(scores.mean(axis=axis))


def share(successes: Array, level: float = 0.95, seed: int = 0) -> Estimate:
    """A share of pictures from 0/1 scores `[s, p, k]`: the cluster interval, but never narrower than Wilson's.

    Ten hits of ten are not a certainty; the bootstrap alone would say so.
    """
    successes = np.asarray(successes, float)
    of_clusters = estimate(successes, level=level, seed=seed)
    wilson = stats.binomtest(int(successes.sum()), successes.size).proportion_ci(level, method="wilson")
    low, high = np.minimum(of_clusters.low, wilson.low), np.maximum(of_clusters.high, wilson.high)
    return Estimate(of_clusters.value, float(low), float(high), level, of_clusters.clusters)


def expanded_tail(clusters: int, level: float) -> float:
    """The percentile (each side) that stands in for (1 - level) / 2: Hesterberg 2015, Sec. 3.4."""
    t = stats.t.ppf((1 + level) / 2, clusters - 1)
    return float(stats.norm.cdf(-np.sqrt(clusters / (clusters - 1)) * t))


def _bootstrap(means: Sequence[Array], statistic: Callable[..., Array], level: float, seed: int) -> Estimate:
    clusters = len(means[0])
    value = float(statistic(*means, axis=-1))
    if clusters < FEWEST_PROMPTS or not np.isfinite(value):
        return Estimate(value, np.nan, np.nan, level, clusters)
    result = stats.bootstrap(
        means,
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        confidence_level=1 - 2 * expanded_tail(clusters, level),
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = result.confidence_interval
    return Estimate(value, float(low), float(high), level, clusters)


def p_value(differences: Array) -> float:
    """One-sided: how often a model that is no better than the base would do as well. t-test on the prompts' means."""
    means = by_prompt(differences)
    if len(means) < 2:
        return float("nan")
    if np.ptp(means) == 0:
        return 0.0 if means[0] > 0 else 1.0
    return float(stats.ttest_1samp(means, 0, alternative="greater").pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm 1979: p-values adjusted so that the chance of *any* false "this subject improved" stays below alpha."""
    p = np.asarray(p_values, float)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1)
    return [float(each) for each in adjusted]


def minimum_detectable_effect(differences: Array, level: float = 0.95, power: float = 0.8) -> float:
    """The smallest true difference that these prompts and seeds would show as real four times in five."""
    means = by_prompt(differences)
    if len(means) < 2:
        return float("nan")
    freedom = len(means) - 1
    error = means.std(ddof=1) / np.sqrt(len(means))
    return float(error * (stats.t.ppf((1 + level) / 2, freedom) + stats.t.ppf(power, freedom)))
