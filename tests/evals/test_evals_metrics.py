"""Metrics against scikit-learn, with ties and weights, and against the patient bootstrap written the slow way."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from retfound_jax.evals import metrics
from retfound_jax.evals.delong import delong


@st.composite
def weighted_rows(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels with both classes, scores with many ties, weights with zeros but some for each class."""
    n = draw(st.integers(2, 40))
    label = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    label[:2] = [True, False]
    score = np.array(draw(st.lists(st.integers(0, 8), min_size=n, max_size=n))) / 8
    weight = np.array(draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)), float)
    weight[:2] = np.maximum(weight[:2], 1)
    return label, score, weight


@given(weighted_rows())
@settings(max_examples=60)
def test_binary_metrics_equal_sklearn(rows: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    label, score, weight = rows
    threshold = 0.5
    found = metrics.binary_metrics(label, score=score, threshold=threshold, weights=weight)
    decided, kw = score >= threshold, {'sample_weight': weight}
    expected = {
        'AUROC': oracle.roc_auc_score(label, score, **kw),
        'AUPRC': oracle.average_precision_score(label, score, **kw),
        'sensitivity': oracle.recall_score(label, decided, **kw),
        'specificity': oracle.recall_score(label, decided, pos_label=False, **kw),
        'F1': oracle.f1_score(label, decided, **kw),
        'accuracy': oracle.accuracy_score(label, decided, **kw),
        'balanced_accuracy': oracle.balanced_accuracy_score(label, decided, **kw),
        'Brier': oracle.brier_score_loss(label, score, **kw),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name


@given(weighted_rows())
@settings(max_examples=30)
def test_many_weightings_at_once_equal_one_by_one(rows: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    label, score, weight = rows
    stacked = np.stack([weight, np.ones_like(weight), 3 * weight, np.where(label, weight, 0)], axis=1)
    together = metrics.binary_metrics(label, score=score, threshold=0.4, weights=stacked)
    for r in range(stacked.shape[1]):
        alone = metrics.binary_metrics(label, score=score, threshold=0.4, weights=stacked[:, r])
        for name in metrics.BINARY_METRICS:
            np.testing.assert_allclose(together[name][r], alone[name], atol=1e-12)
    assert np.isnan(together['AUROC'][3]) and np.isnan(together['AUPRC'][3]) and np.isnan(together['specificity'][3])


def test_weights_are_repetitions() -> None:
    rng = np.random.default_rng(0)
    label, score, weight = rng.random(50) < 0.4, rng.integers(0, 9, 50) / 9, rng.integers(0, 4, 50)
    repeated = np.repeat(np.arange(50), weight)
    found = metrics.binary_metrics(label, score=score, threshold=0.5, weights=weight)
    copied = metrics.binary_metrics(label[repeated], score=score[repeated], threshold=0.5)
    for name in metrics.BINARY_METRICS:
        assert found[name] == pytest.approx(copied[name], abs=1e-12), name


def test_ece_is_the_textbook_sum() -> None:
    rng = np.random.default_rng(1)
    score = np.r_[rng.random(200), 0.0, 1.0]
    label = rng.random(202) < score**2
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (score >= low - 1e-15) & ((score < low + 1 / 15 - 1e-15) | (low + 1 / 15 > 0.999))
        if inside.any():
            expected += inside.mean() * abs(score[inside].mean() - label[inside].mean())
    assert metrics.ece(label, score=score) == pytest.approx(expected, abs=1e-12)
    assert metrics.ece(np.array([0, 1]), score=np.array([0.0, 1.0])) == 0


@given(st.integers(2, 6), st.integers(0, 10_000))
@settings(max_examples=20)
def test_confusion_and_kappa_equal_sklearn(classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    label, predicted, weight = rng.integers(classes, size=60), rng.integers(classes, size=60), rng.integers(1, 5, 60)
    matrix = metrics.confusion(label, predicted=predicted, classes=classes, weights=weight)
    np.testing.assert_array_equal(matrix, oracle.confusion_matrix(label, predicted, labels=range(classes), sample_weight=weight))
    expected = oracle.cohen_kappa_score(label, predicted, weights='quadratic', sample_weight=weight, labels=list(range(classes)))
    assert metrics.kappa_quadratic(matrix) == pytest.approx(expected, abs=1e-12)
    assert metrics.accuracy(matrix) == pytest.approx(oracle.accuracy_score(label, predicted, sample_weight=weight))
    assert metrics.balanced_accuracy(matrix) == pytest.approx(oracle.recall_score(label, predicted, average='macro', sample_weight=weight))


def test_kappa_without_variation_is_undefined() -> None:
    assert np.isnan(metrics.kappa_quadratic(np.diag([5, 0, 0])))


@given(st.integers(0, 10_000))
@settings(max_examples=20)
def test_regression_equals_sklearn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    label, weight = rng.normal(60, 12, 40), rng.integers(1, 4, 40)
    score = label + rng.normal(3, 6, 40)
    found = metrics.regression_metrics(label, score=score, weights=weight)
    repeated = np.repeat(np.arange(40), weight)
    assert found['MAE'] == pytest.approx(oracle.mean_absolute_error(label, score, sample_weight=weight))
    assert found['RMSE'] == pytest.approx(oracle.root_mean_squared_error(label, score, sample_weight=weight))
    assert found['R2'] == pytest.approx(oracle.r2_score(label, score, sample_weight=weight))
    assert found['pearson'] == pytest.approx(np.corrcoef(label[repeated], score[repeated])[0, 1])


def test_regression_without_variance_is_undefined() -> None:
    found = metrics.regression_metrics(np.full(5, 61.3), score=np.arange(5.0))
    assert np.isnan(found['R2']) and np.isnan(found['pearson']) and np.isfinite(found['MAE'])


@pytest.mark.parametrize('label', [[], [1, 1], [0, 0]])
def test_a_missing_class_is_nan_and_no_crash(label: list[int]) -> None:
    found = metrics.binary_metrics(np.array(label, bool), score=np.full(len(label), 0.5), threshold=0.5)
    assert np.isnan(found['AUROC']) and np.isnan(found['AUPRC'])
    assert np.isnan(found['F1']) == (1 not in label)


def test_roc_equals_sklearn() -> None:
    rng = np.random.default_rng(2)
    label, score = rng.random(80) < 0.3, rng.integers(0, 20, 80) / 20
    fpr, tpr, threshold = oracle.roc_curve(label, score, drop_intermediate=False)
    curve = metrics.roc(label, score=score)
    np.testing.assert_allclose(curve.fpr_GR[:, 0], fpr[1:])
    np.testing.assert_allclose(curve.tpr_GR[:, 0], tpr[1:])
    np.testing.assert_allclose(curve.score_G, threshold[1:])


def test_delong_agrees_with_auroc_and_with_the_definition() -> None:
    rng = np.random.default_rng(3)
    label = rng.random(60) < 0.4
    score_NK = rng.integers(0, 12, (60, 2)) + 4 * label[:, None]
    found = delong(label, score_NK=score_NK)
    components = []
    for k in range(2):
        assert found.auroc_K[k] == pytest.approx(oracle.roc_auc_score(label, score_NK[:, k]))
        positive, negative = score_NK[label, k], score_NK[~label, k]
        wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
        components.append((wins.mean(axis=1), wins.mean(axis=0)))
    v10, v01 = (np.cov([c[i] for c in components]) for i in range(2))
    np.testing.assert_allclose(found.covariance_KK, v10 / label.sum() + v01 / (~label).sum(), atol=1e-12)
    low, high = found.interval()
    assert (low < found.auroc_K).all() and (found.auroc_K < high).all()
    assert np.isnan(delong(np.array([True, False]), score_NK=np.array([1.0, 0.0])).auroc_K).all()
