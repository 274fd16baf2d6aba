"""Linear probe and nearest neighbours on frozen features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from retfound_jax.core.errors import UserError
from retfound_jax.evals.probe import NEIGHBOURS, TEMPERATURE, Part, Probe, knn, linear_probe


def parts(kind: str, *, classes: int = 3, n: int = 150) -> tuple[Part, Part, Part]:
    """Three splits of features from which the labels can mostly be read."""
    rng = np.random.default_rng(0)
    to_features = rng.normal(size=(3, 12))
    made = []
    for split in range(3):
        hidden = rng.normal(size=(n, 3))
        label = {
            'single': hidden.argmax(axis=1).astype(float) if classes == 3 else (hidden[:, 0] > 0).astype(float),
            'multi': (hidden > 0.3).astype(float),
            'regress': 60 + 10 * hidden[:, 0],
        }[kind]
        features = hidden @ to_features + 0.5 * rng.normal(size=(n, 12))
        made.append(Part(features=features, label=label, patient=np.array([f'{split}-{i // 2}' for i in range(n)])))
    return tuple(made)


@pytest.mark.parametrize('method', [linear_probe, knn])
@pytest.mark.parametrize('kind', ['single', 'multi', 'regress'])
def test_a_readable_label_is_read(method, kind: str) -> None:
    train, validation, test = parts(kind)
    train.label.flat[:4] = np.nan
    probe: Probe = method(train, validation=validation, test=test, kind=kind, classes=3)
    assert probe.score_test.shape == (150, 1 if kind == 'regress' else 3)
    assert len(probe.chosen) == (0 if method is knn else 3 if kind == 'multi' else 1)
    if kind == 'regress':
        assert np.corrcoef(probe.score_test[:, 0], test.label)[0, 1] > 0.85 and probe.validation['MAE'] < 6
    elif kind == 'multi':
        assert roc_auc_score(test.label, probe.score_test) > 0.85
    else:
        assert roc_auc_score(test.label, probe.score_test, multi_class='ovr') > 0.85
        np.testing.assert_allclose(probe.score_test.sum(axis=1), 1)


def test_a_class_unseen_in_training_scores_zero() -> None:
    train, validation, test = parts('single')
    train = replace(train, label=np.where(train.label == 1, 0, train.label))
    for method in (linear_probe, knn):
        probe = method(train, validation=validation, test=test, kind='single', classes=3)
        assert (probe.score_test[:, 1] == 0).all() and probe.score_test.shape == (150, 3)


def test_neighbours_vote_by_cosine() -> None:
    train, validation, test = parts('single', classes=2)
    probe = knn(train, validation=validation, test=test, kind='single')
    unit = [part.features / np.linalg.norm(part.features, axis=1, keepdims=True) for part in (train, test)]
    similarity = unit[1] @ unit[0].T
    nearest = np.argsort(-similarity, axis=1)[:, :NEIGHBOURS]
    votes = np.exp(np.take_along_axis(similarity, nearest, axis=1) / TEMPERATURE)
    np.testing.assert_allclose(probe.score_test[:, 1], (votes * train.label[nearest]).sum(axis=1) / votes.sum(axis=1), atol=1e-9)


def test_patients_never_cross() -> None:
    train, validation, test = parts('single')
    with pytest.raises(UserError, match='1 patients are in both training and test .the first is 0-0'):
        linear_probe(train, validation=validation, test=replace(test, patient=np.r_[['0-0'], test.patient[1:]]), kind='single')


def test_nothing_to_learn_is_one_sentence() -> None:
    train, validation, test = parts('single', classes=2)
    with pytest.raises(UserError, match='fewer than two classes'):
        linear_probe(replace(train, label=np.ones(150)), validation=validation, test=test, kind='single')
