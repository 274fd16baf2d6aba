"""Prediction files, prediction of a split, and the quick metrics of the training loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sklearn.metrics as oracle

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.core.files import read_json
from retfound_jax.data.config import DataConfig
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.data.sources import open_source
from retfound_jax.evals.evaluation import evaluate_run
from retfound_jax.evals.predict import align_labels, collect, predict
from retfound_jax.evals.predictions import read_predictions, write_predictions
from retfound_jax.evals.tables import EvalConfig
from retfound_jax.evals.validation import better, validation_for, validation_metrics


@pytest.mark.parametrize('kind', ['single', 'multi', 'ordinal', 'regress'])
def test_a_file_comes_back_as_it_was(make, kind: str, tmp_path: Path) -> None:
    before = make(kind)
    before = replace(before, label_NY=np.where(np.arange(240)[:, None] == 3, np.nan, before.label_NY))
    write_predictions(before, path=tmp_path / 'p.parquet')
    after = read_predictions(tmp_path / 'p.parquet')
    assert (after.kind, after.labels, after.classes, after.split, after.step, after.fingerprint) == (
        before.kind, before.labels, before.classes, before.split, before.step, before.fingerprint
    )  # fmt: skip
    np.testing.assert_array_equal(after.label_NY, before.label_NY)
    np.testing.assert_array_equal(after.score_NS, before.score_NS)
    assert list(after.columns) == list(before.columns)
    for name, values in before.columns.items():
        np.testing.assert_array_equal(after.columns[name], values)
    first = (tmp_path / 'p.parquet').read_bytes()
    write_predictions(after, path=tmp_path / 'p.parquet')
    assert (tmp_path / 'p.parquet').read_bytes() == first


def test_columns_are_the_documented_ones(make, tmp_path: Path) -> None:
    for kind, expected in {
        'single': ['label', 'score:0', 'score:1', 'score:2', 'score:3'],
        'multi': ['label:glaucoma', 'label:amd', 'score:glaucoma', 'score:amd'],
        'regress': ['label', 'score'],
    }.items():
        write_predictions(make(kind), path=tmp_path / 'p.parquet')
        table = pq.read_table(tmp_path / 'p.parquet')
        assert [name for name in table.column_names if name.startswith(('label', 'score'))] == expected
    assert table.schema.field('key').type == pa.string()


def test_other_files_are_refused_in_one_sentence(make, tmp_path: Path) -> None:
    path = tmp_path / 'p.parquet'
    with pytest.raises(UserError, match='no predictions at'):
        read_predictions(path)
    write_predictions(make('multi'), path=path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match='not a readable parquet'):
        read_predictions(path)
    pq.write_table(pa.table({'a': [1]}), path)
    with pytest.raises(UserError, match='no predictions file'):
        read_predictions(path)
    path.write_bytes(whole)
    pq.write_table(pq.read_table(path).drop_columns(['score:amd']), path)
    with pytest.raises(UserError, match='score:amd'):
        read_predictions(path)


def test_scores_that_are_not_finite_are_refused(make) -> None:
    good = make('multi')
    with pytest.raises(UserError, match='the first is test00005'):
        replace(good, score_NS=np.where(np.arange(240)[:, None] == 5, np.nan, good.score_NS))


class FakeRun:
    """A model that reads the answer off the image's mean brightness."""

    def __init__(self, *, data: DataConfig, kind: str, labels: tuple[str, ...], class_names: tuple[str, ...] = ()) -> None:
        self.step, self.config = 12, SimpleNamespace(data=data, eval_split='val')
        self.task = SimpleNamespace(kind=kind, labels=labels, class_names=class_names)

    def predict(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        bright = batch['image'].mean(axis=(1, 2, 3)) / 255
        if self.task.kind == 'single':
            return {'score': np.stack([1 - bright, bright], axis=1)}
        return {'score': np.repeat(bright[:, None], len(self.task.labels), axis=1)}


PHANTOM = DataConfig(phantom=PhantomConfig(patients=16), image_size=32, batch_size=5, labels=('age',), fraction=0.5, augment='none')


def test_a_split_of_the_phantom_is_predicted_whole() -> None:
    run = FakeRun(data=PHANTOM, kind='regress', labels=('age',))
    found = predict(run, split='train')
    assert len(np.unique(found.columns['key'])) == len(found) == len(open_source(replace(PHANTOM, fraction=1.0))) > 5
    np.testing.assert_allclose(found.label_NY[:, 0], found.columns['age'])
    assert 0 < found.score_NS.min() < found.score_NS.max() < 1 and found.step == 12
    assert set(found.columns['sex']) <= {'F', 'M', ''} and set(found.columns['laterality']) <= {'L', 'R'}


def test_a_run_is_evaluated_into_its_directory(tmp_path: Path) -> None:
    run = FakeRun(data=PHANTOM, kind='regress', labels=('age',))
    done = evaluate_run(run, workdir=tmp_path, split='train', config=EvalConfig(by=('sex',), replicates=20, min_n=2))
    assert read_json(tmp_path / 'tables' / 'metrics_train.json') == done.table
    assert read_predictions(done.predictions_path).split == 'train'
    assert read_predictions(tmp_path / 'predictions' / 'val.parquet').split == 'val'


def test_a_pretraining_run_is_refused() -> None:
    with pytest.raises(UsageError, match='fine-tuned'):
        predict(FakeRun(data=PHANTOM, kind='mae', labels=()), split='test')


def test_padding_is_left_out_and_rows_are_joined_by_index() -> None:
    run = FakeRun(data=DataConfig(), kind='multi', labels=('a',))
    table = {'key': np.array(['x', 'y', 'z']), 'patient': np.array(['1', '1', '2'])}
    source = SimpleNamespace(table=table, label_classes={'a': ['0', '1']}, fingerprint='f')
    image = np.stack([np.full((2, 2, 3), value, np.uint8) for value in (51, 102, 0)])
    batch = {'image': image, 'index': np.array([2, 0, -1]), 'labels': np.array([[1], [0], [np.nan]]), 'mask': np.array([True, True, False])}
    found = collect(run, batches=[batch], source=source, split='test')
    assert found.columns['key'].tolist() == ['z', 'x'] and found.columns['sex'].tolist() == ['', '']
    np.testing.assert_allclose(found.score_NS[:, 0], [0.2, 0.4])
    assert found.label_NY[:, 0].tolist() == [1, 0] and np.isnan(found.columns['age']).all()


def test_labels_of_another_dataset_are_matched_by_name() -> None:
    def align(kind: str, found: list[str] | None, codes: list[float], names: tuple[str, ...] = ()) -> list[float]:
        task = SimpleNamespace(kind=kind, labels=('a',), class_names=names)
        return align_labels(task, label_NY=np.array(codes, float)[:, None], label_classes={'a': found})[:, 0].tolist()

    assert align('single', ['no', 'yes'], [0, 1], ('yes', 'no')) == [1, 0]
    assert align('ordinal', ['1', '3'], [0, 1], ('0', '1', '2', '3')) == [1, 3]
    assert align('multi', ['1'], [0, 0]) == [1, 1] and align('multi', ['No'], [0]) == [0]
    assert np.isnan(align('multi', ['0', '1'], [np.nan])).all()
    for kind, found in (('single', ['no', 'maybe']), ('multi', ['a', 'b', 'c']), ('multi', ['x']), ('single', None)):
        with pytest.raises(UserError, match="label 'a'"):
            align(kind, found, [0], ('no', 'yes'))


def test_validation_metrics_equal_sklearn(make) -> None:
    ordinal = make('ordinal')
    found = validation_metrics('ordinal', label=ordinal.label_NY, score=ordinal.score_NS)
    label = ordinal.label_NY[:, 0].astype(int)
    assert found['AUROC'] == pytest.approx(oracle.roc_auc_score(label, ordinal.score_NS, multi_class='ovr'))
    assert found['cross_entropy'] == pytest.approx(oracle.log_loss(label, ordinal.score_NS))
    assert found['kappa_quadratic'] == pytest.approx(oracle.cohen_kappa_score(label, ordinal.score_NS.argmax(axis=1), weights='quadratic'))
    binary = make('single', classes=('no', 'yes'))
    found = validation_metrics('single', label=binary.label_NY[:, 0], score=binary.score_NS)
    assert found['AUPRC'] == pytest.approx(oracle.average_precision_score(binary.label_NY[:, 0], binary.score_NS[:, 1]))
    ages = make('regress')
    assert validation_metrics('regress', label=ages.label_NY, score=ages.score_NS)['MAE'] == pytest.approx(
        oracle.mean_absolute_error(ages.label_NY, ages.score_NS)
    )


@pytest.mark.parametrize('kind', ['single', 'multi', 'ordinal', 'regress'])
def test_validation_metrics_survive_missing_labels_and_classes(make, kind: str) -> None:
    one = make(kind)
    for label in (np.full_like(one.label_NY, np.nan), np.zeros_like(one.label_NY), one.label_NY[:0]):
        found: dict[str, Any] = validation_metrics(kind, label=label, score=one.score_NS[: len(label)])
        metric, _ = better(kind)
        assert metric in found and all(isinstance(value, float) for value in found.values())
    assert validation_for(kind).better.metric == metric
    assert validation_for(kind).measure(kind, one.label_NY, one.score_NS).keys() == found.keys()


def test_the_deciding_metric() -> None:
    assert (better('mae'), better('regress'), better('multi')) == (('loss', 'min'), ('MAE', 'min'), ('AUROC', 'max'))
