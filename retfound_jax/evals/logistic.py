"""The line of a logistic recalibration, logit P(y) = intercept + slope * logit(score) (Cox 1958), for many weightings of the same rows.

Letters: N rows, R weightings, A weightings still being solved.
"""

from __future__ import annotations

import numpy as np

_CLIP = 1e-7  # probabilities nearer to 0 or 1 than this are moved there
_LONGEST = 2.0  # longest Newton step, in standard deviations of the logit
_STEPS = 30


def logit(score_N: np.ndarray) -> np.ndarray:
    """Log odds of probabilities, those at 0 and 1 moved inside by 1e-7."""
    score_N = np.clip(np.asarray(score_N, np.float64), _CLIP, 1 - _CLIP)
    return np.log(score_N / (1 - score_N))


def expit(logit_N: np.ndarray) -> np.ndarray:
    """The probability of log odds."""
    return 1 / (1 + np.exp(-np.clip(logit_N, -30, 30)))


def recalibration_lines(label_N: np.ndarray, *, score: np.ndarray, weights: np.ndarray, tol: float = 1e-4) -> tuple[np.ndarray, np.ndarray]:
    """Slope and intercept [R] each for weights [N, R], by Newton's method from the solution of equal weights.

    NaN where they do not exist: a class has no weight, all scores are alike, or the scores separate the classes. The last step is shorter
    than `tol` standard deviations of the logit; Newton's error is of the order of its square.
    """
    y_N, x_N = np.asarray(label_N, np.float64), logit(score)
    nowhere = np.full(weights.shape[1], np.nan)
    if not 0 < y_N.sum() < len(y_N) or np.ptp(x_N) < 1e-9:
        return nowhere, nowhere.copy()
    middle, spread = x_N.mean(), x_N.std()
    x_N = (x_N - middle) / spread
    start_2R = _newton(y_N, x_N=x_N, weights_NR=np.ones((len(y_N), 1)), start_2=np.zeros(2), tol=1e-8)
    start_2 = np.zeros(2) if np.isnan(start_2R).any() else start_2R[:, 0]
    exists_R = _overlap(y_N > 0, x_N=x_N, weights_NR=weights)
    beta_2R = np.full((2, weights.shape[1]), np.nan)
    if exists_R.any():
        kept_NR = weights if exists_R.all() else weights[:, exists_R]
        beta_2R[:, exists_R] = _newton(y_N, x_N=x_N, weights_NR=kept_NR, start_2=start_2, tol=tol)
    slope_R = beta_2R[1] / spread
    return slope_R, beta_2R[0] - slope_R * middle


def _overlap(positive_N: np.ndarray, *, x_N: np.ndarray, weights_NR: np.ndarray) -> np.ndarray:
    """Whether the scores of the two classes overlap by more than a point: otherwise no slope is steep enough."""
    order_N = np.argsort(x_N, kind='stable')
    ends = []
    for class_N in (positive_N, ~positive_N):
        rows = order_N[class_N[order_N]]
        there_CR = weights_NR[rows] > 0
        first_R, last_R = there_CR.argmax(axis=0), len(rows) - 1 - there_CR[::-1].argmax(axis=0)
        ends.append((x_N[rows[first_R]], x_N[rows[last_R]], there_CR.any(axis=0)))
    (low_p, high_p, any_p), (low_n, high_n, any_n) = ends
    return any_p & any_n & (low_p < high_n) & (low_n < high_p)


def _newton(y_N: np.ndarray, *, x_N: np.ndarray, weights_NR: np.ndarray, start_2: np.ndarray, tol: float) -> np.ndarray:
    """Intercept and slope [2, R] in the units of x; NaN where it does not settle."""
    # the first step is from one point for all weightings: the rows' terms are the same and only their sums differ
    p_N = expit(start_2[0] + start_2[1] * x_N)
    rest_N, curve_N = y_N - p_N, p_N * (1 - p_N)
    terms_5N = np.stack([rest_N, x_N * rest_N, curve_N, x_N * curve_N, x_N * x_N * curve_N])
    step_2R = _step(terms_5N @ weights_NR)
    beta_2R = start_2[:, None] + step_2R
    with np.errstate(invalid='ignore'):
        active_A = np.flatnonzero(np.abs(step_2R).max(axis=0) >= tol)
    powers_3N = np.stack([np.ones_like(x_N), x_N, x_N * x_N])
    for _ in range(_STEPS):
        if not len(active_A):
            return beta_2R
        weights_NA = weights_NR if len(active_A) == weights_NR.shape[1] else weights_NR[:, active_A]
        p_NA = np.multiply.outer(x_N, beta_2R[1, active_A])
        p_NA += beta_2R[0, active_A]
        p_NA = expit(p_NA)
        weighted_NA = weights_NA * p_NA
        gradient_2A = powers_3N[:2] @ (y_N[:, None] * weights_NA - weighted_NA)
        weighted_NA *= 1 - p_NA
        step_2A = _step(np.concatenate([gradient_2A, powers_3N @ weighted_NA]))
        beta_2R[:, active_A] += step_2A
        active_A = active_A[np.abs(step_2A).max(axis=0) >= tol]
    beta_2R[:, active_A] = np.nan
    return beta_2R


def _step(terms_5R: np.ndarray) -> np.ndarray:
    """Newton's step from the gradient (two rows) and the Hessian (00, 01, 11); NaN, and with it the end, where that is singular."""
    g0, g1, h00, h01, h11 = terms_5R
    determinant = h00 * h11 - h01 * h01
    fit = determinant > 1e-12 * h00 * h11
    determinant = np.where(fit, determinant, np.nan)
    step_2R = np.stack([h11 * g0 - h01 * g1, h00 * g1 - h01 * g0]) / determinant
    longest_R = np.abs(step_2R).max(axis=0)
    return step_2R * np.where(longest_R > _LONGEST, _LONGEST / np.maximum(longest_R, _LONGEST), 1.0)
