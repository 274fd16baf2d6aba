"""The means against a gap: whom an evaluation names first, and changes of gap and overall, from predictions whose AUROC is known."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import expit, ndtri

from experiments.tables import fairness
from retfound_jax.core.errors import UsageError
from retfound_jax.data.sources import open_source
from retfound_jax.evals.predictions import Predictions, write_predictions
from retfound_jax.studies import means_tables
from retfound_jax.studies.arms import Ground
from retfound_jax.studies.grid import GroupQuestion
from retfound_jax.studies.means import AFTER, TRAINING, Change, Means, collect
from retfound_jax.studies.rows import Arm, Judged, Key

QUESTION = GroupQuestion(by='site', plain='none')
SITES = ('East', 'North', 'South')
N = 100  # patients of each site with and without


def made(auroc: dict[str, float], *, split: str = 'test', seed: int = 0) -> Predictions:
    """One image a patient; scores of each site at the quantiles of two normal distributions that far apart, all of South's lower by one."""
    z = ndtri((np.arange(N) + 0.5) / N)
    label, score, site = [], [], []
    for group, value in auroc.items():
        d, shift = np.sqrt(2) * ndtri(value), -1.0 if group == 'South' else 0.0
        label += [0] * N + [1] * N
        score += [*(z - d / 2 + shift), *(z + d / 2 + shift)]
        site += [group] * 2 * N
    scores = expit(np.array(score) + 1e-3 * np.random.default_rng(seed).standard_normal(len(score)))
    columns = {'key': np.array([f'{split}{i:04d}' for i in range(len(label))]), 'site': np.array(site), 'age': np.full(len(label), 50.0)}
    columns['patient'] = columns['key']
    return Predictions(
        kind='single', labels=('referable_dr',), classes=('0', '1'), split=split, step=0, fingerprint=split, columns=columns,
        label_NY=np.array(label, np.float64)[:, None], score_NS=np.stack([1 - scores, scores], axis=1),
    )


def arm(tmp_path: Path, method: str, auroc: dict[str, float], *, seeds: int = 2) -> Arm:
    results = []
    for seed in range(seeds):
        path = tmp_path / f'{method}-{seed}.parquet'
        write_predictions(made(auroc, split='val', seed=seed + 50), path=path)
        results.append(SimpleNamespace(seed=seed, predictions=lambda name, path=path: path))
    key = Key(study='s', train_on='drawn', test_on='drawn', method=method, adaptation='finetune', fraction=1.0)
    files = tuple(made(auroc, seed=seed) for seed in range(seeds))
    return Arm(key=key, results=tuple(results), judged=Judged(replicates=400), files=files)


@pytest.fixture(scope='module')
def found(tmp_path_factory: pytest.TempPathFactory) -> Means:
    """Plain training fails at South; balanced sampling gives South .2 and takes .05 from the others."""
    folder = tmp_path_factory.mktemp('means')
    plain = dict(zip(SITES, (0.9, 0.9, 0.6), strict=True))
    balanced = dict(zip(SITES, (0.85, 0.85, 0.8), strict=True))
    return collect([arm(folder, 'balanced', balanced), arm(folder, 'none', plain)], question=QUESTION, plain='none')


def change(found: Means, means: str, metric: str) -> Change:
    return next(one for one in found.changes if (one.means, one.metric) == (means, metric))


def test_the_group_that_fails_is_named_first(found: Means) -> None:
    named = [one for one in found.failing if one.means == 'none']
    assert [one.group for one in named] == ['South', 'South']
    assert all(one.p_holm < 0.05 and one.value < one.rest for one in named)


def test_gap_and_overall_are_those_put_in_and_so_are_their_changes(found: Means) -> None:
    plain, balanced = change(found, 'none', 'AUROC'), change(found, 'balanced', 'AUROC')
    assert plain.stage == balanced.stage == TRAINING and plain.gap_change is None and plain.overall_change is None
    assert plain.gap.value == pytest.approx(0.3, abs=0.01) and balanced.gap.value == pytest.approx(0.05, abs=0.01)
    assert balanced.gap_change.value == pytest.approx(-0.25, abs=0.01) and balanced.gap_change.high < 0
    assert plain.worst == balanced.worst == 'South'
    assert balanced.by_group['South'].value == pytest.approx(0.8, abs=0.01)
    assert balanced.overall_change.value == pytest.approx(balanced.overall.value - plain.overall.value)


def test_means_after_training_are_measured_beside(found: Means) -> None:
    after = {one.means for one in found.changes if one.stage == AFTER}
    assert after == {'threshold_per_group', 'recalibration_per_group'}
    odds = change(found, 'threshold_per_group', 'equalised_odds')
    assert odds.gap_change.high < 0 and odds.overall is None
    assert change(found, 'threshold_per_group', 'AUROC').gap_change.value == pytest.approx(0, abs=1e-9)


def test_the_table_says_it_all_and_reads_back(found: Means, tmp_path: Path) -> None:
    study = fairness.fairness_phantom()
    paths = means_tables.write(found, study, out=tmp_path)
    told = json.loads((tmp_path / 'fairness.json').read_text())
    assert told['format'] == means_tables.FORMAT and told['drawn'] and told['groups'] == list(SITES)
    assert [one['group'] for one in told['failing'] if one['means'] == 'none'] == ['South', 'South']
    text = (tmp_path / 'fairness.md').read_text()
    assert 'sites equally often' in text and '-0.2' in text and 'a threshold of each group' in text
    said = means_tables.sentences(found, study)
    assert said[0].startswith('nothing: the evaluation names first South in 2 of 2 runs')
    before = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in means_tables.write(found, study, out=tmp_path)] == before


def test_without_the_plain_training_there_is_nothing_to_set_against(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='no finished run of "none"'):
        collect([arm(tmp_path, 'balanced', dict.fromkeys(SITES, 0.8))], question=QUESTION, plain='none')


def test_each_means_of_training_reaches_its_run(tmp_path: Path) -> None:
    study = fairness.fairness_phantom()
    ground = Ground(study=study, root=tmp_path, paths={'drawn': ''}, fingerprints={'drawn': 'data'})
    configs = {spec.method: ground.config(spec) for spec in study.cells() if spec.seed == 0}
    assert configs['none'].data.balance is None and configs['balanced'].data.balance.temperature == 0
    assert configs['group_dro'].data.groups == configs['reweighted'].data.groups == 'site'
    assert type(configs['group_dro'].task.robust).__name__ == 'GroupDRO' and configs['none'].task.robust is None
    assert len({config.steps for config in configs.values()}) == 1


def test_the_drawn_sites_differ_in_what_the_mark_means_and_in_nothing_else() -> None:
    phantom = dataclasses.replace(fairness.fairness_phantom().data[0].phantom, patients=600)
    config = fairness.fairness_phantom().recipe.data
    table = open_source(dataclasses.replace(config, path='', phantom=phantom)).table
    agrees = table['label:marked'] == table['label:referable_dr']
    for site in ('North', 'East', 'South'):
        here = table['site'] == site
        assert abs(table['label:referable_dr'][here].mean() - 0.4) < 0.12
        assert agrees[here].mean() < 0.2 if site == 'South' else agrees[here].mean() > 0.9
