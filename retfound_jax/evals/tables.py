"""The whole evaluation of one split as one JSON-able dictionary.

Thresholds come from the validation predictions, chosen apart for images and for patients (a patient's score is a mean, so the same number
would be another operating point), and are then fixed: the intervals do not include the choice. All groups are judged at the one global
threshold. All rows of one call share the same resampled patients, so differences between groups are paired.

Letters: N images, R replicates, G distinct scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retfound_jax.core.errors import UserError
from retfound_jax.evals import metrics
from retfound_jax.evals.bootstrap import map_blocks, patient_counts, patient_index, percentile_interval
from retfound_jax.evals.calibration import calibrate
from retfound_jax.evals.cells import Cell, joint_confusion, make_cell
from retfound_jax.evals.predictions import Predictions
from retfound_jax.evals.rows import Row, cell_rows, gap_rows
from retfound_jax.evals.subgroups import group_masks, parse_by
from retfound_jax.evals.thresholds import Rule, choose
from retfound_jax.evals.views import LEVELS, View, base_targets, make_view

ROC_GRID = np.linspace(0, 1, 101)  # false positive rates of the drawn curve
Thresholds = dict[str, dict[str, float | None]]  # level -> target -> threshold


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """How an evaluation is done."""

    by: tuple[str, ...] = ()  # columns, `age_band`, or intersections such as `sex+age_band`
    replicates: int = 1000  # bootstrap resamples of the patients
    seed: int = 0
    level: float = 0.95  # of the intervals
    min_n: int = 20  # patients of a subgroup below which its numbers are withheld
    rule: Rule = Rule()  # how thresholds are chosen on validation


def evaluate(predictions: Predictions, *, validation: Predictions | None, config: EvalConfig | None = None) -> dict[str, Any]:
    """Every table of one split, JSON-able (NaN is None); a UserError when the split has no labelled image.

    Without validation predictions there are no thresholds, and every number that needs one is reported absent.
    """
    config = config or EvalConfig()
    by = parse_by(config.by, columns=predictions.columns)
    if not len(predictions) or np.isnan(predictions.label_NY).all():
        raise UserError(f'the {predictions.split} split has no labelled image to evaluate: choose another split, or ingest more patients')
    patient_N, patients = patient_index(predictions.columns['patient'], key=predictions.columns['key'])
    work = _Work(
        predictions=predictions,
        config=config,
        patient_N=patient_N,
        counts_PR=patient_counts(patients, replicates=config.replicates, seed=config.seed),
        thresholds=choose_thresholds(validation, rule=config.rule),
    )
    views = {level: make_view(predictions, level=level, patient=patient_N) for level in LEVELS}
    rows = [row for level in LEVELS for row in work.rows(level, by)]
    classify = predictions.kind != 'regress'
    return {
        'kind': predictions.kind,
        'split': predictions.split,
        'step': predictions.step,
        'dataset_fingerprint': predictions.fingerprint,
        'labels': list(predictions.labels),
        'classes': list(predictions.classes),
        'by': list(by),
        'threshold': _threshold_entries(views['image'], work.thresholds, validation=validation, rule=config.rule) if classify else {},
        'bootstrap': {'n': config.replicates, 'unit': 'patient', 'seed': config.seed, 'level': config.level},
        'min_n': config.min_n,
        'rows': rows,
        'confusion': {level: _confusion(predictions, views[level], work.thresholds[level]) for level in LEVELS} if classify else {},
        'roc': _by_level(views, work.roc) if classify else {},
        'calibration': _by_level(views, _calibration) if classify else {},
        'notes': _notes(predictions, views['patient'], validation=validation),
    }


def choose_thresholds(validation: Predictions | None, *, rule: Rule | None = None) -> Thresholds:
    """A threshold for each level and target; None where validation lacks a class, empty without validation."""
    if validation is None or not len(validation) or validation.kind == 'regress':
        return {level: {} for level in LEVELS}
    patient_N, _ = patient_index(validation.columns['patient'], key=validation.columns['key'])
    chosen: Thresholds = {}
    for level in LEVELS:
        view = make_view(validation, level=level, patient=patient_N)
        present = {target: ~np.isnan(view.label_MT[:, t]) for t, target in enumerate(view.targets)}
        chosen[level] = {
            target: choose(view.label_MT[present[target], t] > 0, score=view.score_MT[present[target], t], rule=rule)
            for t, target in enumerate(view.targets)
        }
    return chosen


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What all cells of one evaluation share."""

    predictions: Predictions
    config: EvalConfig
    patient_N: np.ndarray
    counts_PR: np.ndarray
    thresholds: Thresholds

    def rows(self, level: str, by: Sequence[str]) -> list[Row]:
        """The rows of all images, then of each subgroup, then the gaps."""
        shared = {'level': level, 'level_of_interval': self.config.level}
        thresholds = self.thresholds[level]
        rows = cell_rows(self._cell(level), by='', group='', thresholds=thresholds, **shared)
        for name in by:
            masks = group_masks(name, predictions=self.predictions)
            cells = {group: self._cell(level, rows_N=mask_N) for group, mask_N in masks.items()}
            for group, cell in cells.items():
                rows += cell_rows(cell, by=name, group=group, thresholds=thresholds, min_n=self.config.min_n, **shared)
            rows += gap_rows(cells, by=name, min_n=self.config.min_n, **shared)
        return rows

    def _cell(self, level: str, *, rows_N: np.ndarray | None = None) -> Cell:
        view = make_view(self.predictions, level=level, patient=self.patient_N, rows=rows_N)
        small = rows_N is not None and len(np.unique(view.patient_M)) < self.config.min_n  # withheld, so not worth resampling
        counts = None if small else self.counts_PR
        return make_cell(view, base=base_targets(self.predictions), thresholds=self.thresholds[level], counts=counts)

    def roc(self, view: View, t: int) -> dict[str, Any] | None:
        """The curve on a grid of false positive rates, with pointwise percentile bands and the AUROC's interval."""
        present_M = ~np.isnan(view.label_MT[:, t])
        label_M, score_M, patient_M = view.label_MT[present_M, t] > 0, view.score_MT[present_M, t], view.patient_M[present_M]
        if not label_M.any() or label_M.all():
            return None
        point = metrics.roc(label_M, score=score_M)
        order = metrics.make_order(label_M, score=score_M)

        def block(weights_MR: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
            area_R = metrics.rank(order, weights_NR=weights_MR).auroc()
            curve = metrics.roc_of(order, weights_NR=weights_MR)
            return area_R, [_on_grid(curve.fpr_GR[:, r], curve.tpr_GR[:, r]) for r in np.flatnonzero(np.isfinite(area_R))]

        blocks = map_blocks(block, counts=self.counts_PR, patient=patient_M)
        areas, curves = [area_R for area_R, _ in blocks], [curve for _, found in blocks for curve in found]
        value = float(metrics.auroc(label_M, score=score_M))
        area = percentile_interval(np.concatenate(areas), value=value, level=self.config.level)
        tail = (1 - self.config.level) / 2
        low, high = np.quantile(np.stack(curves), [tail, 1 - tail], axis=0) if curves else np.full((2, len(ROC_GRID)), np.nan)
        bands = {'fpr': ROC_GRID, 'tpr': _on_grid(point.fpr_GR[:, 0], point.tpr_GR[:, 0]), 'low': low, 'high': high}
        return _plain(bands | {'auroc': area.value, 'auroc_low': area.low, 'auroc_high': area.high})


def _on_grid(fpr_G: np.ndarray, tpr_G: np.ndarray) -> np.ndarray:
    """Sensitivity at each grid point: the highest one reached at that false positive rate, linear between; it starts at (0, 0)."""
    last_G = np.append(fpr_G[1:] != fpr_G[:-1], True)
    fpr, tpr = fpr_G[last_G], tpr_G[last_G]
    return np.interp(ROC_GRID, fpr, tpr) if fpr[0] == 0 else np.interp(ROC_GRID, np.append(0.0, fpr), np.append(0.0, tpr))


def _by_level(views: dict[str, View], make: Any) -> dict[str, Any]:
    """An entry for each target made from images, with the patients' one under `patient`; None where a class is absent."""
    out = {}
    for t, target in enumerate(views['image'].targets):
        entry, patient = make(views['image'], t), make(views['patient'], t)
        if entry is not None:
            out[target] = entry | {'level': 'image', 'patient': patient}
    return out


def _calibration(view: View, t: int) -> dict[str, Any] | None:
    present_M = ~np.isnan(view.label_MT[:, t])
    if not present_M.any():
        return None
    found = calibrate(view.label_MT[present_M, t], score=view.score_MT[present_M, t])
    bins = zip(found.mean_score, found.fraction_positive, found.n, strict=True)
    scalars = {'ECE': found.ECE, 'Brier': found.Brier, 'slope': found.slope, 'intercept': found.intercept}
    return _plain({'bins': [{'mean_score': m, 'fraction_positive': f, 'n': int(n)} for m, f, n in bins], **scalars})


def _confusion(predictions: Predictions, view: View, thresholds: dict[str, float | None]) -> dict[str, Any]:
    """The joint decision's matrix; for two classes and for several labels, each target's own at its threshold."""
    if predictions.classes and (len(predictions.classes) > 2 or predictions.kind == 'ordinal'):
        return {'classes': list(predictions.classes), 'matrix': joint_confusion(view).astype(int).tolist(), 'rule': 'most probable class'}
    matrices = {}
    for t, target in enumerate(view.targets):
        if thresholds.get(target) is not None:
            present_M = ~np.isnan(view.label_MT[:, t])
            predicted_M = view.score_MT[present_M, t] >= thresholds[target]
            matrices[target] = metrics.confusion(view.label_MT[present_M, t], predicted=predicted_M, classes=2).astype(int).tolist()
    if predictions.kind == 'multi':
        return {'classes': ['0', '1'], 'matrices': matrices, 'rule': 'threshold'}
    if not matrices:  # validation lacked a class: the more probable class decides, and the rule says so
        return {'classes': list(predictions.classes), 'matrix': joint_confusion(view).astype(int).tolist(), 'rule': 'most probable class'}
    return {'classes': list(predictions.classes), 'matrix': matrices[view.targets[0]], 'rule': 'threshold'}


def _threshold_entries(view: View, thresholds: Thresholds, *, validation: Predictions | None, rule: Rule) -> dict[str, Any]:
    chosen_on = None if validation is None else validation.split
    return {
        target: {
            'value': thresholds['image'].get(target),
            'patient_value': thresholds['patient'].get(target),
            'chosen_on': chosen_on,
            'rule': rule.name,
        }
        for target in view.targets
    }


def _notes(predictions: Predictions, patients: View, *, validation: Predictions | None) -> list[str]:
    """Sentences a reader of the tables needs."""
    notes = []
    if len(predictions.classes) == 2 and predictions.kind == 'single':
        notes.append(f"The positive class is '{predictions.classes[1]}'.")
    if predictions.kind != 'regress' and validation is None:
        notes.append('There are no validation predictions, so no threshold was chosen and no sensitivity, specificity or F1 is given.')
    elif predictions.kind != 'regress' and validation.split == predictions.split and validation.fingerprint == predictions.fingerprint:
        notes.append(f'Thresholds were chosen on the {predictions.split} split itself: what depends on them is optimistic.')
    differ = int((patients.class_M < 0).sum()) if predictions.kind == 'single' and len(predictions.classes) > 2 else 0
    if differ:
        notes.append(f'{differ} patients with images of different classes are left out of the accuracy and confusion matrix by patient.')
    return notes


def _plain(value: Any) -> Any:
    """JSON-able: arrays as lists, NaN as None."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value
