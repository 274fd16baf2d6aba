"""What can be done after training about a gap between groups, and what it costs everybody: each means is fitted on validation by patient.

    threshold_per_group     the scores as they are, each group's decision at a threshold of its own
    recalibration_per_group each group's scores on a logistic line of its own (Platt 1999), then one global threshold chosen anew

Both need to know a patient's group when the model is used. A group that is too small on validation goes by what was fitted to everybody,
and that is said. Everything is measured by patient, on the same resampled patients before and after, so the changes are paired.

Letters: M patients, G groups, R replicates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from retfound_jax.evals import gaps, metrics
from retfound_jax.evals.bootstrap import map_blocks, patient_counts, patient_index, percentile_interval
from retfound_jax.evals.group_thresholds import GroupThresholds, choose_by_group
from retfound_jax.evals.logistic import expit, logit, recalibration_lines
from retfound_jax.evals.predictions import Predictions
from retfound_jax.evals.subgroups import group_masks, parse_by
from retfound_jax.evals.tables import EvalConfig, choose_thresholds, plan_of
from retfound_jax.evals.thresholds import Rule, choose
from retfound_jax.evals.views import View, make_view
from retfound_jax.evals.withholding import Withholding

LEVEL = 'patient'
MEASURED = ('AUROC', 'AUPRC', 'sensitivity', 'specificity', 'balanced_accuracy', 'ECE', 'Brier', 'slope')
ODDS = 'equalised_odds'  # the difference in equalised odds: a gap with no overall value
Row = dict[str, Any]
Values = Mapping[str, np.ndarray]  # metric -> [R]


@dataclass(frozen=True, kw_only=True)
class Means:
    """What is done to one target of one column: score and decision of every patient, and in words where a group has nothing of its own."""

    name: str
    score_M: np.ndarray
    called_M: np.ndarray  # bool
    note: str = ''


def mitigations(
    predictions: Predictions,
    *,
    validation: Predictions | None,
    by: Sequence[str],
    config: EvalConfig | None = None,
    plan: Withholding | None = None,
) -> dict[str, Any]:
    """JSON-able rows: for each column, target, means and metric the overall value and the gap, before, after, and their paired change.

    Groups, floors and what is withheld are those of `tables.evaluate` (`plan` is its `plan_of`, for a caller that has it). No rows for a
    regression, without validation, and for a target of which validation lacks a class.
    """
    config = config or EvalConfig()
    by = parse_by(by, columns=predictions.columns)
    head = {'level': LEVEL, 'split': predictions.split, 'bootstrap': {'n': config.replicates, 'seed': config.seed, 'level': config.level}}
    if predictions.kind == 'regress' or validation is None or not len(validation):
        return {**head, 'rows': [], 'notes': ['There is nothing to fit on: this needs yes/no targets and a validation split.']}
    patient_N, patients = patient_index(predictions.columns['patient'], key=predictions.columns['key'])
    counts_PR = patient_counts(patients, replicates=config.replicates, seed=config.seed)
    plan = plan or plan_of(predictions, config=replace(config, by=by))
    fitted = _Fitted(validation, config=config)
    rows = []
    for name in by:
        views = {g: make_view(predictions, level=LEVEL, patient=patient_N, rows=rows_N) for g, rows_N in plan.masks[name].items()}
        for t, target in enumerate(next(iter(views.values())).targets):
            one = _one_target(views, t, plan=plan, by=name)
            if one is not None and fitted.thresholds[target] is not None:
                found = _compare(one, fitted.means(one, by=name), counts=counts_PR, config=config)
                rows += [{'by': name, 'target': target, **row} for row in found]
    same = validation.split == predictions.split and validation.fingerprint == predictions.fingerprint
    return {**head, 'rows': rows, 'notes': ['Fitted and measured on the same split: optimistic.'] if same else []}


@dataclass(frozen=True, kw_only=True)
class _Target:
    """Patients of all groups of a column, a patient in several groups once in each."""

    target: str
    t: int
    label_M: np.ndarray  # bool
    score_M: np.ndarray
    patient_M: np.ndarray
    group_M: np.ndarray
    groups: tuple[str, ...]
    origins: tuple[str, ...]  # the groups' names on validation
    shown: tuple[int, ...]  # the groups that are compared


def _one_target(views: Mapping[str, View], t: int, *, plan: Withholding, by: str) -> _Target | None:
    """None where fewer than two groups are shown."""
    names, target = tuple(views), next(iter(views.values())).targets[t]
    shown = tuple(names.index(group) for group in plan.shown(by, target))
    if len(shown) < 2:
        return None
    parts = []
    for g, view in enumerate(views.values()):
        kept = ~np.isnan(view.label_MT[:, t])
        parts.append((view.label_MT[kept, t] > 0, view.score_MT[kept, t], view.patient_M[kept], np.full(kept.sum(), g)))
    label_M, score_M, patient_M, group_M = (np.concatenate(values) for values in zip(*parts, strict=True))
    origins = tuple(plan.origin(by, group) for group in names)
    where = {'groups': names, 'origins': origins, 'shown': shown, 'target': target, 't': t}
    return _Target(label_M=label_M, score_M=score_M, patient_M=patient_M, group_M=group_M, **where)


class _Fitted:
    """What is fitted on validation: once for everybody, and by group where a group is large enough."""

    def __init__(self, validation: Predictions, *, config: EvalConfig) -> None:
        self.validation, self.config = validation, config
        self.patient_N, _ = patient_index(validation.columns['patient'], key=validation.columns['key'])
        self.thresholds = choose_thresholds(validation, rule=config.rule)[LEVEL]
        self.everybody = make_view(validation, level=LEVEL, patient=self.patient_N)

    def means(self, one: _Target, *, by: str) -> list[Means]:
        """Nothing done, then each means."""
        own = choose_by_group(
            self.validation,
            by=by,
            level=LEVEL,
            overall=self.thresholds,
            rule=self.config.rule,
            least=self.config.min_n,
            least_positive=self.config.min_positive,
        )
        plain = Means(name='none', score_M=one.score_M, called_M=one.score_M >= self.thresholds[one.target])
        return [plain, self._by_threshold(one, own), self._by_line(one, own, by=by)]

    def _by_threshold(self, one: _Target, own: GroupThresholds) -> Means:
        chosen = [own.of(origin)[one.target] for origin in one.origins]
        threshold_G = np.array([group.value for group in chosen], np.float64)
        return Means(
            name='threshold_per_group', score_M=one.score_M, called_M=one.score_M >= threshold_G[one.group_M], note=_said(one, own)
        )

    def _by_line(self, one: _Target, own: GroupThresholds, *, by: str) -> Means:
        """A group goes by its own line where it also has a threshold of its own: both need the same numbers of patients."""
        whole = _line(self.everybody, one.t)
        lines, moved = {}, []
        for origin, rows_N in group_masks(by, predictions=self.validation).items():
            view = make_view(self.validation, level=LEVEL, patient=self.patient_N, rows=rows_N)
            lines[origin] = whole if own.of(origin)[one.target].note else _line(view, one.t, otherwise=whole)
            moved.append(_moved(view, one.t, line=lines[origin]))
        label_M, score_M = (np.concatenate(part) for part in zip(*moved, strict=True))
        threshold = choose(label_M, score=score_M, rule=self.config.rule or Rule())
        line_G2 = np.array([lines.get(origin, whole) for origin in one.origins])
        after_M = expit(line_G2[one.group_M, 1] + line_G2[one.group_M, 0] * logit(one.score_M))
        return Means(name='recalibration_per_group', score_M=after_M, called_M=after_M >= threshold, note=_said(one, own))


def _line(view: View, t: int, *, otherwise: tuple[float, float] = (1.0, 0.0)) -> tuple[float, float]:
    """Slope and intercept; `otherwise` where none exists, or one that turns the scores round, which is noise or a group without signal."""
    kept = ~np.isnan(view.label_MT[:, t])
    found = recalibration_lines(view.label_MT[kept, t] > 0, score=view.score_MT[kept, t], weights=np.ones((kept.sum(), 1)), tol=1e-8)
    slope, intercept = float(found[0][0]), float(found[1][0])
    return (slope, intercept) if np.isfinite(intercept) and slope > 0 else otherwise


def _moved(view: View, t: int, *, line: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    kept = ~np.isnan(view.label_MT[:, t])
    return view.label_MT[kept, t] > 0, expit(line[1] + line[0] * logit(view.score_MT[kept, t]))


def _said(one: _Target, own: GroupThresholds) -> str:
    """Which of the groups that are compared go by what was fitted to everybody."""
    without = [one.groups[g] for g in one.shown if own.of(one.origins[g])[one.target].note]
    return f'too few on validation, so as everybody: {", ".join(without)}' if without else ''


def _compare(one: _Target, means: Sequence[Means], *, counts: np.ndarray, config: EvalConfig) -> list[Row]:
    """Each means against nothing done, which stands first with no change."""
    measured = [_measure(one, each, counts=counts) for each in means]
    rows = []
    for each, found in zip(means, measured, strict=True):
        for metric in (*MEASURED, ODDS):
            overall = _before_after('overall', metric, before=measured[0].overall, after=found.overall, level=config.level)
            gap = _before_after('gap', metric, before=measured[0].gap, after=found.gap, level=config.level)
            rows.append({'approach': each.name, 'metric': metric, **overall, **gap, 'worst': found.worst.get(metric), 'note': each.note})
    return rows


def _before_after(name: str, metric: str, *, before: Values, after: Values, level: float) -> Row:
    """Value before and after, and the change with its paired interval; the first of each array is the value, the others its replicates."""
    if metric not in before or not np.isfinite([before[metric][0], after[metric][0]]).all():
        return {f'{name}_{part}': None for part in ('before', 'after', 'change', 'change_low', 'change_high')}
    change_R = after[metric] - before[metric]
    interval = percentile_interval(change_R[1:], value=change_R[0], level=level)
    parts = {'before': before[metric][0], 'after': after[metric][0], 'change': change_R[0]}
    bounds = {'change_low': interval.low, 'change_high': interval.high}
    return {f'{name}_{part}': float(value) if np.isfinite(value) else None for part, value in (parts | bounds).items()}


@dataclass(frozen=True, kw_only=True)
class _Measured:
    overall: Values  # the value, then the replicates
    gap: Values
    worst: Mapping[str, str]


def _measure(one: _Target, means: Means, *, counts: np.ndarray) -> _Measured:
    everybody = _resampled(one, means, kept_M=np.ones(len(one.label_M), bool), counts=counts)
    groups = [_resampled(one, means, kept_M=one.group_M == g, counts=counts) for g in one.shown]
    value_MGR = {metric: np.stack([group[metric] for group in groups]) for metric in MEASURED}
    gap = {metric: gaps.spread(value_GR.T) for metric, value_GR in value_MGR.items()}
    gap[ODDS] = np.maximum(gap['sensitivity'], gap['specificity'])
    worst = {metric: one.groups[one.shown[gaps.best_and_worst(v[:, 0], metric=metric)[1]]] for metric, v in value_MGR.items()}
    return _Measured(overall=everybody, gap=gap, worst=worst)


def _resampled(one: _Target, means: Means, *, kept_M: np.ndarray, counts: np.ndarray) -> Values:
    """Each of MEASURED: the value, then the replicates."""
    label_M, score_M, called_M, patient_M = one.label_M[kept_M], means.score_M[kept_M], means.called_M[kept_M], one.patient_M[kept_M]
    judged = _judged(label_M, score_M, called_M)
    blocks = [judged(np.ones((len(label_M), 1))), *map_blocks(judged, counts=counts, patient=patient_M)]
    return {metric: np.concatenate([block[metric] for block in blocks]) for metric in MEASURED}


def _judged(label_M: np.ndarray, score_M: np.ndarray, called_M: np.ndarray) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    prepared = metrics.prepare(label_M, score=score_M)

    def values(weights_MR: np.ndarray) -> dict[str, np.ndarray]:
        found = metrics.binary_metrics(label_M, score=score_M, threshold=None, weights=weights_MR, prepared=prepared, only=MEASURED)
        decided = metrics.counts(label_M, predicted=called_M, weights=weights_MR)
        return found | {name: getattr(decided, name) for name in ('sensitivity', 'specificity', 'balanced_accuracy')}

    return values
