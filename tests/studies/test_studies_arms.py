"""What a cell does is what scikit-learn does by hand; probabilities of an external test are summed; nothing is made a second time."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from experiments.tables import retfound
from retfound_jax.core.files import read_json
from retfound_jax.data.config import DataConfig
from retfound_jax.data.sources import open_source
from retfound_jax.evals.predictions import Predictions, read_predictions
from retfound_jax.studies import arms, making, run
from retfound_jax.studies.grid import Method, Study

RANDOM = (Method(name='random'),)


def features(ground: Any, study: Study, *, dataset: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Features of a split as an encoder gives them, and its labels by number, read from the phantom itself."""
    spec = next(spec for spec in study.cells() if spec.train_on == dataset)
    one = study.dataset(dataset)
    label = open_source(DataConfig(phantom=one.phantom, labels=one.labels, split=split)).labels[:, 0]
    return arms._part(ground, spec, dataset, split).part.features, label.astype(int)


def predictions(folder: Path, slug: str, test_on: str) -> Predictions:
    (cell,) = folder.glob(f'cells/{slug}-????????')
    return read_predictions(cell / 'predictions' / f'{test_on}.parquet')


def test_probe_and_neighbours_are_those_of_scikit_learn(tmp_path: Path) -> None:
    study = retfound.linear_probe_knn_phantom()
    data = (dataclasses.replace(study.data[0], labels=('glaucoma',)),)
    study = dataclasses.replace(study, data=data, methods=RANDOM, seeds=(0,))
    run.run(study, workdir=tmp_path, data=tmp_path)
    ground = run.prepare(study, root=tmp_path, data=tmp_path)
    name = data[0].name
    (x, y), (x_val, y_val), (x_test, y_test) = (features(ground, study, dataset=name, split=split) for split in ('train', 'val', 'test'))
    best, chosen = -1.0, None
    for c in (1e-4, 1e-3, 1e-2, 1e-1, 1.0):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000)).fit(x, y)
        value = roc_auc_score(y_val, model.predict_proba(x_val)[:, 1])
        if value > best:
            best, chosen = value, model
    found = predictions(tmp_path, f'{name}-random-probe-100-seed0', name)
    np.testing.assert_array_equal(found.label_NY[:, 0], y_test)
    np.testing.assert_allclose(found.score_NS, chosen.predict_proba(x_test), atol=1e-6)

    similarity = normalize(x_test) @ normalize(x).T
    voted = np.zeros((len(x_test), 2))
    for n, row in enumerate(similarity):
        for place in np.argsort(-row, kind='stable')[:20]:
            voted[n, y[place]] += np.exp(row[place] / 0.07)
    found = predictions(tmp_path, f'{name}-random-knn-100-seed0', name)
    np.testing.assert_allclose(found.score_NS, voted / voted.sum(axis=1, keepdims=True), atol=1e-4)


def test_an_external_test_sums_the_grades(tmp_path: Path) -> None:
    """Referable retinopathy is grades 2 to 4 of five; the probe of RETFound-Green, which chooses nothing, done by hand."""
    study = dataclasses.replace(retfound.retfound_external_phantom(), methods=RANDOM, seeds=(0,), adaptations=('green_probe',))
    run.run(study, workdir=tmp_path, data=tmp_path)
    ground = run.prepare(study, root=tmp_path, data=tmp_path)
    names = [one.name for one in study.data]
    for train_on in names:
        x, y = features(ground, study, dataset=train_on, split='train')
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=20000, random_state=42)).fit(x, y)
        referable = model.classes_ >= 2
        for test_on in names:
            x_test, y_test = features(ground, study, dataset=test_on, split='test')
            found = predictions(tmp_path, f'{train_on}-external-random-green_probe-100-seed0', test_on)
            assert found.labels == ('referable_dr',)
            np.testing.assert_array_equal(found.label_NY[:, 0], y_test >= 2)
            np.testing.assert_allclose(found.score_NS[:, 1], model.predict_proba(x_test)[:, referable].sum(axis=1), atol=1e-9)


def test_a_study_is_fine_tuned_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = retfound.retfound_internal_phantom()
    study = dataclasses.replace(study, data=study.data[:1], methods=RANDOM, seeds=(0,))
    assert run.run(study, workdir=tmp_path, data=tmp_path).made == 1
    (result,) = tmp_path.glob('cells/*/result.json')
    found = read_json(result)
    assert set(found['metrics']) == {'train', 'val', study.data[0].name}
    assert not (result.parent / 'run').exists()  # what tables are made of stays
    table = making.make(study, folder=tmp_path)
    assert table.cells == 1 and table.missing == 0

    def never(*given: Any, **more: Any) -> None:
        raise AssertionError('a finished cell was trained again')

    monkeypatch.setattr(arms, 'train', never)
    assert run.run(study, workdir=tmp_path, data=tmp_path) == run.Done(made=0, known=1)
