"""Slope and intercept of many weightings at once: scikit-learn's logistic regression, repeated rows, and where no line exists."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from retfound_jax.evals.logistic import expit, logit, recalibration_lines


def rows(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and probabilities that are too sure and shifted."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(-1, 1.2, n)
    return rng.random(n) < expit(truth), expit(2 * truth + 0.5)


def test_each_weighting_is_a_weighted_logistic_regression() -> None:
    label, score = rows(300, 0)
    weights = np.random.default_rng(1).multinomial(300, np.full(300, 1 / 300), size=12).T.astype(float)
    slope, intercept = recalibration_lines(label, score=score, weights=weights)
    for r in range(12):
        found = LogisticRegression(C=np.inf, tol=1e-10, max_iter=500).fit(logit(score)[:, None], label, sample_weight=weights[:, r])
        assert (slope[r], intercept[r]) == pytest.approx((found.coef_[0, 0], found.intercept_[0]), abs=2e-4)


def test_weights_are_repetitions_also_far_from_the_start() -> None:
    label, score = rows(40, 3)
    weights = np.random.default_rng(2).integers(0, 5, (40, 60)).astype(float)
    slope, intercept = recalibration_lines(label, score=score, weights=weights, tol=1e-8)
    for r in range(60):
        repeated = np.repeat(np.arange(40), weights[:, r].astype(int))
        alone = recalibration_lines(label[repeated], score=score[repeated], weights=np.ones((len(repeated), 1)), tol=1e-8)
        np.testing.assert_allclose((slope[r], intercept[r]), (alone[0][0], alone[1][0]), rtol=1e-6)


def test_the_gradient_vanishes_at_the_answer() -> None:
    label, score = rows(5000, 4)
    weights = np.random.default_rng(5).multinomial(5000, np.full(5000, 1 / 5000), size=20).T.astype(float)
    slope, intercept = recalibration_lines(label, score=score, weights=weights)
    rest = weights * (label[:, None] - expit(intercept + slope * logit(score)[:, None]))
    assert np.abs(rest.sum(axis=0)).max() < 1e-2 and np.abs(logit(score) @ rest).max() < 1e-2


@pytest.mark.parametrize(
    ('label', 'score', 'weights'),
    [
        ([1, 1, 1], [0.2, 0.3, 0.4], [1, 1, 1]),
        ([0, 1, 0], [0.5, 0.5, 0.5], [1, 1, 1]),
        ([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], [1, 1, 1, 1]),
        ([0, 0, 1, 1], [0.1, 0.5, 0.5, 0.9], [1, 1, 1, 1]),  # they touch in one point only
        ([1, 1, 0, 0], [0.1, 0.2, 0.8, 0.9], [1, 1, 1, 1]),
        ([0, 1, 0, 1], [0.1, 0.2, 0.8, 0.9], [1, 1, 0, 1]),  # separated once the third row is not drawn
        ([0, 1, 0, 1], [0.1, 0.2, 0.8, 0.9], [1, 0, 1, 0]),
    ],
)
def test_no_line_is_nan(label: list[int], score: list[float], weights: list[int]) -> None:
    found = recalibration_lines(np.array(label, bool), score=np.array(score), weights=np.array(weights, float)[:, None])
    assert np.isnan(found).all()
