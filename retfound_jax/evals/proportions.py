"""A share of patients with its interval. No resampling: where every patient is a yes, a bootstrap would say there is nothing to doubt."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share of `n` patients with Wilson's interval; NaN where there is nobody."""

    value: float
    low: float
    high: float
    n: int


def share(value_M: np.ndarray, *, patient: np.ndarray, level: float = 0.95) -> Share:
    """The mean over patients of the mean over their rows, of values between 0 and 1, with Wilson's score interval (JASA 1927).

    A patient with several rows has a value between 0 and 1, whose variance is below that of a yes or no: the interval is then on the safe
    side.
    """
    value_M = np.asarray(value_M, np.float64)
    if not len(value_M):
        return Share(value=math.nan, low=math.nan, high=math.nan, n=0)
    _, index_M, count_P = np.unique(np.asarray(patient), return_inverse=True, return_counts=True)
    mean = float((np.bincount(index_M, weights=value_M) / count_P).mean())
    low, high = wilson(mean, n=len(count_P), level=level)
    return Share(value=mean, low=low, high=high, n=len(count_P))


def wilson(value: float, *, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share of n cases, without continuity correction."""
    z = float(stats.norm.ppf((1 + level) / 2))
    middle = (value + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(max(value * (1 - value), 0.0) / n + z * z / (4 * n * n))
    # of none, or of all, the end is exact: rounding must not put the value outside
    return (0.0 if value <= 0 else max(0.0, middle - half)), (1.0 if value >= 1 else min(1.0, middle + half))
