"""Do groups differ by more than chance: gaps with their null, equalised odds, the groups that fail, and what could not have been seen.

Compared are the groups that are shown: not `missing`, not `declined`, and not withheld for being small. Everything is of one level, image
or patient, and corrected for how many comparisons that level shows (Holm 1979).

Letters: M rows, G groups, R replicates or permutations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retfound_jax.evals import failing, gaps, metrics
from retfound_jax.evals.bootstrap import distinct
from retfound_jax.evals.cells import Cell, Thresholds
from retfound_jax.evals.permutation import PERMUTED, TAIL, Grouped, p_value, permuted_metrics
from retfound_jax.evals.power import Noise, binomial, detectable_gap, hanley_mcneil
from retfound_jax.evals.stats import holm
from retfound_jax.evals.views import LEVELS
from retfound_jax.evals.withholding import is_blank

Row = dict[str, Any]
Cells = Mapping[str, Cell]  # group -> cell
_PREVALENCE = 'moves with the share of diseased people, which differs between the groups'
NOTES = {
    'AUPRC': _PREVALENCE,
    'Brier': _PREVALENCE,
    'ECE': 'larger in smaller groups even where calibration is the same, which the null takes into account',
    'slope': 'best and worst by distance from 1; the gap is the largest minus the smallest slope',
}


@dataclass(frozen=True, kw_only=True)
class Fairness:
    """The lists of one evaluation, each a list of JSON-able rows."""

    fairness: list[Row]
    equalised_odds: list[Row]
    failing: list[Row]
    power: list[Row]


NOTHING = Fairness(fairness=[], equalised_odds=[], failing=[], power=[])


@dataclass(frozen=True, kw_only=True)
class How:
    """How differences are judged."""

    permutations: int
    seed: int
    level: float
    min_positive: int  # patients with, and as many without, that a group needs to be compared


def judge(
    cells: Mapping[str, Mapping[str, Cells]], *, rows: Sequence[Row], thresholds: Mapping[str, Thresholds], how: How
) -> Fairness:
    """All comparisons of `cells` (level -> by -> group -> cell); what `rows` withhold is left out here too."""
    parts: list[Fairness] = []
    for level, by_name in sorted(cells.items(), reverse=True):  # patients before images
        found = [
            _target(grouped, shown, where={'level': level, 'by': by, 'target': target}, how=how)
            for by, groups in by_name.items()
            if by
            for target, grouped, shown in _comparisons(groups, level=level, by=by, rows=rows, thresholds=thresholds[level], how=how)
        ]
        parts.append(_corrected(_joined(found)))
    return _joined(parts)


def notes(found: Fairness, *, permutations: int) -> list[str]:
    """Sentences a reader of the gaps needs."""
    if not found.fairness:
        return []
    out = [
        'The gap between best and worst is too large by chance alone, the more so the more and the smaller the groups: '
        'by_chance is what no difference would give.'
    ]
    most = max(sum(row['level'] == level for row in rows) for rows in (found.fairness, found.failing) for level in LEVELS)
    if permutations < 10 * TAIL and most / (permutations + 1) > 0.05:
        least = f'{most / (permutations + 1):.2f}'
        out.append(f'With {most} comparisons and {permutations} permutations no corrected p is below {least}: give more --permutations.')
    return out


def _joined(parts: Sequence[Fairness]) -> Fairness:
    names = ('fairness', 'equalised_odds', 'failing', 'power')
    return Fairness(**{name: [row for part in parts for row in getattr(part, name)] for name in names})


def _corrected(part: Fairness) -> Fairness:
    """Holm over all gaps of a level, and over all groups held against the others, which then stand in order."""
    for rows in (part.fairness, part.failing):
        for row, p in zip(rows, holm([row['p'] for row in rows]), strict=True):
            row['p'], row['p_holm'] = metrics.finite(row['p']), metrics.finite(p)
    return Fairness(
        fairness=part.fairness, equalised_odds=part.equalised_odds, failing=failing.by_evidence(part.failing), power=part.power
    )


def _comparisons(
    groups: Cells, *, level: str, by: str, rows: Sequence[Row], thresholds: Thresholds, how: How
) -> Iterator[tuple[str, Grouped, Cells]]:
    """Each target that at least two shown groups can be judged by."""
    withheld = {
        (row['group'], row['target'])
        for row in rows
        if (row['level'], row['by']) == (level, by) and row['note'].startswith('withheld')
    }
    candidates = {group: cell for group, cell in groups.items() if not is_blank(group) and cell.replicates}
    targets = next(iter(candidates.values())).view.targets if candidates else ()
    for t, target in enumerate(targets):
        shown = {
            group: cell
            for group, cell in candidates.items()
            if (group, target) not in withheld and _enough(cell, t, least=how.min_positive)
        }
        if len(shown) > 1:
            yield target, _grouped(shown, t, threshold=thresholds.get(target)), shown


def _enough(cell: Cell, t: int, *, least: int) -> bool:
    """Whether enough patients have, and enough do not have, what the target is."""
    view = cell.view
    return all(distinct(view.patient_M[view.label_MT[:, t] == value]) >= max(1, least) for value in (0, 1))


def _grouped(shown: Cells, t: int, *, threshold: float | None) -> Grouped:
    parts = []
    for g, cell in enumerate(shown.values()):
        kept = ~np.isnan(cell.view.label_MT[:, t])
        parts.append((cell.view.label_MT[kept, t] > 0, cell.view.score_MT[kept, t], cell.view.patient_M[kept], np.full(kept.sum(), g)))
    label_M, score_M, patient_M, group_M = (np.concatenate(values) for values in zip(*parts, strict=True))
    return Grouped(
        label_M=label_M, score_M=score_M, patient_M=patient_M, group_M=group_M, groups=tuple(shown), threshold=threshold
    )


def _target(rows: Grouped, shown: Cells, *, where: Row, how: How) -> Fairness:
    null = permuted_metrics(rows, permutations=how.permutations, seed=how.seed)
    judged = [_gap_row(rows, shown, metric=metric, null_RG=null[metric], where=where, how=how) for metric in PERMUTED]
    names = {'rows': 'patients' if where['level'] == 'patient' else 'images'}
    return Fairness(
        fairness=[row for row in judged if row is not None],
        equalised_odds=_odds_rows(rows, shown, null=null, where=where, how=how),
        failing=[where | row for row in failing.failing_rows(rows, null=null, level=how.level)],
        power=[where | row for row in failing.power_rows(rows, names=names)],
    )


def _gap_row(rows: Grouped, shown: Cells, *, metric: str, null_RG: np.ndarray, where: Row, how: How) -> Row | None:
    """None where fewer than two groups have the metric."""
    value_G = np.array([cell.value[where['target'], metric] for cell in shown.values()])
    kept_G = np.isfinite(value_G)
    if kept_G.sum() < 2:
        return None
    names = [group for group, kept in zip(shown, kept_G, strict=True) if kept]
    replicates_GR = np.stack([shown[group].replicates[where['target'], metric] for group in names])
    found = gaps.gap(value_G[kept_G], replicates=replicates_GR, level=how.level, most=gaps.most(metric))
    null_RG = null_RG[:, kept_G]
    null_R = gaps.spread(null_RG[np.isfinite(null_RG).all(axis=1)])
    best, worst = gaps.best_and_worst(value_G[kept_G], metric=metric)
    return where | {
        'metric': metric,
        'groups': len(names),
        'best': names[best],
        'worst': names[worst],
        'gap': found.value,
        'low': metrics.finite(found.low),
        'high': metrics.finite(found.high),
        'by_chance': metrics.finite(null_R.mean()) if len(null_R) else None,
        'by_chance_high': metrics.finite(np.quantile(null_R, 0.95)) if len(null_R) else None,
        'p': p_value(found.value, null=null_R) if len(null_R) else np.nan,
        'detectable': metrics.finite(detectable(rows, null_RG, metric=metric, kept=np.flatnonzero(kept_G))),
        'note': NOTES.get(metric, ''),
    }


def detectable(rows: Grouped, null_RG: np.ndarray, *, metric: str, kept: np.ndarray) -> float:
    """The smallest true gap that would be found in 4 of 5 studies, whichever of the groups `kept` has it.

    NaN where there is none down to chance for AUROC, to nothing for a rate, and to three times the null's widest gap where there is no such
    end.
    """
    middle = float(np.nanmean(null_RG))
    floor = {'AUROC': 0.5, 'AUPRC': 0.0, 'sensitivity': 0.0, 'specificity': 0.0}.get(metric)
    largest = middle - floor if floor is not None else 3 * float(np.nanmax(gaps.spread(null_RG)))
    if not largest > 0:
        return np.nan
    sign = 1 if metric in metrics.LOWER_IS_BETTER else -1
    return detectable_gap(null_RG, largest=largest, sign=sign, noise=_noise(rows, metric=metric, kept=kept))


def _noise(rows: Grouped, *, metric: str, kept: np.ndarray) -> Noise | None:
    """Hanley and McNeil's for AUROC, the binomial for a rate, and none for what has no formula."""
    case_M = ~rows.label_M if metric == 'specificity' else rows.label_M
    cases_G = np.array([(case_M & (rows.group_M == g)).sum() for g in kept])
    share_G = cases_G / cases_G.sum()
    if metric == 'AUROC':
        positive, negative = int(rows.label_M.sum()), int((~rows.label_M).sum())
        return Noise(spread=lambda value: float(np.sqrt(hanley_mcneil(value, positives=positive, negatives=negative))), share_G=share_G)
    if metric in ('sensitivity', 'specificity'):
        return Noise(spread=lambda value: float(np.sqrt(max(0.0, binomial(value, cases=1)))), share_G=share_G)
    return None


def _odds_rows(rows: Grouped, shown: Cells, *, null: Mapping[str, np.ndarray], where: Row, how: How) -> list[Row]:
    if rows.threshold is None:
        return []
    target = where['target']
    value = [np.array([cell.value[target, metric] for cell in shown.values()]) for metric in ('sensitivity', 'specificity')]
    replicates = tuple(np.stack([cell.replicates[target, m] for cell in shown.values()]) for m in ('sensitivity', 'specificity'))
    found = gaps.equalised_odds(value[0], specificity=value[1], replicates=replicates, level=how.level)
    null_R = np.maximum(*(gaps.spread(null[metric]) for metric in ('sensitivity', 'specificity')))
    return [
        where
        | {'difference': found.value, 'tpr_gap': float(gaps.spread(value[0])), 'fpr_gap': float(gaps.spread(value[1]))}
        | {'low': metrics.finite(found.low), 'high': metrics.finite(found.high), 'p': p_value(found.value, null=null_R)}
    ]
