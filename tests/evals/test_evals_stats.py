"""Means, tests and corrections against scipy, numbers worked out by hand, and counts of false claims where there is nothing to find."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as scipy_stats
from sklearn.metrics import roc_auc_score

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.evals.bootstrap import patient_counts
from retfound_jax.evals.compare import paired_difference, resampled
from retfound_jax.evals.stats import benjamini_hochberg, holm, seed_mean, seed_tests


def test_the_interval_over_seeds_is_the_papers() -> None:
    found = seed_mean([0.80, 0.82, 0.81, 0.79, 0.83])
    # by hand: mean .81, squared deviations sum to .0010, SD sqrt(.00025), SE SD / sqrt(5), times 1.96
    assert found.mean == pytest.approx(0.81) and found.sd == pytest.approx(0.0158113883)
    assert (found.low, found.high) == pytest.approx((0.81 - 0.0138592929, 0.81 + 0.0138592929))
    assert scipy_stats.sem([0.80, 0.82, 0.81, 0.79, 0.83]) * 1.96 == pytest.approx(0.81 - found.low)


def test_one_seed_has_a_mean_and_no_interval() -> None:
    found = seed_mean([0.7])
    assert found.mean == 0.7 and np.isnan([found.sd, found.low, found.high]).all()
    with pytest.raises(UsageError, match='at least one seed'):
        seed_mean([])


def test_the_tests_are_scipys() -> None:
    rng = np.random.default_rng(3)
    a, b = 0.8 + 0.02 * rng.normal(size=8), 0.79 + 0.03 * rng.normal(size=8)
    found = seed_tests(a, b=b)
    assert found.paired_t == pytest.approx(scipy_stats.ttest_rel(a, b).pvalue)
    assert found.welch_t == pytest.approx(scipy_stats.ttest_ind(a, b, equal_var=False).pvalue)
    assert found.wilcoxon == pytest.approx(scipy_stats.wilcoxon(a, b).pvalue)


def test_five_seeds_all_ahead_give_wilcoxon_its_smallest_p() -> None:
    assert seed_tests([0.9, 0.91, 0.93, 0.96, 1.0], b=[0.8] * 5).wilcoxon == pytest.approx(0.0625)


def test_what_is_not_defined_is_nan_and_what_is_equal_is_one() -> None:
    equal = seed_tests([0.5, 0.6], b=[0.5, 0.6])
    assert (equal.paired_t, equal.wilcoxon) == (1.0, 1.0)
    assert np.isnan(seed_tests([0.1 + 0.2, 0.4], b=[0.2, 0.3]).paired_t)  # equal differences: no spread to judge by
    unequal = seed_tests([0.5, 0.6, 0.7], b=[0.5, 0.6])
    assert np.isnan([unequal.paired_t, unequal.wilcoxon]).all() and np.isfinite(unequal.welch_t)
    assert np.isnan(seed_tests([0.5], b=[0.6]).welch_t)


def test_holm_by_hand() -> None:
    # statsmodels.stats.multitest.multipletests([.01, .04, .03, .005], method='holm') prints .03, .06, .06, .02
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert np.isnan(holm([np.nan, 0.02])[0]) and holm([np.nan, 0.02])[1] == pytest.approx(0.02)


def test_benjamini_hochberg_is_scipys_and_a_loops() -> None:
    p = np.random.default_rng(0).random(12) ** 2
    order = np.argsort(p)
    loop = np.empty(12)
    smallest = 1.0
    for rank in range(12, 0, -1):
        smallest = min(smallest, p[order[rank - 1]] * 12 / rank)
        loop[order[rank - 1]] = smallest
    assert benjamini_hochberg(p) == pytest.approx(loop)
    assert benjamini_hochberg(p) == pytest.approx(scipy_stats.false_discovery_control(p))
    assert np.isnan(benjamini_hochberg([np.nan])).all() and len(holm([])) == 0
    with pytest.raises(UsageError, match='outside 0 to 1'):
        holm([1.2])


def test_holm_keeps_its_promise_where_there_is_nothing_to_find() -> None:
    p = np.random.default_rng(1).random((2000, 10))
    raw, kept = (np.mean([(row < 0.05).any() for row in rows]) for rows in (p, [holm(row) for row in p]))
    assert raw > 0.35 and kept < 0.06


def test_the_mean_over_seeds_is_resampled_by_patient(make) -> None:
    base = make('multi', n=60)
    base = replace(base, label_NY=np.nan_to_num(base.label_NY))
    rng = np.random.default_rng(5)
    arm = [replace(base, score_NS=np.clip(base.score_NS + 0.2 * rng.normal(size=base.score_NS.shape), 0, 1)) for _ in range(3)]
    found = resampled(arm, target='amd', metric='AUROC', level='image', replicates=40, seed=2)
    means = []
    for counts in patient_counts(30, replicates=40, seed=2).T:
        drawn = np.repeat(np.repeat(np.arange(30), counts) * 2, 2) + np.tile([0, 1], counts.sum())
        means.append(np.mean([roc_auc_score(one.label_NY[drawn, 1], one.score_NS[drawn, 1]) for one in arm]))
    interval = found.interval()
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))
    assert interval.value == pytest.approx(np.mean([roc_auc_score(one.label_NY[:, 1], one.score_NS[:, 1]) for one in arm]))
    assert (found.n_images, found.n_patients, len(found.per_seed)) == (60, 30, 3)


def test_two_arms_are_resampled_in_pairs(make) -> None:
    a, b = make('regress', n=80), make('regress', n=80)
    b = replace(b, score_NS=b.score_NS + np.random.default_rng(0).normal(size=b.score_NS.shape))
    both = [resampled(one, target='age', metric='MAE', replicates=50) for one in (a, b)]
    difference = paired_difference(a, b=b, target='age', metric='MAE', replicates=50)
    low, high = np.quantile(both[0].replicates_SR[0] - both[1].replicates_SR[0], [0.025, 0.975])
    assert (difference.interval.low, difference.interval.high) == pytest.approx((low, high))
    shuffled = np.random.default_rng(1).permutation(80)
    columns = {name: values[shuffled] for name, values in b.columns.items()}
    again = replace(b, columns=columns, label_NY=b.label_NY[shuffled], score_NS=b.score_NS[shuffled])
    minus = both[0].minus(resampled(again, target='age', metric='MAE', replicates=50))
    assert (minus.value, minus.low, minus.high) == pytest.approx((difference.interval.value, low, high))
    for other in (resampled(b, target='age', metric='MAE', seed=1), resampled(make('regress', n=60), target='age', metric='MAE')):
        with pytest.raises(UserError, match='not of the same images'):
            both[0].minus(other)
    with pytest.raises(UserError, match='shared'):
        resampled(make('regress', n=60), target='age', metric='MAE', like=a)
