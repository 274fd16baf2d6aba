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

from retfound_jax.core.demographics import FLOOR, FLOOR_POSITIVE
from retfound_jax.core.errors import UserError
from retfound_jax.evals import fairness, metrics
from retfound_jax.evals.bootstrap import map_blocks, patient_counts, patient_index, percentile_interval
from retfound_jax.evals.calibration import calibrate, equal_bins
from retfound_jax.evals.cells import MACRO, OWN_METRICS, Cell, joint_confusion, make_cell
from retfound_jax.evals.group_thresholds import ByTarget, GroupThresholds, choose_by_group
from retfound_jax.evals.predictions import Predictions
from retfound_jax.evals.rows import Row, cell_rows, deciding, gap_rows
from retfound_jax.evals.subgroups import group_masks, parse_by
from retfound_jax.evals.thresholds import Rule, choose
from retfound_jax.evals.views import LEVELS, View, base_targets, make_view
from retfound_jax.evals.withholding import Withholding, decide

ROC_GRID = np.linspace(0, 1, 101)  # false positive rates of the drawn curve
Thresholds = dict[str, dict[str, float | None]]  # level -> target -> threshold


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """How an evaluation is done."""

    by: tuple[str, ...] = ()  # columns, `age_band`, or intersections such as `sex+age_band`
    replicates: int = 1000  # bootstrap resamples of the patients
    seed: int = 0
    level: float = 0.95  # of the intervals
    min_n: int = FLOOR  # patients of a subgroup below which its numbers are withheld
    min_positive: int = FLOOR_POSITIVE  # patients with a finding, and as many without, that a group needs to be compared
    permutations: int = 1000  # of the groups among the patients, for what gaps chance alone gives
    rule: Rule = Rule()  # how thresholds are chosen on validation


def evaluate(
    predictions: Predictions, *, validation: Predictions | None, config: EvalConfig | None = None, plan: Withholding | None = None
) -> dict[str, Any]:
    """Every table of one split, JSON-able (NaN is None); a UserError when the split has no labelled image.

    Without validation predictions there are no thresholds, and every number that needs one is reported absent. `plan` is `plan_of` these
    predictions, for a caller that has it already.
    """
    config = config or EvalConfig()
    by = parse_by(config.by, columns=predictions.columns)
    if not len(predictions) or np.isnan(predictions.label_NY).all():
        raise UserError(f'the {predictions.split} split has no labelled image to evaluate: choose another split, or ingest more patients')
    patient_N, patients = patient_index(predictions.columns['patient'], key=predictions.columns['key'])
    thresholds = choose_thresholds(validation, rule=config.rule)
    work = _Work(
        predictions=predictions,
        config=config,
        patient_N=patient_N,
        counts_PR=patient_counts(patients, replicates=config.replicates, seed=config.seed),
        thresholds=thresholds,
        own=_own_thresholds(validation, by=by, thresholds=thresholds, config=config),
        plan=plan or plan_of(predictions, config=config),
    )
    views = {level: make_view(predictions, level=level, patient=patient_N) for level in LEVELS}
    classify = predictions.kind != 'regress'
    cells = {level: work.cells(level, by) for level in LEVELS}
    rows = [row for level in LEVELS for row in work.rows(level, cells[level])]
    how = fairness.How(permutations=config.permutations, seed=config.seed, level=config.level, min_positive=config.min_positive)
    judged = fairness.judge(cells, rows=rows, thresholds=work.thresholds, how=how) if classify else fairness.NOTHING
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
        'min_positive': config.min_positive,
        'rows': rows,
        'confusion': {level: _confusion(predictions, views[level], work.thresholds[level]) for level in LEVELS} if classify else {},
        'roc': _by_level(views, work.roc) if classify else {},
        'calibration': _by_level(views, _calibration) if classify else {},
        'calibration_by': _calibration_by(cells['patient'], rows=rows) if classify else {},
        'threshold_by': work.threshold_by(by) if classify else {},
        'fairness': judged.fairness,
        'equalised_odds': judged.equalised_odds,
        'failing': judged.failing,
        'power': judged.power,
        'permutations': {'n': config.permutations, 'seed': config.seed, 'unit': 'patient'},
        'notes': _notes(predictions, views['patient'], validation=validation) + fairness.notes(judged, permutations=config.permutations),
    }


def plan_of(predictions: Predictions, *, config: EvalConfig) -> Withholding:
    """What no table of an evaluation may print about its groups, decided for all of them together."""
    return decide(
        predictions,
        masks={name: group_masks(name, predictions=predictions) for name in parse_by(config.by, columns=predictions.columns)},
        patient=patient_index(predictions.columns['patient'], key=predictions.columns['key'])[0],
        floor=config.min_n,
        positive_floor=config.min_positive,
    )


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


def _own_thresholds(
    validation: Predictions | None, *, by: Sequence[str], thresholds: Thresholds, config: EvalConfig
) -> dict[tuple[str, str], GroupThresholds]:
    shared = {'rule': config.rule, 'least': config.min_n, 'least_positive': config.min_positive}
    return {
        (level, name): choose_by_group(validation, by=name, level=level, overall=thresholds[level], **shared)
        for level in LEVELS
        for name in by
    }


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What all cells of one evaluation share."""

    predictions: Predictions
    config: EvalConfig
    patient_N: np.ndarray
    counts_PR: np.ndarray
    thresholds: Thresholds
    own: dict[tuple[str, str], GroupThresholds]  # level, by
    plan: Withholding  # the groups, and what may be printed of them

    def cells(self, level: str, by: Sequence[str]) -> dict[str, dict[str, Cell]]:
        """By column and group; everybody under `''`."""
        cells = {'': {'': self._cell(level)}}
        for name in by:
            masks = self.plan.masks[name]
            cells[name] = {group: self._cell(level, rows_N=mask_N, by=name, group=group) for group, mask_N in masks.items()}
        return cells

    def rows(self, level: str, cells: dict[str, dict[str, Cell]]) -> list[Row]:
        """The rows of all images, then of each subgroup, then the gaps."""
        shared = {'level': level, 'level_of_interval': self.config.level}
        rows, thresholds = [], self.thresholds[level]
        for by, groups in cells.items():
            for group, cell in groups.items():
                found = cell_rows(cell, by=by, group=group, thresholds=thresholds, plan=self.plan, **shared)
                rows += _with_thresholds(found, own=self._own(level, by, group) if by else {})
            rows += gap_rows(groups, by=by, plan=self.plan, **shared) if by else []
        return rows

    def _own(self, level: str, by: str, group: str) -> ByTarget:
        """The group's thresholds; blanks folded into it do not make it another group."""
        return self.own[level, by].of(self.plan.origin(by, group))

    def _cell(self, level: str, *, rows_N: np.ndarray | None = None, by: str = '', group: str = '') -> Cell:
        view = make_view(self.predictions, level=level, patient=self.patient_N, rows=rows_N)
        counts = None if self.plan.group(by, group) else self.counts_PR  # what is withheld is not worth resampling
        own = None
        if by and self.predictions.kind != 'regress':
            own = {target: chosen.value for target, chosen in self._own(level, by, group).items()}
        return make_cell(view, base=base_targets(self.predictions), thresholds=self.thresholds[level], counts=counts, own=own)

    def threshold_by(self, by: Sequence[str]) -> dict[str, Any]:
        """by -> group -> target -> level -> the threshold and, where it is not the group's own, why."""
        out: dict[str, Any] = {}
        for name in by:
            out[name] = {}
            for group in self.plan.masks[name]:
                by_level = {level: self._own(level, name, group) for level in LEVELS}
                targets = by_level['image']
                out[name][group] = {target: {level: vars(of[target]) for level, of in by_level.items()} for target in targets}
        return _plain(out)

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
        cases = deciding(view, target=view.targets[t], metric='AUROC')
        area = percentile_interval(np.concatenate(areas), value=value, level=self.config.level, cases=cases)
        tail = (1 - self.config.level) / 2
        low, high = np.quantile(np.stack(curves), [tail, 1 - tail], axis=0) if curves else np.full((2, len(ROC_GRID)), np.nan)
        bands = {'fpr': ROC_GRID, 'tpr': _on_grid(point.fpr_GR[:, 0], point.tpr_GR[:, 0]), 'low': low, 'high': high}
        return _plain(bands | {'auroc': area.value, 'auroc_low': area.low, 'auroc_high': area.high})


def _with_thresholds(rows: list[Row], *, own: ByTarget) -> list[Row]:
    """Says of a number at a group's threshold which one it was, where it is not the group's own."""
    for row in rows:
        if row['metric'] in OWN_METRICS and not row['note'] and own[row['target']].note:
            row['note'] = f'at {own[row["target"]].note}'
    return rows


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


def _calibration_by(cells: dict[str, dict[str, Cell]], *, rows: list[Row]) -> dict[str, Any]:
    """by -> group -> target -> reliability in bins of as many patients each, so that none is of a few; withheld groups are not there."""
    out: dict[str, Any] = {by: {} for by in cells if by}
    shown = {(r['by'], r['group'], r['target']): r for r in rows if r['level'] == 'patient' and r['metric'] == 'ECE' and r['by']}
    for (by, group, target), row in shown.items():
        if row['value'] is None or group not in cells[by] or target == MACRO:
            continue
        view = cells[by][group].view
        t = view.targets.index(target)
        present_M = ~np.isnan(view.label_MT[:, t])
        found = equal_bins(view.label_MT[present_M, t], score=view.score_MT[present_M, t], least=FLOOR)
        value = cells[by][group].value
        lines = {name: value[target, name] for name in ('slope', 'intercept', 'ECE', 'Brier')}
        out[by].setdefault(group, {})[target] = _plain({'bins': found, **lines})
    return out


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
        return metrics.finite(value)
    return value
