"""One cell of a table: every metric of one set of rows, with its bootstrap replicates.

Macro values are means over the one-vs-rest targets (or labels) in which the metric is defined on the rows at hand; accuracy, balanced
accuracy and quadratic kappa under the name `macro` judge the joint decision, the most probable class.

Letters: M rows, T targets, C classes, R weightings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from retfound_jax.evals import metrics
from retfound_jax.evals.bootstrap import weight_blocks
from retfound_jax.evals.views import View

MACRO = 'macro'
JOINT_METRICS = ('accuracy', 'balanced_accuracy', 'kappa_quadratic')
Name = tuple[str, str]  # target, metric
Thresholds = Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Values of all metrics of one view and, where asked for, their replicates."""

    view: View
    value: dict[Name, float]
    replicates: dict[Name, np.ndarray]  # [R] each; empty without replicates
    macro: dict[str, tuple[str, ...]]  # metric -> the targets its macro mean is over


def make_cell(view: View, *, base: tuple[str, ...], thresholds: Thresholds, counts: np.ndarray | None = None) -> Cell:
    """Point values and, with `counts` [patients, R], the replicates. `base` are the targets of the macro mean."""
    point = view_values(view, thresholds=thresholds, weights=np.ones((len(view.patient_M), 1)))
    over = _macro_targets(point, base=base, view=view)
    value = {name: float(value_R[0]) for name, value_R in (point | _macro(point, over)).items()}
    if counts is None:
        return Cell(view=view, value=value, replicates={}, macro=over)
    blocks = []
    for weights_MR in weight_blocks(counts, patient_N=view.patient_M):
        block = view_values(view, thresholds=thresholds, weights=weights_MR)
        blocks.append(block | _macro(block, over))
    replicates = {name: np.concatenate([block[name] for block in blocks]) for name in value}
    return Cell(view=view, value=value, replicates=replicates, macro=over)


def view_values(view: View, *, thresholds: Thresholds, weights: np.ndarray) -> dict[Name, np.ndarray]:
    """All metrics of all targets, and of the joint decision, for each weighting: weights [M, R] -> (target, metric): [R]."""
    out: dict[Name, np.ndarray] = {}
    for t, target in enumerate(view.targets):
        present = ~np.isnan(view.label_MT[:, t])
        rows = slice(None) if present.all() else present
        label, score = view.label_MT[rows, t], view.score_MT[rows, t]
        if view.kind == 'regress':
            found = metrics.regression_metrics(label, score=score, weights=weights[rows])
        else:
            found = metrics.binary_metrics(label > 0, score=score, threshold=thresholds.get(target), weights=weights[rows])
        out |= {(target, metric): value_R for metric, value_R in found.items()}
    return out | _joint(view, weights)


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
    names = [metric for metric in metrics.BINARY_METRICS if (MACRO, metric) not in point]
    return {metric: tuple(target for target in base if np.isfinite(point[target, metric][0])) for metric in names}


def _macro(values: Mapping[Name, np.ndarray], over: Mapping[str, tuple[str, ...]]) -> dict[Name, np.ndarray]:
    """A replicate in which any of these targets is undefined is undefined: each replicate estimates the same mean."""
    length = next((len(value_R) for value_R in values.values()), 0)
    return {
        (MACRO, metric): np.mean([values[target, metric] for target in targets], axis=0) if targets else np.full(length, np.nan)
        for metric, targets in over.items()
    }
