"""How far the best and the worst group lie apart, with an interval for the true gap.

The largest minus the smallest of several noisy values is too large even where nothing differs, and the more so the more groups there are
and the smaller they are. So a gap is never read alone: beside it stand this interval and what chance alone gives (`permutation`).

Letters: G groups, R replicates, C comparisons (pairs of groups).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retfound_jax.evals.metrics import LINE_METRICS, LOWER_IS_BETTER, REGRESSION_METRICS


@dataclass(frozen=True, kw_only=True)
class Gap:
    """The largest minus the smallest value, and an interval for the true gap."""

    value: float
    low: float
    high: float


def best_and_worst(value_G: np.ndarray, *, metric: str) -> tuple[int, int]:
    """Positions of the best and the worst group; of a calibration slope by its distance from 1."""
    worse_G = np.abs(np.asarray(value_G) - 1) if metric == 'slope' else np.asarray(value_G) * (1 if metric in LOWER_IS_BETTER else -1)
    return int(np.argmin(worse_G)), int(np.argmax(worse_G))


def gap(value_G: np.ndarray, *, replicates: np.ndarray, level: float = 0.95, most: float = np.inf) -> Gap:
    """The gap of one metric over groups [G] with bootstrap replicates [G, R] of the same draws; see `widest`."""
    return widest(_pairs(np.asarray(value_G)), replicates=_pairs(np.asarray(replicates)), level=level, most=most)


def equalised_odds(sensitivity_G: np.ndarray, *, specificity: np.ndarray, replicates: tuple[np.ndarray, np.ndarray], level: float) -> Gap:
    """The larger of the gaps in true and in false positive rate (Hardt, Price and Srebro 2016; the difference as fairlearn defines it)."""
    difference_C = np.concatenate([_pairs(np.asarray(v)) for v in (sensitivity_G, specificity)])
    return widest(difference_C, replicates=np.concatenate([_pairs(part) for part in replicates]), level=level, most=1.0)


def widest(difference_C: np.ndarray, *, replicates: np.ndarray, level: float, most: float = np.inf) -> Gap:
    """The largest |difference| and an interval for the true one, which holds whichever comparison is truly the widest.

    All differences get intervals that hold together: each +/- c standard errors, where c is the quantile over the replicates of the
    largest |deviation| in standard errors (the bootstrap's form of Tukey's studentised range). If all hold, the true widest lies between
    the largest lower and the largest upper end. For two groups this is the ordinary interval of their difference; for more it is a little
    wide. Picking the two outermost groups and taking the interval of their difference would ignore that they were picked. No end passes
    `most`, the largest difference there can be.
    """
    difference_C, kept_R = np.asarray(difference_C), np.isfinite(replicates).all(axis=0)
    value = float(np.abs(difference_C).max())
    if kept_R.sum() < 2:
        return Gap(value=value, low=np.nan, high=np.nan)
    deviation_CR = replicates[:, kept_R] - difference_C[:, None]
    error_C = np.sqrt((deviation_CR - deviation_CR.mean(axis=1, keepdims=True)).var(axis=1, ddof=1))
    there_C = error_C > 0
    if not there_C.any():
        return Gap(value=value, low=value, high=value)
    c = np.quantile(np.abs(deviation_CR[there_C] / error_C[there_C, None]).max(axis=0), level)
    high = (np.abs(difference_C) + c * error_C).max()
    low = (np.abs(difference_C) - c * error_C).max()
    return Gap(value=value, low=max(0.0, float(low)), high=min(most, float(high)))


def most(metric: str) -> float:
    """The largest difference that two groups can have."""
    return np.inf if metric in (*LINE_METRICS, *REGRESSION_METRICS) else 2.0 if metric == 'kappa_quadratic' else 1.0


def spread(value_XG: np.ndarray) -> np.ndarray:
    """Largest minus smallest over the last axis."""
    return value_XG.max(axis=-1) - value_XG.min(axis=-1)


def _pairs(value_GX: np.ndarray) -> np.ndarray:
    """Every group minus every later one: [C] or [C, R]."""
    first_C, second_C = np.triu_indices(len(value_GX), k=1)
    return value_GX[first_C] - value_GX[second_C]
