"""`retfound report` on a dataset that ingest wrote: pictures by key, a notice where the data are others."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import report_runs
from PIL import Image

from retfound_jax.cli import main as front_door
from retfound_jax.cli.report import small_jpeg
from retfound_jax.core.config import to_dict
from retfound_jax.core.files import read_json, write_json
from retfound_jax.data.config import DataConfig
from retfound_jax.data.sources import open_source
from retfound_jax.evals.predictions import write_predictions
from retfound_jax.evals.tables import EvalConfig, evaluate


@pytest.fixture(scope='module')
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('ingested')
    (root / 'photographs').mkdir()
    lines = ['image,patient_id,disease,split']
    for i in range(12):
        (root / 'photographs' / f'{i}.jpg').write_bytes(report_runs.jpeg(f'photograph {i}'))
        lines.append(f'{i}.jpg,p{i},{"yes" if i % 2 else "no"},{"test" if i < 8 else "train"}')
    (root / 'labels.csv').write_text('\n'.join(lines) + '\n')
    words = [
        '--source',
        root / 'photographs',
        '--labels',
        root / 'labels.csv',
        '--key',
        'image',
        '--patient',
        'patient_id',
        '--label',
        'disease',
    ]
    words += ['--split_column', 'split', '--out', root / 'dataset', '--size', '64', '--workers', '0']
    assert front_door.main(['ingest', *map(str, words)]) == 0
    return root / 'dataset'


@pytest.fixture
def run(dataset: Path, tmp_path: Path) -> Path:
    """A run evaluated on the dataset, every answer of which is wrong."""
    config = DataConfig(path=str(dataset), split='test', labels=('disease',))
    source = open_source(config)
    made = report_runs.make_predictions('single', patients=len(source) // 2, labels=('disease',), classes=('no', 'yes'))
    keys, label_NY = source.table['key'].astype(str), source.labels.astype(float)
    score_N = np.where(label_NY[:, 0] > 0, 0.1, 0.9)
    given = dataclasses.replace(
        made,
        fingerprint=source.fingerprint,
        columns={**made.columns, 'key': keys, 'patient': source.table['patient'].astype(str)},
        label_NY=label_NY,
        score_NS=np.stack([1 - score_N, score_N], axis=1),
    )
    write_predictions(given, path=tmp_path / 'predictions' / 'test.parquet')
    write_json(tmp_path / 'tables' / 'metrics_test.json', evaluate(given, validation=None, config=EvalConfig(replicates=2)))
    write_json(tmp_path / 'config.json', {'name': 'trial', 'data': to_dict(config), 'init_from': ''})
    return tmp_path


def report(run: Path, *words: str) -> str:
    assert front_door.main(['report', '--workdir', str(run), *words]) == 0
    return (run / 'report.html').read_text(encoding='utf-8')


def test_the_runs_own_dataset_gives_people_and_pictures(run: Path, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    html = report(run)
    assert capsys.readouterr().out.strip() == f'report: {run / "report.html"}'
    assert html.count('data:image/jpeg') == 8
    assert 'Patients and images in each split' in html
    assert read_json(dataset / 'manifest.json')['fingerprint'] in html
    assert 'not the one the model was evaluated on' not in html
    assert '.jpg' not in html.replace('labels.csv', '')


def test_photographs_and_keys_on_demand(run: Path) -> None:
    assert 'data:image/jpeg' not in report(run, '--nophotographs')
    assert '0.jpg' in report(run, '--show_keys')


def test_another_dataset_is_noticed(run: Path) -> None:
    from retfound_jax.evals.predictions import read_predictions

    path = run / 'predictions' / 'test.parquet'
    write_predictions(dataclasses.replace(read_predictions(path), fingerprint='0' * 64), path=path)
    assert 'not the one the model was evaluated on' in report(run)


def test_a_dataset_that_is_gone_is_said_in_words(run: Path) -> None:
    config = read_json(run / 'config.json')
    write_json(run / 'config.json', config | {'data': {**config['data'], 'path': '/nowhere/at/all'}})
    html = report(run)
    assert 'No dataset was given' in html and 'data:image/jpeg' not in html


def test_a_wrong_directory_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert front_door.main(['report', '--workdir', str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith('retfound report: ')


def test_a_thumbnail_is_small() -> None:
    buffer = io.BytesIO()
    Image.new('RGB', (900, 600), (200, 90, 40)).save(buffer, 'JPEG')
    for image in (buffer.getvalue(), np.zeros((600, 900, 3), np.uint8)):
        assert Image.open(io.BytesIO(small_jpeg(image))).size == (224, 149)
