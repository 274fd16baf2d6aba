"""The slope of a number on what a study varies, with an interval that counts both the training's chance and the patients'.

In each seed a line is laid through the points by least squares. The mean slope over seeds varies for two reasons: another seed trains
other models (variance of the slopes over seeds / S, by t with S - 1 degrees of freedom), and other patients would be tested (bootstrap
variance of the mean slope, the models held fixed, by the normal distribution). The tested patients are the same for all seeds, so neither
contains the other. Each half width is taken by its own quantile and the two are joined in quadrature, as in the modified large-sample
intervals of Graybill and Wang (JASA 75, 1980): exact where one part is all, and wide between, so that with two seeds 95 to 98.5 % of
simulated studies are covered. (One t with Satterthwaite's degrees of freedom covers 92.8 % there.) With one seed the scatter of its points
about the line stands for the training's chance.

Letters: S seeds, X points of a seed, R replicates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtri, stdtrit

from retfound_jax.core.errors import UsageError

POWER = 0.8
_NOTHING = 1e-12  # a standard error that is rounding


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its interval and two-sided p value of being 0; NaN where there is no way to know."""

    value: float
    low: float
    high: float
    p: float
    se: float
    se_seeds: float  # the part of the training's chance
    se_patients: float  # and of the patients
    df: float  # of the training's chance
    per_seed: tuple[float, ...]
    detectable: float  # the smallest true number that such a study finds in four of five cases, at 5 %
    # Of a slope: the interval of a regression with seeds as blocks. It has more degrees of freedom, and it is right where all seeds have
    # one slope and differ by each training's chance alone, which two or three seeds cannot tell.
    blocks: tuple[float, float] = (math.nan, math.nan)

    def within(self, least: float, most: float) -> Estimate:
        """The interval of a number that cannot lie outside these bounds."""
        if not math.isfinite(self.low):
            return self
        return replace(self, low=min(max(self.low, least), most), high=max(min(self.high, most), least))

    @property
    def of_patients(self) -> tuple[float, float]:
        """The 95 % interval over patients alone, the trained models fixed."""
        wide = -ndtri(0.025) * self.se_patients
        return self.value - wide, self.value + wide

    @property
    def verdict(self) -> str:
        """What the interval says of the direction."""
        return 'rises' if self.low > 0 else 'falls' if self.high < 0 else 'not shown'


def slope(x_X: Sequence[float], *, values: np.ndarray, replicates: np.ndarray, confidence: float = 0.95) -> Estimate:
    """The mean over seeds of the slope per unit of x.

    Args:
      x_X: what is varied, the same points in each seed.
      values: [S, X].
      replicates: [S, X, R], the same draws of patients for all; R may be 0, then the patients' part is 0.

    Raises:
      UsageError: fewer than two different points.
    """
    x_X = np.asarray(x_X, np.float64)
    if len(np.unique(x_X)) < 2:
        raise UsageError('a slope needs at least two different points')
    around_X = x_X - x_X.mean()
    weight_X = around_X / (around_X**2).sum()
    slope_S, by_patients = values @ weight_X, _variance(np.einsum('sxr,x->r', replicates, weight_X) / len(values))
    # One slope for all seeds and a level of each: what is left is the chance of each training by itself.
    left_SX = values - values.mean(axis=1, keepdims=True) - slope_S.mean() * around_X
    df = left_SX.size - len(values) - 1
    by_points = float((left_SX**2).sum() / df * (weight_X**2).sum() / len(values)) if df > 0 else math.nan
    found = _estimate(slope_S, by_patients, alone=by_points, alone_df=df, confidence=confidence)
    blocks = _estimate(slope_S.mean(keepdims=True), by_patients, alone=by_points, alone_df=df, confidence=confidence)
    return replace(found, blocks=(blocks.low, blocks.high))


def mean(values: np.ndarray, *, replicates: np.ndarray, confidence: float = 0.95) -> Estimate:
    """The mean over seeds [S], with replicates [S, R], by the same reckoning; of one seed the training's chance is unknown and left out."""
    return joined(values, se_patients=math.sqrt(_variance(replicates.mean(axis=0))), confidence=confidence)


def joined(values: Sequence[float], *, se_patients: float, confidence: float = 0.95) -> Estimate:
    """The same mean where the patients' standard error is known and not the replicates."""
    return _estimate(np.asarray(values, np.float64), se_patients**2, alone=0.0, alone_df=math.inf, confidence=confidence)


def _variance(drawn_R: np.ndarray) -> float:
    finite_R = drawn_R[np.isfinite(drawn_R)]
    return float(finite_R.var(ddof=1)) if len(finite_R) > 1 else 0.0


def _estimate(value_S: np.ndarray, by_patients: float, *, alone: float, alone_df: float, confidence: float) -> Estimate:
    by_seeds, seeds_df = alone, alone_df
    if len(value_S) > 1:
        by_seeds, seeds_df = float(value_S.var(ddof=1)) / len(value_S), len(value_S) - 1
    parts = (math.sqrt(by_seeds) if by_seeds >= 0 else math.nan, math.sqrt(by_patients))
    value, se = float(value_S.mean()), math.hypot(*parts)

    def half(tail: float) -> float:
        """Half width that leaves `tail` on either side."""
        t = stdtrit(seeds_df, tail) if math.isfinite(seeds_df) else ndtri(tail)  # as scipy.stats has them, without their overhead
        return math.hypot(t * parts[0], ndtri(tail) * parts[1])

    known = math.isfinite(value) and se > _NOTHING
    wide = half((1 - confidence) / 2) if known else math.nan
    return Estimate(
        value=value,
        low=value - wide,
        high=value + wide,
        p=_p_value(abs(value), half) if known else math.nan,
        se=se,
        se_seeds=parts[0],
        se_patients=parts[1],
        df=seeds_df,
        per_seed=tuple(value_S.tolist()),
        detectable=wide + half(1 - POWER) if known else math.nan,
    )


def _p_value(value: float, half: Callable[[float], float]) -> float:
    """Twice the tail at which the interval ends at 0."""
    least = 1e-12
    if half(least) <= value:
        return 2 * least
    return 1.0 if value == 0 else 2 * float(brentq(lambda tail: half(tail) - value, least, 0.5, xtol=1e-15))
