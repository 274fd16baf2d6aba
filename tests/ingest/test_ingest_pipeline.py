"""From a folder to a dataset: nothing is lost, nothing stops it, and the bytes depend on the input alone."""

from __future__ import annotations

import csv
import dataclasses
import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from retfound_jax.cli import main as front_door
from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.core.files import read_json
from retfound_jax.ingest import manifest, pipeline, records, work
from retfound_jax.ingest.plan import IngestConfig, make_plan, partial_folder
from retfound_jax.ingest.process import Processed, process
from retfound_jax.ingest.splits import SplitConfig

_SMALL = work.WorkOptions(shorter_side=48)


def _photograph(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = cv2.resize(rng.integers(0, 255, (9, 9, 3), np.uint8), (64, 64), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(path), pixels)


def _folder(folder: Path, *, patients: int = 6) -> Path:
    """Two eyes of each patient and a table beside them; patient 1's left eye is also patient 0's."""
    (folder / 'images').mkdir(parents=True)
    lines = ['image,patient_id,eye,age,sex,grade,site']
    for patient in range(patients):
        for eye in ('left', 'right'):
            name = f'{patient}_{eye}'
            seed = 0 if name == '1_left' else 2 * patient + (eye == 'right')
            _photograph(folder / 'images' / f'{name}.png', seed)
            lines.append(f'{name},p{patient},{eye},{50 + patient},{"F" if patient % 2 else "M"},{patient % 3},north')
    (folder / 'labels.csv').write_text('\n'.join(lines) + '\n')
    return folder


def _config(source: Path, out: Path, **options: object) -> IngestConfig:
    labels = {'labels': str(source / 'labels.csv')} if (source / 'labels.csv').exists() else {}
    return IngestConfig(**{'source': str(source), 'out': str(out), 'pictures': _SMALL, **labels, **options})


def _ingest(source: Path, out: Path, *, process: work.Process = process, **options: object) -> dict:
    return pipeline.run(make_plan(_config(source, out, **options)), process=process)


def _bytes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def _records(out: Path) -> list[records.Record]:
    import grain

    paths = [str(out / shard['file']) for shard in manifest.read(out)['shards']]
    return [records.decode(data) for data in grain.sources.ArrayRecordDataSource(paths)]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, 'CHUNK_FILES', 4)


def test_a_dataset_holds_every_photograph_with_what_the_table_says(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    content = _ingest(_folder(tmp_path / 'in'), tmp_path / 'out')
    rows = _records(tmp_path / 'out')
    assert len(rows) == 12 == content['images'] == sum(split['images'] for split in content['splits'].values())
    row = next(row for row in rows if row.key == '4_right')
    assert (row.patient, row.group, row.laterality, row.age, row.sex, row.site) == ('p4', 'p4', 'R', 54.0, 'M', 'north')
    assert row.labels == {'grade': 1.0} and content['labels'] == {'grade': {'kind': 'class', 'classes': ['0', '1', '2']}}
    assert cv2.imdecode(np.frombuffer(row.image, np.uint8), cv2.IMREAD_COLOR).shape == (48, 48, 3)
    index = pq.read_table(tmp_path / 'out' / 'index.parquet').to_pydict()
    assert index['key'] == [row.key for row in rows] and index['label:grade'] == [row.labels['grade'] for row in rows]
    assert content == manifest.read(tmp_path / 'out')
    manifest.verify(tmp_path / 'out')
    assert not partial_folder(tmp_path / 'out').exists()


def test_one_photograph_of_two_patients_is_found_and_both_stay_on_one_side(tmp_path: Path) -> None:
    content = _ingest(_folder(tmp_path / 'in'), tmp_path / 'out')
    assert content['duplicates'] == {'exact_groups': 1, 'near_groups': 0, 'joined_patients': 2}
    text = (tmp_path / 'out' / 'duplicates.csv').read_text()
    assert text.splitlines()[1:] == ['0_left,1_left,p0,p1,exact,0']
    assert {row.group for row in _records(tmp_path / 'out') if row.patient in ('p0', 'p1')} == {'p0'}


@pytest.mark.usefixtures('small_chunks')
def test_the_bytes_do_not_depend_on_the_number_of_workers_or_the_place(tmp_path: Path) -> None:
    source = _folder(tmp_path / 'in')
    for name, workers in (('zero', 0), ('one', 1), ('two', 2)):
        _ingest(source, tmp_path / name, workers=workers)
    assert _bytes(tmp_path / 'zero') == _bytes(tmp_path / 'one') == _bytes(tmp_path / 'two')
    for path in (tmp_path / 'zero').iterdir():
        assert str(tmp_path).encode() not in path.read_bytes()


def _counting(stop_at: int, seen: list[str]) -> work.Process:
    def run(path: Path, **options: int) -> list[Processed]:
        seen.append(path.name)
        if len(seen) == stop_at:
            raise KeyboardInterrupt
        return process(path, **options)

    return run


@pytest.mark.usefixtures('small_chunks')
def test_an_interrupted_ingest_goes_on_where_it_stopped_and_ends_in_the_same_bytes(tmp_path: Path) -> None:
    source = _folder(tmp_path / 'in')
    _ingest(source, tmp_path / 'straight')
    with pytest.raises(KeyboardInterrupt):
        _ingest(source, tmp_path / 'out', process=_counting(7, []))
    assert not (tmp_path / 'out').exists() and partial_folder(tmp_path / 'out').exists()
    seen: list[str] = []
    _ingest(source, tmp_path / 'out', process=_counting(0, seen))
    assert len(seen) == 8 and _bytes(tmp_path / 'out') == _bytes(tmp_path / 'straight')


def test_an_ingest_stopped_while_writing_shards_leaves_no_dataset_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = _folder(tmp_path / 'in')
    _ingest(source, tmp_path / 'straight')
    with monkeypatch.context() as patch:
        patch.setattr(pipeline.assemble.writer, 'write_index', _stop)
        with pytest.raises(KeyboardInterrupt):
            _ingest(source, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
    _ingest(source, tmp_path / 'out', process=_counting(1, []))
    assert _bytes(tmp_path / 'out') == _bytes(tmp_path / 'straight')


def _stop(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt


_SCRIPT = '''
import sys
from test_ingest_pipeline import _config, _slow
from pathlib import Path
from retfound_jax.ingest import pipeline, work
from retfound_jax.ingest.plan import make_plan
if __name__ == '__main__':
    work.CHUNK_FILES = 2
    pipeline.run(make_plan(_config(Path(sys.argv[1]), Path(sys.argv[2]), workers=2)), process=_slow)
'''


def _slow(path: Path, **options: int) -> list[Processed]:
    time.sleep(0.15)
    return process(path, **options)


@pytest.mark.slow
def test_a_terminated_ingest_leaves_no_process_behind_and_resumes(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, 'CHUNK_FILES', 2)
    source, out = _folder(tmp_path / 'in', patients=20), tmp_path / 'out'
    (tmp_path / 'script.py').write_text(_SCRIPT)
    env = {**os.environ, 'PYTHONPATH': f'{root}{os.pathsep}{Path(__file__).parent}'}
    child = subprocess.Popen([sys.executable, str(tmp_path / 'script.py'), str(source), str(out)], env=env)
    chunks = partial_folder(out) / 'chunks'
    _wait_for(lambda: chunks.is_dir() and len(list(chunks.glob('*.chunk'))) >= 3)
    family = _children(child.pid)
    child.send_signal(signal.SIGTERM)
    assert child.wait(timeout=30) == -signal.SIGTERM and not out.exists()
    _wait_for(lambda: not any(_alive(pid) for pid in family))
    done = len(list(chunks.glob('*.chunk')))
    seen: list[str] = []
    _ingest(source, out, process=_counting(0, seen))
    _ingest(source, tmp_path / 'straight')
    assert len(seen) == 40 - 2 * done and _bytes(out) == _bytes(tmp_path / 'straight')


def _wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, 'waited a minute in vain'
        time.sleep(0.05)


def _children(pid: int) -> list[int]:
    listing = Path(f'/proc/{pid}/task/{pid}/children')
    return [int(word) for word in listing.read_text().split()] if listing.exists() else []


def _alive(pid: int) -> bool:
    try:
        return Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0] != 'Z'
    except OSError:
        return False


def _deadly(path: Path, **options: int) -> list[Processed]:
    if path.name == '3_left.png':
        os.kill(os.getpid(), signal.SIGKILL)
    return process(path, **options)


@pytest.mark.usefixtures('small_chunks')
def test_a_file_that_kills_its_reader_is_rejected_alone(tmp_path: Path) -> None:
    source = _folder(tmp_path / 'in')
    content = _ingest(source, tmp_path / 'out', process=_deadly, workers=2)
    assert content['files'] == {'found': 12, 'read': 11, 'ignored': 1}
    assert _reasons(tmp_path / 'out') == {'images/3_left.png': work._KILLED}


def _reasons(out: Path) -> dict[str, str]:
    with open(out / 'rejects.csv', newline='', encoding='utf-8') as file:
        return {row['file']: row['reason'] for row in csv.DictReader(file)}


def test_bad_files_are_rejected_with_a_reason_and_harmless_ones_ignored(tmp_path: Path) -> None:
    source = _folder(tmp_path / 'in', patients=2)
    images = source / 'images'
    whole = (images / '0_left.png').read_bytes()
    written = {'cut.png': whole[: len(whole) // 2], 'zero.jpg': b'', 'words.jpg': b'no picture', '.hidden': b'', 'notes.txt': b'x'}
    for name, data in written.items():
        (images / name).write_bytes(data)
    (images / 'gone.png').symlink_to(images / 'nowhere.png')
    (tmp_path / 'outside.png').write_bytes(whole)
    (images / 'away.png').symlink_to(tmp_path / 'outside.png')
    (images / 'loop').symlink_to(source)
    os.mkfifo(images / 'pipe.png')
    (images / os.fsdecode(b'caf\xe9.png')).write_bytes(whole)
    (source / 'labels.csv').unlink()
    content = _ingest(source, tmp_path / 'out')
    reasons = _reasons(tmp_path / 'out')
    assert content['files'] == {'found': 12, 'read': 4, 'ignored': 2} and content['rejects']['count'] == len(reasons) == 8
    assert reasons['images/gone.png'] == 'is a link to nothing' and reasons['images/away.png'] == 'is a link that leaves the source folder'
    assert reasons['images/loop'] == 'is a link to a folder' and reasons['images/pipe.png'] == 'is not a regular file'
    assert reasons['images/caf\\udce9.png'] == 'has a name that is not valid text'
    assert 'empty' in reasons['images/zero.jpg'] and 'text' in reasons['images/words.jpg'] and reasons['images/cut.png']


def test_a_fault_of_ours_in_one_file_does_not_stop_the_others(tmp_path: Path) -> None:
    def faulty(path: Path, **options: int) -> list[Processed]:
        return process(path, **options) if path.name != '0_left.png' else [1 // 0]

    assert _ingest(_folder(tmp_path / 'in'), tmp_path / 'out', process=faulty)['rejects']['count'] == 1
    assert 'ZeroDivisionError' in _reasons(tmp_path / 'out')['images/0_left.png']


def test_files_without_a_row_are_rejected_and_not_read(tmp_path: Path) -> None:
    source = _folder(tmp_path / 'in', patients=2)
    _photograph(source / 'images' / 'extra.png', 99)
    content = _ingest(source, tmp_path / 'out')
    assert _reasons(tmp_path / 'out') == {'images/extra.png': 'no row in labels'} and content['images'] == 4


def test_labels_that_do_not_fit_stop_before_any_work(tmp_path: Path) -> None:
    source = _folder(tmp_path / 'in')
    (source / 'images' / '0_left.png').unlink()
    with pytest.raises(UserError, match=r'"0_left" \(line 2\) has no file'):
        make_plan(_config(source, tmp_path / 'out'))
    assert not partial_folder(tmp_path / 'out').exists()
    content = _ingest(source, tmp_path / 'out', allow_missing=True)
    assert content['rows_without_file'] == 1 and content['images'] == 11


def test_without_labels_each_file_is_a_patient(tmp_path: Path) -> None:
    source = _folder(tmp_path / 'in', patients=2)
    (source / 'labels.csv').unlink()
    content = _ingest(source, tmp_path / 'out', modality='CFP')
    assert {row.key: row.patient for row in _records(tmp_path / 'out')}['images/1_right.png'] == 'images/1_right.png'
    assert content['labels'] == {} and content['modality'] == {'CFP': 4}


def _header(path: Path, **options: int) -> list[Processed]:
    made = process(path, **options)[0]
    told = dataclasses.replace(made, laterality='L', sex='F', age=40.0, camera='Topcon', patient='header')
    return [told, dataclasses.replace(told, frame=1, pixel_sha256='other')] if path.name == '0_right.png' else [told]


def test_a_header_fills_what_the_table_leaves_open_and_the_table_wins(tmp_path: Path) -> None:
    source = _folder(tmp_path / 'in', patients=2)
    (source / 'labels.csv').write_text('image,eye,sex,age\n0_left,,,\n0_right,R,M,61\n1_left,L,F,1\n1_right,,,\n')
    content = _ingest(source, tmp_path / 'out', process=_header, min_age=2.0)
    rows = {row.key: row for row in _records(tmp_path / 'out')}
    assert sorted(rows) == ['0_left', '0_right#0', '0_right#1', '1_left', '1_right'] and rows['0_right#1'].frame == 1
    assert (rows['0_left'].laterality, rows['0_left'].sex, rows['0_left'].age, rows['0_left'].patient) == ('L', 'F', 40.0, 'header')
    assert (rows['0_right#0'].laterality, rows['0_right#0'].sex, rows['0_right#0'].age) == ('R', 'M', 61.0)
    assert content['table_over_header'] == {'laterality': 2, 'sex': 2, 'age': 3} and content['ages_below_minimum'] == 1
    assert np.isnan(rows['1_left'].age) and {row.camera for row in rows.values()} == {'Topcon'}


def test_splits_can_be_taken_from_a_column(tmp_path: Path) -> None:
    source = _folder(tmp_path / 'in', patients=3)
    table = (source / 'labels.csv').read_text().splitlines()
    words = ['fold', *['train'] * 4, *['Validation'] * 2]

    def write(words: list[str]) -> None:
        (source / 'labels.csv').write_text(''.join(f'{line},{word}\n' for line, word in zip(table, words, strict=True)))

    write(words)
    content = _ingest(source, tmp_path / 'out', split_column='fold')
    assert {name: split['images'] for name, split in content['splits'].items()} == {'train': 4, 'val': 2}
    assert 'fold' not in content['labels']
    write([*words[:3], 'test', 'test', *words[5:]])
    with pytest.raises(UserError, match='one patient on two sides.*same image'):
        _ingest(source, tmp_path / 'other', split_column='fold')
    write(['fold', *['1'] * 6])
    with pytest.raises(UserError, match='line 2 has "1"; line 3 has "1"'):
        make_plan(_config(source, tmp_path / 'third', split_column='fold'))


def test_added_photographs_move_nobody(tmp_path: Path) -> None:
    splits = SplitConfig(val=0.3, test=0.3)
    _ingest(_folder(tmp_path / 'few', patients=5), tmp_path / 'a', splits=splits)
    _ingest(_folder(tmp_path / 'more', patients=9), tmp_path / 'b', splits=splits)
    few, more = _split_of(tmp_path / 'a'), _split_of(tmp_path / 'b')
    assert len(set(more.values())) == 3 and all(more[key] == split for key, split in few.items())


def _split_of(out: Path) -> dict[str, str]:
    import pyarrow.parquet as pq

    index = pq.read_table(out / 'index.parquet').to_pydict()
    return dict(zip(index['key'], index['split'], strict=True))


def test_what_is_in_the_way_is_refused_unless_it_is_a_dataset_and_overwrite_is_given(tmp_path: Path) -> None:
    source = _folder(tmp_path / 'in', patients=2)
    _ingest(source, tmp_path / 'out')
    with pytest.raises(UsageError, match='holds a dataset already; pass --overwrite'):
        make_plan(_config(source, tmp_path / 'out'))
    assert _ingest(source, tmp_path / 'out', overwrite=True)['images'] == 4
    (tmp_path / 'home').mkdir()
    (tmp_path / 'home' / 'thesis.txt').write_text('x')
    for out, sentence in ((tmp_path / 'home', 'is not a dataset'), (source, 'is the source itself')):
        with pytest.raises(UsageError, match=sentence):
            make_plan(_config(source, out, overwrite=True))


@pytest.mark.usefixtures('small_chunks')
def test_unfinished_work_of_other_input_is_not_gone_on_with(tmp_path: Path) -> None:
    source = _folder(tmp_path / 'in')
    with pytest.raises(KeyboardInterrupt):
        _ingest(source, tmp_path / 'out', process=_counting(7, []))
    with pytest.raises(UserError, match=r'unfinished ingest that differs in shorter_side; delete it, or pass --overwrite'):
        _ingest(source, tmp_path / 'out', pictures=work.WorkOptions(shorter_side=32))
    _photograph(source / 'images' / '0_left.png', 77)
    with pytest.raises(UserError, match='differs in files'):
        _ingest(source, tmp_path / 'out')
    assert _ingest(source, tmp_path / 'out', overwrite=True)['images'] == 12


def test_a_full_disk_is_one_sentence_and_the_work_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = _folder(tmp_path / 'in')
    monkeypatch.setattr(work, 'CHUNK_FILES', 4)
    sync, calls = os.fsync, []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, 'No space left on device')
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, 'fsync', full)
        with pytest.raises(UserError, match='the disk is full: 0000001.chunk'):
            _ingest(source, tmp_path / 'out')
    assert [path.name for path in sorted((partial_folder(tmp_path / 'out') / 'chunks').iterdir())] == ['0000000.chunk']
    assert not (tmp_path / 'out').exists() and _ingest(source, tmp_path / 'out')['images'] == 12


@pytest.mark.slow
def test_a_disk_that_is_really_full_is_one_sentence(tmp_path: Path) -> None:
    disk = tmp_path / 'disk'
    disk.mkdir()
    mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=64k', 'none', str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip('a small disk cannot be mounted here')
    try:
        with pytest.raises(UserError, match='the disk is full'):
            _ingest(_folder(tmp_path / 'in', patients=20), disk / 'out')
        assert not (disk / 'out').exists()
    finally:
        subprocess.run(['umount', str(disk)], check=True)


@pytest.mark.parametrize('content', [None, b'no picture'])
def test_a_source_without_any_photograph_is_one_sentence(tmp_path: Path, content: bytes | None) -> None:
    (tmp_path / 'in').mkdir()
    (tmp_path / 'in' / 'readme.txt').write_text('x')
    if content:
        (tmp_path / 'in' / 'a.jpg').write_bytes(content)
    sentence = 'none of the 1 files .* gave a picture; the first, a.jpg' if content else 'no photograph was found'
    with pytest.raises(UserError, match=sentence):
        _ingest(tmp_path / 'in', tmp_path / 'out')


def test_options_that_cannot_be_are_refused(tmp_path: Path) -> None:
    for wrong in ({'shorter_side': 8}, {'jpeg_quality': 0}):
        with pytest.raises(UsageError):
            work.WorkOptions(**wrong)
    with pytest.raises(UsageError, match='pass --labels'):
        make_plan(IngestConfig(source=str(_folder(tmp_path / 'in')), out=str(tmp_path / 'out'), label=('grade',)))
    with pytest.raises(UserError, match='is not a folder'):
        make_plan(IngestConfig(source=str(tmp_path / 'nowhere'), out=str(tmp_path / 'out')))


def test_the_command_says_what_it_found_and_what_it_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = _folder(tmp_path / 'in'), tmp_path / 'out'
    words = ['ingest', '--source', str(source), '--labels', str(source / 'labels.csv'), '--out', str(out), '--workers', '0', '--size', '48']
    assert front_door.main([*words, '--key', 'imag']) == 2 and 'did you mean "image"' in capsys.readouterr().err
    assert front_door.main([*words, '--column', 'camera=site', '--label', 'grade', '--min_age', '52']) == 0
    said = capsys.readouterr().out
    assert '12 rows, 7 columns, UTF-8, separated by comma' in said and 'key = image, patient = patient_id, laterality = eye' in said
    assert 'labels: grade' in said and 'files: 12 found, 12 read, 0 rejected' in said and str(out) in said
    assert '2 patients were joined' in said
    content = read_json(out / 'manifest.json')
    assert content['summary']['camera'] == {'north': 12, 'missing': 0} and content['summary']['age']['missing'] == 4


def _odir(shared_data: Path) -> Path:
    if not (shared_data / 'odir5k').is_dir():
        pytest.skip('odir5k is not here')
    return shared_data / 'odir5k'


def test_real_photographs_are_ingested_alike_by_none_and_two_workers(tmp_path: Path, shared_data: Path) -> None:
    odir, source = _odir(shared_data), tmp_path / 'in'
    source.mkdir()
    names = sorted(path.name for path in (odir / 'images').iterdir())[::140]
    names += ['2487_left.jpg', '2487_right.jpg', '3185_left.jpg', '3185_right.jpg']
    for name in set(names):
        (source / name).write_bytes((odir / 'images' / name).read_bytes())
    options = {'labels': str(odir / 'labels.csv'), 'allow_missing': True, 'pictures': work.WorkOptions()}
    content = _ingest(source, tmp_path / 'zero', **options)
    _ingest(source, tmp_path / 'two', workers=2, **options)
    assert content['images'] == len(set(names)) and content['rejects']['count'] == 0
    assert _bytes(tmp_path / 'zero') == _bytes(tmp_path / 'two')
    assert '2487_left.jpg,3185_left.jpg,2487,3185' in (tmp_path / 'zero' / 'duplicates.csv').read_text()


def test_every_dicom_file_is_read_with_what_its_header_says(tmp_path: Path, shared_data: Path) -> None:
    folder = shared_data / 'dicom_ophthalmic'
    if not folder.is_dir():
        pytest.skip('dicom_ophthalmic is not here')
    content = _ingest(folder, tmp_path / 'out', labels='')
    assert content['files']['found'] == content['files']['read'] == 23 and content['rejects']['count'] == 0
    rows = {row.key: row for row in _records(tmp_path / 'out')}
    assert len(rows) == 25 and 'opt_multiframe_16bit.dcm#1' in rows
    with open(folder / 'labels.csv', newline='', encoding='utf-8') as file:
        for line in csv.DictReader(file):
            row = rows.get(line['file']) or rows[f'{line["file"]}#0']
            assert (row.patient, row.laterality, row.sex) == (line['patient_id'], line['laterality'], line['sex'])
            assert np.isnan(row.age) if not line['age'] else row.age == int(line['age'][:3])


@pytest.mark.slow
def test_all_of_odir_is_ingested_and_nothing_is_lost(tmp_path: Path, shared_data: Path) -> None:
    odir = _odir(shared_data)
    options = {'pictures': work.WorkOptions(), 'min_age': 2.0}
    content = _ingest(odir, tmp_path / 'one', workers=1, **options)
    _ingest(odir, tmp_path / 'two', workers=2, **options)
    assert content['images'] == content['files']['read'] == 5236 and content['rejects']['count'] == 0
    assert '2487_left.jpg,3185_left.jpg,2487,3185' in (tmp_path / 'one' / 'duplicates.csv').read_text()
    assert _bytes(tmp_path / 'one') == _bytes(tmp_path / 'two')
