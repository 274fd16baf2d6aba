"""Quick metrics for the training loop: no intervals, no subgroups, one pass.

The loop takes them as an argument (`validation_for(kind)`), so train/ need not know this room. Which metric decides the best
checkpoint is the kind's own (`better`) unless an experiment names another of its kind (`DECIDING`).

Letters: N rows, Y label columns, S score columns.
"""

from __future__ import annotations

import functools

import numpy as np

from retfound_jax.core.demographics import FLOOR, NOT_A_GROUP
from retfound_jax.core.errors import UsageError, nearest
from retfound_jax.evals import metrics, retfound_style
from retfound_jax.train.checkpoint import Better, Validation

V2_SCORE = 'retfound_v2_score'
# The metrics of each kind that may decide, its own first; a task without labels has its loss alone.
DECIDING = {
    'single': ('AUROC', 'AUPRC', 'accuracy', 'cross_entropy', V2_SCORE, 'loss', 'worst_group_AUROC'),
    'ordinal': ('AUROC', 'AUPRC', 'accuracy', 'cross_entropy', 'kappa_quadratic', 'loss', 'worst_group_AUROC'),
    'multi': ('AUROC', 'AUPRC', 'cross_entropy', 'loss', 'worst_group_AUROC'),
    'regress': ('MAE', 'RMSE', 'R2', 'pearson', 'loss', 'worst_group_MAE'),
}
_LOWER_IS_BETTER = metrics.LOWER_IS_BETTER | {'cross_entropy', 'worst_group_MAE'}
_TINY = 1e-7  # probabilities are kept this far from 0 and 1 in the log


def validation_for(kind: str, *, best_by: str = '') -> Validation:
    """What the training loop of a task of this kind is given; `best_by` names the deciding metric, '' is the kind's own.

    Raises:
      UsageError: the kind has no such metric; the nearest one is named.
    """
    metric, mode = better(kind, best_by=best_by)
    return Validation(measure=functools.partial(_measure, with_score=metric == V2_SCORE), better=Better(metric=metric, mode=mode))


def better(kind: str, *, best_by: str = '') -> tuple[str, str]:
    """The metric that chooses the best checkpoint, and whether more ('max') or less ('min') of it is better.

    Raises:
      UsageError: the kind has no such metric.
    """
    options = DECIDING.get(kind, ('loss',))
    metric = best_by or options[0]
    if metric not in options:
        hint = nearest(metric, options) or f'; it has {", ".join(options)}'
        raise UsageError(f"best_by is '{metric}', which is no validation metric of a task of kind '{kind}'{hint}")
    return metric, 'min' if metric in _LOWER_IS_BETTER else 'max'


def _measure(kind: str, label: np.ndarray, score: np.ndarray, *, with_score: bool, group: np.ndarray | None = None) -> dict[str, float]:
    """The metrics of the kind, and RETFound's score only where it decides; none of a kind that predicts no label.

    group: [rows] names, where the worst group is told.
    """
    if kind not in DECIDING:
        return {}
    found = validation_metrics(kind, label=label, score=score)
    if group is not None:
        found |= worst_group(kind, label=label, score=score, group=group)
    return found | {V2_SCORE: retfound_v2_score(label, score=score, auroc=found['AUROC'])} if with_score else found


def worst_group(kind: str, *, label: np.ndarray, score: np.ndarray, group: np.ndarray) -> dict[str, float]:
    """`worst_group_AUROC`, or `worst_group_MAE` of a regression: the worst value of any group of 20 images or more that has one.

    `missing` and `declined` are no groups. NaN where no group has a value. The least of several noisy values is lower than the truth,
    the more so the smaller the groups are: it serves to choose between checkpoints on the same images, not to judge a model.

    Args:
      group: [N] names.
    """
    metric = 'MAE' if kind == 'regress' else 'AUROC'
    values = []
    for name in np.unique(group):
        here = group == name
        if str(name) not in NOT_A_GROUP and here.sum() >= FLOOR:
            values.append(validation_metrics(kind, label=label[here], score=score[here])[metric])
    values = [value for value in values if np.isfinite(value)]
    worst = max if metric in _LOWER_IS_BETTER else min
    return {f'worst_group_{metric}': float(worst(values)) if values else float('nan')}


def retfound_v2_score(label: np.ndarray, *, score: np.ndarray, auroc: float) -> float:
    """What RETFound v2 chooses its checkpoint by: the mean of macro F1, AUROC and unweighted kappa of a 'single' task; NaN if one is.

    Classes absent from the split are left out of the AUROC, where the original stops, and have an F1 of 0.
    """
    label_N, score_NS = _array(label)[:, 0], _array(score)
    present_N = label_N >= 0  # False for NaN
    predicted_N = score_NS[present_N].argmax(axis=1)
    matrix_YY = metrics.confusion(label_N[present_N], predicted=predicted_N, classes=score_NS.shape[1])
    return retfound_style.score(matrix_YY, auroc=auroc)


def validation_metrics(kind: str, *, label: np.ndarray, score: np.ndarray) -> dict[str, float]:
    """Metrics over images; a missing label is NaN or negative, and what a split cannot tell is NaN.

    single, ordinal: label [N] or [N,1] class index, score [N,S] probabilities -> AUROC and AUPRC (mean over the classes present; the second
    class where there are two), accuracy, cross-entropy [nat], and for ordinal quadratic kappa. multi: label and score [N,Y] -> AUROC, AUPRC
    and cross-entropy, means over the labels. regress: label and score [N] or [N,1] -> MAE, RMSE, R2, pearson.
    """
    label_NY, score_NS = _array(label), _array(score)
    if kind == 'regress':
        present_N = ~np.isnan(label_NY[:, 0])
        found = metrics.regression_metrics(label_NY[present_N, 0], score=score_NS[present_N, 0])
        return {name: float(value) for name, value in found.items()}
    if kind == 'multi':
        return _multi(np.where(label_NY < 0, np.nan, label_NY), score_NS)
    present_N = label_NY[:, 0] >= 0  # False for NaN
    return _classes(label_NY[present_N, 0].astype(np.int64), score_NS[present_N], ordinal=kind == 'ordinal')


def _array(values: np.ndarray) -> np.ndarray:
    """As float64 with two axes."""
    values = np.asarray(values, np.float64)
    return values[:, None] if values.ndim == 1 else values


def _classes(label_N: np.ndarray, score_NS: np.ndarray, *, ordinal: bool) -> dict[str, float]:
    classes = score_NS.shape[1]
    targets = [1] if classes == 2 else range(classes)
    ranked = [_ranked(label_N == c, score_NS[:, c]) for c in targets]
    matrix_YY = metrics.confusion(label_N, predicted=score_NS.argmax(axis=1), classes=classes)
    chosen_N = score_NS[np.arange(len(label_N)), label_N]
    out = _mean(ranked) | {
        'accuracy': float(metrics.accuracy(matrix_YY)),
        'cross_entropy': _mean_or_nan(-np.log(np.clip(chosen_N, _TINY, 1))),
    }
    return out | {'kappa_quadratic': float(metrics.kappa_quadratic(matrix_YY))} if ordinal else out


def _multi(label_NY: np.ndarray, score_NY: np.ndarray) -> dict[str, float]:
    ranked = []
    for y in range(label_NY.shape[1]):
        present_N = ~np.isnan(label_NY[:, y])
        ranked.append(_ranked(label_NY[present_N, y] > 0, score_NY[present_N, y]))
    present_NY = ~np.isnan(label_NY)
    score = np.clip(score_NY[present_NY], _TINY, 1 - _TINY)
    positive = label_NY[present_NY] > 0
    return _mean(ranked) | {'cross_entropy': _mean_or_nan(-np.log(np.where(positive, score, 1 - score)))}


def _ranked(label_N: np.ndarray, score_N: np.ndarray) -> dict[str, float]:
    return {'AUROC': float(metrics.auroc(label_N, score=score_N)), 'AUPRC': float(metrics.auprc(label_N, score=score_N))}


def _mean(ranked: list[dict[str, float]]) -> dict[str, float]:
    """Mean over the targets that have both classes; NaN where none has."""
    return {name: _mean_or_nan(np.array([one[name] for one in ranked if np.isfinite(one[name])])) for name in metrics.RANK_METRICS}


def _mean_or_nan(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float('nan')
