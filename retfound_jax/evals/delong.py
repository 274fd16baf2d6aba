"""DeLong's covariance of AUROCs: the closed form beside the bootstrap, for independent rows and for patients with several.

Letters: N rows, K scores, G groups, I patients (clusters).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata

from retfound_jax.evals.metrics import divide


@dataclass(frozen=True, kw_only=True)
class DeLong:
    """AUROC of K scores on the same rows, or of one score in K groups of rows, and their covariance."""

    auroc_K: np.ndarray
    covariance_KK: np.ndarray

    def interval(self, *, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Normal interval of each AUROC, cut to [0, 1]."""
        half_K = norm.ppf(0.5 + level / 2) * np.sqrt(np.diag(self.covariance_KK))
        return np.clip(self.auroc_K - half_K, 0, 1), np.clip(self.auroc_K + half_K, 0, 1)

    def difference_variance(self, a: int, b: int) -> float:
        """Variance of auroc[a] - auroc[b], with their covariance taken into account."""
        covariance_KK = self.covariance_KK
        return float(covariance_KK[a, a] + covariance_KK[b, b] - 2 * covariance_KK[a, b])


def delong(label_N: np.ndarray, *, score_NK: np.ndarray) -> DeLong:
    """DeLong, DeLong and Clarke-Pearson 1988 by mid-ranks (Sun and Xu 2014, algorithm 2), O(N log N).

    It takes rows as independent: with two eyes a patient it is too sure of itself, and `clustered_delong` or the patient bootstrap is the
    one to report. Needs two rows of each class; with fewer the covariance is NaN.
    """
    label_N = np.asarray(label_N, bool)
    score_NK = np.asarray(score_NK, np.float64).reshape(len(label_N), -1)
    p, q = int(label_N.sum()), int((~label_N).sum())
    if p < 2 or q < 2:
        k = score_NK.shape[1]
        return DeLong(auroc_K=np.full(k, np.nan), covariance_KK=np.full((k, k), np.nan))
    components_KN = np.stack([components(label_N, score=score_N) for score_N in score_NK.T])
    beats_KP, beaten_KQ = components_KN[:, label_N], components_KN[:, ~label_N]
    covariance_KK = np.atleast_2d(np.cov(beats_KP)) / p + np.atleast_2d(np.cov(beaten_KQ)) / q
    return DeLong(auroc_K=beats_KP.mean(axis=1), covariance_KK=covariance_KK)


def components(label_N: np.ndarray, *, score: np.ndarray) -> np.ndarray:
    """How much of the other class each row is on the right side of, ties half: V10 of positives and V01 of negatives in DeLong's paper."""
    label_N, score_N = np.asarray(label_N, bool), np.asarray(score, np.float64)
    all_N = rankdata(score_N)
    out_N = np.empty(len(label_N))
    out_N[label_N] = divide(all_N[label_N] - rankdata(score_N[label_N]), (~label_N).sum())
    out_N[~label_N] = 1 - divide(all_N[~label_N] - rankdata(score_N[~label_N]), label_N.sum())
    return out_N


def clustered_delong(label_N: np.ndarray, *, score_NK: np.ndarray, cluster: np.ndarray) -> DeLong:
    """Obuchowski 1997 (Biometrics 53:567, 'Nonparametric analysis of clustered ROC curve data', section 3), for rows in clusters.

    The components of a cluster's rows are summed, so what two eyes of one patient share is counted; a patient may have eyes of both
    classes. With one row a cluster it is `delong`. Needs two clusters with each class; with fewer the covariance is NaN.
    """
    label_N = np.asarray(label_N, bool)
    score_NK = np.asarray(score_NK, np.float64).reshape(len(label_N), -1)
    everyone_KN = np.ones((score_NK.shape[1], len(label_N)), bool)
    return _clustered(label_N, score_KN=score_NK.T, kept_KN=everyone_KN, cluster=cluster)


def group_delong(label_N: np.ndarray, *, score: np.ndarray, groups: np.ndarray, cluster: np.ndarray) -> DeLong:
    """AUROC within each of the groups (masks [G, N]) and their covariance, which is not zero where groups share patients.

    As `clustered_delong`; a group that lacks two patients of a class is NaN.
    """
    masks_GN = np.asarray(groups, bool)
    score_GN = np.broadcast_to(np.asarray(score, np.float64), masks_GN.shape)
    return _clustered(np.asarray(label_N, bool), score_KN=score_GN, kept_KN=masks_GN, cluster=cluster)


def _clustered(label_N: np.ndarray, *, score_KN: np.ndarray, kept_KN: np.ndarray, cluster: np.ndarray) -> DeLong:
    names, cluster_N = np.unique(np.asarray(cluster), return_inverse=True)
    columns = [_sums(label_N, score_N=s, kept_N=m, cluster_N=cluster_N, n=len(names)) for s, m in zip(score_KN, kept_KN, strict=True)]
    positive_KI, negative_KI = (np.stack([column[i] for column in columns]) for i in (1, 2))
    positive_K, negative_K, all_K = (np.array([column[i] for column in columns]) for i in (3, 4, 5))
    # I / (I - 1) of the clusters that have the class; for two columns the geometric mean, which for one is the paper's
    factor_p, factor_n, factor_b = (np.sqrt(divide(k, np.maximum(k - 1, 0))) for k in (positive_K, negative_K, all_K))
    covariance_KK = np.outer(factor_p, factor_p) * (positive_KI @ positive_KI.T)
    covariance_KK += np.outer(factor_n, factor_n) * (negative_KI @ negative_KI.T)
    mixed_KK = positive_KI @ negative_KI.T
    covariance_KK += np.outer(factor_b, factor_b) * (mixed_KK + mixed_KK.T)
    return DeLong(auroc_K=np.array([column[0] for column in columns]), covariance_KK=covariance_KK)


def _sums(
    label_N: np.ndarray, *, score_N: np.ndarray, kept_N: np.ndarray, cluster_N: np.ndarray, n: int
) -> tuple[float, np.ndarray, np.ndarray, int, int, int]:
    """AUROC; the centred components of positives and of negatives summed by cluster, each over its count; the clusters with each class."""
    label_M, cluster_M = label_N[kept_N], cluster_N[kept_N]
    p, q = int(label_M.sum()), int((~label_M).sum())
    if not p or not q:
        return np.nan, np.full(n, np.nan), np.full(n, np.nan), 0, 0, 0
    component_M = components(label_M, score=score_N[kept_N])
    auroc = component_M[label_M].mean()
    sums = [np.bincount(cluster_M[c], weights=component_M[c] - auroc, minlength=n) / k for c, k in ((label_M, p), (~label_M, q))]
    having = [len(np.unique(cluster_M[c])) for c in (label_M, ~label_M, np.ones(len(label_M), bool))]
    return float(auroc), sums[0], sums[1], *having
