"""The line of a logistic recalibration, logit P(y) = intercept + slope * logit(score) (Cox 1958), for many weightings of the same rows.

Letters: N rows, R weightings, A weightings still being solved.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_CLIP = 1e-7  # probabilities nearer to 0 or 1 than this are moved there
_LONGEST = 2.0  # longest Newton step, in standard deviations of the logit
_STEPS = 30
_CHUNK = 1 << 15  # values of a chunk of rows: its temporaries stay in the cache
_OUTER = 32  # outermost rows of each class that are looked at first


def logit(score_N: np.ndarray) -> np.ndarray:
    """Log odds of probabilities, those at 0 and 1 moved inside by 1e-7."""
    score_N = np.clip(np.asarray(score_N, np.float64), _CLIP, 1 - _CLIP)
    return np.log(score_N / (1 - score_N))


def expit(logit_N: np.ndarray) -> np.ndarray:
    """The probability of log odds."""
    return 1 / (1 + np.exp(-np.clip(logit_N, -30, 30)))


@dataclass(frozen=True, kw_only=True)
class Line:
    """What the lines of all weightings of the same rows have in common."""

    y_N: np.ndarray
    x_N: np.ndarray  # log odds of the score, centred and in standard deviations
    middle: float
    spread: float
    start_2: np.ndarray  # intercept and slope of equal weights, in the units of x
    rows: tuple[np.ndarray, np.ndarray]  # of each class, the lowest score first
    exists: bool  # whether there are both classes and more than one score


def make_line(label_N: np.ndarray, *, score: np.ndarray) -> Line:
    """Solves for equal weights, from where every other weighting starts."""
    y_N, x_N = np.asarray(label_N, np.float64), logit(score)
    exists = bool(0 < y_N.sum() < len(y_N)) and np.ptp(x_N) >= 1e-9
    middle, spread = (float(x_N.mean()), float(x_N.std())) if exists else (0.0, 1.0)
    x_N = (x_N - middle) / spread
    order_N = np.argsort(x_N, kind='stable')
    rows = tuple(order_N[class_N[order_N]] for class_N in (y_N > 0, y_N <= 0))
    start_2 = np.zeros(2)
    if exists:
        start_2 = np.nan_to_num(_newton(y_N, x_N=x_N, weights_NR=np.ones((len(y_N), 1)), start_2=start_2, tol=1e-8)[:, 0])
    return Line(y_N=y_N, x_N=x_N, middle=middle, spread=spread, start_2=start_2, rows=rows, exists=exists)


def recalibration_lines(
    label_N: np.ndarray, *, score: np.ndarray, weights: np.ndarray, tol: float = 1e-4, line: Line | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Slope and intercept [R] each for weights [N, R], by Newton's method from the solution of equal weights.

    NaN where they do not exist: a class has no weight, all scores are alike, or the scores separate the classes. The last step is shorter
    than `tol` standard deviations of the logit; Newton's error is of the order of its square. `line` is `make_line` of these rows, for a
    caller that weights them more than once.
    """
    line = line or make_line(label_N, score=score)
    beta_2R = np.full((2, weights.shape[1]), np.nan)
    exists_R = _overlap(line, weights_NR=weights) if line.exists else np.zeros(weights.shape[1], bool)
    if exists_R.any():
        kept_NR = weights if exists_R.all() else weights[:, exists_R]
        beta_2R[:, exists_R] = _newton(line.y_N, x_N=line.x_N, weights_NR=kept_NR, start_2=line.start_2, tol=tol)
    slope_R = beta_2R[1] / line.spread
    return slope_R, beta_2R[0] - slope_R * line.middle


def _overlap(line: Line, *, weights_NR: np.ndarray) -> np.ndarray:
    """Whether the scores of the two classes overlap by more than a point: otherwise no slope is steep enough."""
    sure_R = np.ones(weights_NR.shape[1], bool)
    for low, high in (line.rows, line.rows[::-1]):
        # a row of one class is there, and one of the other class above all of these
        low, high = low[:_OUTER], high[-_OUTER:]
        sure_R &= weights_NR[low].any(axis=0) & weights_NR[high].any(axis=0) & bool(line.x_N[low[-1]] < line.x_N[high[0]])
    if not sure_R.all():
        sure_R[~sure_R] = _overlap_exactly(line, weights_NR=weights_NR[:, ~sure_R])
    return sure_R


def _overlap_exactly(line: Line, *, weights_NR: np.ndarray) -> np.ndarray:
    ends = []
    for rows in line.rows:
        there_CR = weights_NR[rows] > 0
        first_R, last_R = there_CR.argmax(axis=0), len(rows) - 1 - there_CR[::-1].argmax(axis=0)
        ends.append((line.x_N[rows[first_R]], line.x_N[rows[last_R]], there_CR.any(axis=0)))
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
    for _ in range(_STEPS):
        if not len(active_A):
            return beta_2R
        weights_NA = weights_NR if len(active_A) == weights_NR.shape[1] else weights_NR[:, active_A]
        step_2A = _step(_terms(y_N, x_N=x_N, weights_NA=weights_NA, beta_2A=beta_2R[:, active_A]))
        beta_2R[:, active_A] += step_2A
        active_A = active_A[np.abs(step_2A).max(axis=0) >= tol]
    beta_2R[:, active_A] = np.nan
    return beta_2R


def _terms(y_N: np.ndarray, *, x_N: np.ndarray, weights_NA: np.ndarray, beta_2A: np.ndarray) -> np.ndarray:
    """The gradient and the Hessian of `_step` [5, A], each weighting at a point of its own, summed over chunks of rows."""
    total_5A, step = np.zeros((5, weights_NA.shape[1])), max(1, _CHUNK // weights_NA.shape[1])
    for start in range(0, len(x_N), step):
        x, y, w = x_N[start : start + step], y_N[start : start + step], weights_NA[start : start + step]
        powers = np.stack([np.ones_like(x), x, x * x])
        p = np.multiply.outer(-x, beta_2A[1])
        p -= beta_2A[0]
        np.clip(p, -30, 30, out=p)
        np.exp(p, out=p)
        p += 1
        np.divide(w, p, out=p)  # weight times probability
        total_5A[:2] += (powers[:2] * y) @ w - powers[:2] @ p
        total_5A[2:] += powers @ (p - np.divide(p * p, w, out=np.zeros_like(p), where=w > 0))
    return total_5A


def _step(terms_5R: np.ndarray) -> np.ndarray:
    """Newton's step from the gradient (two rows) and the Hessian (00, 01, 11); NaN, and with it the end, where that is singular."""
    g0, g1, h00, h01, h11 = terms_5R
    determinant = h00 * h11 - h01 * h01
    fit = determinant > 1e-12 * h00 * h11
    determinant = np.where(fit, determinant, np.nan)
    step_2R = np.stack([h11 * g0 - h01 * g1, h00 * g1 - h01 * g0]) / determinant
    longest_R = np.abs(step_2R).max(axis=0)
    return step_2R * np.where(longest_R > _LONGEST, _LONGEST / np.maximum(longest_R, _LONGEST), 1.0)
