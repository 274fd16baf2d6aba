"""Slopes over seeds and patients: the least-squares line, the variances by hand, and intervals that hold in simulated studies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from retfound_jax.core.errors import UsageError
from retfound_jax.studies.slopes import mean, slope

X = (0.0, 0.25, 0.5, 0.75, 1.0)


def nothing(values: np.ndarray) -> np.ndarray:
    return np.zeros((*values.shape, 0))


def test_a_known_line_is_found_exactly() -> None:
    values = np.array([[0.6 + 0.3 * x for x in X], [0.5 + 0.1 * x for x in X]])
    found = slope(X, values=values, replicates=nothing(values))
    assert found.value == pytest.approx(0.2) and found.per_seed == pytest.approx((0.3, 0.1))
    assert found.se_patients == 0 and found.se_seeds == pytest.approx(0.1) and found.df == pytest.approx(1)
    t = stats.ttest_1samp([0.3, 0.1], 0)
    assert found.p == pytest.approx(t.pvalue) and (found.low, found.high) == pytest.approx(tuple(t.confidence_interval(0.95)))


def test_one_seed_is_the_ordinary_regression() -> None:
    values = np.array([[0.61, 0.64, 0.73, 0.71, 0.85]])
    found, known = slope(X, values=values, replicates=nothing(values)), stats.linregress(X, values[0])
    assert (found.value, found.se, found.p) == pytest.approx((known.slope, known.stderr, known.pvalue))


def test_seeds_as_blocks_are_the_regression_with_a_level_for_each_seed() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(0.7, 0.04, (3, 5)) + np.array([[0.0], [0.1], [-0.1]])
    design = np.zeros((15, 4))
    design[np.arange(15), np.repeat(np.arange(3), 5)], design[:, 3] = 1, np.tile(X, 3)
    fit, rest, *_ = np.linalg.lstsq(design, values.reshape(-1), rcond=None)
    se = np.sqrt(rest[0] / 11 * np.linalg.inv(design.T @ design)[3, 3])
    found = slope(X, values=values, replicates=nothing(values))
    assert found.value == pytest.approx(fit[3])
    assert found.blocks == pytest.approx((fit[3] - stats.t.ppf(0.975, 11) * se, fit[3] + stats.t.ppf(0.975, 11) * se))


def test_both_variances_are_those_by_hand_and_add() -> None:
    rng = np.random.default_rng(0)
    values, replicates = rng.normal(0.7, 0.05, (3, 5)), rng.normal(0.7, 0.05, (3, 5, 400))
    found = slope(X, values=values, replicates=replicates)
    lines = [np.polyfit(X, replicates[:, :, r].mean(axis=0), 1)[0] for r in range(400)]
    each = [np.polyfit(X, values[s], 1)[0] for s in range(3)]
    patients, seeds = np.var(lines, ddof=1), np.var(each, ddof=1) / 3
    assert found.se == pytest.approx(np.sqrt(patients + seeds))
    assert found.low == pytest.approx(found.value - np.hypot(stats.t.ppf(0.975, 2) * np.sqrt(seeds), 1.959964 * np.sqrt(patients)))
    at_p = np.hypot(stats.t.isf(found.p / 2, 2) * np.sqrt(seeds), stats.norm.isf(found.p / 2) * np.sqrt(patients))
    assert at_p == pytest.approx(abs(found.value))


@pytest.mark.parametrize('seeds', [2, 4])
def test_the_interval_holds_in_simulated_studies_and_finds_what_it_says_it_can(seeds: int) -> None:
    """Patients move every model of a study together by a slope of their own; each training has its own chance. The truth is known."""
    rng, truth, hits, found = np.random.default_rng(7), 0.2, [], []
    for _ in range(2000):
        patients = 0.03 * rng.standard_normal()
        values = 0.6 + (truth + patients) * np.array(X) + rng.normal(0, 0.03, (seeds, 5))
        replicates = np.array(X)[None, :, None] * 0.03 * rng.standard_normal(200) + np.zeros((seeds, 1, 1))
        one = slope(X, values=values, replicates=replicates)
        hits.append(one.low <= truth <= one.high)
        found.append(one)
    assert 0.94 < np.mean(hits) < 0.99  # wide where both have a part, never narrow
    assert np.mean([one.value for one in found]) == pytest.approx(truth, abs=0.005)


def test_where_nothing_is_the_false_alarms_are_those_asked_for() -> None:
    rng, alarms = np.random.default_rng(3), []
    for _ in range(2000):
        values = 0.7 + rng.normal(0, 0.03, (3, 5))
        alarms.append(slope(X, values=values, replicates=nothing(values)).verdict != 'not shown')
    assert 0.03 < np.mean(alarms) < 0.07


def test_what_is_detectable_is_detected_in_four_of_five() -> None:
    rng, sd = np.random.default_rng(5), 0.03
    truth = (stats.t.ppf(0.975, 9) + stats.t.ppf(0.8, 9)) * sd / np.sqrt(10 * 0.625)
    values = [0.6 + truth * np.array(X) + rng.normal(0, sd, (10, 5)) for _ in range(600)]
    found = [slope(X, values=one, replicates=nothing(one)) for one in values]
    assert np.median([one.detectable for one in found]) == pytest.approx(truth, rel=0.1)
    assert np.mean([one.verdict == 'rises' for one in found]) == pytest.approx(0.8, abs=0.05)


def test_a_mean_counts_both_and_a_single_point_has_no_slope() -> None:
    rng = np.random.default_rng(1)
    found = mean(np.array([0.7, 0.8]), replicates=rng.normal(0, 0.02, (2, 500)))
    assert found.value == pytest.approx(0.75) and found.se == pytest.approx(np.hypot(0.05, found.se_patients))
    wide = mean(np.array([0.99, 0.7]), replicates=np.zeros((2, 2)))
    assert wide.low < 0 and wide.high > 1 and (wide.within(0.0, 1.0).low, wide.within(0.0, 1.0).high) == (0.0, 1.0)
    with pytest.raises(UsageError, match='two different points'):
        slope((1.0, 1.0), values=np.ones((1, 2)), replicates=np.zeros((1, 2, 0)))
