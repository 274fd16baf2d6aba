"""What chance alone does to groups: the same metrics after the groups are dealt out anew among comparable patients.

The null hypothesis: among patients with the same finding, scores do not depend on the group. So groups are permuted among patients within
strata of the label, and each group keeps its number of diseased and of healthy patients: a group in which disease is rarer, and whose AUROC
is therefore less certain, is no false alarm. What moves is whole patients, so two eyes stay together. Where one patient's images lie in
several groups (laterality, camera), the part in each group moves on its own: a little cautious if the parts are alike.

Letters: M rows, U units (a patient's rows in one group), G groups, R permutations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from retfound_jax.evals import metrics
from retfound_jax.evals.bootstrap import in_slices

PERMUTED = ('AUROC', 'AUPRC', 'sensitivity', 'specificity', 'ECE', 'Brier', 'slope')

TAIL = 100  # values that a tail is fitted to


@dataclass(frozen=True, kw_only=True)
class Grouped:
    """One target's rows of the groups that are compared."""

    label_M: np.ndarray  # bool
    score_M: np.ndarray
    patient_M: np.ndarray
    group_M: np.ndarray  # 0 .. G - 1
    groups: tuple[str, ...]
    threshold: float | None

    @property
    def masks_GM(self) -> np.ndarray:
        return np.arange(len(self.groups))[:, None] == self.group_M


def permuted_metrics(rows: Grouped, *, permutations: int, seed: int) -> Mapping[str, np.ndarray]:
    """Each of PERMUTED under the null: [R, G]; pure in its arguments."""
    unit_M, group_U, stratum_U = units(rows)
    group_UR = permuted_groups(group_U, stratum=stratum_U, permutations=permutations, seed=seed)
    prepared = metrics.prepare(rows.label_M, score=rows.score_M)

    def block(part: slice) -> list[dict[str, np.ndarray]]:
        group_MR = group_UR[:, part][unit_M]
        return [
            metrics.binary_metrics(
                rows.label_M,
                score=rows.score_M,
                threshold=rows.threshold,
                weights=(group_MR == g).astype(np.float64),
                prepared=prepared,
                only=PERMUTED,
            )
            for g in range(len(rows.groups))
        ]

    blocks = in_slices(block, columns=permutations, rows=len(rows.label_M))
    return {
        metric: np.stack([np.concatenate([found[g][metric] for found in blocks]) for g in range(len(rows.groups))], axis=1)
        for metric in PERMUTED
    }


def units(rows: Grouped) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The unit of each row [M], the group of each unit [U], and its stratum [U]: none, one or more rows of each class."""
    both_2M = np.stack([rows.patient_M, rows.group_M])
    names_2U, unit_M = np.unique(both_2M, axis=1, return_inverse=True)
    unit_M = unit_M.reshape(-1)
    positive_U, negative_U = (np.bincount(unit_M, weights=kept, minlength=names_2U.shape[1]) for kept in (rows.label_M, ~rows.label_M))
    return unit_M, names_2U[1].astype(np.uint8), (3 * np.minimum(positive_U, 2) + np.minimum(negative_U, 2)).astype(np.uint8)


def permuted_groups(group_U: np.ndarray, *, stratum: np.ndarray, permutations: int, seed: int) -> np.ndarray:
    """The groups dealt out anew within each stratum: [U, R]."""
    rng = np.random.Generator(np.random.Philox(seed))
    out_UR = np.empty((len(group_U), permutations), group_U.dtype)
    for one in np.unique(stratum):
        inside = np.flatnonzero(stratum == one)
        out_UR[inside] = rng.permuted(np.repeat(group_U[inside][None], permutations, axis=0), axis=1).T
    return out_UR


def p_value(observed: float, *, null: np.ndarray) -> float:
    """Share of the null at least as large, the observed one counted among them, so that it is never zero (Phipson and Smyth 2010).

    Where fewer than ten are as large, a share cannot tell 1 in 1,000 from 1 in 100,000, and a correction for many comparisons would leave
    nothing. From TAIL values above the null's 90 % point on, the tail is then continued as an exponential (Knijnenburg et al. 2009, who fit
    a generalised Pareto; the exponential is its limit and the safe side for the light tails of means and rank sums).
    """
    null_R = null[np.isfinite(null)]
    beyond = int((null_R >= observed - 1e-12).sum())
    share = float((1 + beyond) / (1 + len(null_R)))
    if beyond >= 10 or len(null_R) < 10 * TAIL:
        return share
    start = np.quantile(null_R, 0.9)
    excess = (null_R[null_R > start] - start).mean() if (null_R > start).any() else 0.0
    return min(share, float(0.1 * np.exp(-(observed - start) / excess))) if excess > 0 else share
