"""Temperature scaling against scikit-learn's regression, a grid, and data whose temperature is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, log_softmax, logit, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss

from retfound_jax.evals import temperature
from retfound_jax.evals.predictions import Predictions

Make = Callable[..., Predictions]


def drawn(make: Make, kind: str, *, t: float, n: int = 4000, seed: int = 0, split: str = 'val') -> Predictions:
    """Labels drawn from probabilities that are right; the scores state them with all logits multiplied by `t`."""
    rng = np.random.default_rng(seed)
    base = make('single' if kind == 'binary' else kind, n=n, seed=seed, split=split, classes=('no', 'yes') if kind == 'binary' else ())
    if kind == 'multi':
        true = rng.normal(-0.5, 1.2, (n, 2))
        return replace(base, label_NY=(rng.random((n, 2)) < expit(true)).astype(float), score_NS=expit(t * true))
    if kind == 'ordinal':
        above = np.sort(rng.normal(0, 1.5, (n, 3)), axis=1)[:, ::-1]
        p = -np.diff(np.concatenate([np.ones((n, 1)), expit(above), np.zeros((n, 1))], axis=1), axis=1)
        score = -np.diff(np.concatenate([np.ones((n, 1)), expit(t * above), np.zeros((n, 1))], axis=1), axis=1)
    else:
        z = rng.normal(0, 1.3, (n, 2 if kind == 'binary' else 4))
        p, score = softmax(z, axis=1), softmax(t * z, axis=1)
    label = (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=p.shape[1] - 1)
    return replace(base, label_NY=label[:, None].astype(float), score_NS=score)


@pytest.mark.parametrize('kind', ['binary', 'single', 'ordinal', 'multi'])
@pytest.mark.parametrize('t', [0.5, 2.5])
def test_a_planted_temperature_is_found_and_mends_other_images(make: Make, kind: str, t: float) -> None:
    found = temperature.table(drawn(make, kind, t=t, seed=1, split='test'), validation=drawn(make, kind, t=t), replicates=40)
    for entry in found.values():
        assert entry['T'] == pytest.approx(t, rel=0.12) and not entry['note']
        assert entry['ECE_after'] < 0.03 < entry['ECE_before'] and entry['NLL_change']['high'] < 0 and entry['Brier_change']['high'] < 0


def test_yes_or_no_is_scikit_learns_regression_without_intercept(make: Make) -> None:
    validation = drawn(make, 'multi', t=1.7)
    fitted = temperature.fit(validation)
    for y, name in enumerate(validation.labels):
        known = ~np.isnan(validation.label_NY[:, y])
        x = logit(validation.score_NS[known, y])[:, None]
        oracle = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(x, validation.label_NY[known, y])
        assert fitted.temperature[name] == pytest.approx(1 / oracle.coef_[0, 0], rel=1e-4)


def test_several_classes_are_best_on_a_grid_and_the_scores_are_scikit_learns(make: Make) -> None:
    validation = drawn(make, 'single', t=1.7, n=800)
    label = validation.label_NY[:, 0].astype(int)
    (value,) = temperature.fit(validation).temperature.values()
    grid = value * np.linspace(0.98, 1.02, 81)
    loss = [-log_softmax(np.log(validation.score_NS) / t, axis=1)[np.arange(800), label].mean() for t in grid]
    assert grid[int(np.argmin(loss))] == pytest.approx(value, rel=6e-4)
    after = softmax(np.log(validation.score_NS) / value, axis=1)
    np.testing.assert_allclose(temperature.scaled(validation.score_NS, temperature=value), after)
    (entry,) = temperature.table(validation, validation=validation, replicates=20).values()
    assert entry['NLL_before'] == pytest.approx(log_loss(label, validation.score_NS))
    assert entry['NLL_after'] == pytest.approx(log_loss(label, after))
    assert entry['Brier_after'] == pytest.approx(((after - np.eye(4)[label]) ** 2).sum(axis=1).mean())
    # Guo et al., equation 3, by a plain loop
    confidence, right, total = after.max(axis=1), after.argmax(axis=1) == label, 0.0
    for k in range(15):
        inside = (np.minimum((confidence * 15).astype(int), 14)) == k
        total += abs(right[inside].mean() - confidence[inside].mean()) * inside.mean() if inside.any() else 0.0
    assert entry['ECE_after'] == pytest.approx(total)


def test_two_classes_have_the_brier_score_of_the_positive_one(make: Make) -> None:
    judged = drawn(make, 'binary', t=2.0, n=600)
    (entry,) = temperature.table(judged, validation=judged, replicates=20).values()
    assert entry['Brier_before'] == pytest.approx(brier_score_loss(judged.label_NY[:, 0], judged.score_NS[:, 1]))


@pytest.mark.parametrize('kind', ['binary', 'single', 'ordinal', 'multi'])
def test_scaled_predictions_keep_their_order_and_sum_to_one(make: Make, kind: str) -> None:
    judged = drawn(make, kind, t=2.0, n=500)
    fitted = temperature.fit(judged)
    made = temperature.apply(judged, fitted=fitted)
    if kind != 'multi':
        np.testing.assert_allclose(made.score_NS.sum(axis=1), 1)
    if kind in ('binary', 'multi'):
        np.testing.assert_array_equal(np.argsort(made.score_NS[:, -1]), np.argsort(judged.score_NS[:, -1]))
    if kind == 'single':
        np.testing.assert_array_equal(made.score_NS.argmax(axis=1), judged.score_NS.argmax(axis=1))
    again = temperature.fit(made).temperature
    assert all(value == pytest.approx(1, rel=1e-3) for value in again.values())


def test_where_there_is_no_temperature_the_reason_is_given(make: Make) -> None:
    validation = drawn(make, 'binary', t=1.0, n=200)
    perfect = replace(validation, score_NS=np.where(validation.label_NY == np.arange(2), 0.9, 0.1))
    for wrong, why in (
        (replace(validation, label_NY=np.ones((200, 1))), 'one class only'),
        (perfect, 'without an error'),
        (replace(perfect, score_NS=1 - perfect.score_NS), 'the opposite'),
    ):
        (entry,) = temperature.table(validation, validation=wrong, replicates=20).values()
        assert entry['T'] is None and why in entry['note'] and entry['ECE_after'] is None and entry['ECE_before'] is not None
    assert temperature.table(make('regress'), validation=make('regress', split='val')) == {}
