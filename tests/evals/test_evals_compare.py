"""The paired difference against a loop that copies rows, its coverage under no difference, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, roc_auc_score

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.evals.bootstrap import patient_counts
from retfound_jax.evals.compare import paired_difference
from retfound_jax.evals.predictions import Predictions, write_predictions


def other(predictions: Predictions, *, seed: int, noise: float = 0.3) -> Predictions:
    """Another model's scores of the same images, in another order."""
    rng = np.random.default_rng(seed)
    score = np.clip(predictions.score_NS + noise * rng.normal(size=predictions.score_NS.shape), 0, 1)
    order = rng.permutation(len(predictions))
    columns = {name: values[order] for name, values in predictions.columns.items()}
    return replace(predictions, columns=columns, label_NY=predictions.label_NY[order], score_NS=score[order])


def sorted_rows(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Label and score of the first column in key order; two rows a patient."""
    order = np.argsort(predictions.columns['key'])
    return predictions.label_NY[order, 0], predictions.score_NS[order, 0]


def test_matches_a_loop_over_copied_patients_and_seeds(make) -> None:
    base = make('multi', n=80)
    base = replace(base, label_NY=np.nan_to_num(base.label_NY))
    arms = [[other(base, seed=s, noise=0.1) for s in (1, 2, 3)], [other(base, seed=s, noise=0.4) for s in (4, 5)]]
    found = paired_difference(arms[0], b=arms[1], target='glaucoma', metric='AUROC', level='image', replicates=50, seed=7)
    differences = []
    for counts in [np.ones(40, int), *patient_counts(40, replicates=50, seed=7).T]:
        drawn = np.repeat(np.repeat(np.arange(40), counts) * 2, 2) + np.tile([0, 1], counts.sum())
        means = []
        for arm in arms:
            rows = [sorted_rows(one) for one in arm]
            means.append(np.mean([roc_auc_score(label[drawn], score[drawn]) for label, score in rows]))
        differences.append(means[0] - means[1])
    assert found.interval.value == pytest.approx(differences[0])
    assert (found.interval.low, found.interval.high) == pytest.approx(tuple(np.quantile(differences[1:], [0.025, 0.975])))
    assert found.below_zero == pytest.approx(np.mean(np.array(differences[1:]) < 0))
    assert len(found.per_seed_a) == 3 and found.a == pytest.approx(np.mean(found.per_seed_a)) and found.higher_is_better
    assert (found.n_images, found.n_patients) == (80, 40)


def test_age_by_patient_matches_sklearn_and_knows_that_less_is_better(make) -> None:
    rng = np.random.default_rng(0)
    base = make('regress')
    worse = replace(base, score_NS=base.score_NS + 6 * rng.normal(size=base.score_NS.shape))
    found = paired_difference(base, b=worse, target='age', metric='MAE', replicates=100)
    label = base.label_NY[:, 0].reshape(-1, 2).mean(axis=1)
    errors = [mean_absolute_error(label, one.score_NS[:, 0].reshape(-1, 2).mean(axis=1)) for one in (base, worse)]
    assert (found.a, found.b) == pytest.approx(errors)
    assert not found.higher_is_better and found.a_is_better and found.interval.high < 0 and found.below_zero == 1


def test_the_same_model_differs_by_nothing(make) -> None:
    found = paired_difference(make('single'), b=make('single'), target='macro', metric='AUROC', replicates=50)
    assert (found.interval.value, found.interval.low, found.interval.high, found.below_zero) == (0, 0, 0, 0.5)
    assert not found.a_is_better


def test_interval_covers_zero_under_no_difference(make) -> None:
    """Two models that are equally good at heart: about 95 in 100 intervals hold zero."""
    covered = 0
    for seed in range(150):
        base = make('single', classes=('no', 'yes'), n=160, seed=seed)
        rng = np.random.default_rng(1000 + seed)
        eye, label = 0.7 * np.repeat(rng.normal(size=80), 2), base.label_NY[:, 0]
        arms = [label + eye + rng.normal(size=160) for _ in range(2)]
        a, b = (replace(base, score_NS=np.stack([1 - p, p], axis=1)) for p in (1 / (1 + np.exp(-s)) for s in arms))
        interval = paired_difference(a, b=b, target='yes', metric='AUROC', level='image', replicates=200, seed=seed).interval
        covered += interval.low <= 0 <= interval.high
    assert 0.90 <= covered / 150 <= 0.99


def test_reads_files(make, tmp_path: Path) -> None:
    base = make('ordinal')
    write_predictions(base, path=tmp_path / 'a.parquet')
    write_predictions(other(base, seed=1), path=tmp_path / 'b.parquet')
    found = paired_difference(
        tmp_path / 'a.parquet', b=[str(tmp_path / 'b.parquet')], target='macro', metric='kappa_quadratic', replicates=40
    )
    assert found.interval.low <= found.interval.value <= found.interval.high


def test_refuses_what_cannot_be_paired(make) -> None:
    base = make('single', classes=('no', 'yes'))
    with pytest.raises(UserError, match='0 of them shared'):
        paired_difference(base, b=make('single', classes=('no', 'yes'), split='val'), target='yes', metric='AUROC')
    with pytest.raises(UserError, match='disagree on labels'):
        paired_difference(base, b=replace(base, label_NY=1 - base.label_NY), target='yes', metric='AUROC')
    with pytest.raises(UserError, match='different labels'):
        paired_difference(base, b=make('regress'), target='yes', metric='AUROC')
    with pytest.raises(UserError, match='a class is absent'):
        absent = replace(base, label_NY=0 * base.label_NY)
        paired_difference(absent, b=absent, target='yes', metric='AUROC', replicates=20)
    for target, metric in (('yse', 'AUROC'), ('yes', 'AUC'), ('yes', 'kappa_quadratic')):
        with pytest.raises(UsageError):
            paired_difference(base, b=base, target=target, metric=metric, replicates=5)
    with pytest.raises(UsageError, match='at least one file'):
        paired_difference(base, b=[], target='yes', metric='AUROC')
