"""The original's metrics files, number for number against scikit-learn called as the original calls it."""

from __future__ import annotations

import csv
import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from retfound_jax.cli.main import main
from retfound_jax.core import config as config_lib
from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.core.runlog import read_metrics
from retfound_jax.data.config import DataConfig
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.evals.predictions import Predictions, read_predictions
from retfound_jax.evals.retfound_style import STYLES, V1_COLUMNS, V2_COLUMNS, check_style, retfound_v1, retfound_v2, write_style
from retfound_jax.evals.validation import DECIDING, better, validation_for
from retfound_jax.models.vit import ViTConfig
from retfound_jax.optim import OptimConfig
from retfound_jax.tasks.classify import ClassifyTask
from retfound_jax.train import checkpoint
from retfound_jax.train.config import TrainConfig
from retfound_jax.train.loop import train


def drawn(*, classes: int, seed: int, n: int = 90, shy: bool = False) -> Predictions:
    """Every class occurs; probabilities are multiples of 1/64, so that many tie; `shy`: the last class is never predicted."""
    rng = np.random.default_rng(seed)
    label_N = np.r_[np.arange(classes), rng.integers(classes, size=n - classes)]
    parts_NY = rng.multinomial(64, np.full(classes, 1 / classes), size=n) + 16 * (rng.random((n, 1)) < 0.4) * np.eye(classes)[label_N]
    if shy:
        parts_NY[:, -1] = 0
        parts_NY[:, 0] += 1
    return Predictions(
        kind='single',
        labels=('grade',),
        classes=tuple('abcdefg'[:classes]),
        split='test',
        step=1,
        fingerprint='f',
        columns={'key': np.arange(n).astype(str), 'patient': np.arange(n).astype(str)},
        label_NY=label_N[:, None].astype(float),
        score_NS=parts_NY / parts_NY.sum(axis=1, keepdims=True),
    )


def batch_losses(one: Predictions, batch_size: int) -> list[float]:
    label_N, classes = one.label_NY[:, 0].astype(int), list(range(len(one.classes)))
    score_NY = np.maximum(one.score_NS, np.finfo(np.float32).tiny)
    total = []
    for start in range(0, len(label_N), batch_size):
        rows = slice(start, start + batch_size)
        chosen = score_NY[rows][np.arange(len(label_N[rows])), label_N[rows]]
        total.append(float(-np.log(chosen).mean()))
        if (one.score_NS > 0).all():
            assert total[-1] == pytest.approx(oracle.log_loss(label_N[rows], score_NY[rows], labels=classes), abs=1e-9)
    return total


def by_sklearn_v2(one: Predictions, batch_size: int) -> dict[str, float]:
    """The ten columns and the score, from one-hot matrices."""
    label_N = one.label_NY[:, 0].astype(int)
    decided_N, eye = one.score_NS.argmax(axis=1), np.eye(len(one.classes), dtype=int)
    truth, answer = eye[label_N], eye[decided_N]
    macro = {'average': 'macro', 'zero_division': 0}
    found = {
        'val_loss': float(np.mean(batch_losses(one, batch_size))),
        'accuracy': oracle.accuracy_score(label_N, decided_N),
        'f1': oracle.f1_score(truth, answer, **macro),
        'roc_auc': oracle.roc_auc_score(truth, one.score_NS, multi_class='ovr', average='macro'),
        'hamming': oracle.hamming_loss(truth, answer),
        'jaccard': oracle.jaccard_score(truth, answer, **macro),
        'precision': oracle.precision_score(truth, answer, **macro),
        'recall': oracle.recall_score(truth, answer, **macro),
        'average_precision': oracle.average_precision_score(truth, one.score_NS, average='macro'),
        'kappa': oracle.cohen_kappa_score(label_N, decided_N),
    }
    return found | {'score': (found['f1'] + found['roc_auc'] + found['kappa']) / 3}


def by_sklearn_v1(one: Predictions) -> dict[str, float]:
    """Each class after the first as a binary task of its own; NaN where scikit-learn would put its 0 for an undefined ratio."""
    label_N = one.label_NY[:, 0].astype(int)
    decided_N, truth = one.score_NS.argmax(axis=1), np.eye(len(one.classes), dtype=int)[label_N]
    rows = []
    for y in range(1, len(one.classes)):
        yes, said = label_N == y, decided_N == y
        undefined = np.nan if not said.any() else 0.0
        precision, sensitivity = oracle.precision_score(yes, said, zero_division=np.nan), oracle.recall_score(yes, said)
        rows.append(
            {
                'acc': oracle.accuracy_score(yes, said),
                'sensitivity': sensitivity,
                'specificity': oracle.recall_score(~yes, ~said),
                'precision': precision,
                'F1': oracle.f1_score(yes, said) if precision + sensitivity > 0 else np.nan,
                'mcc': oracle.matthews_corrcoef(yes, said) + undefined,
            }
        )
    found = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    return found | {
        'auc_roc': oracle.roc_auc_score(truth, one.score_NS, multi_class='ovr', average='macro'),
        'auc_pr': oracle.average_precision_score(truth, one.score_NS, average='macro'),
    }


@given(classes=st.sampled_from([2, 3, 5]), seed=st.integers(0, 2**31), n=st.integers(12, 90), shy=st.booleans())
@settings(max_examples=60, deadline=None)
def test_both_styles_equal_sklearn(classes: int, seed: int, n: int, shy: bool) -> None:
    one = drawn(classes=classes, seed=seed, n=n, shy=shy)
    with warnings.catch_warnings():
        warnings.simplefilter('error')  # ours has nothing to warn of
        first, second = retfound_v1(one, batch_size=16), retfound_v2(one, batch_size=16)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        expected_first, expected_second = by_sklearn_v1(one), by_sklearn_v2(one, 16)
    assert set(first) == set(V1_COLUMNS) and set(second) == {*V2_COLUMNS, 'score'}
    for name, value in expected_first.items():
        assert first[name] == pytest.approx(value, abs=1e-12, nan_ok=True), name
    for name, value in expected_second.items():
        assert second[name] == pytest.approx(value, abs=1e-12), name
    if shy:
        assert np.isnan([first['precision'], first['F1'], first['mcc']]).all()


def test_v1_accuracy_is_not_accuracy_and_v2s_is() -> None:
    one = drawn(classes=5, seed=3)
    plain = oracle.accuracy_score(one.label_NY[:, 0], one.score_NS.argmax(axis=1))
    assert retfound_v1(one, batch_size=16)['acc'] > plain + 0.1  # each one-vs-rest table is mostly true negatives
    assert retfound_v2(one, batch_size=16)['accuracy'] == pytest.approx(plain, abs=1e-12)


def test_the_loss_is_over_batches() -> None:
    one = drawn(classes=3, seed=1, n=90)
    losses = batch_losses(one, 4)  # 23 batches, the last of two images; the median looks back on twenty
    assert retfound_v2(one, batch_size=4)['val_loss'] == pytest.approx(np.mean(losses), abs=1e-12)
    assert retfound_v1(one, batch_size=4)['loss'] == f'{sorted(losses[-20:])[9]:.4f} ({np.mean(losses):.4f})'


def test_files_and_what_is_printed(tmp_path: Path) -> None:
    one = drawn(classes=3, seed=5)
    write = {'workdir': tmp_path, 'name': 'my run/1', 'split': 'test', 'batch_size': 16}
    for _ in range(2):  # the second call replaces what the first has written
        first, second = (write_style(one, style=style, **write) for style in STYLES)
    assert first.path == tmp_path / 'my_run_1_metrics_test.csv' and second.path == tmp_path / 'metrics_test.csv'
    with first.path.open(newline='') as file:
        ((*numbers, loss),) = csv.reader(file)
    found = retfound_v1(one, batch_size=16)
    assert [float(number) for number in numbers] == [found[name] for name in V1_COLUMNS[:-1]] and loss == found['loss']
    with second.path.open(newline='') as file:
        header, row = csv.reader(file)
    values = retfound_v2(one, batch_size=16)
    assert header == 'val_loss,accuracy,f1,roc_auc,hamming,jaccard,precision,recall,average_precision,kappa'.split(',')
    assert [float(number) for number in row] == [values[name] for name in header]
    assert first.text == (
        f'Sklearn Metrics - Acc: {found["acc"]:.4f} AUC-roc: {found["auc_roc"]:.4f} AUC-pr: {found["auc_pr"]:.4f} '
        f'F1-score: {found["F1"]:.4f} MCC: {found["mcc"]:.4f}'
    )
    assert second.text.startswith(f'val loss: {values["val_loss"]}\nAccuracy: {values["accuracy"]:.4f}, F1 Score: ')
    assert second.text.endswith(f'Kappa: {values["kappa"]:.4f}, Score: {values["score"]:.4f}')


def test_an_absent_class_is_named(make) -> None:
    one = make('single', classes=('none', 'mild', 'severe'), label_NY=np.tile([[0.0], [2.0], [np.nan]], (80, 1)))
    for style in (retfound_v1, retfound_v2):
        with pytest.raises(UserError, match="test split has no image of class 'mild', so .* leave --style out"):
            style(one, batch_size=16)


@pytest.mark.parametrize('kind', ['multi', 'ordinal', 'regress'])
def test_other_tasks_have_no_style(make, kind: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"kind '{kind}': leave --style out"):
        write_style(make(kind), style='retfound_v2', workdir=tmp_path, name='x', split='test', batch_size=8)
    with pytest.raises(UsageError, match='one class an image'):
        check_style(kind, style='retfound_v1')


DATA = DataConfig(phantom=PhantomConfig(patients=24), image_size=32, batch_size=8, labels=('sex',))


def tiny(**changes: Any) -> TrainConfig:
    task = ClassifyTask(labels=('sex',), model=ViTConfig(image_size=32, patch_size=16, width=16, depth=1, heads=2))
    return TrainConfig(name='tiny', task=task, data=DATA, optim=OptimConfig(lr=1e-2), **changes)


def stand_in(kind: str = 'single') -> SimpleNamespace:
    """A run whose model is a rule on the image, so that its scores differ."""

    def predict(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        share = batch['image'].mean(axis=(1, 2, 3)) % 1.0
        return {'score': np.stack([1 - share, share], axis=1).astype(np.float32)}

    task = SimpleNamespace(kind=kind, labels=('sex',), class_names=('F', 'M'))
    return SimpleNamespace(step=3, config=SimpleNamespace(name='tiny', data=DATA, eval_split='val'), task=task, predict=predict)


@pytest.mark.parametrize(('style', 'file'), [('retfound_v1', 'tiny_metrics_test.csv'), ('retfound_v2', 'metrics_test.csv')])
def test_evaluate_writes_the_style_beside_its_own(
    style: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checkpoint, 'load_run', lambda workdir, which: stand_in())
    assert main(['evaluate', '--workdir', str(tmp_path), '--replicates', '20', '--style', style]) == 0
    shown = capsys.readouterr().out
    one = read_predictions(tmp_path / 'predictions' / 'test.parquet')
    found = retfound_v1(one, batch_size=8) if style == 'retfound_v1' else retfound_v2(one, batch_size=8)
    row = list(csv.reader((tmp_path / file).open(newline='')))[-1]
    assert row == [str(found[name]) for name in (V1_COLUMNS if style == 'retfound_v1' else V2_COLUMNS)]
    assert str(tmp_path / file) in shown and ('MCC: ' in shown or 'Kappa: ' in shown) and 'tables: ' in shown
    assert [path.name for path in tmp_path.glob('*.csv')] == [file] and (tmp_path / 'tables' / 'metrics_test.json').exists()


def test_a_wrong_kind_is_told_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(checkpoint, 'load_run', lambda workdir, which: stand_in('ordinal'))
    assert main(['evaluate', '--workdir', str(tmp_path), '--style', 'retfound_v2']) == 2
    assert "of kind 'ordinal'" in capsys.readouterr().err and not list(tmp_path.iterdir())
    assert main(['evaluate', '--workdir', str(tmp_path), '--style', 'retfound_v3']) == 2
    assert 'did you mean "retfound_v2"' in capsys.readouterr().err


@pytest.mark.parametrize('classes', [2, 3, 5])
def test_the_score_of_validation_is_v2s(classes: int) -> None:
    one = drawn(classes=classes, seed=classes)
    validation = validation_for('single', best_by='retfound_v2_score')
    found = validation.measure('single', np.r_[one.label_NY, [[np.nan]]], np.r_[one.score_NS, one.score_NS[:1]])
    assert found['retfound_v2_score'] == pytest.approx(by_sklearn_v2(one, 16)['score'], abs=1e-12)
    assert (validation.better.metric, validation.better.mode) == ('retfound_v2_score', 'max')
    assert 'retfound_v2_score' not in validation_for('single').measure('single', one.label_NY, one.score_NS)


def test_an_experiment_may_choose_the_deciding_metric() -> None:
    assert better('single') == better('single', best_by='AUROC') == ('AUROC', 'max')
    assert better('single', best_by='cross_entropy') == ('cross_entropy', 'min') and better('regress', best_by='R2') == ('R2', 'max')
    assert better('regress', best_by='RMSE') == ('RMSE', 'min') and better('ordinal', best_by='kappa_quadratic')[1] == 'max'
    for kind, found in DECIDING.items():
        assert better(kind) == better(kind, best_by=found[0])
    with pytest.raises(UsageError, match='best_by is \'retfound_score\', .* did you mean "retfound_v2_score"'):
        validation_for('single', best_by='retfound_score')
    with pytest.raises(UsageError, match="of kind 'mae'; it has loss"):
        better('mae', best_by='AUROC')
    with pytest.raises(UsageError, match="kind 'multi'"):
        better('multi', best_by='retfound_v2_score')


def test_a_run_of_before_best_by_still_loads() -> None:
    text = json.loads(config_lib.to_json(tiny()))
    assert text.pop('best_by') == ''
    assert config_lib.from_dict(TrainConfig, text) == tiny()


def test_train_refuses_an_unknown_best_by_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ['train', '--experiment', 'experiments.finetune:small_cpu', '--set', 'best_by=AUROK', '--workdir', str(tmp_path / 'run')]
    assert main(call) == 2 and main([*call, '--dry_run']) == 2
    assert capsys.readouterr().err.count('did you mean "AUROC"') == 2 and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_from_training_to_the_originals_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny(steps=6, eval_every=2, best_by='retfound_v2_score')
    train(config, workdir=tmp_path, validation=validation_for('single', best_by=config.best_by))
    scores = {row['step']: row['value'] for row in read_metrics(tmp_path) if row['name'] == 'val/retfound_v2_score'}
    run = checkpoint.load_run(tmp_path)
    assert len(scores) == 3 and scores[run.step] == max(scores.values()) and run.config.best_by == 'retfound_v2_score'
    words = ['evaluate', '--workdir', str(tmp_path), '--replicates', '20', '--split', 'val', '--style', 'retfound_v2']
    assert main(words) == 0
    row = list(csv.DictReader((tmp_path / 'metrics_val.csv').open(newline='')))[0]
    expected = by_sklearn_v2(read_predictions(tmp_path / 'predictions' / 'val.parquet'), DATA.batch_size)
    assert {name: float(value) for name, value in row.items()} == pytest.approx({name: expected[name] for name in V2_COLUMNS}, abs=1e-12)
    assert expected['score'] == pytest.approx(scores[run.step], abs=1e-6)
    assert f'Score: {expected["score"]:.4f}' in capsys.readouterr().out
