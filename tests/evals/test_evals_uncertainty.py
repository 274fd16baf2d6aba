"""The uncertainty table of every kind, what an evaluation writes, ensembles and strange photographs through the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.covariance import ledoit_wolf

from retfound_jax.cli.main import main
from retfound_jax.core.errors import UserError
from retfound_jax.core.files import read_json, write_json
from retfound_jax.evals import evaluation, ood
from retfound_jax.evals.ensemble import ensemble
from retfound_jax.evals.predictions import Predictions, read_predictions, write_predictions
from retfound_jax.evals.tables import EvalConfig, plan_of
from retfound_jax.evals.thresholds import parse_rule
from retfound_jax.evals.uncertainty import uncertainty
from retfound_jax.train import checkpoint

Make = Callable[..., Predictions]
KINDS = [('single', {}), ('single', {'classes': ('no', 'yes')}), ('ordinal', {}), ('multi', {}), ('regress', {})]
CONFIG = EvalConfig(by=('sex', 'age'), replicates=8)


@pytest.mark.parametrize(('kind', 'kw'), KINDS, ids=lambda value: str(value))
def test_every_kind_gives_sound_json(make: Make, kind: str, kw: dict[str, Any]) -> None:
    judged, validation = make(kind, **kw), make(kind, seed=9, split='val', **kw)
    found = uncertainty(judged, validation=validation, config=CONFIG)
    assert json.loads(json.dumps(found, allow_nan=False)) == found and found == uncertainty(judged, validation=validation, config=CONFIG)
    assert set(found) >= {'split', 'temperature', 'conformal', 'referral', 'ood'} and found['split'] == 'test'
    for row in found['conformal']:
        assert (row['coverage'] is None) == (row['n'] is None) == row['note'].startswith(('withheld', 'nobody'))
        assert row['n'] is None or (row['n'] >= 20 and 0 <= row['low'] <= row['coverage'] <= row['high'] <= 1)
    for rows in found['referral'].values():
        shares = [row['referred'] for row in rows]
        assert shares == sorted(shares) and shares[0] == 0 and all(row['kept_n'] >= 20 for row in rows)
    for rows in found['referred_by'].values():
        assert all(row['n'] is None or row['n'] >= 20 for row in rows)
    assert (found['referral'] == {}) == (kind == 'regress') == (found['temperature'] == {})


def test_the_cases_are_ordered_by_what_did_it_best_on_validation(make: Make) -> None:
    """With a threshold far from one half the two doubts differ; the choice is made without the judged split."""
    judged, validation = (make('single', n=600, classes=('no', 'yes'), seed=seed) for seed in (0, 9))
    chosen = {}
    for name, rule in (('low', 0.999), ('high', 0.5)):
        config = replace(CONFIG, by=(), rule=parse_rule(f'sensitivity={rule}'))
        found = uncertainty(judged, validation=validation, config=config)
        other = uncertainty(make('single', n=600, classes=('no', 'yes'), seed=5), validation=validation, config=config)
        chosen[name] = found['ordered_by']['yes']
        assert found['ordered_by'] == other['ordered_by'] and found['referral'] != other['referral']
        own = uncertainty(validation, validation=validation, config=config)['risk_coverage']['yes']
        assert chosen[name] == min(('margin', 'entropy'), key=lambda measure: own[measure]['value'])


def test_of_an_ensemble_of_numbers_the_disagreement_refers(make: Make) -> None:
    rng, parts = np.random.default_rng(0), []
    for seed, split in ((0, 'test'), (9, 'val')):
        one = make('regress', n=600, seed=seed, split=split)
        hard = np.repeat(rng.random(300) < 0.3, 2)[:, None]
        members = [replace(one, score_NS=one.label_NY + rng.normal(size=(600, 1)) * np.where(hard, 12, 2)) for _ in range(4)]
        parts.append(ensemble(members))
    found = uncertainty(parts[0], validation=parts[1], config=CONFIG)
    rows = found['referral']['age']
    assert found['ordered_by'] == {'age': 'disagreement'} and rows[-1]['MAE'] < 0.6 * rows[0]['MAE']
    assert found['risk_coverage']['age']['disagreement']['share_of_best'] > 0.3


def test_distances_are_those_of_the_papers() -> None:
    rng = np.random.default_rng(1)
    train, new = rng.normal(size=(200, 6)) @ rng.normal(size=(6, 6)), rng.normal(size=(50, 6))
    covariance, _ = ledoit_wolf(train)
    expected = cdist(new, train.mean(axis=0)[None], 'mahalanobis', VI=np.linalg.inv(covariance))[:, 0] ** 2
    np.testing.assert_allclose(ood.mahalanobis(train)(new), expected, rtol=1e-8)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (new, train)]
    np.testing.assert_allclose(ood.nearest(train, neighbours=5)(new), np.sort(cdist(*unit), axis=1)[:, 4], atol=1e-7)
    with pytest.raises(UserError, match='19 training images'):
        ood.mahalanobis(train[:19])


def test_ordinary_photographs_raise_the_alarm_as_often_as_said_and_a_new_camera_more_often(make: Make) -> None:
    rng = np.random.default_rng(2)
    judged, validation = make('single', n=1600), make('single', n=1600, seed=9, split='val')
    camera = np.where(np.arange(1600) < 400, 'new', 'old')
    judged = replace(judged, columns={**judged.columns, 'camera': camera})
    one, other = 5 * np.eye(8)[:2]
    train, usual = one + rng.normal(size=(500, 8)), one + rng.normal(size=(1600, 8))
    seen = one + rng.normal(size=(1600, 8)) + (camera == 'new')[:, None] * other
    plan = plan_of(judged, config=EvalConfig(by=('camera',)))
    found = ood.table(judged, validation=validation, train=train, validation_features=usual, judged_features=seen, plan=plan)
    share = {(row['method'], row['group']): row for row in found['rows']}
    for method in (ood.MAHALANOBIS, ood.NEAREST):
        assert share[method, 'old']['low'] <= 0.05 <= share[method, 'old']['high'] and share[method, 'old']['n'] == 600
        assert share[method, 'new']['low'] > 0.15
    features = ood.Features(key_N=judged.columns['key'][::-1], value_ND=seen[::-1])
    np.testing.assert_array_equal(features.of(judged), seen)
    with pytest.raises(UserError, match='1600 images of the val split have no features'):
        features.of(validation)


@pytest.fixture
def runs(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Three run directories with predictions, and a model that repeats those of the first."""
    parts = {split: make('single', n=240, classes=('no', 'yes'), seed=seed, split=split) for seed, split in ((0, 'test'), (9, 'val'))}
    rng, folders = np.random.default_rng(3), [tmp_path / name for name in 'abc']
    for folder in folders:
        for split, one in parts.items():
            score = np.clip(one.score_NS[:, 1] + 0.1 * rng.normal(size=240), 0, 1)
            made = replace(one, score_NS=np.stack([1 - score, score], axis=1))
            write_predictions(made, path=folder / 'predictions' / f'{split}.parquet')
    run = SimpleNamespace(
        task=SimpleNamespace(kind='single'),
        config=SimpleNamespace(eval_split='val', data=SimpleNamespace(whole=lambda split: split)),
        spec=None,
        params=None,
    )
    monkeypatch.setattr(checkpoint, 'load_run', lambda workdir, which: run)
    monkeypatch.setattr(evaluation, 'read_config', lambda workdir: run.config)
    monkeypatch.setattr(evaluation, 'open_source', lambda split: [split])
    read = {split: read_predictions(folders[0] / 'predictions' / f'{split}.parquet') for split in parts}
    monkeypatch.setattr(evaluation, 'predict', lambda run, split, data=None: read[split])

    def extract(spec: None, params: None, *, data: Any, split: str, sample: int = 0) -> tuple[np.ndarray, Any]:
        keys = read[split].columns['key'] if split in read else np.arange(100).astype(str)
        return rng.normal(size=(len(keys), 4)), SimpleNamespace(table={'key': keys})

    monkeypatch.setattr(ood, 'extract', extract)
    return folders


def test_the_command_writes_the_table_of_the_run_and_of_the_ensemble(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    words = ['evaluate', '--workdir', str(runs[0]), '--by', 'sex', '--replicates', '20', '--ood']
    assert main([*words, '--ensemble', f'{runs[1]},{runs[2]}']) == 0
    shown = capsys.readouterr().out
    assert 'uncertainty_test.json' in shown and 'ensemble-test.parquet' in shown
    tables = {name: read_json(runs[0] / 'tables' / f'uncertainty_{name}.json') for name in ('test', 'ensemble-test')}
    assert tables['test']['ood']['n_train'] == 100 and tables['ensemble-test']['ood'] == {}
    assert tables['ensemble-test']['split'] == 'ensemble-test' and 'disagreement' in tables['ensemble-test']['risk_coverage']['yes']
    assert 'disagreement' not in tables['test']['risk_coverage']['yes']
    mean = read_predictions(runs[0] / 'predictions' / 'ensemble-test.parquet')
    members = [read_predictions(folder / 'predictions' / 'test.parquet').score_NS for folder in runs]
    np.testing.assert_allclose(mean.score_NS, np.mean(members, axis=0))
    assert {path.name for path in (runs[0] / 'predictions').iterdir()} == {
        'test.parquet', 'val.parquet', 'ensemble-test.parquet', 'ensemble-val.parquet',
    }  # fmt: skip
    # without --ood there is none, and what an earlier evaluation found does not stay beside numbers it does not belong to
    assert main(words[:-1]) == 0
    assert read_json(runs[0] / 'tables' / 'uncertainty_test.json')['ood'] == {}


def test_what_is_judged_on_validation_itself_has_no_such_table(runs: list[Path]) -> None:
    write_json(runs[0] / 'tables' / 'uncertainty_val.json', {})
    assert main(['evaluate', '--workdir', str(runs[0]), '--split', 'val', '--replicates', '20']) == 0
    assert not (runs[0] / 'tables' / 'uncertainty_val.json').exists()


def test_an_ensemble_of_runs_that_were_not_evaluated_says_so(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    (runs[2] / 'predictions' / 'test.parquet').unlink()
    assert main(['evaluate', '--workdir', str(runs[0]), '--replicates', '20', '--ensemble', str(runs[2])]) == 1
    assert 'run `retfound evaluate` on the run directory first' in capsys.readouterr().err
