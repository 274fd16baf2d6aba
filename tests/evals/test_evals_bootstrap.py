"""The patient bootstrap: equal to index copies, clustered, paired, with its dropped replicates counted."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from retfound_jax.evals import metrics
from retfound_jax.evals.bootstrap import bootstrap, expanded_tail, patient_counts, patient_index, percentile_interval
from retfound_jax.evals.delong import delong


def test_counts_are_draws_of_patients() -> None:
    counts = patient_counts(30, replicates=50, seed=3)
    assert counts.shape == (30, 50) and (counts.sum(axis=0) == 30).all()
    np.testing.assert_array_equal(counts, patient_counts(30, replicates=50, seed=3))
    assert (counts != patient_counts(30, replicates=50, seed=4)).any()
    assert counts.mean() == 1 and 0.5 < counts.var() < 1.5


def test_bootstrap_equals_copied_rows() -> None:
    rng = np.random.default_rng(0)
    patient = rng.integers(20, size=45)
    label, score = rng.random(45) < 0.4, rng.integers(0, 10, 45) / 10
    found = bootstrap(lambda w: metrics.auroc(label, score=score, weights=w), patient=patient, replicates=100, seed=1)
    names = np.unique(patient)
    copies = []
    for counts in patient_counts(len(names), replicates=100, seed=1).T:
        drawn = np.concatenate([np.flatnonzero(patient == name) for name, n in zip(names, counts, strict=True) for _ in range(n)])
        copies.append(roc_auc_score(label[drawn], score[drawn]))
    assert found.value == pytest.approx(roc_auc_score(label, score))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(copies, [0.025, 0.975])))


def test_a_vanished_class_is_dropped_and_counted() -> None:
    label, score = np.array([1, 0, 0, 0], bool), np.array([0.9, 0.1, 0.2, 0.3])
    found = bootstrap(lambda w: metrics.auroc(label, score=score, weights=w), patient=np.arange(4), replicates=400, seed=0)
    without = (patient_counts(4, replicates=400, seed=0)[0] == 0).sum()
    all_positive = (patient_counts(4, replicates=400, seed=0)[0] == 4).sum()
    assert found.dropped == without + all_positive and 80 < found.dropped < 180
    assert percentile_interval(np.full(5, np.nan), value=1.0).dropped == 5


def test_one_image_a_patient_gives_delong() -> None:
    rng = np.random.default_rng(5)
    label = rng.random(1500) < 0.3
    score = rng.normal(size=1500) + label
    found = bootstrap(lambda w: metrics.auroc(label, score=score, weights=w), patient=np.arange(1500), replicates=600)
    spread = np.sqrt(delong(label, score_NK=score).covariance_KK[0, 0])
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(spread, rel=0.12)


def test_copies_of_an_image_do_not_narrow_the_interval() -> None:
    rng = np.random.default_rng(6)
    label = rng.random(150) < 0.4
    score = rng.normal(size=150) + label
    once = bootstrap(lambda w: metrics.auroc(label, score=score, weights=w), patient=np.arange(150), replicates=300)
    label4, score4 = np.repeat(label, 4), np.repeat(score, 4)
    four = bootstrap(lambda w: metrics.auroc(label4, score=score4, weights=w), patient=np.repeat(np.arange(150), 4), replicates=300)
    assert (once.low, once.high) == pytest.approx((four.low, four.high))


def test_patients_without_a_name_stand_alone() -> None:
    index, patients = patient_index(np.array(['a', '', 'b', '', 'a']), key=np.array(['1', '2', '3', 'b', '5']))
    assert patients == 4 and index[0] == index[4] and len(set(index[:4])) == 4


def test_few_cases_widen_the_interval_to_that_of_student() -> None:
    # of a mean: the bootstrap's spread is sqrt((n - 1) / n) of the standard error, and Student's t stands where the normal one stood
    n, rng = 12, np.random.default_rng(0)
    values = rng.normal(size=n)
    found = percentile_interval(values.mean() + values.std() / np.sqrt(n) * rng.normal(size=200_000), value=values.mean(), cases=n)
    half = stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n)
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)
    for cases, tail in ((20, 0.0159), (10_000, 0.025)):
        assert expanded_tail(0.95, cases=cases) == pytest.approx(tail, abs=1e-4)
    assert expanded_tail(0.95, cases=0) == expanded_tail(0.95, cases=2) > 0
