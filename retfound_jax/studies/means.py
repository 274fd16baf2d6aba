"""The means against a gap between groups, each measured on the gap and on everybody: those of training, and those after it.

Means of training are the methods of a study: the first one is the plain training, and every other is set against it, seed by seed and
resample by resample. Means after training are fitted on the plain method's validation predictions (evals/mitigation.py). All is judged by
patient, decisions at one threshold chosen on validation unless the means is a threshold of each group's own.

Letters: M patients, G groups, S seeds, R replicates.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from retfound_jax.core.errors import UsageError
from retfound_jax.evals import gaps, metrics
from retfound_jax.evals.bootstrap import map_blocks, patient_counts, patient_index
from retfound_jax.evals.mitigation import LEVEL, ODDS, mitigations
from retfound_jax.evals.predictions import Predictions, read_predictions
from retfound_jax.evals.tables import EvalConfig, choose_thresholds, evaluate
from retfound_jax.evals.views import make_view
from retfound_jax.studies import slopes
from retfound_jax.studies.arms import VALIDATION
from retfound_jax.studies.by_group import called, masks_of
from retfound_jax.studies.grid import GroupQuestion
from retfound_jax.studies.rows import Arm
from retfound_jax.studies.slopes import Estimate

MEASURED = ('AUROC', 'sensitivity', 'specificity', 'ECE')
TRAINING, AFTER = 'training', 'after training'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """What a means does to one metric. A change is None for the plain training itself."""

    means: str
    stage: str  # TRAINING or AFTER
    metric: str  # of MEASURED, or the difference in equalised odds, which is a gap alone
    overall: Estimate | None
    overall_change: Estimate | None
    gap: Estimate  # best minus worst group: never below 0, and above it by chance alone too
    gap_change: Estimate | None
    by_group: Mapping[str, Estimate]  # of means of training
    worst: str  # group of the worst mean over seeds; '' where it is not one group


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failing:
    """The group that an evaluation of one seed names first, by what, and how surely."""

    means: str
    seed: int
    group: str
    metric: str
    value: float
    rest: float
    p_holm: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Means:
    """All of it for one target."""

    by: str
    target: str
    groups: tuple[str, ...]
    seeds: tuple[int, ...]
    failing: tuple[Failing, ...]
    changes: tuple[Change, ...]


def collect(every: Sequence[Arm], *, question: GroupQuestion, plain: str) -> Means:
    """Judges the arms of a study, one for each means of training and all on one test set of one yes/no label.

    Raises:
      UsageError: the plain method is not among them, or fewer than two groups can be shown.
    """
    arms = sorted(every, key=lambda arm: (arm.key.method != plain, arm.key.method))
    if arms[0].key.method != plain:
        raise UsageError(f'the study has no finished run of "{plain}", which all means are set against')
    first, judged = arms[0].files[0], arms[0].judged
    config = EvalConfig(by=(question.by,), replicates=judged.replicates, permutations=judged.replicates, seed=judged.seed)
    told = {arm.key.method: [_evaluated(one, seed, arm, config) for one, seed in zip(arm.files, arm.seeds, strict=True)] for arm in arms}
    target = told[plain][0].target
    shown = tuple(group for group in masks_of(question, first) if group in told[plain][0].shown)
    if len(shown) < 2:
        raise UsageError(f'fewer than two values of {question.by} have patients enough to be compared on the test images')
    drawn = (judged.replicates, judged.seed)
    measured = {method: [_measured(run, question, shown, *drawn) for run in runs] for method, runs in told.items()}
    changes = [change for arm in arms for change in _of_training(arm, measured, arms[0], shown)]
    changes += _after(told[plain], question.by, config)
    failing = [one.failing for arm in arms for one in told[arm.key.method] if one.failing is not None]
    return Means(
        by=question.by, target=called(first, target), groups=shown, seeds=arms[0].seeds, failing=tuple(failing), changes=tuple(changes)
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Run:
    """One seed of one means with what an evaluation says of it."""

    predictions: Predictions
    validation: Predictions
    target: str
    threshold: float
    shown: frozenset[str]
    failing: Failing | None


def _evaluated(predictions: Predictions, seed: int, arm: Arm, config: EvalConfig) -> _Run:
    result = arm.results[arm.seeds.index(seed)]
    validation = read_predictions(result.predictions(arm.key.train_on + VALIDATION))
    found = evaluate(predictions, validation=validation, config=config)
    by = config.by[0]
    rows = [row for row in found['failing'] if row['level'] == LEVEL and row['by'] == by]
    if not rows:
        raise UsageError(f'no group of {by} has patients enough to be compared on the test images')
    first, target = rows[0], rows[0]['target']
    numbers = {name: math.nan if first[name] is None else float(first[name]) for name in ('value', 'rest', 'p_holm')}
    named = Failing(means=arm.key.method, seed=seed, group=first['group'], metric=first['metric'], **numbers)
    return _Run(
        predictions=predictions,
        validation=validation,
        target=target,
        threshold=choose_thresholds(validation, rule=config.rule)[LEVEL][target],
        shown=frozenset(row['group'] for row in rows),
        failing=named,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Measured:
    """Metric to the value, then its replicates: [1 + R], and [G, 1 + R]."""

    overall: Mapping[str, np.ndarray]
    groups: Mapping[str, np.ndarray]

    def gap(self, metric: str) -> np.ndarray:
        """Best minus worst: [1 + R]; of the odds the wider of the gaps in sensitivity and specificity."""
        if metric == ODDS:
            return np.maximum(self.gap('sensitivity'), self.gap('specificity'))
        return gaps.spread(self.groups[metric].T)


def _measured(run: _Run, question: GroupQuestion, shown: Sequence[str], replicates: int, seed: int) -> _Measured:
    one = run.predictions
    patient_N, patients = patient_index(one.columns['patient'], key=one.columns['key'])
    counts_PR = patient_counts(patients, replicates=replicates, seed=seed)
    masks = masks_of(question, one)
    parts = {group: _values(run, patient_N, counts_PR, rows_N) for group, rows_N in [('', None), *((name, masks[name]) for name in shown)]}
    return _Measured(
        overall=parts[''], groups={metric: np.stack([parts[group][metric] for group in shown]) for metric in MEASURED}
    )


def _values(run: _Run, patient_N: np.ndarray, counts_PR: np.ndarray, rows_N: np.ndarray | None) -> dict[str, np.ndarray]:
    view = make_view(run.predictions, level=LEVEL, patient=patient_N, rows=rows_N)
    t = view.targets.index(run.target)
    kept = ~np.isnan(view.label_MT[:, t])
    label_M, score_M, patient_M = view.label_MT[kept, t] > 0, view.score_MT[kept, t], view.patient_M[kept]
    prepared = metrics.prepare(label_M, score=score_M)

    def judged(weights_MR: np.ndarray) -> dict[str, np.ndarray]:
        return metrics.binary_metrics(
            label_M, score=score_M, threshold=run.threshold, weights=weights_MR, prepared=prepared, only=MEASURED
        )

    blocks = [judged(np.ones((len(label_M), 1))), *map_blocks(judged, counts=counts_PR, patient=patient_M)]
    return {metric: np.concatenate([block[metric] for block in blocks]) for metric in MEASURED}


def _of_training(arm: Arm, measured: Mapping[str, list[_Measured]], plain: Arm, shown: Sequence[str]) -> list[Change]:
    """Against the plain training, over the seeds that both have."""
    seeds = [seed for seed in arm.seeds if seed in plain.seeds]
    mine, its = ([measured[one.key.method][one.seeds.index(seed)] for seed in seeds] for one in (arm, plain))
    found = []
    for metric in (*MEASURED, ODDS):
        gap, overall = _stacked(mine, its, lambda one, m=metric: one.gap(m)), None
        by_group: dict[str, Estimate] = {}
        if metric != ODDS:
            overall = _stacked(mine, its, lambda one, m=metric: one.overall[m])
            by_group = {name: _stacked(mine, its, lambda one, m=metric, i=g: one.groups[m][i])[0] for g, name in enumerate(shown)}
        other = arm.key.method != plain.key.method
        found.append(Change(
            means=arm.key.method,
            stage=TRAINING,
            metric=metric,
            overall=overall and overall[0],
            overall_change=overall[1] if overall and other else None,
            gap=gap[0],
            gap_change=gap[1] if other else None,
            by_group=by_group,
            worst=_worst(by_group, metric),
        ))
    return found


def _worst(by_group: Mapping[str, Estimate], metric: str) -> str:
    if not by_group:
        return ''
    value_G = np.array([one.value for one in by_group.values()])
    return list(by_group)[gaps.best_and_worst(value_G, metric=metric)[1]]


def _stacked(mine: Sequence[_Measured], its: Sequence[_Measured], read: Any) -> tuple[Estimate, Estimate]:
    """A number over the seeds, and its paired change from the plain training."""
    mine_SR, its_SR = (np.stack([read(one) for one in part]) for part in (mine, its))
    value, change = (slopes.mean(one_SR[:, 0], replicates=one_SR[:, 1:]) for one_SR in (mine_SR, mine_SR - its_SR))
    return value.within(0.0, 1.0), change.within(-1.0, 1.0)


def _after(runs: Sequence[_Run], by: str, config: EvalConfig) -> list[Change]:
    """Each means after training, over the seeds of the plain training."""
    per_seed = [mitigations(run.predictions, validation=run.validation, by=(by,), config=config)['rows'] for run in runs]
    target, found = runs[0].target, []
    chosen = [[row for row in rows if row['target'] == target and row['approach'] != 'none'] for rows in per_seed]
    for rows in zip(*chosen, strict=True):
        if rows[0]['metric'] not in (*MEASURED, ODDS) or rows[0]['gap_after'] is None:
            continue
        worst = {row['worst'] for row in rows}
        has = rows[0]['overall_after'] is not None
        found.append(Change(
            means=rows[0]['approach'],
            stage=AFTER,
            metric=rows[0]['metric'],
            overall=slopes.joined([row['overall_after'] for row in rows], se_patients=math.nan) if has else None,
            overall_change=_paired(rows, 'overall') if has else None,
            gap=slopes.joined([row['gap_after'] for row in rows], se_patients=math.nan),
            gap_change=_paired(rows, 'gap'),
            by_group={},
            worst=worst.pop() or '' if len(worst) == 1 else '',
        ))
    return found


def _paired(rows: Sequence[Mapping[str, Any]], name: str) -> Estimate:
    """The change over seeds; the patients' part is the mean standard error within a seed, as all seeds have the same patients."""
    widths = [row[f'{name}_change_high'] - row[f'{name}_change_low'] for row in rows if row[f'{name}_change_high'] is not None]
    se = float(np.mean(widths)) / (2 * 1.959964) if widths else math.nan
    return slopes.joined([row[f'{name}_change'] for row in rows], se_patients=se).within(-1.0, 1.0)
