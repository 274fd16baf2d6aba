"""DeLong and its clustered form: a published example, the definitions written as loops, and the scatter of simulated studies."""

from __future__ import annotations

import numpy as np
import pytest

from retfound_jax.evals.delong import clustered_delong, delong, group_delong
from retfound_jax.evals.power import hanley_mcneil

# Hanley and McNeil, Radiology 1982;143:29, table I: ratings 1 to 5 of 109 CT images by one reader
NORMAL, ABNORMAL = (33, 6, 6, 11, 2), (3, 2, 2, 11, 33)


def ct_images() -> tuple[np.ndarray, np.ndarray]:
    """Label and rating of the published images."""
    rating = np.concatenate([np.repeat(np.arange(1, 6), counts) for counts in (NORMAL, ABNORMAL)])
    return np.repeat([False, True], [58, 51]), rating.astype(float)


def test_the_published_example() -> None:
    label, rating = ct_images()
    found = delong(label, score_NK=rating)
    # the area .893 and Hanley's standard error .032 are in the paper; .0307 and the interval are what Stata prints by DeLong (roctab)
    assert found.auroc_K[0] == pytest.approx(0.8932, abs=5e-5)
    assert np.sqrt(found.covariance_KK[0, 0]) == pytest.approx(0.0307, abs=5e-5)
    assert np.concatenate(found.interval()) == pytest.approx([0.83295, 0.95339], abs=5e-6)
    assert np.sqrt(hanley_mcneil(found.auroc_K[0], positives=51, negatives=58)) == pytest.approx(0.032, abs=5e-4)


def eyes(seed: int, *, patients: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One to three rows a patient, of one or of both classes, scores alike within a patient and tied here and there."""
    rng = np.random.default_rng(seed)
    cluster = np.repeat(rng.permutation(patients), rng.integers(1, 4, patients))
    label = rng.random(len(cluster)) < rng.beta(0.6, 1.0, patients)[cluster]
    score = np.round(rng.normal(size=patients)[cluster] + 0.8 * rng.normal(size=len(cluster)) + 1.2 * label, 1)
    return label, score, cluster


def obuchowski(label: np.ndarray, score: np.ndarray, cluster: np.ndarray) -> tuple[float, float]:
    """AUROC and variance as the paper defines them, cluster by cluster (section 3)."""
    positive, negative = score[label], score[~label]
    m, n = len(positive), len(negative)
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    area = wins.mean()
    v10, v01 = wins.mean(axis=1), wins.mean(axis=0)
    s10 = s01 = s11 = 0.0
    of_positive, of_negative = cluster[label], cluster[~label]
    names = np.unique(cluster)
    i10, i01 = len(np.unique(of_positive)), len(np.unique(of_negative))
    for name in names:
        a = v10[of_positive == name].sum() - (of_positive == name).sum() * area
        b = v01[of_negative == name].sum() - (of_negative == name).sum() * area
        s10 += i10 / ((i10 - 1) * m) * a * a
        s01 += i01 / ((i01 - 1) * n) * b * b
        s11 += len(names) / (len(names) - 1) * a * b
    return area, s10 / m + s01 / n + 2 * s11 / (m * n)


@pytest.mark.parametrize('seed', range(4))
def test_clusters_are_counted_as_the_paper_says(seed: int) -> None:
    label, score, cluster = eyes(seed)
    found = clustered_delong(label, score_NK=score, cluster=cluster)
    assert (found.auroc_K[0], found.covariance_KK[0, 0]) == pytest.approx(obuchowski(label, score, cluster))


def test_one_row_a_patient_is_delong() -> None:
    label, score, _ = eyes(0)
    score_NK = np.stack([score, score + np.random.default_rng(1).normal(size=len(score))], axis=1)
    alone, clustered = delong(label, score_NK=score_NK), clustered_delong(label, score_NK=score_NK, cluster=np.arange(len(label)))
    assert alone.auroc_K == pytest.approx(clustered.auroc_K)
    np.testing.assert_allclose(alone.covariance_KK, clustered.covariance_KK, rtol=1e-12)


def test_copied_rows_say_nothing_new() -> None:
    label, score, cluster = eyes(2)
    once = clustered_delong(label, score_NK=score, cluster=cluster)
    twice = clustered_delong(np.repeat(label, 2), score_NK=np.repeat(score, 2), cluster=np.repeat(cluster, 2))
    assert twice.covariance_KK == pytest.approx(once.covariance_KK)


def test_groups_are_each_judged_alone_and_are_correlated_through_shared_patients() -> None:
    label, score, cluster = eyes(3, patients=200)
    sides = np.random.default_rng(0).integers(2, size=len(label)) == 0
    found = group_delong(label, score=score, groups=np.stack([sides, ~sides]), cluster=cluster)
    for g, side in enumerate((sides, ~sides)):
        alone = clustered_delong(label[side], score_NK=score[side], cluster=cluster[side])
        assert (found.auroc_K[g], found.covariance_KK[g, g]) == pytest.approx((alone.auroc_K[0], alone.covariance_KK[0, 0]))
    apart = group_delong(label, score=score, groups=np.stack([cluster < 100, cluster >= 100]), cluster=cluster)
    assert apart.covariance_KK[0, 1] == 0 < found.covariance_KK[0, 1]
    assert found.difference_variance(0, 1) < found.covariance_KK.trace()


def test_a_group_without_a_class_is_nan() -> None:
    label, score, cluster = eyes(1)
    found = group_delong(label, score=score, groups=np.stack([label, np.ones_like(label)]), cluster=cluster)
    assert np.isnan(found.auroc_K).tolist() == [True, False] and np.isnan(found.covariance_KK[0]).all()


def test_the_variance_is_that_of_repeated_studies() -> None:
    rng = np.random.default_rng(0)
    areas, variances, naive = [], [], []
    for _ in range(400):
        cluster = np.repeat(np.arange(60), 2)
        label = (rng.random(60) < 0.4)[cluster]
        score = rng.normal(size=60)[cluster] + 0.4 * rng.normal(size=120) + label
        found = clustered_delong(label, score_NK=score, cluster=cluster)
        areas.append(found.auroc_K[0])
        variances.append(found.covariance_KK[0, 0])
        naive.append(delong(label, score_NK=score).covariance_KK[0, 0])
    assert np.mean(variances) == pytest.approx(np.var(areas), rel=0.15)
    assert np.mean(naive) < 0.7 * np.var(areas)
