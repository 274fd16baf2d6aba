"""Numbers over seeds: mean and interval as the papers print them, tests between two methods, correction for many comparisons.

The interval over seeds says how far the mean would move with other seeds on this very test set. It says nothing of other patients: that
is the patient bootstrap (`compare.Resampled`, `compare.paired_difference`), and a table shows both.

Letters: S seeds, K comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from retfound_jax.core.errors import UsageError

Z = 1.96  # of the papers' intervals: the normal quantile, also for five seeds
NAN = float('nan')


@dataclass(frozen=True, kw_only=True)
class SeedMean:
    """Mean over seeds with mean -/+ 1.96 SE; the bounds are NaN for one seed."""

    mean: float
    sd: float  # ddof 1
    low: float
    high: float
    n: int


@dataclass(frozen=True, kw_only=True)
class Tests:
    """Two-sided p values of no difference between two methods over seeds; NaN where a test is not defined."""

    paired_t: float
    welch_t: float
    wilcoxon: float
    n_a: int
    n_b: int


def seed_mean(values: Sequence[float]) -> SeedMean:
    """Zhou et al., Nature 2023, Methods: the standard deviation over five seeds, SE = SD / sqrt(5), interval 1.96 SE.

    With five seeds the t quantile would be 2.78, so this interval is narrower than its 95 % promise; it is computed so that numbers can be
    set beside the published ones. UsageError without values.
    """
    value_S = np.asarray(values, np.float64)
    if not len(value_S):
        raise UsageError('a mean over seeds needs at least one seed')
    mean = float(value_S.mean())
    if len(value_S) == 1:
        return SeedMean(mean=mean, sd=NAN, low=NAN, high=NAN, n=1)
    sd = float(value_S.std(ddof=1))
    half = Z * sd / math.sqrt(len(value_S))
    return SeedMean(mean=mean, sd=sd, low=mean - half, high=mean + half, n=len(value_S))


def seed_tests(a: Sequence[float], *, b: Sequence[float]) -> Tests:
    """Student's paired t, Welch's t and Wilcoxon's signed rank test, all two-sided, seed against seed in the order given.

    The paired tests need as many seeds in a as in b. With n seeds Wilcoxon's p value cannot be below 2 / 2^n: .0625 for five. Where all
    differences are equal a t test is not defined, unless they are all zero: then nothing speaks against equality and p is 1.
    """
    a_S, b_S = np.asarray(a, np.float64), np.asarray(b, np.float64)
    paired = len(a_S) == len(b_S) and len(a_S) > 1
    welch = len(a_S) > 1 and len(b_S) > 1
    return Tests(
        paired_t=_paired_t(a_S - b_S) if paired else NAN,
        welch_t=_welch_t(a_S, b_S) if welch else NAN,
        wilcoxon=_wilcoxon(a_S - b_S) if paired else NAN,
        n_a=len(a_S),
        n_b=len(b_S),
    )


def holm(p: Sequence[float]) -> np.ndarray:
    """Holm's step-down p values (Scand J Stat 1979): the chance of any false claim stays below the level. NaN is no comparison.

    The i-th smallest of K is multiplied by K - i + 1, never falls below an earlier one, and is at most 1.
    """
    return _adjusted(p, _holm)


def benjamini_hochberg(p: Sequence[float]) -> np.ndarray:
    """Benjamini and Hochberg's p values (J R Stat Soc B 1995): the expected share of false claims stays below the level. NaN passes by."""
    return _adjusted(p, lambda known_K: stats.false_discovery_control(known_K, method='bh'))


def _holm(known_K: np.ndarray) -> np.ndarray:
    order = np.argsort(known_K, kind='stable')
    stepped_K = np.maximum.accumulate(known_K[order] * np.arange(len(known_K), 0, -1))
    out_K = np.empty(len(known_K))
    out_K[order] = np.minimum(stepped_K, 1.0)
    return out_K


def _adjusted(p: Sequence[float], adjust: object) -> np.ndarray:
    p_K = np.asarray(p, np.float64)
    known = ~np.isnan(p_K)
    if ((p_K[known] < 0) | (p_K[known] > 1)).any():
        raise UsageError('a p value lies outside 0 to 1')
    out_K = np.full(len(p_K), NAN)
    if known.any():
        out_K[known] = adjust(p_K[known])
    return out_K


def _constant(difference_S: np.ndarray) -> bool:
    """Whether the values differ by rounding at most: scipy would answer a p value made of noise."""
    scale = max(1.0, float(np.abs(difference_S).max()))
    return float(np.ptp(difference_S)) <= 1e-12 * scale


def _paired_t(difference_S: np.ndarray) -> float:
    if _constant(difference_S):
        return 1.0 if np.abs(difference_S).max() <= 1e-12 else NAN
    return float(stats.ttest_1samp(difference_S, 0.0).pvalue)


def _welch_t(a_S: np.ndarray, b_S: np.ndarray) -> float:
    if _constant(a_S) and _constant(b_S):
        return 1.0 if abs(a_S.mean() - b_S.mean()) <= 1e-12 else NAN
    # from the moments: one method may not vary over seeds at all (the probe of one encoder), of which ttest_ind warns
    moments = [part for value_S in (a_S, b_S) for part in (value_S.mean(), value_S.std(ddof=1), len(value_S))]
    return float(stats.ttest_ind_from_stats(*moments, equal_var=False).pvalue)


def _wilcoxon(difference_S: np.ndarray) -> float:
    if np.abs(difference_S).max() <= 1e-12:
        return 1.0
    return float(stats.wilcoxon(difference_S).pvalue)
