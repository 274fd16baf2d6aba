"""The metrics files of the original RETFound, beside our own, for whoever compares with numbers that it wrote.

The definitions are those of its two evaluation loops, over images, including what is odd in them: v1's "accuracy", sensitivity and so
on are means over the one-vs-rest tables of the classes after the first, and a class that is never predicted makes v1's precision, F1
and MCC NaN. The loss is the mean over batches of each batch's mean, so a short last batch counts as much as a full one.
The original appends a line for each evaluation; here the file is written anew, so that it always holds exactly the last one.

Letters: N images, Y classes.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.core.files import atomic_write
from retfound_jax.evals import metrics
from retfound_jax.evals.metrics import Counts, divide
from retfound_jax.evals.predictions import Predictions

V1, V2 = 'retfound_v1', 'retfound_v2'
STYLES = (V1, V2)
V1_COLUMNS = ('acc', 'sensitivity', 'specificity', 'precision', 'auc_roc', 'auc_pr', 'F1', 'mcc', 'loss')  # v1 writes no header
V2_COLUMNS = ('val_loss', 'accuracy', 'f1', 'roc_auc', 'hamming', 'jaccard', 'precision', 'recall', 'average_precision', 'kappa')
_WINDOW = 20  # batches that the median of v1's loss looks back on
_TINY = float(np.finfo(np.float32).tiny)  # a probability of 0 in single precision: 87 nat instead of infinity
_V1_LINE = 'Sklearn Metrics - Acc: {acc:.4f} AUC-roc: {auc_roc:.4f} AUC-pr: {auc_pr:.4f} F1-score: {F1:.4f} MCC: {mcc:.4f}'
_V2_LINES = (
    'val loss: {val_loss}',
    'Accuracy: {accuracy:.4f}, F1 Score: {f1:.4f}, ROC AUC: {roc_auc:.4f}, Hamming Loss: {hamming:.4f},',
    ' Jaccard Score: {jaccard:.4f}, Precision: {precision:.4f}, Recall: {recall:.4f},',
    ' Average Precision: {average_precision:.4f}, Kappa: {kappa:.4f}, Score: {score:.4f}',
)


@dataclass(frozen=True, kw_only=True)
class Written:
    """The file, and the lines that the original prints."""

    path: Path
    text: str


def check_style(kind: str, *, style: str) -> None:
    """A UsageError for a task the original has no metrics for: it knows one class an image and nothing else."""
    if kind != 'single':
        raise UsageError(f"--style {style} is defined for one class an image, and this run's task is of kind '{kind}': leave --style out")


def write_style(predictions: Predictions, *, style: str, workdir: Path | str, name: str, split: str, batch_size: int) -> Written:
    """Writes `metrics_SPLIT.csv` (v2) or `NAME_metrics_SPLIT.csv` (v1, without a header) into the run directory.

    Raises:
      UsageError: the task is not of kind 'single'.
      UserError: a class has no image in the split, where the original ends in a traceback.
    """
    check_style(predictions.kind, style=style)
    if style == V2:
        values = retfound_v2(predictions, batch_size=batch_size)
        path, rows = Path(workdir) / f'metrics_{split}.csv', [V2_COLUMNS, [values[column] for column in V2_COLUMNS]]
        text = '\n'.join(_V2_LINES).format(**values)
    else:
        values = retfound_v1(predictions, batch_size=batch_size)
        safe = re.sub(r'[^\w.-]', '_', name)
        path = Path(workdir) / f'{safe}_metrics_{split}.csv'
        rows, text = [[values[column] for column in V1_COLUMNS]], _V1_LINE.format(**values)
    file = io.StringIO(newline='')
    csv.writer(file).writerows(rows)
    atomic_write(path, file.getvalue())
    return Written(path=path, text=text)


def retfound_v1(predictions: Predictions, *, batch_size: int) -> dict[str, float | str]:
    """V1_COLUMNS; the loss is text, the median of the last twenty batches and, in brackets, the mean of all."""
    label_N, score_NY = _labelled(predictions)
    rest = one_vs_rest(metrics.confusion(label_N, predicted=score_NY.argmax(axis=1), classes=score_NY.shape[1]))
    precision, sensitivity = divide(rest.tp, rest.tp + rest.fp), rest.sensitivity
    margins = (rest.tn + rest.fp) * (rest.tn + rest.fn) * (rest.tp + rest.fn) * (rest.tp + rest.fp)
    found = {
        'acc': rest.accuracy,
        'sensitivity': sensitivity,
        'specificity': rest.specificity,
        'precision': precision,
        'F1': divide(2 * precision * sensitivity, precision + sensitivity),
        'mcc': divide(rest.tn * rest.tp - rest.fp * rest.fn, np.sqrt(margins)),
    }
    losses = _batch_losses(label_N, score_NY=score_NY, batch_size=batch_size)
    recent = np.sort(losses[-_WINDOW:])
    median = recent[(len(recent) - 1) // 2]  # of an even number the lower one, as torch has it
    return (
        {column: float(value_Y[1:].mean()) for column, value_Y in found.items()}
        | _areas(label_N, score_NY=score_NY, names=('auc_roc', 'auc_pr'))
        | {'loss': f'{median:.4f} ({losses.mean():.4f})'}
    )


def retfound_v2(predictions: Predictions, *, batch_size: int) -> dict[str, float]:
    """V2_COLUMNS, and the `score` that v2 chooses its checkpoint by; an undefined ratio is 0, as in scikit-learn."""
    label_N, score_NY = _labelled(predictions)
    matrix_YY = metrics.confusion(label_N, predicted=score_NY.argmax(axis=1), classes=score_NY.shape[1])
    rest = one_vs_rest(matrix_YY)
    found = {
        'val_loss': float(_batch_losses(label_N, score_NY=score_NY, batch_size=batch_size).mean()),
        'accuracy': float(metrics.accuracy(matrix_YY)),
        'f1': macro_f1(matrix_YY),
        'hamming': float((rest.fp + rest.fn).sum() / (matrix_YY.sum() * len(matrix_YY))),
        'jaccard': _macro(divide(rest.tp, rest.tp + rest.fp + rest.fn)),
        'precision': _macro(divide(rest.tp, rest.tp + rest.fp)),
        'recall': _macro(rest.sensitivity),
        'kappa': kappa(matrix_YY),
    } | _areas(label_N, score_NY=score_NY, names=('roc_auc', 'average_precision'))
    return found | {'score': score(matrix_YY, auroc=found['roc_auc'])}


def score(confusion_YY: np.ndarray, *, auroc: float) -> float:
    """What v2 chooses the best checkpoint by: the mean of macro F1, macro AUROC and unweighted kappa."""
    return (macro_f1(confusion_YY) + auroc + kappa(confusion_YY)) / 3


def macro_f1(confusion_YY: np.ndarray) -> float:
    """Mean F1 of each class against the rest, 0 for a class that neither occurs nor is predicted."""
    rest = one_vs_rest(confusion_YY)
    return _macro(divide(2 * rest.tp, 2 * rest.tp + rest.fp + rest.fn))


def kappa(confusion_YY: np.ndarray) -> float:
    """Unweighted kappa (Cohen 1960) of a confusion matrix; NaN where chance agreement is already perfect."""
    matrix_YY = np.asarray(confusion_YY, np.float64)
    total = matrix_YY.sum()
    expected = (matrix_YY.sum(axis=1) * matrix_YY.sum(axis=0)).sum()
    return float(1 - divide((total - np.trace(matrix_YY)) * total, total**2 - expected))


def one_vs_rest(confusion_YY: np.ndarray) -> Counts:
    """The table of each class against all others, [Y] each."""
    matrix_YY = np.asarray(confusion_YY, np.float64)
    tp_Y = np.diag(matrix_YY)
    fp_Y, fn_Y = matrix_YY.sum(axis=0) - tp_Y, matrix_YY.sum(axis=1) - tp_Y
    return Counts(tp=tp_Y, fp=fp_Y, fn=fn_Y, tn=matrix_YY.sum() - tp_Y - fp_Y - fn_Y)


def _macro(value_Y: np.ndarray) -> float:
    return float(np.nan_to_num(value_Y).mean())


def _labelled(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Class index and probabilities of the labelled images; every class must occur."""
    present_N = ~np.isnan(predictions.label_NY[:, 0])
    label_N = predictions.label_NY[present_N, 0].astype(np.int64)
    absent = [name for y, name in enumerate(predictions.classes) if not (label_N == y).any()]
    if absent:
        raise UserError(
            f'the {predictions.split} split has no image of class {" or ".join(map(repr, absent))}, so the AUROC of the original is not '
            'defined on it: evaluate a split with every class, or leave --style out'
        )
    return label_N, predictions.score_NS[present_N]


def _areas(label_N: np.ndarray, *, score_NY: np.ndarray, names: tuple[str, str]) -> dict[str, float]:
    """Macro means of AUROC and average precision over all classes; with two classes both count, unlike in our tables."""
    classes = range(score_NY.shape[1])
    return {
        name: float(np.mean([area(label_N == y, score=score_NY[:, y]) for y in classes]))
        for name, area in zip(names, (metrics.auroc, metrics.auprc), strict=True)
    }


def _batch_losses(label_N: np.ndarray, *, score_NY: np.ndarray, batch_size: int) -> np.ndarray:
    """Mean cross-entropy [nat] of each batch in evaluation order, without label smoothing."""
    loss_N = -np.log(np.maximum(score_NY[np.arange(len(label_N)), label_N], _TINY))
    return np.array([loss_N[start : start + batch_size].mean() for start in range(0, len(loss_N), batch_size)])
