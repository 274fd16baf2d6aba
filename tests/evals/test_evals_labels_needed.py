"""The ratio of labels on curves whose answer is known by hand, its interval on curves drawn from a known law, and the overfitting gap."""

from __future__ import annotations

import numpy as np
import pytest

from retfound_jax.core.errors import UsageError
from retfound_jax.evals.compare import Resampled
from retfound_jax.evals.labels_needed import NEVER, SMALLEST, WITHIN, label_ratio, overfitting_gap

SHARES = (0.1, 0.25, 0.5, 1.0)


def curve(values: object, *, seeds: int = 3, noise: float = 0.0, replicates: int = 200, seed: int = 0) -> dict[float, Resampled]:
    """A curve of these means, with normal noise over seeds and over draws of patients."""
    rng = np.random.default_rng(seed)
    out = {}
    for share, value in zip(SHARES, values, strict=True):
        of_seed = value + noise * rng.normal(size=seeds)
        drawn = of_seed[:, None] + noise * rng.normal(size=(1, replicates))
        out[share] = Resampled(per_seed=tuple(of_seed), replicates_SR=drawn, n_images=100, n_patients=50)
    return out


def test_half_way_between_two_points_is_half_way_in_the_logarithm() -> None:
    found = label_ratio(curve([0.6, 0.7, 0.8, 0.9]), reference=curve([0.5, 0.6, 0.7, 0.75]))
    assert found.ratio == pytest.approx(np.sqrt(0.25 * 0.5)) and found.outcome == WITHIN
    assert (found.low, found.high) == pytest.approx((found.ratio, found.ratio))
    assert found.level_reached == pytest.approx(0.75) and (found.never, found.at_smallest, found.undefined) == (0, 0, 0)


def test_a_curve_against_itself_needs_all_labels() -> None:
    assert label_ratio(curve([0.5, 0.6, 0.7, 0.8]), reference=curve([0.5, 0.6, 0.7, 0.8])).ratio == pytest.approx(1.0)


def test_never_reached_and_reached_at_the_smallest_are_said() -> None:
    never = label_ratio(curve([0.5, 0.5, 0.6, 0.6]), reference=curve([0.5, 0.6, 0.7, 0.8]))
    assert np.isinf(never.ratio) and np.isinf(never.high) and never.outcome == NEVER and never.never == 200
    smallest = label_ratio(curve([0.85, 0.85, 0.9, 0.9]), reference=curve([0.5, 0.6, 0.7, 0.8]))
    assert smallest.ratio == pytest.approx(0.1) and smallest.outcome == SMALLEST and smallest.at_smallest == 200


def test_a_dip_is_noise_and_is_pooled() -> None:
    found = label_ratio(curve([0.6, 0.82, 0.78, 0.9]), reference=curve([0.5, 0.6, 0.7, 0.8]))
    # .82 and .78 pool to .80, which begins at a quarter of the labels
    assert found.ratio == pytest.approx(0.25)


def test_an_error_counts_downwards() -> None:
    found = label_ratio(curve([9.0, 8.0, 7.0, 6.0]), reference=curve([10.0, 9.0, 8.5, 8.0]), higher_is_better=False)
    assert found.ratio == pytest.approx(0.25) and found.level_reached == pytest.approx(8.0)


def test_the_interval_covers_the_truth() -> None:
    arm, reference = [0.6, 0.7, 0.8, 0.9], [0.5, 0.6, 0.7, 0.75]
    inside = 0
    for seed in range(100):
        found = label_ratio(curve(arm, noise=0.01, seed=seed), reference=curve(reference, noise=0.01, seed=seed + 1000), seed=seed)
        inside += found.low <= np.sqrt(0.125) <= found.high
    assert inside >= 85  # three seeds: their bootstrap is narrow


def test_replicates_of_every_outcome_are_counted() -> None:
    found = label_ratio(curve([0.5, 0.6, 0.7, 0.76], noise=0.03), reference=curve([0.5, 0.6, 0.7, 0.75], noise=0.03, seed=9))
    assert 0 < found.never < 200 and np.isinf(found.high) and np.isfinite(found.low)
    hole = curve([0.5, 0.6, 0.7, 0.8])
    hole[0.5].replicates_SR[:, :5] = np.nan
    assert label_ratio(hole, reference=curve([0.5, 0.6, 0.7, 0.8])).undefined == 5


def test_bad_curves_are_refused() -> None:
    with pytest.raises(UsageError, match='no point'):
        label_ratio({}, reference=curve([0.5, 0.6, 0.7, 0.8]))
    with pytest.raises(UsageError, match='at most 1'):
        label_ratio({2.0: curve([0.5, 0.6, 0.7, 0.8])[1.0]}, reference=curve([0.5, 0.6, 0.7, 0.8]))
    with pytest.raises(UsageError, match='unequally many'):
        label_ratio(curve([0.5, 0.6, 0.7, 0.8], replicates=10), reference=curve([0.5, 0.6, 0.7, 0.8]))


def test_the_overfitting_gap() -> None:
    found = overfitting_gap([0.99, 0.97], test=[0.79, 0.81])
    assert found.mean == pytest.approx(0.18) and found.high - found.mean == pytest.approx(1.96 * np.std([0.2, 0.16], ddof=1) / np.sqrt(2))
    with pytest.raises(UsageError, match='for each seed'):
        overfitting_gap([0.9], test=[0.8, 0.7])
