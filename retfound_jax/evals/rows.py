"""From cells to the rows of a table: values, intervals, counts, and in words why a number is not there.

Letters: R replicates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from retfound_jax.evals import gaps, metrics
from retfound_jax.evals.bootstrap import distinct, percentile_interval
from retfound_jax.evals.cells import MACRO, Cell, Thresholds
from retfound_jax.evals.views import View
from retfound_jax.evals.withholding import Withholding

GAP = 'gap (max-min)'
_NEEDS_POSITIVE = frozenset({'AUROC', 'AUPRC', 'sensitivity', 'F1', 'balanced_accuracy', 'slope', 'intercept'})
_NEEDS_NEGATIVE = frozenset({'AUROC', 'AUPRC', 'specificity', 'balanced_accuracy', 'slope', 'intercept'})
_MANY_DROPPED = 0.05  # share of replicates without a value from which the row says so
Row = dict[str, Any]


def cell_rows(
    cell: Cell, *, level: str, by: str, group: str, level_of_interval: float, thresholds: Thresholds, plan: Withholding | None = None
) -> list[Row]:
    """A row for each target and metric; of what `plan` says may not be printed neither value nor count is there, only why."""
    rows = []
    targets = list(dict.fromkeys(target for target, _ in cell.value))
    all_counts = {target: _printable(_counts(cell, target=target), plan, by=by, group=group, target=target) for target in targets}
    for (target, metric), value in cell.value.items():
        counted, withheld = all_counts[target]
        row = {'level': level, 'by': by, 'group': group, 'target': target, 'metric': metric, **counted, 'dropped': 0}
        if withheld:
            rows.append(row | {'value': None, 'low': None, 'high': None, 'note': withheld})
            continue
        note = _absent(cell, target=target, metric=metric, thresholds=thresholds)
        if not np.isfinite(value):
            rows.append(row | {'value': None, 'low': None, 'high': None, 'note': note or 'undefined: the values do not vary'})
            continue
        replicates_R = cell.replicates[target, metric]
        cases = deciding(cell.view, target=target, metric=metric)
        interval = percentile_interval(replicates_R, value=value, level=level_of_interval, cases=cases)
        if interval.dropped > _MANY_DROPPED * len(replicates_R):
            note = f'{note}; ' if note else ''
            valid = len(replicates_R) - interval.dropped
            note += f'interval from {valid} of {len(replicates_R)} replicates, a class was absent in the others'
        bounds = {'value': interval.value, 'low': metrics.finite(interval.low), 'high': metrics.finite(interval.high)}
        if interval.low == interval.high:
            note = note or 'every resample gives this value: the cases are few, or none is misjudged'
        rows.append(row | bounds | {'dropped': interval.dropped, 'note': note})
    return rows


def gap_rows(cells: Mapping[str, Cell], *, level: str, by: str, level_of_interval: float, plan: Withholding) -> list[Row]:
    """The best minus the worst group of each metric, among the groups whose performance `plan` lets be printed.

    The interval is of the true gap, whichever groups it is between (`gaps.widest`). The gap itself is that of the two groups that happen to
    lie furthest apart: with many small groups it is wide by chance alone.
    """
    names = next(iter(cells.values())).value if cells else {}
    targets = list(dict.fromkeys(target for target, _ in names))
    all_shown = {target: {group: cells[group] for group in plan.shown(by, target)} for target in targets}
    all_counts = {target: {group: _counts(cell, target=target) for group, cell in all_shown[target].items()} for target in targets}
    rows = []
    for target, metric in names:
        shown, counted = all_shown[target], all_counts[target]
        value = {group: cell.value[target, metric] for group, cell in shown.items()}
        value = {group: one for group, one in value.items() if np.isfinite(one)}
        if len(value) < 2:
            continue
        value_G, replicates_GR = np.array(list(value.values())), np.stack([shown[group].replicates[target, metric] for group in value])
        found = gaps.gap(value_G, replicates=replicates_GR, level=level_of_interval, most=gaps.most(metric))
        best, worst = (list(value)[g] for g in gaps.best_and_worst(value_G, metric=metric))
        dropped = int((~np.isfinite(replicates_GR)).any(axis=0).sum())
        totals = {name: _sum(counted[group][name] for group in value) for name in ('n_images', 'n_patients', 'n_positive')}
        rows.append(
            {'level': level, 'by': by, 'group': GAP, 'target': target, 'metric': metric, **totals}
            | {'value': found.value, 'low': metrics.finite(found.low), 'high': metrics.finite(found.high), 'dropped': dropped}
            | {'note': f'best {best}, worst {worst}, of {len(value)} groups'}
        )
    return rows


def deciding(view: View, *, target: str, metric: str) -> int:
    """The patients that decide how certain a metric is: those of the rarer class, of a rate those whose rate it is."""
    if target == MACRO or view.kind == 'regress':
        return distinct(view.patient_M)
    label_M = view.label_MT[:, view.targets.index(target)]
    positive, negative, both = (distinct(view.patient_M[kept]) for kept in (label_M > 0, label_M == 0, ~np.isnan(label_M)))
    name = metric.removesuffix('@group')
    needed = [positive] * (name in _NEEDS_POSITIVE) + [negative] * (name in _NEEDS_NEGATIVE)
    return min(needed, default=both)


def _printable(
    counted: dict[str, int | None], plan: Withholding | None, *, by: str, group: str, target: str
) -> tuple[dict[str, int | None], str]:
    """The counts that may be printed, and why numbers may not; '' where they may."""
    if plan is None or not by:
        return counted, ''
    if plan.labelled(by, group, target):
        return dict.fromkeys(counted), plan.labelled(by, group, target)
    reason = plan.target(by, group, target)
    return (counted | {'n_positive': None} if reason else counted), reason


def _counts(cell: Cell, *, target: str) -> dict[str, int | None]:
    """Images, patients, and positive rows at the level of the view (images or patients)."""
    view = cell.view
    if target == MACRO:
        present_M, images_M = np.ones(len(view.patient_M), bool), view.images_M
        positive = None
    else:
        t = view.targets.index(target)
        present_M, images_M = ~np.isnan(view.label_MT[:, t]), view.images_MT[:, t]
        positive = None if view.kind == 'regress' else int(np.nansum(view.label_MT[:, t]))
    return {
        'n_images': int(images_M[present_M].sum()),
        'n_patients': distinct(view.patient_M[present_M]),
        'n_positive': positive,
    }


def _absent(cell: Cell, *, target: str, metric: str, thresholds: Thresholds) -> str:
    """What the rows lack for this metric; '' where nothing."""
    view = cell.view
    if target == MACRO:
        return _absent_macro(cell, metric=metric)
    label_M = view.label_MT[:, view.targets.index(target)]
    if np.isnan(label_M).all():
        return 'absent: no labelled case'
    if view.kind == 'regress':
        return ''
    positive, negative = bool(np.nansum(label_M) > 0), bool(np.any(label_M == 0))
    if metric in _NEEDS_POSITIVE and not positive:
        return 'absent: no positive case'
    if metric in _NEEDS_NEGATIVE and not negative:
        return 'absent: no negative case'
    if metric in metrics.LINE_METRICS and not np.isfinite(cell.value[target, metric]):
        return 'absent: the scores separate the classes or are all alike, so no line exists'
    if metric in metrics.DECISION_METRICS and thresholds.get(target) is None:
        return 'absent: no threshold, as validation lacks a class'
    return ''


def _absent_macro(cell: Cell, *, metric: str) -> str:
    if metric not in cell.macro:
        return '' if (cell.view.class_M >= 0).any() else 'absent: no labelled case'
    used = cell.macro[metric]
    missing = [target for target in cell.view.targets if target not in used and not target.startswith('>=')]
    if not used:
        return 'absent: defined for no class'
    return f'mean without {", ".join(missing)}, where it is undefined' if missing else ''


def _sum(values: Any) -> int | None:
    values = list(values)
    return None if any(value is None for value in values) else sum(values)
