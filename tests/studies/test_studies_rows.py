"""Rows from cells: scikit-learn's numbers, the order of names, and what a damaged study is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from study_cells import predictions, write_cell

from retfound_jax.core.errors import UserError
from retfound_jax.evals.green_probe import green_median
from retfound_jax.studies.rows import Judged, arms, make_rows, read_results


def test_a_row_is_the_mean_of_its_seeds(tmp_path: Path) -> None:
    for seed in (2, 0, 1):
        write_cell(tmp_path, seed=seed)
    (row,) = make_rows(arms(read_results(tmp_path), judged=Judged(replicates=200)))
    values = []
    for seed in range(3):
        made = predictions(seed=seed, skill=0.5, dataset='aptos2019')
        values.append(roc_auc_score(made.label_NY[:, 0], made.score_NS, multi_class='ovr', average='macro'))
    assert row.per_seed == pytest.approx(values) and row.seeds == (0, 1, 2) and row.n_seeds == 3
    assert row.mean == pytest.approx(np.mean(values))
    assert row.se_high - row.mean == pytest.approx(1.96 * np.std(values, ddof=1) / np.sqrt(3))
    assert row.boot_low < row.mean < row.boot_high and (row.n_images, row.n_patients) == (120, 60)
    assert row.origin.weights == 'mae' and row.origin.images['aptos2019']['test'] == 1100


def test_rows_stand_in_the_order_of_their_names_and_know_every_test_set(tmp_path: Path) -> None:
    for train_on in ('idrid', 'aptos2019'):
        write_cell(tmp_path, train_on=train_on, test_on=('idrid', 'aptos2019'))
    write_cell(tmp_path, method='random', fraction=0.1)
    rows = make_rows(arms(read_results(tmp_path), judged=Judged(replicates=20)))
    found = [(row.train_on, row.test_on, row.method, row.fraction) for row in rows]
    assert found == sorted(found) and len(found) == 5


def test_a_metric_that_the_cell_alone_knows_has_no_interval_over_patients(tmp_path: Path) -> None:
    for seed in range(2):
        write_cell(tmp_path, seed=seed)
    (row,) = make_rows(arms(read_results(tmp_path), judged=Judged(metrics=('F1',))))
    assert row.mean == pytest.approx(0.405) and np.isnan([row.boot_low, row.boot_high]).all()


def test_the_training_metric_is_given_seed_by_seed(tmp_path: Path) -> None:
    write_cell(tmp_path)
    write_cell(tmp_path, method='random', metrics={'aptos2019': {'AUROC': 0.5}})
    first, second = arms(read_results(tmp_path), judged=Judged())
    assert first.train_metric('AUROC') == (0.99,) and second.train_metric('AUROC') is None


def test_an_unfinished_study_a_damaged_cell_and_a_double_one_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='holds no finished cell'):
        read_results(tmp_path)
    folder = write_cell(tmp_path)
    (tmp_path / 'cells' / 'half').mkdir()  # a cell without its result is not there yet
    assert len(read_results(tmp_path)) == 1
    folder.rename(folder.parent / 'older')
    write_cell(tmp_path)
    with pytest.raises(UserError, match='the same cell made with different settings'):
        read_results(tmp_path)
    found = json.loads((folder / 'result.json').read_text())
    hostile = found['cell'] | {'test_on': ['../../secret']}
    for broken in ({**found, 'cell': {}}, {**found, 'weights': None}, {**found, 'cell': hostile}, [1]):
        (folder / 'result.json').write_text(json.dumps(broken))
        with pytest.raises(UserError, match='damaged or of another version'):
            read_results(tmp_path)


def test_seeds_of_different_weights_are_no_row(tmp_path: Path) -> None:
    write_cell(tmp_path)
    write_cell(tmp_path, seed=1, weights={'name': 'other', 'pretrained_on': []})
    with pytest.raises(UserError, match='differ in weights'):
        arms(read_results(tmp_path), judged=Judged())


def test_the_median_of_retfound_green_stands_with_the_interval_over_patients(tmp_path: Path) -> None:
    write_cell(tmp_path)
    median, plain = make_rows(arms(read_results(tmp_path), judged=Judged(metrics=('median AUROC', 'AUROC'), replicates=50)))
    assert median.mean == green_median(predictions(seed=0, skill=0.5, dataset='aptos2019'))
    assert (median.boot_low, median.boot_high) == (plain.boot_low, plain.boot_high) and median.label == 'dr_grade'
