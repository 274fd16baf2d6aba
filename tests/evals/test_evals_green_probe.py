"""RETFound-Green's probe against scikit-learn called step by step."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import wilcoxon
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from retfound_jax.core.errors import UserError
from retfound_jax.evals.green_probe import best_two, green_draws, green_median, green_scores
from retfound_jax.evals.predictions import Predictions
from retfound_jax.evals.probe import Part


def part(*, n: int, seed: int, classes: int = 3) -> Part:
    rng = np.random.default_rng(seed)
    label = np.arange(n) % classes
    features = rng.normal(size=(n, 6)) * [1, 9, 1, 1, 1, 1] + 0.8 * label[:, None]
    return Part(features=features, label=label.astype(float), patient=np.array([f'{seed}-{i}' for i in range(n)]))


def predictions(label: np.ndarray, score: np.ndarray, *, classes: tuple[str, ...], kind: str = 'ordinal') -> Predictions:
    names = np.array([f'{i:03d}' for i in range(len(label))])
    parts = {'columns': {'key': names, 'patient': names}, 'label_NY': label[:, None].astype(float), 'score_NS': score}
    return Predictions(kind=kind, labels=('grade',), classes=classes, split='test', step=0, fingerprint='', **parts)


def binary(label: np.ndarray, score: np.ndarray) -> Predictions:
    return predictions(label, np.stack([-score, score], axis=1), classes=('no', 'yes'), kind='single')


def test_scores_and_median_are_those_of_the_protocol() -> None:
    train, test = part(n=90, seed=0), part(n=60, seed=1)
    score = green_scores(train, test=test)
    scaler = StandardScaler().fit(train.features)
    model = LogisticRegression(max_iter=20000, random_state=42).fit(scaler.transform(train.features), train.label.astype(int))
    assert score == pytest.approx(model.predict_proba(scaler.transform(test.features)))
    label = test.label.astype(int)
    rng, values, above = np.random.default_rng(42), [], []
    for drawn in rng.integers(60, size=(100, 60)):
        values.append(roc_auc_score(label[drawn], score[drawn], multi_class='ovr', average='macro'))
        above.append(roc_auc_score(label[drawn] >= 1, score[drawn, 1:].sum(axis=1)))
    made = predictions(label, score, classes=('a', 'b', 'c'))
    assert green_draws(made) == pytest.approx(values) and green_median(made) == pytest.approx(np.median(values))
    assert green_median(made, target='>=b') == pytest.approx(np.median(above))


def test_of_two_classes_the_second_is_the_positive_one() -> None:
    label = np.array([0, 1] * 20)
    found = binary(label, np.random.default_rng(0).random(40) + label)
    assert green_median(found) > 0.9 and green_median(found, target='yes') == green_median(found)


def test_the_best_two_are_tested_over_the_same_draws() -> None:
    label = np.arange(60) % 2
    noise = np.random.default_rng(2).normal(size=(3, 60))
    arms = {'weak': binary(label, label + 3 * noise[0]), 'good': binary(label, label + noise[1])}
    arms['best'] = binary(label, label + 0.5 * noise[2])
    found = best_two(arms)
    assert (found.best, found.second) == ('best', 'good')
    assert found.p == pytest.approx(wilcoxon(green_draws(arms['best']), green_draws(arms['good'])).pvalue)
    assert best_two({'a': arms['good'], 'b': arms['good']}).p == 1.0
    with pytest.raises(UserError, match='different images'):
        best_two({'a': arms['good'], 'b': binary(label[:50], noise[0, :50])})


def test_what_cannot_be_judged_is_said() -> None:
    with pytest.raises(UserError, match='fewer than two classes'):
        green_scores(part(n=9, seed=0, classes=1), test=part(n=9, seed=1))
    assert np.isnan(green_median(binary(np.zeros(10, int), np.ones(10))))
    with pytest.raises(UserError, match='no target "mbe", did you mean'):
        green_median(predictions(np.arange(9) % 3, np.full((9, 3), 1 / 3), classes=('abe', 'b', 'c')), target='mbe')
