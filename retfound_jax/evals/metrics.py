"""Metrics of classification and regression, vectorised over many weightings of the same rows.

Every function takes `weights`: None (each row counts once), [N], or [N, R], R weightings at once; the answer is a scalar for the
first two and [R] for the last. A bootstrap is then a matrix of how often each row was drawn, never a copy of rows. A metric that its
weighting leaves undefined (no positive case, no variance) is NaN: the caller says so in words.

Letters: N rows, R weightings, G distinct scores, Y classes, K calibration bins.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from retfound_jax.evals.logistic import Line, make_line, recalibration_lines

BINS = 15  # equal-width bins of ECE; Guo et al. 2017, "On calibration of modern neural networks", section 3
RANK_METRICS = ('AUROC', 'AUPRC')
DECISION_METRICS = ('sensitivity', 'specificity', 'F1', 'accuracy', 'balanced_accuracy')
PROBABILITY_METRICS = ('ECE', 'Brier')
LINE_METRICS = ('slope', 'intercept')  # of the logistic recalibration: 1 and 0 are ideal, and neither more nor less is better
BINARY_METRICS = RANK_METRICS + DECISION_METRICS + PROBABILITY_METRICS + LINE_METRICS
REGRESSION_METRICS = ('MAE', 'RMSE', 'R2', 'pearson')
LOWER_IS_BETTER = frozenset({'ECE', 'Brier', 'MAE', 'RMSE', 'loss'})


def auroc(label_N: np.ndarray, *, score: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Area under the ROC curve as the Mann-Whitney probability, ties counting half; NaN unless both classes have weight."""
    weights_NR, single = _weights(weights, n=len(label_N))
    return _answer(rank(make_order(label_N, score=score), weights_NR=weights_NR).auroc(), single=single)


def auprc(label_N: np.ndarray, *, score: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Average precision, the step-wise area under precision and recall (no interpolation); NaN unless both classes have weight."""
    weights_NR, single = _weights(weights, n=len(label_N))
    return _answer(rank(make_order(label_N, score=score), weights_NR=weights_NR).auprc(), single=single)


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """Weights at the distinct scores that any positive has, from the highest down: all that the areas under ROC and PR curves need.

    Scores that only negatives have are not kept: at them no recall is gained, and they count where the positives above them look down.
    """

    positive_GR: np.ndarray  # weight of the positives at this very score
    hit_GR: np.ndarray  # of the positives at it or above
    called_GR: np.ndarray  # of all rows at it or above
    above_GR: np.ndarray  # of all rows above it
    negative_R: np.ndarray  # of all negatives

    def auroc(self) -> np.ndarray:
        """[R]: each positive beats the negatives below it and half of those that tie with it."""
        # negatives above plus half of the tied ones = ((called - hit) + (above - (hit - positive))) / 2
        lost_GR = self.called_GR + self.above_GR
        lost_GR -= 2 * self.hit_GR
        lost_GR += self.positive_GR
        positive_R = self.positive_GR.sum(axis=0)
        return 1 - divide(np.einsum('GR,GR->R', self.positive_GR, lost_GR), 2 * positive_R * self.negative_R)

    def auprc(self) -> np.ndarray:
        """[R]: precision at each distinct score, weighted by the recall gained there."""
        # where nothing is called yet no recall is gained either
        precision_GR = np.divide(self.hit_GR, self.called_GR, out=np.zeros_like(self.hit_GR), where=self.called_GR > 0)
        area_R = divide(np.einsum('GR,GR->R', self.positive_GR, precision_GR), self.positive_GR.sum(axis=0))
        return np.where(self.negative_R > 0, area_R, np.nan)


@dataclass(frozen=True, kw_only=True)
class Order:
    """Rows sorted by score from the highest down, and where ties begin and end: what does not depend on the weights."""

    order_N: np.ndarray
    score_N: np.ndarray  # sorted
    label_N: np.ndarray  # sorted, bool
    end_N: np.ndarray  # of each sorted row, the last row with the same score
    positive_P: np.ndarray  # the sorted rows that are positive
    last_P: np.ndarray  # whether a positive is the last one of its tie
    start_G: np.ndarray  # the first positive of each tie that has any
    first_G: np.ndarray  # the first row of that tie


def make_order(label_N: np.ndarray, *, score: np.ndarray) -> Order:
    """Sort the rows once, for as many weightings as follow."""
    order_N = np.argsort(-np.asarray(score, np.float64), kind='stable')
    score_N, label_N = np.asarray(score, np.float64)[order_N], np.asarray(label_N, bool)[order_N]
    ends_G = np.flatnonzero(np.r_[score_N[1:] != score_N[:-1], True]) if len(score_N) else np.zeros(0, np.int64)
    end_N = ends_G[np.searchsorted(ends_G, np.arange(len(score_N)))]
    positive_P = np.flatnonzero(label_N)
    end_P = end_N[positive_P]
    last_P = np.r_[end_P[1:] != end_P[:-1], True] if len(positive_P) else np.zeros(0, bool)
    return Order(
        order_N=order_N,
        score_N=score_N,
        label_N=label_N,
        end_N=end_N,
        positive_P=positive_P,
        last_P=last_P,
        start_G=np.r_[0, np.flatnonzero(last_P)[:-1] + 1] if len(positive_P) else np.zeros(0, np.int64),
        first_G=np.searchsorted(end_N, end_P[last_P]),
    )


def rank(order: Order, *, weights_NR: np.ndarray) -> Ranked:
    """The weights of each tie, for all weightings at once; `weights_NR` in the order the rows had before they were sorted."""
    sorted_NR = weights_NR[order.order_N]
    positive_PR = sorted_NR[order.positive_P]
    called_NR = np.cumsum(sorted_NR, axis=0)
    hit_GR = np.cumsum(positive_PR, axis=0)[order.last_P]
    above_GR = called_NR[np.maximum(order.first_G - 1, 0)]
    above_GR[order.first_G == 0] = 0
    total_R = called_NR[-1] if len(called_NR) else np.zeros(weights_NR.shape[1])
    return Ranked(
        positive_GR=positive_PR if order.last_P.all() else np.add.reduceat(positive_PR, order.start_G, axis=0),
        hit_GR=hit_GR,
        called_GR=called_NR[order.end_N[order.positive_P[order.last_P]]],
        above_GR=above_GR,
        negative_R=total_R - (hit_GR[-1] if len(hit_GR) else 0),
    )


@dataclass(frozen=True, kw_only=True)
class Roc:
    """The ROC curve of 'score at or above' each distinct score, from the highest down."""

    score_G: np.ndarray
    fpr_GR: np.ndarray
    tpr_GR: np.ndarray


def roc(label_N: np.ndarray, *, score: np.ndarray, weights: np.ndarray | None = None) -> Roc:
    """False and true positive rates [G, R] (R = 1 for a single weighting); NaN where a class has no weight."""
    weights_NR, _ = _weights(weights, n=len(label_N))
    order = make_order(label_N, score=score)
    return roc_of(order, weights_NR=weights_NR)


def roc_of(order: Order, *, weights_NR: np.ndarray) -> Roc:
    """The ROC curves of rows that are already sorted."""
    sorted_NR = weights_NR[order.order_N]
    ends_G = np.flatnonzero(order.end_N == np.arange(len(order.end_N)))
    rates = []
    for kept_N in (~order.label_N, order.label_N):
        mass_NR = np.cumsum(sorted_NR * kept_N[:, None], axis=0)
        rates.append(divide(mass_NR[ends_G], mass_NR[-1:]))
    return Roc(score_G=order.score_N[ends_G], fpr_GR=rates[0], tpr_GR=rates[1])


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Weighted true and false positives and negatives of a yes/no decision, scalars or [R]."""

    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray
    tn: np.ndarray

    @property
    def sensitivity(self) -> np.ndarray:
        return divide(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> np.ndarray:
        return divide(self.tn, self.tn + self.fp)

    @property
    def F1(self) -> np.ndarray:
        """NaN without a positive case, where sklearn would answer 0."""
        return np.where(self.tp + self.fn > 0, divide(2 * self.tp, 2 * self.tp + self.fp + self.fn), np.nan)

    @property
    def accuracy(self) -> np.ndarray:
        return divide(self.tp + self.tn, self.tp + self.fp + self.fn + self.tn)

    @property
    def balanced_accuracy(self) -> np.ndarray:
        return (self.sensitivity + self.specificity) / 2


def counts(label_N: np.ndarray, *, predicted: np.ndarray, weights: np.ndarray | None = None) -> Counts:
    """Count a yes/no decision against yes/no labels."""
    weights_NR, single = _weights(weights, n=len(label_N))
    label_N, predicted_N = np.asarray(label_N, bool), np.asarray(predicted, bool)
    cells_4N = np.stack([label_N & predicted_N, ~label_N & predicted_N, label_N & ~predicted_N, ~label_N & ~predicted_N])
    tp, fp, fn, tn = (_answer(row_R, single=single) for row_R in cells_4N.astype(np.float64) @ weights_NR)
    return Counts(tp=tp, fp=fp, fn=fn, tn=tn)


def brier(label_N: np.ndarray, *, score: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean squared distance of the probability from the outcome (Brier 1950), of the positive class: 0 best, 0.25 a coin."""
    weights_NR, single = _weights(weights, n=len(label_N))
    error_N = np.asarray(score, np.float64) - np.asarray(label_N, np.float64)
    return _answer(divide(error_N**2 @ weights_NR, weights_NR.sum(axis=0)), single=single)


def ece(label_N: np.ndarray, *, score: np.ndarray, weights: np.ndarray | None = None, bins: int = BINS) -> np.ndarray:
    """Expected calibration error of the positive class's probability over equal-width bins of [0, 1].

    sum over bins of (share of rows in the bin) x |mean probability - fraction positive|; Guo et al. 2017, equation 3, with the
    probability of the positive class in place of the confidence of the chosen class.
    """
    weights_NR, single = _weights(weights, n=len(label_N))
    score_N = np.asarray(score, np.float64)
    # share x |mean - fraction| is |sum of differences| over the total weight, so a bin's own weight cancels
    difference_KN = np.zeros((bins, len(score_N)))
    difference_KN[bin_index(score_N, bins=bins), np.arange(len(score_N))] = score_N - np.asarray(label_N, np.float64)
    return _answer(divide(np.abs(difference_KN @ weights_NR).sum(axis=0), weights_NR.sum(axis=0)), single=single)


def bin_index(score_N: np.ndarray, *, bins: int = BINS) -> np.ndarray:
    """The equal-width bin of each probability: [0, 1/K), [1/K, 2/K) ... with 1 in the last."""
    return np.clip((np.asarray(score_N, np.float64) * bins).astype(np.int64), 0, bins - 1)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What `binary_metrics` needs of its rows and does not depend on the weights."""

    order: Order
    line: Line | None


def prepare(label_N: np.ndarray, *, score: np.ndarray, only: Collection[str] = BINARY_METRICS) -> Prepared:
    """Sorts the rows and solves their recalibration once."""
    lined = not set(LINE_METRICS).isdisjoint(only)
    return Prepared(order=make_order(label_N, score=score), line=make_line(label_N, score=score) if lined else None)


def binary_metrics(
    label_N: np.ndarray,
    *,
    score: np.ndarray,
    threshold: float | None,
    weights: np.ndarray | None = None,
    prepared: Prepared | None = None,
    only: Collection[str] = BINARY_METRICS,
) -> dict[str, np.ndarray]:
    """Those of BINARY_METRICS in `only`; 'positive' is score >= threshold, and without a threshold the decisions are NaN.

    `prepared` is `prepare` of these rows, for a caller that weights them more than once.
    """
    weights_NR, single = _weights(weights, n=len(label_N))
    out = {}
    if not set(RANK_METRICS).isdisjoint(only):
        ranked = rank(prepared.order if prepared else make_order(label_N, score=score), weights_NR=weights_NR)
        out |= {'AUROC': ranked.auroc(), 'AUPRC': ranked.auprc()}
    if threshold is None:
        out |= {name: np.full(weights_NR.shape[1], np.nan) for name in DECISION_METRICS}
    elif not set(DECISION_METRICS).isdisjoint(only):
        decided = counts(label_N, predicted=np.asarray(score) >= threshold, weights=weights_NR)
        out |= {name: getattr(decided, name) for name in DECISION_METRICS}
    if not set(PROBABILITY_METRICS).isdisjoint(only):
        out['ECE'] = ece(label_N, score=score, weights=weights_NR)
        out['Brier'] = brier(label_N, score=score, weights=weights_NR)
    if not set(LINE_METRICS).isdisjoint(only):
        how = {'tol': 1e-8 if single else 1e-4, 'line': prepared.line if prepared else None}
        out['slope'], out['intercept'] = recalibration_lines(label_N, score=score, weights=weights_NR, **how)
    return {name: _answer(value_R, single=single) for name, value_R in out.items() if name in only}


def confusion(label_N: np.ndarray, *, predicted: np.ndarray, classes: int, weights: np.ndarray | None = None) -> np.ndarray:
    """Confusion matrix [Y, Y] or [Y, Y, R]: rows the truth, columns the decision."""
    weights_NR, single = _weights(weights, n=len(label_N))
    label_N, predicted_N = np.asarray(label_N, np.int64), np.asarray(predicted, np.int64)
    cell_N = label_N * classes + predicted_N
    onehot_CN = (np.arange(classes * classes)[:, None] == cell_N).astype(np.float64)
    matrix_YYR = (onehot_CN @ weights_NR).reshape(classes, classes, -1)
    return matrix_YYR[..., 0] if single else matrix_YYR


def kappa_quadratic(confusion_YY: np.ndarray) -> np.ndarray:
    """Quadratic-weighted kappa (Cohen 1968) of a confusion matrix [Y, Y] or [Y, Y, R]; NaN where chance agreement is already perfect."""
    matrix_YYR = np.asarray(confusion_YY, np.float64)
    grades_Y = np.arange(len(matrix_YYR))
    penalty_YY = (grades_Y[:, None] - grades_Y[None]) ** 2.0
    total = matrix_YYR.sum(axis=(0, 1))
    observed = np.einsum('YZ,YZ...->...', penalty_YY, matrix_YYR)
    expected = np.einsum('YZ,Y...,Z...->...', penalty_YY, matrix_YYR.sum(axis=1), matrix_YYR.sum(axis=0))
    return 1 - divide(observed * total, expected)


def accuracy(confusion_YY: np.ndarray) -> np.ndarray:
    """Share of right decisions of a confusion matrix [Y, Y] or [Y, Y, R]."""
    matrix_YYR = np.asarray(confusion_YY, np.float64)
    return divide(np.einsum('YY...->...', matrix_YYR), matrix_YYR.sum(axis=(0, 1)))


def balanced_accuracy(confusion_YY: np.ndarray) -> np.ndarray:
    """Mean recall over the classes that occur in the matrix."""
    matrix_YYR = np.asarray(confusion_YY, np.float64)
    rows, hits = matrix_YYR.sum(axis=1), np.einsum('YY...->Y...', matrix_YYR)
    recall = np.divide(hits, rows, out=np.zeros_like(hits), where=rows > 0)
    return divide(recall.sum(axis=0), (rows > 0).sum(axis=0))


def regression_metrics(label_N: np.ndarray, *, score: np.ndarray, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """MAE and RMSE in the label's unit, R2 (1 - squared error over variance) and Pearson's r; the last two NaN without variance."""
    weights_NR, single = _weights(weights, n=len(label_N))
    label_N, score_N = np.asarray(label_N, np.float64), np.asarray(score, np.float64)
    error_N = score_N - label_N
    # centred first: the moments below would otherwise lose digits to the mean
    y_N, s_N = (v_N - (v_N.mean() if len(v_N) else 0) for v_N in (label_N, score_N))
    moments_7N = np.stack([np.abs(error_N), error_N**2, y_N, s_N, y_N**2, s_N**2, y_N * s_N])
    mean_7R = divide(moments_7N @ weights_NR, weights_NR.sum(axis=0))
    mae, mse, y, s, yy, ss, ys = mean_7R
    variance_y, variance_s = (_variance(m, square=q) for m, q in ((y, yy), (s, ss)))
    out = {
        'MAE': mae,
        'RMSE': np.sqrt(mse),
        'R2': 1 - divide(mse, variance_y),
        'pearson': np.clip(divide(ys - y * s, np.sqrt(variance_y * variance_s)), -1, 1),
    }
    return {name: _answer(value_R, single=single) for name, value_R in out.items()}


def _variance(mean_R: np.ndarray, *, square: np.ndarray) -> np.ndarray:
    """Variance from the first two moments; what is only rounding is called zero."""
    variance_R = square - mean_R**2
    return np.where(variance_R > 1e-12 * np.maximum(square, 1e-300), variance_R, 0.0)


def finite(value: float) -> float | None:
    """A number as JSON holds it: None where it is NaN or infinite."""
    return float(value) if np.isfinite(value) else None


def divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, NaN (quietly) where b is 0."""
    a, b = np.broadcast_arrays(np.asarray(a, np.float64), np.asarray(b, np.float64))
    return np.divide(a, b, out=np.full(a.shape, np.nan), where=b != 0)


def _weights(weights: np.ndarray | None, *, n: int) -> tuple[np.ndarray, bool]:
    """Weights as float64 [N, R], and whether the caller asked for one weighting only."""
    if weights is None:
        return np.ones((n, 1)), True
    weights = np.asarray(weights, np.float64)
    return (weights[:, None], True) if weights.ndim == 1 else (weights, False)


def _answer(value_R: np.ndarray, *, single: bool) -> np.ndarray:
    return value_R[0] if single else value_R
