"""Each group against all other groups that are shown, the one with the strongest evidence of being worse first.

Judged by what does not move with the share of diseased people: AUROC, sensitivity and specificity. Average precision and the Brier score
are lower where disease is rarer, with the same skill.

Letters: M rows, G groups, R permutations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from retfound_jax.evals.bootstrap import distinct
from retfound_jax.evals.delong import group_delong
from retfound_jax.evals.permutation import Grouped, p_value
from retfound_jax.evals.power import binomial, detectable_difference, hanley_mcneil

JUDGED = ('AUROC', 'sensitivity', 'specificity')
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Against:
    """A group's value and everybody else's, with the variance of each and of their difference."""

    value: float
    rest: float
    variance: float  # of the group's value
    rest_variance: float
    difference_variance: float


def failing_rows(rows: Grouped, *, null: Mapping[str, np.ndarray], level: float) -> list[Row]:
    """A row for each group and metric: how far it falls short of the rest (positive is worse), with interval and one-sided p.

    The interval is Student's with the clustered variance (Obuchowski 1997 for AUROC) and as many patients as decide it in the group; p is
    the share of permutations in which this group's own value is as bad, so it needs no such distribution and cannot be below
    1 / (permutations + 1).
    """
    out = []
    for metric in JUDGED:
        for g, group in enumerate(rows.groups):
            found = against_rest(rows, g, metric=metric)
            if not np.isfinite(found.value) or not np.isfinite(found.rest):
                continue
            half = stdtrit(_deciding(rows, g, metric=metric) - 1, 0.5 + level / 2) * np.sqrt(found.difference_variance)
            shortfall = found.rest - found.value
            counts = _counts(rows, g)
            out.append(
                {'group': group, 'metric': metric, 'value': found.value, 'rest': found.rest, 'shortfall': shortfall}
                | {'low': shortfall - half, 'high': shortfall + half}
                | {'p': p_value(-found.value, null=-null[metric][:, g]), **counts}
            )
    return out


def by_evidence(rows: list[Row]) -> list[Row]:
    """The strongest evidence of being worse first: by p, and where permutations cannot tell apart, by the shortfall in standard errors."""
    return sorted(rows, key=lambda row: (row['p'], -_in_errors(row)))


def power_rows(rows: Grouped, *, names: Mapping[str, str]) -> list[Row]:
    """For each group the smallest shortfall that so many cases would show, with a sentence; `names` says 'images' or 'patients'."""
    out = []
    for metric in JUDGED:
        for g, group in enumerate(rows.groups):
            pooled = _pooled(rows, metric)
            if not np.isfinite(pooled):
                continue
            least, at = _detectable(rows, g, metric=metric, at=pooled)
            counts = _counts(rows, g)
            out.append(
                {'group': group, 'metric': metric, **counts, 'detectable': least if np.isfinite(least) else None}
                | {'sentence': _sentence(metric, counts=counts, negative=_negatives(rows, g), least=least, lowest=at, unit=names['rows'])}
            )
    return out


def against_rest(rows: Grouped, g: int, *, metric: str) -> Against:
    """The group and all others, of the rows at hand; patients with rows in both are counted as what they are, correlated."""
    masks_2M = np.stack([rows.group_M == g, rows.group_M != g])
    if metric == 'AUROC':
        found = group_delong(rows.label_M, score=rows.score_M, groups=masks_2M, cluster=rows.patient_M)
        value_2, covariance_22 = found.auroc_K, found.covariance_KK
    else:
        value_2, covariance_22 = _shares(rows, masks_2M, metric=metric)
    return Against(
        value=float(value_2[0]),
        rest=float(value_2[1]),
        variance=float(covariance_22[0, 0]),
        rest_variance=float(covariance_22[1, 1]),
        difference_variance=max(0.0, float(covariance_22[0, 0] + covariance_22[1, 1] - 2 * covariance_22[0, 1])),
    )


def _shares(rows: Grouped, masks_2M: np.ndarray, *, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Sensitivity or specificity in each mask, and their covariance: a ratio of sums over patients, linearised (Rao and Scott 1992)."""
    if rows.threshold is None:
        return np.full(2, np.nan), np.full((2, 2), np.nan)
    kept_M = rows.label_M if metric == 'sensitivity' else ~rows.label_M
    right_M = (rows.score_M >= rows.threshold) == rows.label_M
    _, patient_M = np.unique(rows.patient_M, return_inverse=True)
    value_2, sums_2I = np.full(2, np.nan), np.full((2, patient_M.max() + 1), np.nan)
    for k, mask_M in enumerate(masks_2M & kept_M):
        cases = int(mask_M.sum())
        patients = distinct(patient_M[mask_M])
        if patients > 1:
            value_2[k] = right_M[mask_M].mean()
            rest_M = (right_M[mask_M] - value_2[k]) / cases * np.sqrt(patients / (patients - 1))
            sums_2I[k] = np.bincount(patient_M[mask_M], weights=rest_M, minlength=sums_2I.shape[1])
    return value_2, sums_2I @ sums_2I.T


def _pooled(rows: Grouped, metric: str) -> float:
    """The metric of all groups together, which is what each would have if nothing differed."""
    everyone = np.zeros_like(rows.group_M)
    one = Grouped(**(vars(rows) | {'group_M': everyone, 'groups': ('all',)}))
    return against_rest(one, 0, metric=metric).value


def _detectable(rows: Grouped, g: int, *, metric: str, at: float) -> tuple[float, float]:
    """The smallest shortfall from `at`, and the lowest value that was tried; the variances widened by what two eyes of a patient share."""
    inside_M = rows.group_M == g
    sizes = [(int((rows.label_M & kept).sum()), int((~rows.label_M & kept).sum())) for kept in (inside_M, ~inside_M)]
    widened = design_effect(rows, metric=metric)

    def variance(value: float, side: int) -> float:
        positive, negative = sizes[side]
        if metric == 'AUROC':
            return widened * hanley_mcneil(value, positives=positive, negatives=negative)
        return widened * binomial(value, cases=positive if metric == 'sensitivity' else negative)

    lowest = 0.5 if metric == 'AUROC' else 0.0
    if not all(min(size) > 0 for size in sizes) or at <= lowest:
        return np.nan, lowest
    shared = {'rest': variance(at, 1), 'at': at, 'lowest': lowest}
    # Hanley and McNeil's variance is on the safe side below `at`, the binomial one is exact
    return detectable_difference(lambda value: variance(value, 0), as_found=metric != 'AUROC', **shared), lowest


def design_effect(rows: Grouped, *, metric: str) -> float:
    """How much wider the variance is for rows in patients than for as many independent rows, of all groups together; at least 1."""
    everyone_1M = np.ones((1, len(rows.label_M)), bool)
    if metric == 'AUROC':
        shared = {'score': rows.score_M, 'groups': everyone_1M}
        clustered, alone = (
            group_delong(rows.label_M, cluster=cluster, **shared).covariance_KK[0, 0]
            for cluster in (rows.patient_M, np.arange(len(rows.label_M)))
        )
    else:
        two_2M = np.concatenate([everyone_1M, ~everyone_1M])
        alone_rows = Grouped(**(vars(rows) | {'patient_M': np.arange(len(rows.label_M))}))
        clustered, alone = (_shares(one, two_2M, metric=metric)[1][0, 0] for one in (rows, alone_rows))
    return max(1.0, float(clustered / alone)) if alone > 0 and np.isfinite(clustered) else 1.0


def _counts(rows: Grouped, g: int) -> dict[str, int]:
    inside_M = rows.group_M == g
    return {'n_patients': distinct(rows.patient_M[inside_M]), 'n_positive': int(rows.label_M[inside_M].sum())}


def _deciding(rows: Grouped, g: int, *, metric: str) -> int:
    """The group's patients of the rarer class, or of the class whose rate it is; at least 2."""
    inside_M = rows.group_M == g
    sizes = {label: distinct(rows.patient_M[inside_M & (rows.label_M == label)]) for label in (True, False)}
    return max(2, min(sizes.values()) if metric == 'AUROC' else sizes[metric == 'sensitivity'])


def _negatives(rows: Grouped, g: int) -> int:
    return int((~rows.label_M[rows.group_M == g]).sum())


def _in_errors(row: Row) -> float:
    half = row['high'] - row['shortfall']
    if half > 0:
        return row['shortfall'] / half
    return float(np.copysign(np.inf, row['shortfall'])) if row['shortfall'] else 0.0


def _sentence(metric: str, *, counts: dict[str, int], negative: int, least: float, lowest: float, unit: str) -> str:
    cases = f'{negative} negative {unit}' if metric == 'specificity' else f'{counts["n_positive"]} positive {unit}'
    if not np.isfinite(least):
        return f'With {cases} not even a {metric} of {lowest:g} would be told from the other groups in 4 of 5 studies.'
    return f'With {cases} a gap in {metric} below {least:.3f} from the other groups cannot be seen in 4 of 5 studies.'
