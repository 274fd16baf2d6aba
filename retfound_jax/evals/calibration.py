"""Do probabilities mean what they say: reliability bins, ECE, Brier, and the slope and intercept of a logistic recalibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retfound_jax.evals.logistic import recalibration_lines
from retfound_jax.evals.metrics import BINS, bin_index, brier, ece


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Calibration of one target's probability; slope 1 and intercept 0 are ideal, a slope under 1 is overconfidence."""

    mean_score: np.ndarray  # [K], NaN in an empty bin
    fraction_positive: np.ndarray  # [K], NaN in an empty bin
    n: np.ndarray  # [K] rows in the bin
    ECE: float
    Brier: float
    slope: float
    intercept: float


def calibrate(label_N: np.ndarray, *, score: np.ndarray, bins: int = BINS) -> Calibration:
    """Reliability over equal-width bins of [0, 1] of the positive class's probability."""
    label_N, score_N = np.asarray(label_N, np.float64), np.asarray(score, np.float64)
    index_N = bin_index(score_N, bins=bins)
    n_K = np.bincount(index_N, minlength=bins)
    with np.errstate(invalid='ignore'):
        mean_K, fraction_K = (np.bincount(index_N, weights=v_N, minlength=bins) / n_K for v_N in (score_N, label_N))
    slope, intercept = recalibration(label_N, score=score_N)
    return Calibration(
        mean_score=mean_K,
        fraction_positive=fraction_K,
        n=n_K,
        ECE=float(ece(label_N, score=score_N, bins=bins)),
        Brier=float(brier(label_N, score=score_N)),
        slope=slope,
        intercept=intercept,
    )


def equal_bins(label_N: np.ndarray, *, score: np.ndarray, least: int, most: int = 10) -> list[dict[str, float]]:
    """Reliability in up to `most` bins of as many rows each, at least `least`: mean score, fraction positive, rows; lowest scores first."""
    order_N = np.argsort(score, kind='stable')
    label_N, score_N = np.asarray(label_N, np.float64)[order_N], np.asarray(score, np.float64)[order_N]
    bins = max(1, min(most, len(order_N) // max(1, least)))
    parts = np.array_split(np.arange(len(order_N)), bins)
    return [{'mean_score': score_N[part].mean(), 'fraction_positive': label_N[part].mean(), 'n': len(part)} for part in parts if len(part)]


def recalibration(label_N: np.ndarray, *, score: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of `logistic.recalibration_lines` with each row once; NaN where they do not exist."""
    weights_N1 = np.ones((len(label_N), 1))
    slope_R, intercept_R = recalibration_lines(label_N, score=score, weights=weights_N1, tol=1e-8)
    return float(slope_R[0]), float(intercept_R[0])
