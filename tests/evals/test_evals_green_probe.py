"""RETFound-Green's probe against scikit-learn called step by step."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import wilcoxon
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from retfound_jax.core.errors import UserError
from retfound_jax.evals.green_probe import best_two, green_result, green_scores
from retfound_jax.evals.probe import Part


def part(*, n: int, seed: int, classes: int = 3) -> Part:
    rng = np.random.default_rng(seed)
    label = np.arange(n) % classes
    features = rng.normal(size=(n, 6)) * [1, 9, 1, 1, 1, 1] + 0.8 * label[:, None]
    return Part(features=features, label=label.astype(float), patient=np.array([f'{seed}-{i}' for i in range(n)]))


def test_scores_and_median_are_those_of_the_protocol() -> None:
    train, test = part(n=90, seed=0), part(n=60, seed=1)
    score = green_scores(train, test=test)
    scaler = StandardScaler().fit(train.features)
    model = LogisticRegression(max_iter=20000, random_state=42).fit(scaler.transform(train.features), train.label.astype(int))
    assert score == pytest.approx(model.predict_proba(scaler.transform(test.features)))
    label = test.label.astype(int)
    rng, values = np.random.default_rng(42), []
    for drawn in rng.integers(60, size=(100, 60)):
        values.append(roc_auc_score(label[drawn], score[drawn], multi_class='ovr', average='macro'))
    found = green_result(label, score_NC=score, classes=('a', 'b', 'c'))
    assert found.median == pytest.approx(np.median(values)) and found.auroc_R == pytest.approx(values)
    assert set(found.per_class) == {'a', 'b', 'c'}


def test_of_two_classes_the_second_is_the_positive_one() -> None:
    label = np.array([0, 1] * 20)
    score = np.random.default_rng(0).random(40) + label
    found = green_result(label, score_NC=np.stack([-score, score], axis=1), classes=('no', 'yes'))
    assert list(found.per_class) == ['yes'] and found.median == pytest.approx(found.per_class['yes']) and found.median > 0.9


def test_the_best_two_are_tested_over_the_same_draws() -> None:
    label = np.arange(60) % 2
    noise = np.random.default_rng(2).normal(size=(3, 60))
    results = {
        name: green_result(label, score_NC=np.stack([-score, score], axis=1), classes=('no', 'yes'))
        for name, score in (('weak', label + 3 * noise[0]), ('good', label + noise[1]), ('best', label + 0.5 * noise[2]))
    }
    found = best_two(results)
    assert (found.best, found.second) == ('best', 'good')
    assert found.p == pytest.approx(wilcoxon(results['best'].auroc_R, results['good'].auroc_R).pvalue)
    assert best_two({'a': results['good'], 'b': results['good']}).p == 1.0


def test_what_cannot_be_judged_is_said() -> None:
    with pytest.raises(UserError, match='fewer than two classes'):
        green_scores(part(n=9, seed=0, classes=1), test=part(n=9, seed=1))
    with pytest.raises(UserError, match='a class is absent'):
        green_result(np.zeros(10, int), score_NC=np.ones((10, 2)), classes=('no', 'yes'))
