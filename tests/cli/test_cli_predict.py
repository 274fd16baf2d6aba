"""`retfound predict`: evaluation's numbers whatever the photographs come from, and refusals before any work."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import api_runs
import cli_folders
import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

import retfound_jax
from retfound_jax.api.loading import run_weights
from retfound_jax.cli import _apply
from retfound_jax.cli.main import main
from retfound_jax.evals.predict import predict as evaluate
from retfound_jax.interop.timm_names import to_timm
from retfound_jax.tasks.classify import ClassifyTask
from retfound_jax.train.checkpoint import load_run

SCORES = [f'score:{name}' for name in ('mild', 'none', 'severe')]


@pytest.fixture(scope='module')
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, the dataset ingested from them, and a run trained on it."""
    root = cli_folders.write_folder(tmp_path_factory.mktemp('predict'))
    dataset = cli_folders.ingest(root)
    task = ClassifyTask(model=api_runs.ENCODER, labels=('grade',), classes=('mild', 'none', 'severe'))
    api_runs.save_run(root / 'run', task, phantom=None, path=str(dataset))
    return root


def call(place: Path, out: Path, *words: str, source: str = 'images', weights: str = 'run') -> int:
    """`retfound predict` on something below `place`."""
    return main(['predict', '--weights', str(place / weights), '--source', str(place / source), '--out', str(out), *words])


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def evaluated(place: Path) -> dict[str, np.ndarray]:
    """Scores by key, of every split, as `retfound evaluate` has them."""
    run = load_run(place / 'run')
    found = [evaluate(run, split=split) for split in ('train', 'val', 'test') if _images(place, split)]
    scores = {key: score for one in found for key, score in zip(one.columns['key'], one.score_NS, strict=True)}
    assert np.ptp(list(scores.values()), axis=0).max() > 0.05  # each photograph has scores of its own
    return scores


def _images(place: Path, split: str) -> bool:
    return split in json.loads((place / 'dataset' / 'manifest.json').read_text())['splits']


def test_folder_table_and_dataset_give_the_numbers_of_evaluation(place: Path, tmp_path: Path) -> None:
    wanted = evaluated(place)
    assert set(wanted) == set(cli_folders.NAMES)
    (place / 'list.csv').write_text('path,patient_id\n' + ''.join(f'images/{name},p{i}\n' for i, name in enumerate(cli_folders.NAMES)))
    for source, strip in (('images', ''), ('list.csv', 'images/'), ('dataset', '')):
        assert call(place, tmp_path / f'{source}.csv', source=source) == 0
        found = {row['key'].removeprefix(strip): [float(row[name]) for name in SCORES] for row in rows(tmp_path / f'{source}.csv')}
        assert set(found) == set(wanted)
        for key, score in wanted.items():
            np.testing.assert_allclose(found[key], score, rtol=1e-5, atol=1e-7)


def test_parquet_holds_the_columns_and_what_they_mean(place: Path, tmp_path: Path) -> None:
    pandas = pytest.importorskip('pandas')
    out = tmp_path / 'scores.parquet'
    assert call(place, out, '--keep', 'sex,label:grade', source='dataset') == 0
    table = pandas.read_parquet(out)
    assert list(table.columns) == ['key', 'patient', 'split', 'sex', 'label:grade', *SCORES, 'predicted']
    np.testing.assert_allclose(table[SCORES].sum(axis=1), 1.0, rtol=1e-5)
    assert (table['predicted'] == table[SCORES].idxmax(axis=1).str.removeprefix('score:')).all()
    by_key = {row['image']: row for row in rows(place / 'labels.csv')}
    for _, row in table.iterrows():
        wanted = by_key[row['key']]
        assert (row['patient'], row['sex'], row['label:grade']) == (wanted['patient_id'], wanted['sex'], wanted['grade'])
    said = json.loads(pq.read_schema(out).metadata[b'retfound'])
    assert said['kind'] == 'single' and said['labels'] == ['grade'] and said['classes'] == ['mild', 'none', 'severe']
    assert said['image_size'] == 32 and said['origin']['step'] == api_runs.STEP and said['source']['kind'] == 'dataset'
    assert said['parameters_sha256'] == retfound_jax.load(place / 'run').fingerprint
    assert said['preprocessing']['central_share'] == 1.0


def test_one_split_alone(place: Path, tmp_path: Path) -> None:
    assert call(place, tmp_path / 'train.csv', '--split', 'train', source='dataset') == 0
    splits = {row['split'] for row in rows(tmp_path / 'train.csv')}
    assert splits == {'train'}


def test_a_number_comes_in_its_unit_and_labels_each_have_a_score(place: Path, tmp_path: Path) -> None:
    for kind, columns in (('regress', ['score']), ('multi', ['score:glaucoma', 'score:amd'])):
        api_runs.save_run(tmp_path / kind, api_runs.TASKS[kind])
        out = tmp_path / f'{kind}.csv'
        assert main(['predict', '--weights', str(tmp_path / kind), '--source', str(place / 'images'), '--out', str(out)]) == 0
        assert list(rows(out)[0]) == ['key', 'patient', *columns]
        paths = [place / 'images' / row['key'] for row in rows(out)]
        found = [[float(row[name]) for name in columns] for row in rows(out)]
        np.testing.assert_allclose(found, retfound_jax.load(tmp_path / kind).predict(paths), rtol=1e-4)


def test_what_cannot_be_read_is_listed_and_the_rest_is_done(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / 'in'
    shutil.copytree(place / 'images' / 'north', source)
    (source / 'Jane_Doe.png').write_bytes(b'\x89PNG\r\n\x1a\nrubbish')
    cv2.imwrite(str(source / 'black.png'), np.zeros((64, 64, 3), np.uint8))
    (source / 'notes.txt').write_text('no picture')
    (source / 'out.png').symlink_to(place / 'images' / 'south' / 'left0.png')
    out = tmp_path / 'scores.csv'
    assert main(['predict', '--weights', str(place / 'run'), '--source', str(source), '--out', str(out)]) == 0
    told = capsys.readouterr()
    assert '3 of 9 photographs could not be read' in told.err and 'Jane' not in told.err + told.out
    reasons = {row['key']: row['reason'] for row in rows(tmp_path / 'scores.rejects.csv')}
    assert set(reasons) == {'Jane_Doe.png', 'black.png', 'out.png'}
    assert 'blank' in reasons['black.png'] and 'leaves the source folder' in reasons['out.png']
    assert sorted(row['key'] for row in rows(out)) == sorted(path.name for path in (place / 'images' / 'north').iterdir())
    for path in (source / 'Jane_Doe.png', source / 'black.png', source / 'out.png'):
        path.unlink()
    assert main(['predict', '--weights', str(place / 'run'), '--source', str(source), '--out', str(out), '--overwrite']) == 0
    assert not (tmp_path / 'scores.rejects.csv').exists()


def test_where_nothing_can_be_read_nothing_is_written_but_the_list(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / 'in').mkdir()
    (tmp_path / 'in' / 'a.png').write_bytes(b'rubbish')
    assert main(['predict', '--weights', str(place / 'run'), '--source', str(tmp_path / 'in'), '--out', str(tmp_path / 'o.csv')]) == 1
    assert 'none of the 1 photographs could be read' in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ['in', 'o.rejects.csv']


def test_a_table_may_name_any_file_and_carry_columns_over(place: Path, tmp_path: Path) -> None:
    """A CSV is the user's own list: absolute paths, `..`, links and repeats are followed; what is no file is listed."""
    folder = tmp_path / 'lists'
    folder.mkdir()
    far = place / 'images' / 'north' / 'left0.png'
    shutil.copy(far, tmp_path / 'up.png')
    (folder / 'link.png').symlink_to(far)
    os.mkfifo(folder / 'pipe')
    cells = [str(far), '../up.png', 'link.png', '..\\up.png', '', 'absent.png', '.', 'pipe']
    (folder / 'list.csv').write_text('eye;photo;note\n' + ''.join(f'{i};{cell};n, {i}\n' for i, cell in enumerate(cells)))
    out = tmp_path / 'scores.csv'
    words = ['--source', str(folder / 'list.csv'), '--out', str(out), '--image_column', 'photo', '--keep', 'note,eye']
    assert main(['predict', '--weights', str(place / 'run'), *words]) == 0
    found = rows(out)
    assert [(row['key'], row['eye'], row['note']) for row in found] == [(cell, str(i), f'n, {i}') for i, cell in enumerate(cells[:4])]
    assert len({tuple(row[name] for name in SCORES) for row in found}) == 1
    reasons = {row['key']: row['reason'] for row in rows(tmp_path / 'scores.rejects.csv')}
    assert reasons == {
        'line 6': 'names no photograph',
        'absent.png': 'does not exist',
        '.': 'is not a regular file',
        'pipe': 'is not a regular file',
    }


def test_photographs_as_they_are(place: Path, tmp_path: Path) -> None:
    out = tmp_path / 'scores.csv'
    assert call(place, out, '--crop', 'none') == 0
    first = rows(out)[0]
    pixels = cv2.cvtColor(cv2.imread(str(place / 'images' / first['key'])), cv2.COLOR_BGR2RGB)
    wanted = retfound_jax.load(place / 'run').predict(pixels)[0]
    np.testing.assert_allclose([float(first[name]) for name in SCORES], wanted, rtol=1e-5)


def test_batches_do_not_change_the_result_and_photographs_are_not_held(place: Path, tmp_path: Path) -> None:
    for size in ('1', '5'):
        assert call(place, tmp_path / f'{size}.csv', '--batch_size', size) == 0
    one, five = ([[float(row[name]) for name in SCORES] for row in rows(tmp_path / f'{size}.csv')] for size in ('1', '5'))
    np.testing.assert_allclose(one, five, rtol=1e-5)


def test_weights_without_names(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.numpy import save_file

    weights = run_weights(load_run(api_runs.save_run(tmp_path / 'wide', _wide())))
    save_file(to_timm(weights.params, config=weights.config, outputs=weights.outputs), tmp_path / 'theirs.safetensors')
    words = ['predict', '--weights', str(tmp_path / 'theirs.safetensors'), '--source', str(place / 'images'), '--overwrite']
    assert main([*words, '--out', str(tmp_path / 'a.csv')]) == 0
    told = capsys.readouterr().err
    assert [line for line in told.splitlines() if '--classes' in line] and 'class_0, class_1, class_2' in told
    assert list(rows(tmp_path / 'a.csv')[0])[2:] == ['score:class_0', 'score:class_1', 'score:class_2', 'predicted']
    assert main([*words, '--out', str(tmp_path / 'a.csv'), '--classes', 'no,mild,severe']) == 0
    assert list(rows(tmp_path / 'a.csv')[0])[2:] == ['score:no', 'score:mild', 'score:severe', 'predicted']
    assert 'names' not in capsys.readouterr().err
    assert main([*words, '--out', str(tmp_path / 'a.csv'), '--classes', 'no,yes']) == 2
    assert '2 classes are given, and the head has 3' in capsys.readouterr().err


def _wide() -> ClassifyTask:
    """Heads of 64 channels, as whoever reads a file of tensors alone has to guess."""
    from retfound_jax.models.vit import ViTConfig

    network = ViTConfig(image_size=32, patch_size=8, width=64, depth=1, heads=1)
    return ClassifyTask(model=network, labels=('grade',), classes=('none', 'mild', 'severe'))


@pytest.mark.parametrize(
    ('words', 'says'),
    [
        (['--out', 'OUT/scores.xlsx'], 'ends in neither .csv nor .parquet'),
        (['--out', 'OUT/there.csv'], '--overwrite'),
        (['--out', 'OUT'], 'neither .csv'),
        (['--out', 'OUT/folder.csv'], 'is a folder'),
        (['--out', 'OUT/there.csv/a.csv'], 'is not a folder'),
        (['--source', 'PLACE/labels.csv', '--out', 'PLACE/labels.csv', '--overwrite'], 'would overwrite the source'),
        (['--source', 'PLACE/nowhere'], 'does not exist; give a folder'),
        (['--source', 'PLACE/images/north/left0.png'], 'is a single file'),
        (['--split', 'test'], '--split is for a dataset'),
        (['--keep', 'age'], '--keep is for a CSV or a dataset'),
        (['--image_column', 'image'], '--image_column is for a CSV'),
        (['--source', 'PLACE/dataset', '--crop', 'none'], '--crop none is for a folder or a CSV'),
        (['--source', 'PLACE/dataset', '--split', 'tset'], 'did you mean "test"'),
        (['--source', 'PLACE/dataset', '--keep', 'sx'], 'did you mean "sex"'),
        (['--source', 'PLACE/labels.csv', '--image_column', 'imag'], 'did you mean "image"'),
        (['--source', 'PLACE/labels.csv', '--keep', 'grad'], 'did you mean "grade"'),
        (['--source', 'PLACE/labels.csv', '--keep', 'grade,grade'], 'names a column twice'),
        (['--source', 'PLACE/odd.csv'], 'pass --image_column with one of a, b'),
        (['--source', 'PLACE/odd.csv', '--image_column', 'a', '--keep', 'predicted'], 'is not in odd.csv'),
        (['--source', 'PLACE/taken.csv', '--keep', 'predicted'], 'has the name of a column that is written anyway'),
        (['--weights', 'PLACE/mae'], 'have no head'),
        (['--weights', 'PLACE/nowhere'], 'there are no weights'),
        (['--classes', 'a,b'], '2 classes are given, and the head has 3'),
        (['--image_size', '50'], 'does not divide into patches'),
        (['--image_size', '80000'], 'from 8 to 4096'),
        (['--size', '5'], 'size is 5'),
        (['--pool', 'cls'], 'trained on pooling "mean"'),
    ],
)
def test_a_wrong_call_is_refused_in_one_sentence_before_any_work(
    place: Path, tmp_path: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (place / 'mae').exists():
        api_runs.save_run(place / 'mae', api_runs.TASKS['mae'])
        (place / 'odd.csv').write_text('a,b\n1,2\n')
        (place / 'taken.csv').write_text('image,predicted\nimages/north/left0.png,2\n')
    (tmp_path / 'there.csv').write_text('mine')
    (tmp_path / 'folder.csv').mkdir()
    before = {path: path.read_bytes() for path in (tmp_path / 'there.csv', place / 'labels.csv')}
    monkeypatch.setattr(_apply, 'in_order', lambda *_, **__: pytest.fail('the work began'))
    given = {'--weights': str(place / 'run'), '--source': str(place / 'images'), '--out': str(tmp_path / 'scores.csv')}
    flags, rest = dict(given), []
    for flag, value in zip(words[::2], [*words[1::2], ''], strict=False):
        value = value.replace('OUT', str(tmp_path)).replace('PLACE', str(place))
        if flag in flags:
            flags[flag] = value
        else:
            rest += [flag, value] if value else [flag]
    assert main(['predict', *(word for pair in flags.items() for word in pair), *rest]) == 2
    told = capsys.readouterr().err
    assert says in told and len(told.strip().splitlines()) == 1
    assert {path: path.read_bytes() for path in before} == before
    assert {path.name for path in tmp_path.iterdir()} == {'there.csv', 'folder.csv'}


def test_a_folder_that_cannot_be_written_to_is_told_before_any_work(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, 'access', lambda path, mode: Path(path) != tmp_path)  # root may write anywhere
    assert call(place, tmp_path / 'new' / 'scores.csv', source='nowhere') == 2
    assert f'the folder {tmp_path} cannot be written to' in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_an_interruption_leaves_nothing(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from retfound_jax.api.model import Model

    count = iter(range(2))

    def scores(self: Model, squares: np.ndarray) -> np.ndarray:
        if next(count):
            raise KeyboardInterrupt
        return np.full((len(squares), 3), 1 / 3, np.float32)

    monkeypatch.setattr(Model, 'scores', scores)
    for suffix in ('csv', 'parquet'):
        count = iter(range(2))
        assert call(place, tmp_path / f'scores.{suffix}', '--batch_size', '4') == 130
    assert not list(tmp_path.iterdir())
