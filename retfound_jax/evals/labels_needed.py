"""How many labels one start saves against another, from two curves of a metric over the share of labels; and the overfitting gap.

The question of Zhou et al., Nature 2023, figure 4: at which share of the labels does a pretrained arm reach what the reference reaches with
all of its own? Each curve is first made monotone (isotonic regression: more labels do not hurt, what falls is noise), then read between
its points on a logarithmic axis of labels. The ratio is that share over the reference's largest.

Nothing is extrapolated. Where the arm stays below, labels beyond those tried would be needed: 'never reached', a ratio above its largest
share. Where its first point is already there, fewer than tried might do: 'reached at the smallest', a ratio at or below that share.

The interval resamples seeds and patients: each replicate draws the seeds of each arm anew and takes one draw of patients, the same for
both arms and all shares.

Letters: F shares of labels, S seeds, R replicates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression

from retfound_jax.core.errors import UsageError
from retfound_jax.evals.compare import Resampled
from retfound_jax.evals.stats import SeedMean, seed_mean

NEVER, WITHIN, SMALLEST = 'never reached', 'reached', 'reached at the smallest'

Curve = Mapping[float, Resampled]  # share of the labels -> the metric of each seed, with its replicates


@dataclass(frozen=True, kw_only=True)
class LabelRatio:
    """Labels of the arm over labels of the reference, for the metric the reference reaches with all of its labels.

    `low` and `high` are the percentile interval; a bound is +inf where so many replicates never reach it, and `smallest` where so many
    reach it at the first point (then it stands for 'at or below').
    """

    ratio: float  # +inf where never reached
    low: float
    high: float
    outcome: str  # NEVER, WITHIN or SMALLEST, of the curves themselves
    level_reached: float  # the reference's metric with all labels, on its monotone curve
    smallest: float  # the ratio at the arm's first point
    largest: float  # and at its last
    never: int  # replicates of each outcome; with those `undefined` they sum to `replicates`
    at_smallest: int
    undefined: int
    replicates: int


def label_ratio(arm: Curve, *, reference: Curve, seed: int = 0, confidence: float = 0.95, higher_is_better: bool = True) -> LabelRatio:
    """The ratio of labels needed, with its interval; UsageError for an empty curve, a share outside (0, 1] or unequal replicates."""
    sign = 1.0 if higher_is_better else -1.0
    arms = [_points(curve, sign=sign) for curve in (arm, reference)]
    replicates = arms[0].replicates
    if replicates != arms[1].replicates:
        raise UsageError('the two label curves hold unequally many bootstrap replicates')
    rng = np.random.Generator(np.random.Philox(seed))
    drawn = [one.resampled(rng) for one in arms]
    shares = arms[0].share_F / arms[1].share_F[-1]
    found = np.array([_reached(shares, arm_F, reference_F) for arm_F, reference_F in zip(*drawn, strict=True)]).reshape(-1)
    point = _reached(shares, arms[0].mean_F, arms[1].mean_F)
    known = np.sort(found[~np.isnan(found)])
    low, high = (_quantile(known, tail) for tail in ((1 - confidence) / 2, (1 + confidence) / 2))
    return LabelRatio(
        ratio=point,
        low=low,
        high=high,
        outcome=NEVER if np.isinf(point) else SMALLEST if point <= shares[0] else WITHIN,
        level_reached=sign * float(_monotone(arms[1].mean_F)[-1]),
        smallest=float(shares[0]),
        largest=float(shares[-1]),
        never=int(np.isinf(known).sum()),
        at_smallest=int((known <= shares[0]).sum()),
        undefined=len(found) - len(known),
        replicates=replicates,
    )


def overfitting_gap(train: Sequence[float], *, test: Sequence[float]) -> SeedMean:
    """Training minus test metric, seed by seed, with the interval over seeds; UsageError for unequally many."""
    if len(train) != len(test):
        raise UsageError(f'the overfitting gap needs a training and a test number for each seed, not {len(train)} and {len(test)}')
    return seed_mean(np.asarray(train, np.float64) - np.asarray(test, np.float64))


@dataclass(frozen=True, kw_only=True)
class _Points:
    share_F: np.ndarray
    members: tuple[np.ndarray, ...]  # [S, R] of each share
    mean_F: np.ndarray

    @property
    def replicates(self) -> int:
        return self.members[0].shape[1]

    def resampled(self, rng: np.random.Generator) -> np.ndarray:
        """[R, F]: in each replicate its own draw of seeds, which is one for all shares where these have the same number of seeds."""
        u_RS = rng.random((self.replicates, max(len(one) for one in self.members)))
        columns = []
        for value_SR in self.members:
            seeds = len(value_SR)
            drawn_RS = (u_RS[:, :seeds] * seeds).astype(np.int64)
            columns.append(value_SR[drawn_RS, np.arange(self.replicates)[:, None]].mean(axis=1))
        return np.stack(columns, axis=1)


def _points(curve: Curve, *, sign: float) -> _Points:
    if not curve:
        raise UsageError('a label curve has no point')
    shares = sorted(curve)
    if shares[0] <= 0 or shares[-1] > 1:
        raise UsageError(f'the shares of labels {shares} are not all above 0 and at most 1')
    return _Points(
        share_F=np.asarray(shares, np.float64),
        members=tuple(sign * curve[share].replicates_SR for share in shares),
        mean_F=sign * np.array([np.mean(curve[share].per_seed) for share in shares]),
    )


def _quantile(sorted_R: np.ndarray, q: float) -> float:
    """By order (the inverse of the distribution function) and not between two values: between a number and infinity lies nothing."""
    return float(sorted_R[max(0, int(np.ceil(q * len(sorted_R))) - 1)]) if len(sorted_R) else np.nan


def _monotone(value_F: np.ndarray) -> np.ndarray:
    return isotonic_regression(value_F).x


def _reached(share_F: np.ndarray, arm_F: np.ndarray, reference_F: np.ndarray) -> float:
    """The smallest share at which the arm's monotone curve is at the reference's end: +inf never, NaN where a curve has a hole."""
    if not (np.isfinite(arm_F).all() and np.isfinite(reference_F).all()):
        return np.nan
    curve_F, wanted = _monotone(arm_F), _monotone(reference_F)[-1]
    wanted -= 1e-12 * max(1.0, abs(wanted))  # equal but for rounding is reached
    if curve_F[-1] < wanted:
        return np.inf
    first = int(np.argmax(curve_F >= wanted))
    if first == 0:
        return float(share_F[0])
    below, above = curve_F[first - 1], curve_F[first]
    t = (wanted - below) / (above - below)
    return float(np.exp((1 - t) * np.log(share_F[first - 1]) + t * np.log(share_F[first])))
