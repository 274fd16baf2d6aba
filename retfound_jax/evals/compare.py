"""Is one model better than another on the same patients: the paired patient bootstrap of the difference.

In each replicate the same patients are drawn for both arms, so what makes a patient hard is hard for both and cancels. With several seeds
an arm, the metric is averaged over the seeds inside each replicate. The interval is over patients, with these trained models fixed: the
spread over seeds stands beside it in `per_seed_a` and `per_seed_b`, not inside it.

Letters: N images, R replicates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from retfound_jax.core.errors import UsageError, UserError, nearest
from retfound_jax.evals import metrics
from retfound_jax.evals.bootstrap import Interval, patient_counts, patient_index, percentile_interval
from retfound_jax.evals.cells import JOINT_METRICS, MACRO, Cell, make_cell
from retfound_jax.evals.predictions import Predictions, read_predictions
from retfound_jax.evals.views import base_targets, make_view

Arm = Predictions | Path | str | Sequence[Predictions | Path | str]
METRICS = metrics.RANK_METRICS + metrics.PROBABILITY_METRICS + JOINT_METRICS + metrics.REGRESSION_METRICS


@dataclass(frozen=True, kw_only=True)
class Difference:
    """metric(a) - metric(b), averaged over the seeds of each arm."""

    interval: Interval
    a: float
    b: float
    per_seed_a: tuple[float, ...]
    per_seed_b: tuple[float, ...]
    below_zero: float  # fraction of the replicates below zero, ties half: near 0 when a is surely higher, near 1 when b is
    higher_is_better: bool
    n_images: int
    n_patients: int

    @property
    def a_is_better(self) -> bool:
        """Whether the whole interval lies on the side where a is the better."""
        return self.interval.low > 0 if self.higher_is_better else self.interval.high < 0


def paired_difference(
    a: Arm, *, b: Arm, target: str, metric: str, level: str = 'patient', replicates: int = 1000, seed: int = 0, confidence: float = 0.95
) -> Difference:
    """The difference a - b of a metric that needs no threshold, with its paired percentile interval.

    An arm is one prediction file (or `Predictions`), or one for each seed; all must be of the same images with the same labels. `target` is
    a class, a label, `>=GRADE` or `macro`; `level` is 'image' or 'patient'. UserError where the files do not fit each other, UsageError for
    an unknown target or metric.
    """
    loaded = [_load(a), _load(b)]
    shared = {'target': target, 'metric': metric, 'level': level, 'replicates': replicates, 'seed': seed, 'like': loaded[0]}
    arms = [resampled(arm, **shared) for arm in loaded]
    replicates_a, replicates_b = (arm.replicates_SR.mean(axis=0) for arm in arms)
    value_a, value_b = (list(arm.per_seed) for arm in arms)
    difference_R = replicates_a - replicates_b
    finite = difference_R[np.isfinite(difference_R)]
    if not np.isfinite(value_a + value_b).all() or not len(finite):
        images = arms[0].n_images
        raise UserError(f"{metric} of '{target}' is undefined on these {images} images, as a class is absent: compare on another split")
    return Difference(
        interval=percentile_interval(difference_R, value=np.mean(value_a) - np.mean(value_b), level=confidence),
        a=float(np.mean(value_a)),
        b=float(np.mean(value_b)),
        per_seed_a=tuple(value_a),
        per_seed_b=tuple(value_b),
        below_zero=float(np.mean(finite < 0) + np.mean(finite == 0) / 2),
        higher_is_better=metric not in metrics.LOWER_IS_BETTER,
        n_images=arms[0].n_images,
        n_patients=arms[0].n_patients,
    )


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """A metric of each seed of one arm, and its replicates under the same draws of patients."""

    per_seed: tuple[float, ...]
    replicates_SR: np.ndarray  # [seeds, R]
    n_images: int
    n_patients: int
    drawn_from: str = ''  # what the draws are of: equal where two arms were resampled in pairs

    def interval(self, *, confidence: float = 0.95) -> Interval:
        """Of the mean over the seeds: patients are resampled, the trained models are fixed."""
        return percentile_interval(self.replicates_SR.mean(axis=0), value=float(np.mean(self.per_seed)), level=confidence)

    def minus(self, other: Resampled, *, confidence: float = 0.95) -> Interval:
        """The difference to another arm, replicate by replicate; a UserError unless both are of the same draws of the same images."""
        if self.drawn_from != other.drawn_from:
            raise UserError('the two arms are not of the same images, patients, labels and draws: evaluate both on one split')
        value = float(np.mean(self.per_seed) - np.mean(other.per_seed))
        return percentile_interval(self.replicates_SR.mean(axis=0) - other.replicates_SR.mean(axis=0), value=value, level=confidence)


def resampled(
    arm: Arm, *, target: str, metric: str, level: str = 'patient', replicates: int = 1000, seed: int = 0, like: Arm | None = None
) -> Resampled:
    """A metric that needs no threshold for each file of an arm; the draws depend on the patients, `replicates` and `seed` alone.

    So two arms on the same images are resampled in pairs. `like` is an arm whose images these must be. Errors as in `paired_difference`,
    but that a class is absent gives NaN.
    """
    members = _load(arm)
    first = members[0] if like is None else _load(like)[0]
    patient_N, patients = patient_index(first.columns['patient'], key=first.columns['key'])
    counts_PR = patient_counts(patients, replicates=replicates, seed=seed)
    aligned = [align(one, to=first) for one in members]
    cells = [_cell(one, level=level, patient_N=patient_N, counts_PR=counts_PR, name=(target, metric)) for one in aligned]
    name = _name(first, target=target)
    return Resampled(
        per_seed=tuple(cell.value[name, metric] for cell in cells),
        replicates_SR=np.stack([cell.replicates[name, metric] for cell in cells]),
        n_images=int(cells[0].view.images_M.sum()),
        n_patients=len(np.unique(cells[0].view.patient_M)),
        drawn_from=_drawn_from(first, (level, replicates, seed)),
    )


def _drawn_from(predictions: Predictions, how: tuple[object, ...]) -> str:
    """Names images with their patients and labels, in whatever order, and how they are drawn."""
    order = np.argsort(predictions.columns['key'])
    parts = [predictions.columns[name][order].astype(str).tolist() for name in ('key', 'patient')]
    parts += [predictions.label_NY[order].tolist(), list(predictions.labels), list(predictions.classes), list(how)]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _load(arm: Arm) -> list[Predictions]:
    members = [arm] if isinstance(arm, Predictions | Path | str) else list(arm)
    if not members:
        raise UsageError('an arm of the comparison holds no predictions: give at least one file')
    return [member if isinstance(member, Predictions) else read_predictions(member) for member in members]


def align(predictions: Predictions, *, to: Predictions) -> Predictions:
    """The same rows in the order of `to`; a UserError unless images, patients and labels are the same."""
    same = (predictions.kind, predictions.labels, predictions.classes) == (to.kind, to.labels, to.classes)
    if not same:
        raise UserError('the prediction files are of different labels or classes and cannot be compared: evaluate both arms on one task')
    order, wanted = np.argsort(predictions.columns['key']), np.argsort(to.columns['key'])
    if not np.array_equal(predictions.columns['key'][order], to.columns['key'][wanted]):
        shared = len(np.intersect1d(predictions.columns['key'], to.columns['key']))
        raise UserError(
            f'the prediction files hold {len(predictions)} and {len(to)} images, {shared} of them shared: evaluate both arms on one split'
        )
    rows_N = order[np.argsort(wanted)]
    aligned = replace(
        predictions,
        columns={name: values[rows_N] for name, values in predictions.columns.items()},
        label_NY=predictions.label_NY[rows_N],
        score_NS=predictions.score_NS[rows_N],
    )
    same_patients = np.array_equal(aligned.columns['patient'], to.columns['patient'])
    if not same_patients or not np.array_equal(aligned.label_NY, to.label_NY, equal_nan=True):
        raise UserError('the prediction files disagree on labels or patients of the same images: they come from different datasets')
    return aligned


def _cell(predictions: Predictions, *, level: str, patient_N: np.ndarray, counts_PR: np.ndarray, name: tuple[str, str]) -> Cell:
    """Only the wanted target is resampled where it stands alone; a macro mean needs all."""
    view = make_view(predictions, level=level, patient=patient_N)
    target, metric = _name(predictions, target=name[0]), name[1]
    if metric not in METRICS:
        listed = f'; choose from {", ".join(METRICS)}'
        raise UsageError(f'there is no metric "{metric}" to compare by{nearest(metric, METRICS) or listed}')
    known = [*view.targets, MACRO]
    if target not in known:
        raise UsageError(f'the predictions have no target "{target}"{nearest(target, known) or "; choose from " + ", ".join(known)}')
    if target != MACRO:
        t = view.targets.index(target)
        one = {'label_MT': view.label_MT[:, [t]], 'score_MT': view.score_MT[:, [t]], 'images_MT': view.images_MT[:, [t]]}
        view = replace(view, targets=(target,), probability_MC=view.probability_MC[:, :0], **one)
    cell = make_cell(view, base=base_targets(predictions) if target == MACRO else (), thresholds={}, counts=counts_PR, only=METRICS)
    if (target, metric) not in cell.value:
        raise UsageError(f"metric '{metric}' is not defined for target '{target}' of a {predictions.kind} task")
    return cell


def _name(predictions: Predictions, *, target: str) -> str:
    """The macro mean of one target is that target, except for the joint decision of grades."""
    base = base_targets(predictions)
    return base[0] if target == MACRO and len(base) == 1 and predictions.kind != 'ordinal' else target
