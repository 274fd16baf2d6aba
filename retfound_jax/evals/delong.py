"""DeLong's covariance of AUROCs: the closed form beside the bootstrap, for rows that are independent of each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata


@dataclass(frozen=True, kw_only=True)
class DeLong:
    """AUROC of K scores on the same rows and their covariance."""

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

    It takes rows as independent: with two eyes a patient it is too sure of itself, and the patient bootstrap is the one to report.
    Needs two rows of each class; with fewer the covariance is NaN.
    """
    label_N = np.asarray(label_N, bool)
    score_KN = np.asarray(score_NK, np.float64).reshape(len(label_N), -1).T
    positive_KP, negative_KQ = score_KN[:, label_N], score_KN[:, ~label_N]
    p, q = positive_KP.shape[1], negative_KQ.shape[1]
    if p < 2 or q < 2:
        k = len(score_KN)
        return DeLong(auroc_K=np.full(k, np.nan), covariance_KK=np.full((k, k), np.nan))
    all_KN = rankdata(np.concatenate([positive_KP, negative_KQ], axis=1), axis=1)
    # how much of the other class each row beats: the structural components V10 and V01 of the paper
    beats_KP = (all_KN[:, :p] - rankdata(positive_KP, axis=1)) / q
    beaten_KQ = 1 - (all_KN[:, p:] - rankdata(negative_KQ, axis=1)) / p
    covariance_KK = np.atleast_2d(np.cov(beats_KP)) / p + np.atleast_2d(np.cov(beaten_KQ)) / q
    return DeLong(auroc_K=beats_KP.mean(axis=1), covariance_KK=covariance_KK)
