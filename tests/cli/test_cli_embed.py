"""`retfound embed`: vectors as the encoder gives them, in parquet, CSV and RETFound's own columns."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import api_runs
import cli_folders
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import retfound_jax
from retfound_jax.cli.main import main
from retfound_jax.evals.features import extract
from retfound_jax.train.checkpoint import load_run


@pytest.fixture(scope='module')
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, their dataset, a classifier and a masked autoencoder."""
    root = cli_folders.write_folder(tmp_path_factory.mktemp('embed'))
    dataset = cli_folders.ingest(root)
    api_runs.save_run(root / 'run', api_runs.TASKS['single'], phantom=None, path=str(dataset))
    api_runs.save_run(root / 'mae', api_runs.TASKS['mae'])
    return root


def call(place: Path, out: Path, *words: str, source: str = 'images', weights: str = 'run') -> int:
    """`retfound embed` on something below `place`."""
    return main(['embed', '--weights', str(place / weights), '--source', str(place / source), '--out', str(out), *words])


def test_a_classifier_embeds_what_its_head_sees(place: Path, tmp_path: Path) -> None:
    assert call(place, tmp_path / 'e.parquet') == 0
    table = pq.read_table(tmp_path / 'e.parquet')
    assert table.column_names == ['key', 'patient', 'embedding'] and table.schema.field('embedding').type == pa.list_(pa.float32(), 16)
    assert table.column('key').to_pylist() == sorted(cli_folders.NAMES)
    found = dict(zip(table.column('key').to_pylist(), table.column('embedding').to_pylist(), strict=True))
    run = load_run(place / 'run')
    for split in json.loads((place / 'dataset' / 'manifest.json').read_text())['splits']:
        features, source = extract(run.spec, run.params, data=run.config.data, split=split)
        np.testing.assert_allclose([found[key] for key in source.table['key']], features, rtol=1e-3, atol=1e-5)
    said = json.loads(table.schema.metadata[b'retfound'])
    assert said['pool'] == 'mean' and said['norm_twice'] is False and said['preprocessing']['shorter_side'] == 256


def test_csv_has_a_column_a_number_and_loses_no_digit(place: Path, tmp_path: Path) -> None:
    for suffix in ('csv', 'parquet'):
        assert call(place, tmp_path / f'e.{suffix}', weights='mae', source='dataset') == 0
    with open(tmp_path / 'e.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ['key', 'patient', 'split', *(f'feature_{place}' for place in range(16))]
    found = np.array([[row[f'feature_{place}'] for place in range(16)] for row in rows], np.float32)
    np.testing.assert_array_equal(found, pq.read_table(tmp_path / 'e.parquet').column('embedding').to_pylist())


def test_retfounds_own_columns(place: Path, tmp_path: Path) -> None:
    pandas = pytest.importorskip('pandas')
    out = tmp_path / 'Feature.csv'
    assert call(place, out, '--style', 'retfound', weights='mae') == 0
    table = pandas.read_csv(out)
    assert list(table.columns) == ['name', *(f'feature_{place}' for place in range(16))]
    paths = [place / 'images' / name for name in table['name']]
    np.testing.assert_allclose(table.iloc[:, 1:].to_numpy(), retfound_jax.load(place / 'mae').embed(paths), rtol=1e-4, atol=1e-5)


def test_pooling_and_size_are_chosen(place: Path, tmp_path: Path) -> None:
    paths = [place / 'images' / name for name in sorted(cli_folders.NAMES)]
    for words, options in ((['--pool', 'cls'], {'pool': 'cls'}), (['--image_size', '48'], {'image_size': 48})):
        out = tmp_path / 'e.parquet'
        assert call(place, out, *words, '--overwrite', weights='mae') == 0
        found = np.array(pq.read_table(out).column('embedding').to_pylist(), np.float32)
        np.testing.assert_allclose(found, retfound_jax.load(place / 'mae', **options).embed(paths), rtol=1e-4, atol=1e-5)
        assert (found != retfound_jax.load(place / 'mae').embed(paths)).any()


@pytest.mark.parametrize(
    ('words', 'says'),
    [
        (['--style', 'retfound', '--out', 'e.parquet'], 'give it the ending .csv'),
        (['--style', 'retfound', '--out', 'e.csv', '--keep', 'sex'], 'and no other'),
        (['--style', 'retfond', '--out', 'e.csv'], 'did you mean "retfound"'),
        (['--classes', 'a,b', '--out', 'e.csv'], 'no head to name'),
        (['--pool', 'cls', '--norm_twice', '--out', 'e.csv'], 'norm_twice'),
    ],
)
def test_a_wrong_call_is_refused(place: Path, tmp_path: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(tmp_path / word) if word.startswith('e.') else word for word in words]
    assert main(['embed', '--weights', str(place / 'mae'), '--source', str(place / 'images'), *words]) == 2
    told = capsys.readouterr().err
    assert says in told and len(told.strip().splitlines()) == 1 and not list(tmp_path.iterdir())
