"""One cell of a table: every metric of one set of rows, with its bootstrap replicates.

Macro values are means over the one-vs-rest targets (or labels) in which the metric is defined on the rows at hand; accuracy, balanced
accuracy and quadratic kappa under the name `macro` judge the joint decision, the most probable class.

Letters: M rows, N rows with a label of the target, T targets, C classes, R weightings.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np

from retfound_jax.evals import metrics
from retfound_jax.evals.bootstrap import map_blocks
from retfound_jax.evals.views import View

MACRO = 'macro'
JOINT_METRICS = ('accuracy', 'balanced_accuracy', 'kappa_quadratic')
OWN_METRICS = ('sensitivity@group', 'specificity@group')  # at a threshold of the group's own, chosen on validation
Name = tuple[str, str]  # target, metric
Thresholds = Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Values of all metrics of one view and, where asked for, their replicates."""

    view: View
    value: dict[Name, float]
    replicates: dict[Name, np.ndarray]  # [R] each; empty without replicates
    macro: dict[str, tuple[str, ...]]  # metric -> the targets its macro mean is over


def make_cell(
    view: View,
    *,
    base: tuple[str, ...],
    thresholds: Thresholds,
    counts: np.ndarray | None = None,
    own: Thresholds | None = None,
    only: Collection[str] = metrics.BINARY_METRICS,
) -> Cell:
    """Point values and, with `counts` [patients, R], the replicates. `base` are the targets of the macro mean.

    `own` are thresholds that were chosen for the people in this cell: they add `sensitivity@group` and `specificity@group`. `only` leaves
    out metrics of yes/no targets that nobody asks for.
    """
    judged = _judged(view, thresholds=thresholds, own=own, only=only)
    point = judged(np.ones((len(view.patient_M), 1)))
    over = _macro_targets(point, base=base, view=view)
    value = {name: float(value_R[0]) for name, value_R in (point | _macro(point, over)).items()}
    if counts is None:
        return Cell(view=view, value=value, replicates={}, macro=over)
    blocks = map_blocks(judged, counts=counts, patient=view.patient_M)
    blocks = [block | _macro(block, over) for block in blocks]
    replicates = {name: np.concatenate([block[name] for block in blocks]) for name in value}
    return Cell(view=view, value=value, replicates=replicates, macro=over)


def _judged(
    view: View, *, thresholds: Thresholds, own: Thresholds | None, only: Collection[str]
) -> Callable[[np.ndarray], dict[Name, np.ndarray]]:
    """A function from weights [M, R] to all metrics of all targets and of the joint decision, (target, metric): [R].

    What does not depend on the weights, the order of the scores first of all, is done once here.
    """
    parts = [_target(view, t, threshold=thresholds.get(target), own=own, only=only) for t, target in enumerate(view.targets)]

    def values(weights_MR: np.ndarray) -> dict[Name, np.ndarray]:
        out = {}
        for target, part in zip(view.targets, parts, strict=True):
            out |= {(target, metric): value_R for metric, value_R in part(weights_MR).items()}
        return out | _joint(view, weights_MR)

    return values


def _target(
    view: View, t: int, *, threshold: float | None, own: Thresholds | None, only: Collection[str]
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The metrics of one target as a function of the weights."""
    present_M = ~np.isnan(view.label_MT[:, t])
    rows = slice(None) if present_M.all() else present_M
    label_N, score_N = view.label_MT[rows, t], view.score_MT[rows, t]
    if view.kind == 'regress':
        return lambda weights_MR: metrics.regression_metrics(label_N, score=score_N, weights=weights_MR[rows])
    label_N = label_N > 0
    prepared = metrics.prepare(label_N, score=score_N, only=only)
    shared = {'score': score_N, 'threshold': threshold, 'prepared': prepared, 'only': only}

    def values(weights_MR: np.ndarray) -> dict[str, np.ndarray]:
        weights_NR = weights_MR[rows]
        found = metrics.binary_metrics(label_N, weights=weights_NR, **shared)
        if own is None:
            return found
        if own.get(view.targets[t]) is None:
            return found | {name: np.full(weights_NR.shape[1], np.nan) for name in OWN_METRICS}
        decided = metrics.counts(label_N, predicted=score_N >= own[view.targets[t]], weights=weights_NR)
        return found | dict(zip(OWN_METRICS, (decided.sensitivity, decided.specificity), strict=True))

    return values


def joint_confusion(view: View, *, weights: np.ndarray | None = None) -> np.ndarray:
    """Confusion matrix [C, C] or [C, C, R] of the most probable class, over the rows with one true class."""
    known = view.class_M >= 0
    return metrics.confusion(
        view.class_M[known],
        predicted=view.probability_MC[known].argmax(axis=1),
        classes=view.probability_MC.shape[1],
        weights=None if weights is None else weights[known],
    )


def _joint(view: View, weights: np.ndarray) -> dict[Name, np.ndarray]:
    """Two classes without an order have no joint decision: their one target's threshold decides."""
    classes = view.probability_MC.shape[1]
    if classes < 2 or (classes == 2 and view.kind != 'ordinal'):
        return {}
    matrix_CCR = joint_confusion(view, weights=weights)
    out = {(MACRO, 'accuracy'): metrics.accuracy(matrix_CCR), (MACRO, 'balanced_accuracy'): metrics.balanced_accuracy(matrix_CCR)}
    return out | {(MACRO, 'kappa_quadratic'): metrics.kappa_quadratic(matrix_CCR)} if view.kind == 'ordinal' else out


def _macro_targets(point: Mapping[Name, np.ndarray], *, base: tuple[str, ...], view: View) -> dict[str, tuple[str, ...]]:
    if len(base) < 2 or view.kind == 'regress':
        return {}
    # a mean of lines is no line
    asked = [metric for metric in metrics.BINARY_METRICS if metric not in metrics.LINE_METRICS and (base[0], metric) in point]
    names = [metric for metric in asked if (MACRO, metric) not in point]
    return {metric: tuple(target for target in base if np.isfinite(point[target, metric][0])) for metric in names}


def _macro(values: Mapping[Name, np.ndarray], over: Mapping[str, tuple[str, ...]]) -> dict[Name, np.ndarray]:
    """A replicate in which any of these targets is undefined is undefined: each replicate estimates the same mean."""
    length = next((len(value_R) for value_R in values.values()), 0)
    return {
        (MACRO, metric): np.mean([values[target, metric] for target in targets], axis=0) if targets else np.full(length, np.nan)
        for metric, targets in over.items()
    }
