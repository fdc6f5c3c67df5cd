"""Summaries of scores over episodes or seeds, with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

RESAMPLES = 10_000
_FEWEST_TO_RESAMPLE = 5


class Interval(NamedTuple):
    """A 95 % interval around an estimate; NaN at both ends if there are too few values."""

    low: float
    high: float


def interquartile_mean(scores: Sequence[float]) -> float:
    """Mean of the middle half of `scores` (Agarwal et al. 2021, arXiv 2108.13264)."""
    return float(stats.trim_mean(scores, 0.25))


def mean_interval(values: Sequence[float], rng: np.random.Generator) -> Interval:
    """The interval of the mean by the expanded percentile bootstrap (Hesterberg 2015, arXiv 1411.5279).

    The plain percentile interval is too narrow for the usual five to twenty seeds; the studentized bootstrap fails when
    all values but one are nearly equal, as returns at their maximum are. Fewer than five values have too few distinct
    resamples, and get Student's interval.
    """
    return _expanded([np.asarray(values, dtype=float)], rng)


def interval_from_moments(mean: float, std: float, count: int) -> Interval:
    """Student's interval of the mean of `count` values whose standard deviation is `std`, over `count`."""
    if count < 2:
        return Interval(np.nan, np.nan)
    half = float(stats.t.ppf(0.975, count - 1)) * std / math.sqrt(count - 1)
    return Interval(mean - half, mean + half)


def mean_band(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Means of the columns of `values` [N, P], and the ends of their 95 % intervals by Student's t.

    NaN is ignored. A column of NaN has no mean, and one with a single value no interval.
    """
    scale = _scale(values)
    values, known = values / scale, np.isfinite(values)
    count = known.sum(axis=0)
    missing = np.full(values.shape[1], np.nan)
    mean = np.divide(np.where(known, values, 0.0).sum(axis=0), count, out=missing.copy(), where=count > 0)
    squares = np.where(known, (values - mean) ** 2, 0.0).sum(axis=0)
    variance = np.divide(squares, count * (count - 1), out=missing, where=count > 1)
    half = stats.t.ppf(0.975, count - 1) * np.sqrt(variance)
    return mean * scale, (mean - half) * scale, (mean + half) * scale


def difference_interval(a: Sequence[float], b: Sequence[float], rng: np.random.Generator) -> Interval:
    """The same for mean(a) - mean(b) of independent samples, with Welch's standard error."""
    return _expanded([np.asarray(a, dtype=float), -np.asarray(b, dtype=float)], rng)


def ratio_interval(a: Sequence[float], b: Sequence[float], rng: np.random.Generator, *, paired: bool) -> Interval:
    """The same for mean(a) / mean(b) of positive numbers: of its logarithm, so that neither end is below 0.

    `paired` numbers are of the same seed, and are drawn together; others are independent.
    """
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    # The logarithm of a ratio of means is, to first order, a sum of means of these.
    parts = (x / x.mean(), -y / y.mean())
    linear = [parts[0] + parts[1]] if paired else list(parts)

    def resampled() -> NDArray[Any]:
        drawn = rng.integers(len(x), size=(RESAMPLES, len(x)))
        others = drawn if paired else rng.integers(len(y), size=(RESAMPLES, len(y)))
        ratios: NDArray[Any] = np.log(x[drawn].mean(axis=1) / y[others].mean(axis=1))
        return ratios

    low, high = _around(float(np.log(x.mean() / y.mean())), linear, resampled)
    return Interval(float(np.exp(low)), float(np.exp(high)))


def _expanded(samples: list[NDArray[Any]], rng: np.random.Generator) -> Interval:
    """For the sum of the means of independent `samples`."""
    if not all(map(len, samples)):
        return Interval(np.nan, np.nan)

    scale = _scale(np.concatenate(samples))
    samples = [x / scale for x in samples]

    def resampled() -> NDArray[Any]:
        found = np.zeros(RESAMPLES)
        for x in samples:
            found += x[rng.integers(len(x), size=(RESAMPLES, len(x)))].mean(axis=1)
        return found

    low, high = _around(float(sum(x.mean() for x in samples)), samples, resampled)
    return Interval(low * scale, high * scale)


def _scale(values: NDArray[Any]) -> float:
    """The power of two by which values are divided, so that no square or sum of squares is too large for a float."""
    largest = np.abs(values[np.isfinite(values)]).max(initial=0.0)
    return float(2.0 ** np.floor(np.log2(largest))) if largest > 0 else 1.0


def _around(estimate: float, samples: list[NDArray[Any]], resampled: Callable[[], NDArray[Any]]) -> Interval:
    """Of an `estimate` with the error of the sum of the means of `samples`: quantiles of `resampled`, expanded.

    The levels are those for which normal samples get Student's (Welch's) interval: the variance of resamples is too
    small by a factor of (n - 1) / n, and their quantiles are normal (Hesterberg 2015).
    """
    if min(map(len, samples)) < 2:
        return Interval(np.nan, np.nan)
    squares = np.array([x.var(ddof=1) / len(x) for x in samples])
    error = np.sqrt(squares.sum())
    if error == 0:
        return Interval(estimate, estimate)
    less_one = np.array([len(x) - 1 for x in samples])
    reach = stats.t.ppf(0.975, error**4 / (squares**2 / less_one).sum())
    if min(map(len, samples)) < _FEWEST_TO_RESAMPLE:
        return Interval(float(estimate - reach * error), float(estimate + reach * error))
    error_of_resamples = np.sqrt((squares * less_one / (less_one + 1)).sum())
    tail = stats.norm.cdf(-reach * error / error_of_resamples)
    low, high = np.quantile(resampled(), (tail, 1 - tail))
    return Interval(float(low), float(high))


def interquartile_interval(values: Sequence[float], rng: np.random.Generator) -> Interval:
    """The interval of the interquartile mean by bootstrap quantiles (Agarwal et al. 2021)."""
    x = np.asarray(values, dtype=float)
    if len(x) < 2:
        return Interval(np.nan, np.nan)
    drawn = x[rng.integers(len(x), size=(RESAMPLES, len(x)))]
    low, high = np.quantile(stats.trim_mean(drawn, 0.25, axis=1), (0.025, 0.975))
    return Interval(float(low), float(high))


def probability_of_improvement(a: Sequence[float], b: Sequence[float]) -> float:
    """The probability that a value of `a` is greater than one of `b`, ties counted half (Mann and Whitney 1947)."""
    return float(stats.mannwhitneyu(a, b).statistic / (len(a) * len(b)))


def hedges_g(a: Sequence[float], b: Sequence[float]) -> float:
    """The difference of means in pooled standard deviations, corrected for small samples (Hedges 1981)."""
    scale = _scale(np.array([*a, *b], dtype=float))
    x, y = np.asarray(a, dtype=float) / scale, np.asarray(b, dtype=float) / scale
    freedom = len(x) + len(y) - 2
    if freedom < 1:
        return np.nan
    squares = ((x - x.mean()) ** 2).sum() + ((y - y.mean()) ** 2).sum()
    pooled = np.sqrt(squares / freedom)
    return float((x.mean() - y.mean()) / pooled * (1 - 3 / (4 * freedom - 1))) if pooled > 0 else np.nan
