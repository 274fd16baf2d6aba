"""The rows that metrics are taken over: images, or patients made of images, with one column a target.

Targets of a kind:
    single, 2 classes    the second class is the positive one, and the only target
    single, more         each class against the rest
    ordinal              each grade against the rest, then `>=GRADE` for the grades between the lowest and the highest
    multi                each label
    regress              the label
A patient's score is the mean over the patient's labelled images; a patient's yes/no label is positive if any image's is, a grade is the
highest of any eye, a number is the mean. Several classes without an order have no highest one: a patient whose images differ is positive
for each of these classes in its one-vs-rest target, and left out of the joint decision (accuracy, confusion matrix).

Letters: M rows (images or patients), Y label columns, S score columns, T targets, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retfound_jax.evals.predictions import Predictions

LEVELS = ('image', 'patient')


@dataclass(frozen=True, kw_only=True)
class View:
    """Rows with what every metric of their kind needs."""

    kind: str
    targets: tuple[str, ...]
    label_MT: np.ndarray  # 1, 0, NaN missing; the number itself for regress
    score_MT: np.ndarray
    images_MT: np.ndarray  # images behind the row that have this target's label
    images_M: np.ndarray  # images behind the row that have any label
    patient_M: np.ndarray  # index of the patient among all patients of the file
    class_M: np.ndarray  # class index of the joint decision, -1 for none
    probability_MC: np.ndarray  # zero columns where the kind has no joint decision


def base_targets(predictions: Predictions) -> tuple[str, ...]:
    """The targets a macro mean is taken over."""
    if predictions.classes:
        return predictions.classes[1:] if len(predictions.classes) == 2 else predictions.classes
    return predictions.labels


def cumulative_targets(predictions: Predictions) -> tuple[str, ...]:
    """`>=GRADE` of an ordinal label, such as referable disease; the highest grade alone is already a target."""
    return tuple(f'>={grade}' for grade in predictions.classes[1:-1]) if predictions.kind == 'ordinal' else ()


def make_view(predictions: Predictions, *, level: str, patient: np.ndarray, rows: np.ndarray | None = None) -> View:
    """Rows of a level ('image' or 'patient'), from all labelled images or from those in the mask `rows`.

    `patient` numbers the patient of each image (`bootstrap.patient_index`).
    """
    nominal = predictions.kind == 'single' and len(predictions.classes) > 2
    label_MY = _one_hot(predictions.label_NY[:, 0], classes=len(predictions.classes)) if nominal else predictions.label_NY
    kept = ~np.isnan(label_MY).all(axis=1) & (True if rows is None else rows)
    parts = _Rows(label_MY=label_MY[kept], score_MS=predictions.score_NS[kept], patient_M=patient[kept])
    if level == 'patient':
        parts = parts.pooled(mean_label=predictions.kind == 'regress')
    if nominal:
        single_M = np.nansum(parts.label_MY, axis=1) == 1
        class_M = np.where(single_M, parts.label_MY.argmax(axis=1), -1) if len(single_M) else np.zeros(0, np.int64)
        return _plain(predictions, parts, class_M=class_M, probability_MC=parts.score_MS)
    if predictions.classes:
        return _graded(predictions, parts)
    rows_M = len(parts.patient_M)
    return _plain(predictions, parts, class_M=np.full(rows_M, -1), probability_MC=np.zeros((rows_M, 0)))


@dataclass(frozen=True, kw_only=True)
class _Rows:
    label_MY: np.ndarray
    score_MS: np.ndarray
    patient_M: np.ndarray
    count_MY: np.ndarray | None = None  # images with each label; None: the rows are images
    count_M: np.ndarray | None = None  # images

    @property
    def images_MY(self) -> np.ndarray:
        return (~np.isnan(self.label_MY)).astype(np.int64) if self.count_MY is None else self.count_MY

    @property
    def images_M(self) -> np.ndarray:
        return np.ones(len(self.patient_M), np.int64) if self.count_M is None else self.count_M

    def pooled(self, *, mean_label: bool) -> _Rows:
        """One row a patient."""
        if not len(self.patient_M):
            return self
        order = np.argsort(self.patient_M, kind='stable')
        label_MY, score_MS, patient_M = self.label_MY[order], self.score_MS[order], self.patient_M[order]
        starts = np.flatnonzero(np.r_[True, patient_M[1:] != patient_M[:-1]])
        present_MY = ~np.isnan(label_MY)
        count_PY = np.add.reduceat(present_MY.astype(np.int64), starts, axis=0)
        with np.errstate(invalid='ignore'):  # 0 / 0 where a patient has no image with this label: NaN, as it should be
            score_PS = np.add.reduceat(np.where(present_MY, score_MS, 0.0), starts, axis=0) / count_PY
            mean_PY = np.add.reduceat(np.where(present_MY, label_MY, 0.0), starts, axis=0) / count_PY
        highest_PY = np.maximum.reduceat(np.where(present_MY, label_MY, -np.inf), starts, axis=0)
        label_PY = mean_PY if mean_label else np.where(count_PY > 0, highest_PY, np.nan)
        count_P = np.diff(np.append(starts, len(patient_M)))
        return _Rows(label_MY=label_PY, score_MS=score_PS, patient_M=patient_M[starts], count_MY=count_PY, count_M=count_P)


def _plain(predictions: Predictions, parts: _Rows, *, class_M: np.ndarray, probability_MC: np.ndarray) -> View:
    """Label columns that are targets as they stand."""
    return View(
        kind=predictions.kind,
        targets=base_targets(predictions),
        label_MT=parts.label_MY,
        score_MT=parts.score_MS,
        images_MT=parts.images_MY,
        images_M=parts.images_M,
        patient_M=parts.patient_M,
        class_M=class_M,
        probability_MC=probability_MC,
    )


def _graded(predictions: Predictions, parts: _Rows) -> View:
    """Two classes, or grades: one class index a row, from which every target follows."""
    class_M, probability_MC = parts.label_MY[:, 0].astype(np.int64), parts.score_MS
    classes = len(predictions.classes)
    exact = range(1, 2) if classes == 2 else range(classes)
    above = range(1, classes - 1) if cumulative_targets(predictions) else range(0)
    label = [class_M == c for c in exact] + [class_M >= c for c in above]
    # a sum of probabilities can pass 1 by rounding
    score = [probability_MC[:, c] for c in exact] + [np.minimum(probability_MC[:, c:].sum(axis=1), 1.0) for c in above]
    targets = base_targets(predictions) + cumulative_targets(predictions)
    return View(
        kind=predictions.kind,
        targets=targets,
        label_MT=np.stack(label, axis=1).astype(np.float64),
        score_MT=np.stack(score, axis=1),
        images_MT=np.repeat(parts.images_MY, len(targets), axis=1),
        images_M=parts.images_M,
        patient_M=parts.patient_M,
        class_M=class_M,
        probability_MC=probability_MC,
    )


def _one_hot(label_N: np.ndarray, *, classes: int) -> np.ndarray:
    onehot_NC = (label_N[:, None] == np.arange(classes)).astype(np.float64)
    return np.where(np.isnan(label_N)[:, None], np.nan, onehot_NC)
