"""The smallest true gap that so many patients would show: what cannot be seen must not be read as absent.

Letters: R permutations, G groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

POWER = 0.8
ALPHA = 0.05
_Z_ALPHA, _Z_POWER = (float(z) for z in norm.ppf([1 - ALPHA / 2, POWER]))
_HALVINGS = 30


def hanley_mcneil(auroc: float, *, positives: float, negatives: float) -> float:
    """Variance of an AUROC of independent rows from the AUROC alone: Hanley and McNeil, Radiology 1982, equation 2."""
    q1, q2 = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    square = auroc**2
    return (auroc * (1 - auroc) + (positives - 1) * (q1 - square) + (negatives - 1) * (q2 - square)) / (positives * negatives)


def binomial(share: float, *, cases: float) -> float:
    """Variance of a share of independent cases."""
    return share * (1 - share) / cases


def detectable_difference(
    variance: Callable[[float], float], *, rest: float, at: float, lowest: float, as_found: bool = False
) -> float:
    """The smallest shortfall of one group from `at` that a two-sided test against everybody else finds with 80 % power at 5 %.

    `variance(value)` is the group's when its true value is `value`, `rest` everybody else's. Solves d = z(.975) sqrt(v + rest) +
    z(.8) sqrt(variance(at - d) + rest) with v = variance(at), or, where the test takes the variance it finds (`as_found`), the larger of
    variance(at) and variance(at - d). NaN where even a group at `lowest` would not be found.
    """

    def lacking(d: float) -> float:
        null, there = variance(at) + rest, variance(at - d) + rest
        return _Z_ALPHA * math.sqrt(max(null, there) if as_found else null) + _Z_POWER * math.sqrt(there) - d

    if lacking(at - lowest) > 0:
        return np.nan
    low, high = 0.0, at - lowest
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if lacking(middle) > 0 else (low, middle)
    return high


@dataclass(frozen=True, kw_only=True)
class Noise:
    """How the noise grows when one group, `share` of the cases, is worse: `spread(value)` is its size at a value, up to a factor."""

    spread: Callable[[float], float] = lambda value: 1.0
    share_G: np.ndarray | None = None

    def of_group(self, middle: float, *, moved: float) -> float:
        """The group's own noise at its lower value."""
        return self._ratio(middle, moved)

    def of_null(self, middle: float, *, moved: float, g: int) -> float:
        """Everybody's in the permutations, into which the group is mixed."""
        return self._ratio(middle, moved * (0.0 if self.share_G is None else float(self.share_G[g])))

    def _ratio(self, middle: float, moved: float) -> float:
        at = self.spread(middle)
        return self.spread(middle + moved) / at if at > 0 else 1.0


def detectable_gap(null_RG: np.ndarray, *, largest: float, sign: int = -1, noise: Noise | None = None) -> float:
    """The smallest true gap that the permutation test finds with 80 % power at 5 %, whichever group has it; NaN above `largest`.

    The permuted values are what noise does to these groups. One of them is moved by the gap (`sign` is the direction of worse), with
    `noise` for that a lower AUROC is less certain, and the test is done on each; the hardest group decides.
    """
    null_RG = null_RG[np.isfinite(null_RG).all(axis=1)]
    if len(null_RG) < 2:
        return np.nan
    critical = float(np.quantile(null_RG.max(axis=1) - null_RG.min(axis=1), 1 - ALPHA))
    shared = {'critical': critical, 'largest': largest, 'sign': sign, 'noise': noise or Noise()}
    return float(np.max([_needed(null_RG, g, **shared) for g in range(null_RG.shape[1])]))


def _needed(null_RG: np.ndarray, g: int, *, critical: float, largest: float, sign: int, noise: Noise) -> float:
    """The smallest gap of this one group, by halving; NaN above `largest`."""
    others_RH = np.delete(null_RG, g, axis=1)
    top_R, bottom_R, middle = others_RH.max(axis=1), others_RH.min(axis=1), float(null_RG[:, g].mean())

    def power(size: float) -> float:
        moved = sign * size
        group_R = middle + moved + noise.of_group(middle, moved=moved) * (null_RG[:, g] - middle)
        needed = critical * noise.of_null(middle, moved=moved, g=g)
        return float((np.maximum(top_R, group_R) - np.minimum(bottom_R, group_R) > needed).mean())

    if power(largest) < POWER:
        return np.nan
    low, high = 0.0, largest
    for _ in range(_HALVINGS):
        half = (low + high) / 2
        low, high = (half, high) if power(half) < POWER else (low, half)
    return high
