"""How sure a mean, a share, a difference or a ratio of scores is.

Scores are arrays `[s, p, k]`: subjects, prompts, seeds. Base and tuned model answer the same prompts from the same
noise, so their difference is taken picture by picture. The subjects are the very ones that will be shipped, so they are
fixed; the prompts stand for all that will be asked, so they are what an interval is about: a prompt's mean over its
subjects and seeds is one observation. (A seed more tells less than a prompt more: pictures of one prompt resemble each
other.) What the intervals reach on normal, skewed and clustered scores is measured by `benchmarks.coverage`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

Array = NDArray[np.floating]

FEWEST_PROMPTS = 5
"""Below, nothing can be said: even the range of four values misses the mean in one case of eight."""


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


FIRST_LOOK = 0.7
"""Share of the error that the first of several looks may make: most models are decided there."""


RARER = 0.5
"""Of a prompt, as Jeffreys adds half a failure. With a whole one intervals reached farther down than they need to."""


@functools.cache
def at_each_look(level: float, looks: tuple[int, ...], prompts: int) -> float:
    """The level of the interval at one of several looks for which those at all looks hold together at `level`.

    Repeated confidence intervals (Jennison and Turnbull 1989): whatever makes somebody stop or go on, they hold. looks:
    how many prompts each look has, all that were looked at before among them; prompts: at this one. The first takes
    `FIRST_LOOK` of the error, the later ones share what is left alike (as Pocock's do), by the normal distribution of
    means that have prompts in common; the level is then Student's too.
    """
    if len(looks) < 2:
        return level
    first = float(stats.norm.ppf(1 - FIRST_LOOK * (1 - level) / 2))
    counts = np.array(looks, float)
    together = np.sqrt(np.minimum.outer(counts, counts) / np.maximum.outer(counts, counts))
    joint = stats.multivariate_normal(cov=together, seed=0, abseps=1e-7, releps=1e-7)

    def over(later: float) -> float:
        reach = np.array([first, *[later] * (len(looks) - 1)])
        return float(joint.cdf(reach, lower_limit=-reach)) - level

    reach = first if prompts == looks[0] else optimize.brentq(over, 1.0, 8.0, xtol=1e-4)
    return round(float(2 * stats.norm.cdf(reach) - 1), 4)


def by_prompt(scores: Array) -> Array:
    """`[s, p, k]` to the prompts' means `[p]`; an average over subjects counts each of them the same."""
    return np.asarray(scores, float).mean(axis=(0, 2))


def estimate(scores: Array, level: float = 0.95) -> Estimate:
    """The mean of scores (or of paired differences) `[s, p, k]`."""
    means = by_prompt(scores)
    return _around(float(means.mean()), means - means.mean(), level)


def share(successes: Array, level: float = 0.95) -> Estimate:
    """A share of pictures, from 0/1 scores `[s, p, k]`: Wilson's interval with Student's quantile.

    As Korn and Graubard (1998) do for clustered samples, with Wilson's interval in place of Clopper's and Pearson's.

    Pictures of one prompt succeed and fail together, so they count as fewer: as many as give the variance between the
    prompts' shares. That variance is taken with half a prompt more (`RARER`), of which all went the rarer way: prompts
    that never failed are no proof that none does, and ten hits of ten are not a certainty.
    """
    means = by_prompt(successes)
    prompts, value = len(means), float(means.mean())
    if prompts < FEWEST_PROMPTS or not np.isfinite(value):
        return Estimate(value, np.nan, np.nan, level, prompts)
    more, weights = np.append(means, 0.0 if value >= 0.5 else 1.0), np.append(np.ones(prompts), RARER)
    middle, total = float(np.average(more, weights=weights)), prompts + RARER
    variance = float(weights @ (more - middle) ** 2) / (total - 1) / total
    count = min(np.size(successes), max(1.0, middle * (1 - middle) / variance)) if variance > 0 else float(prompts)
    z = _student(prompts - 1, level)
    centre, half = value + z**2 / (2 * count), z * np.sqrt(value * (1 - value) / count + (z / (2 * count)) ** 2)
    low, high = (centre - half) / (1 + z**2 / count), (centre + half) / (1 + z**2 / count)
    return Estimate(value, float(np.clip(low, 0, value)), float(np.clip(high, value, 1)), level, prompts)


def difference_of_shares(tuned: Array, base: Array, level: float = 0.95) -> Estimate:
    """Share of tuned less share of base, from 0/1 scores `[s, p, k]` of the same questions.

    Both shares' own intervals, put together as Newcombe 1998 (method 10) does for paired shares: where no picture
    differs the interval is still not empty.
    """
    a, b = share(tuned, level), share(base, level)
    if not (a.known and b.known):
        return Estimate(a.value - b.value, np.nan, np.nan, level, a.clusters)
    of_tuned, of_base = by_prompt(tuned), by_prompt(base)
    apart = of_tuned.std() * of_base.std()
    together = float(((of_tuned - a.value) * (of_base - b.value)).mean() / apart) if apart > 0 else 0.0

    def reach(one: float, other: float) -> float:
        return float(np.sqrt(max(0.0, one**2 + other**2 - 2 * together * one * other)))

    value = a.value - b.value
    low = value - reach(a.value - a.low, b.high - b.value)
    high = value + reach(a.high - a.value, b.value - b.low)
    return Estimate(value, max(-1.0, low), min(1.0, high), level, a.clusters)


def ratio(numerator: Array, denominator: Array, level: float = 0.95, besides: float = 0.0) -> Estimate:
    """The mean of scores `[s, p, k]` over the mean of others of the same questions, by the delta method.

    `besides` is a standard error of the ratio that does not come from the prompts: that of the photographs, say.
    """
    above, below = by_prompt(numerator), by_prompt(denominator)
    value = float(above.mean() / below.mean())
    return _around(value, (above - value * below) / below.mean(), level, besides)


def jackknife_error(without: Array) -> float:
    """Standard error of a statistic from its values with each observation left out in turn: `[m]` to a number."""
    without = np.asarray(without, float)
    m = len(without)
    return float(np.sqrt((m - 1) / m * ((without - without.mean()) ** 2).sum()))


def minimum_detectable_effect(differences: Array, level: float = 0.95, power: float = 0.8) -> float:
    """The true difference that as many prompts and seeds as these show to be other than 0 with that probability."""
    means = by_prompt(differences)
    if len(means) < 2:
        return float("nan")
    error = means.std(ddof=1) / np.sqrt(len(means))
    return float(error * (_student(len(means) - 1, level) + stats.t.ppf(power, len(means) - 1)))


def _around(value: float, parts: Array, level: float, besides: float = 0.0) -> Estimate:
    """The interval of a value to which the prompts contribute `parts`, whose mean is 0: `[p]`.

    Student's, corrected for skewness by Hall's cubic transformation (Hall 1992, Biometrika 79: it can be inverted, and
    needs no resampling): under skew Student's interval misses on one side several times as often as it says.
    """
    prompts = len(parts)
    if prompts < FEWEST_PROMPTS or not np.isfinite(value):
        return Estimate(value, np.nan, np.nan, level, prompts)
    spread = parts.std(ddof=1)
    below = above = 0.0
    if spread > 1e-12:
        skew = prompts**2 / ((prompts - 1) * (prompts - 2)) * (parts**3).mean() / spread**3
        reach = _student(prompts - 1, level) / np.sqrt(prompts)
        below, above = (float(spread * _unskewed(sign * reach, skew, prompts)) for sign in (1, -1))
    further = _student(prompts - 1, level) * besides
    return Estimate(
        value, value - float(np.hypot(below, further)), value + float(np.hypot(above, further)), level, prompts
    )


def _unskewed(t: float, skew: float, count: int) -> float:
    """The inverse of Hall's transformation t = w + γw²/3 + γ²w³/27 + γ/6n, in w."""
    t -= skew / (6 * count)
    return t if abs(skew) < 1e-9 else float(3 / skew * (np.cbrt(1 + skew * t) - 1))


def _student(freedom: int, level: float) -> float:
    return float(stats.t.ppf((1 + level) / 2, freedom))
