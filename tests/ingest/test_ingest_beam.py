"""An ingest by Apache Beam ends in the bytes of a local one, however it is spread, repeated or broken off."""

from __future__ import annotations

import csv
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_ingest_dicom import header, written
from test_ingest_pipeline import _bytes, _config, _ingest, _photograph, _reasons

from retfound_jax.cli import main as front_door
from retfound_jax.core.errors import UserError
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.data.phantom.export import export
from retfound_jax.ingest import manifest, splits, work, writer
from retfound_jax.ingest.beam import place, twins
from retfound_jax.ingest.beam import run as beam_run
from retfound_jax.ingest.plan import make_plan, partial_folder
from retfound_jax.ingest.process import Processed, process

pytestmark = pytest.mark.oracle
pytest.importorskip('apache_beam', reason='Apache Beam is not installed: launch/test --oracle runs these')

RETRYING = 'apache_beam.runners.direct.direct_runner.BundleBasedDirectRunner'  # tries a bundle that failed again, four times
MANY_SPLITS = splits.SplitConfig(val=0.25, test=0.25)


def _beam(source: Path, out: Path, *, process: work.Process = process, runner: str = 'direct', beam: tuple[str, ...] = (),
          **options: object) -> dict:
    return beam_run.run(make_plan(_config(source, out, **options)), runner=runner, options=beam, process=process)


@pytest.fixture(scope='module')
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn photographs with a table; among them copies and near copies of other patients', DICOM, and files that are none."""
    folder = tmp_path_factory.mktemp('phantom') / 'in'
    labels = export(PhantomConfig(patients=16, image_size=96, seed=3), folder, kind='png')
    with open(labels, newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    images, first = folder / 'images', rows[0]
    pixels = cv2.imread(str(images / rows[2]['image']))
    cv2.imwrite(str(images / 'saved_again.jpg'), pixels, [cv2.IMWRITE_JPEG_QUALITY, 92])
    (images / 'copy.png').write_bytes((images / rows[5]['image']).read_bytes())
    (images / 'own_copy.png').write_bytes((images / rows[5]['image']).read_bytes())
    rng = np.random.default_rng(0)
    frames = np.stack([cv2.resize(rng.integers(0, 255, (9, 9), np.uint8), (64, 48)) for _ in range(3)])
    (images / 'stack.dcm').write_bytes(written(header(frames, frames=3, sop='1.2.840.10008.5.1.4.1.1.77.1.5.4'), pixels=frames))
    (images / 'cut.png').write_bytes((images / rows[1]['image']).read_bytes()[:90])
    (images / 'nothing.jpg').write_bytes(b'')
    (images / 'no_row.png').write_bytes((images / rows[1]['image']).read_bytes())
    (images / 'gone.png').symlink_to(images / 'nowhere.png')
    patient = next(name for name in first if name.startswith('patient'))
    for name, whose in (('saved_again.jpg', 'q1'), ('copy.png', 'q2'), ('own_copy.png', rows[5][patient]), ('stack.dcm', 'q3'),
                        ('cut.png', 'q4'), ('nothing.jpg', 'q5')):
        rows.append({**first, 'image': name, patient: whose})
    with open(labels, 'w', newline='', encoding='utf-8') as file:
        out = csv.DictWriter(file, fieldnames=list(first))
        out.writeheader()
        out.writerows(rows)
    return folder


@pytest.fixture(scope='module')
def local(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a local run makes of them."""
    out = tmp_path_factory.mktemp('local') / 'out'
    content = _ingest(photographs, out, splits=MANY_SPLITS, shard_bytes=9000)
    assert content['duplicates'] == {'exact_groups': 1, 'near_groups': 1, 'joined_patients': 4}
    assert len(content['shards']) > 5 and set(content['splits']) == set(splits.SPLITS) and content['rejects']['count'] == 4
    return out


@pytest.mark.parametrize('beam', [(), ('--direct_runner_bundle_repeat=1',)])
@pytest.mark.parametrize('chunk', [1, 5, 1000])
def test_the_bytes_are_those_of_a_local_run(
    tmp_path: Path, photographs: Path, local: Path, chunk: int, beam: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, 'CHUNK_FILES', chunk)
    # Small buckets and bins, as many photographs would fill them.
    for module, name, size in ((twins, '_BUCKET', 7), (twins, '_ROWS', 2), (place, '_BUCKET', 5), (place, '_BIN', 3)):
        monkeypatch.setattr(module, name, size)
    content = _beam(photographs, tmp_path / 'out', beam=beam, splits=MANY_SPLITS, shard_bytes=9000)
    assert _bytes(tmp_path / 'out') == _bytes(local) and content == manifest.read(local)
    assert not partial_folder(tmp_path / 'out').exists()


def test_two_processes_make_the_same_bytes(tmp_path: Path, photographs: Path, local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, 'CHUNK_FILES', 3)
    _beam(photographs, tmp_path / 'out', beam=tuple(beam_run.workers_options(2)), splits=MANY_SPLITS, shard_bytes=9000)
    assert _bytes(tmp_path / 'out') == _bytes(local)


def test_all_is_the_same_without_a_table_and_with_a_wide_threshold(tmp_path: Path, photographs: Path) -> None:
    options = {'labels': '', 'near_threshold': 60, 'modality': 'CFP', 'min_age': 70.0, 'shard_bytes': 20_000}
    content = _ingest(photographs, tmp_path / 'local', **options)
    assert content['duplicates']['near_groups'] >= 1 and content['duplicates']['joined_patients'] > 4
    _beam(photographs, tmp_path / 'beam', **options)
    assert _bytes(tmp_path / 'beam') == _bytes(tmp_path / 'local')


class _Once:
    """Fails at its first call, after some work, as a worker that is taken away."""

    def __init__(self, marker: Path, real: object) -> None:
        self.marker, self.real = marker, real

    def __call__(self, path: Path, **options: object) -> object:
        made = self.real(path, **options)
        if not self.marker.exists():
            self.marker.touch()
            path.write_bytes(path.read_bytes()[:100])
            raise RuntimeError('this worker was taken away')
        return made


def test_a_bundle_that_fails_is_tried_again_and_leaves_no_trace(
    tmp_path: Path, photographs: Path, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, 'CHUNK_FILES', 3)
    monkeypatch.setattr(writer, 'write_shard', _Once(tmp_path / 'shard', writer.write_shard))
    monkeypatch.setattr(work, 'ensure', _lost_once(tmp_path / 'chunk'))
    _beam(photographs, tmp_path / 'out', runner=RETRYING, splits=MANY_SPLITS, shard_bytes=9000)
    assert (tmp_path / 'shard').exists() and (tmp_path / 'chunk').exists()
    assert _bytes(tmp_path / 'out') == _bytes(local)


def _lost_once(marker: Path) -> object:
    real = work.ensure

    def ensure(chunk: work.Chunk, **options: object) -> None:
        real(chunk, **options)
        if len(list(Path(chunk.path).parent.glob('*.chunk'))) == 4 and not marker.exists():
            marker.touch()
            os.remove(chunk.path)
            Path(chunk.path).with_suffix('.begun').touch()
            raise RuntimeError('this worker was taken away')

    return ensure


def test_an_ingest_that_stopped_leaves_no_dataset_and_either_way_of_running_goes_on(
    tmp_path: Path, photographs: Path, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, 'CHUNK_FILES', 3)
    options = {'splits': MANY_SPLITS, 'shard_bytes': 9000}
    for out in (tmp_path / 'one', tmp_path / 'other'):
        with monkeypatch.context() as patch:
            patch.setattr(writer, 'write_shard', _Once(tmp_path / f'{out.name}.marker', writer.write_shard))
            with pytest.raises(UserError, match='this worker was taken away; what was read is kept, so start the same command again'):
                _beam(photographs, out, **options)
        assert not out.exists() and partial_folder(out).exists()

    def unread(path: Path, **options: int) -> list[Processed]:
        pytest.fail(f'{path} was read before')

    _beam(photographs, tmp_path / 'one', process=unread, **options)
    _ingest(photographs, tmp_path / 'other', process=unread, **options)
    assert _bytes(tmp_path / 'one') == _bytes(tmp_path / 'other') == _bytes(local)


def test_what_a_worker_says_to_the_user_is_one_sentence(tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, **options: object) -> None:
        raise UserError('the disk is full: a shard could not be written')

    monkeypatch.setattr(writer, 'write_shard', full)
    with pytest.raises(UserError, match='^the disk is full: a shard could not be written$'):
        _beam(photographs, tmp_path / 'out')
    elsewhere = 'Traceback ...\nretfound_jax.core.errors.UserError: the disk is full: it [while running \'write shards\']\n'
    assert beam_run._sentence(RuntimeError(elsewhere), runner='flink') == 'the disk is full: it'
    assert 'on flink stopped: lost; what was read' in beam_run._sentence(RuntimeError('a\nlost'), runner='flink')


def _table(source: Path, rows: list[str]) -> None:
    (source / 'labels.csv').write_text('image,patient,fold,grade\n' + ''.join(row + '\n' for row in rows))


def test_given_splits_and_their_refusal_are_those_of_a_local_run(tmp_path: Path) -> None:
    source = tmp_path / 'in'
    source.mkdir()
    for name, seed in (('a', 1), ('b', 2), ('c', 1), ('d', 4), ('e', 5), ('f', 6)):
        _photograph(source / f'{name}.png', seed)
    _table(source, ['a,p1,train,0', 'b,p1,train,0', 'c,p2,train,1', 'd,p3,val,1', 'e,p4,test,0', 'f,p4,test,2'])
    _ingest(source, tmp_path / 'local', split_column='fold')
    _beam(source, tmp_path / 'beam', split_column='fold')
    assert _bytes(tmp_path / 'beam') == _bytes(tmp_path / 'local')
    part = {'split_column': 'fold', 'splits': splits.SplitConfig(val=0.5, salt='b', val_of_train=True)}  # moves p1 and p2, as one group
    local = _ingest(source, tmp_path / 'local_part', **part)
    _beam(source, tmp_path / 'beam_part', **part)
    assert _bytes(tmp_path / 'beam_part') == _bytes(tmp_path / 'local_part') and local['splits']['val']['images'] == 4
    _table(source, ['a,p1,train,0', 'b,p1,val,0', 'c,p2,test,1', 'd,p3,val,1', 'e,p4,test,0', 'f,p4,train,2'])
    said = []
    for number, ingest in enumerate((_ingest, _beam)):
        with pytest.raises(UserError, match='one patient on two sides: 3 problems: b is in val, and a of') as caught:
            ingest(source, tmp_path / f'out{number}', split_column='fold')
        said.append(str(caught.value))
    assert said[0] == said[1] and not (tmp_path / 'out1').exists()


def test_what_was_changed_of_people_is_counted_as_a_local_run_counts_it(tmp_path: Path) -> None:
    source = tmp_path / 'in'
    source.mkdir()
    rows = ['a,p1,F,0,White', 'b,p1,M,61,white', 'c,p2,female,60-70,declined', 'd,p3,,90+,Klingon', 'e,p4,not stated,refused,',
            'f,,男,150,99']
    for seed, name in enumerate('abcdef'):
        _photograph(source / f'{name}.png', seed)
    (source / 'labels.csv').write_text('image,patient,sex,age,ethnicity\n' + ''.join(row + '\n' for row in rows))
    local = _ingest(source, tmp_path / 'local', ethnicity_scheme='ONS2021', process=_odd_header)
    _beam(source, tmp_path / 'beam', ethnicity_scheme='ONS2021', process=_odd_header)
    assert _bytes(tmp_path / 'beam') == _bytes(tmp_path / 'local')
    told = local['demographics']
    assert told['contradictions'] == {'sex': 1} and told['header_ages'] == 1 and local['summary']['age']['declined'] == 1


def _odd_header(path: Path, **options: int) -> list[Processed]:
    made = process(path, **options)[0]
    return [dataclasses.replace(made, sex='F', age=300.0 if path.name == 'f.png' else 40.0)]


def _two_frames(path: Path, **options: int) -> list[Processed]:
    made = process(path, **options)[0]
    return [made, dataclasses.replace(made, frame=1, pixel_sha256='other')] if path.name == 'a.png' else [made]


def test_what_cannot_be_a_dataset_is_refused_in_the_same_words(tmp_path: Path) -> None:
    clash, empty = tmp_path / 'clash', tmp_path / 'empty'
    for folder in (clash, empty):
        folder.mkdir()
    for seed, name in enumerate(('a', 'a.png#0', 'a.png#1')):
        _photograph(clash / f'{name}.png', seed)
    (clash / 'a.png#1.png').rename(clash / 'a.png#1')
    (clash / 'a.png#0.png').rename(clash / 'a.png#0')
    (empty / 'a.jpg').write_bytes(b'no picture')
    for source, sentence in ((clash, 'two pictures have the key "a.png#0"'), (empty, 'none of the 1 files .* the first, a.jpg: ')):
        said = []
        for name, ingest in (('local', _ingest), ('beam', _beam)):
            with pytest.raises(UserError, match=sentence) as caught:
                ingest(source, tmp_path / f'{source.name}_{name}', process=_two_frames)
            said.append(str(caught.value))
        assert said[0] == said[1]


def test_the_command_runs_it_and_passes_options_on(tmp_path: Path, photographs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ['ingest', '--source', str(photographs), '--labels', str(photographs / 'labels.csv'), '--size', '48', '--workers', '0']
    assert front_door.main([*words, '--out', str(tmp_path / 'local')]) == 0
    capfd.readouterr()
    beam = ['--runner', 'direct', '--beam_option', 'direct_runner_bundle_repeat=1']
    assert front_door.main([*words, '--out', str(tmp_path / 'beam'), *beam]) == 0
    said = capfd.readouterr()
    assert 'photographs are read\n' in said.out and 'patients were joined' in said.out
    assert _bytes(tmp_path / 'beam') == _bytes(tmp_path / 'local') and len(_reasons(tmp_path / 'beam')) == 4
    assert front_door.main([*words, '--out', str(tmp_path / 'third'), '--runner', 'dataflow', '--beam_option', 'region=nowhere']) == 2
    sentence = capfd.readouterr().err.strip().splitlines()[-1]
    assert sentence.startswith('retfound ingest: the runner dataflow ') and not (tmp_path / 'third').exists()


def test_the_bench_says_what_an_image_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ['bench', 'ingest', '--images', '100,300', '--near', '50', '--shares', '1000', '--folder', str(tmp_path)]
    assert front_door.main([*words, '--json', str(tmp_path / 'out.json')]) == 0
    assert 'extrapolated, not run: 100,000,000 images on 100 such cores' in capsys.readouterr().out
    assert len((tmp_path / 'out.json').read_text().splitlines()) == 1 + 3 + 4


@pytest.fixture(autouse=True)
def _no_child_is_left() -> Iterator[None]:
    yield
    listing = Path(f'/proc/self/task/{os.getpid()}/children')
    children = [int(word) for word in listing.read_text().split()] if listing.exists() else []
    alive = [pid for pid in children if b'sdk_worker' in Path(f'/proc/{pid}/cmdline').read_bytes()]
    assert not alive
