"""Do probabilities mean what they say: reliability bins, ECE, Brier, and the slope and intercept of a logistic recalibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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


def recalibration(label_N: np.ndarray, *, score: np.ndarray, steps: int = 50) -> tuple[float, float]:
    """Slope and intercept of logit P(y) = intercept + slope * logit(score) (Cox 1958), by Newton's method.

    NaN where they do not exist: a class is absent, all scores are alike, or the scores separate the classes.
    """
    y_N = np.asarray(label_N, np.float64)
    score_N = np.clip(np.asarray(score, np.float64), 1e-7, 1 - 1e-7)
    x_N2 = np.stack([np.log(score_N / (1 - score_N)), np.ones_like(score_N)], axis=1)
    if not 0 < y_N.sum() < len(y_N) or np.ptp(x_N2[:, 0]) < 1e-9:
        return np.nan, np.nan
    beta_2 = np.zeros(2)
    for _ in range(steps):
        p_N = 1 / (1 + np.exp(-np.clip(x_N2 @ beta_2, -30, 30)))
        hessian_22 = (x_N2 * (p_N * (1 - p_N))[:, None]).T @ x_N2
        if np.linalg.cond(hessian_22) > 1e12:
            return np.nan, np.nan
        step_2 = np.linalg.solve(hessian_22, x_N2.T @ (y_N - p_N))
        beta_2 = beta_2 + step_2 * min(1.0, 2 / np.abs(step_2).max()) if np.any(step_2) else beta_2
        if np.abs(step_2).max() < 1e-10:
            return float(beta_2[0]), float(beta_2[1])
    return np.nan, np.nan
