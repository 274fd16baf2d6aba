"""A dataset that leaks is refused, whatever leaks in it; one that does not is left alone."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retfound_jax.core.errors import UserError
from retfound_jax.data.config import DataConfig
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.data.phantom.render import draw_eye
from retfound_jax.ingest import pipeline, work
from retfound_jax.ingest.hashes import hamming
from retfound_jax.ingest.plan import IngestConfig, make_plan
from retfound_jax.studies import guard
from retfound_jax.studies.guard import check_external, check_splits, external_twins

SPLITS = ('train', 'train', 'train', 'val', 'test', 'test')  # of each patient


def ingested(folder: Path, *, seed: int) -> Path:
    """Six patients of the phantom with both eyes, in the splits that their table gives."""
    source = folder / 'photographs'
    source.mkdir(parents=True)
    phantom = PhantomConfig(patients=len(SPLITS), image_size=64, seed=seed)
    lines = ['image,patient_id,part']
    for patient, split in enumerate(SPLITS):
        for eye in 'RL':
            image = draw_eye(phantom, 2 * patient + (eye == 'L')).image
            cv2.imwrite(str(source / f'{patient}{eye}.png'), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            lines.append(f'{patient}{eye},p{patient},{split}')
    (source / 'labels.csv').write_text('\n'.join(lines) + '\n')
    config = IngestConfig(
        source=str(source), out=str(folder / 'eyes'), labels=str(source / 'labels.csv'), split_column='part',
        pictures=work.WorkOptions(shorter_side=48),
    )
    pipeline.run(make_plan(config))
    return folder / 'eyes'


@pytest.fixture(scope='module')
def eyes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset that does not leak."""
    return ingested(tmp_path_factory.mktemp('one'), seed=1)


@pytest.fixture(scope='module')
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other patients under the same ids."""
    return ingested(tmp_path_factory.mktemp('two'), seed=2)


Row = dict[str, object]


def edited(dataset: Path, to: Path, change: Callable[[dict[str, Row]], None]) -> Path:
    """A copy whose index says something else, by key; ingest would not write it."""
    shutil.copytree(dataset, to)
    table = pq.read_table(to / 'index.parquet')
    rows = table.to_pylist()
    change({row['key']: row for row in rows})
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), to / 'index.parquet')
    return to


def one_sentence(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert '\n' not in text and '. ' not in text
    return text


def test_clean_splits_pass_and_are_counted(eyes: Path) -> None:
    report = check_splits(eyes)
    assert report.images == {'train': 6, 'val': 2, 'test': 4}
    assert report.patients == {'train': 3, 'val': 1, 'test': 2}
    assert report.unchecked == ()


def test_one_shared_patient_is_refused(eyes: Path, tmp_path: Path) -> None:
    bad = edited(eyes, tmp_path / 'bad', lambda rows: rows['5L'].update(patient='p0'))
    with pytest.raises(UserError, match=r'the patient p0 of .*bad is in train \(image 0[RL]\) and in test \(image 5L\);') as error:
        check_splits(bad)
    one_sentence(error)


def test_a_group_on_two_sides_is_refused(eyes: Path, tmp_path: Path) -> None:
    def join(rows: dict[str, Row]) -> None:
        for key in ('3R', '3L'):
            rows[key]['group'] = 'p0'

    with pytest.raises(UserError, match=r'the group p0 of .* is in train .* and in val \(image 3[RL]\)'):
        check_splits(edited(eyes, tmp_path / 'bad', join))


@pytest.mark.parametrize('left', ['pixel_sha256', 'phash'])
def test_one_photograph_under_two_ids_is_refused(eyes: Path, tmp_path: Path, left: str) -> None:
    """Also where only one of its two hashes is the same: a copy saved anew, or one whose perceptual hash is not known."""
    bad = edited(eyes, tmp_path / 'bad', lambda rows: rows['4R'].update({left: rows['1L'][left]}))
    with pytest.raises(UserError, match='1L in train and 4R in test; ingest the photographs again') as error:
        check_splits(bad)
    assert ('one photograph twice' if left == 'pixel_sha256' else '0 of 256 bits') in one_sentence(error)


@pytest.mark.parametrize(('bits', 'leaks'), [(10, True), (11, False)])
def test_photographs_within_ten_bits_are_one(eyes: Path, tmp_path: Path, bits: int, leaks: bool) -> None:
    def near(rows: dict[str, Row]) -> None:
        rows['4R']['phash'] = f'{int(rows["1L"]["phash"], 16) ^ int("1" * bits, 2) << 40:064x}'
        assert hamming(rows['4R']['phash'], rows['1L']['phash']) == bits

    bad = edited(eyes, tmp_path / 'bad', near)
    if not leaks:
        assert check_splits(bad).images['test'] == 4
        return
    with pytest.raises(UserError, match=r'look the same \(10 of 256 bits apart\): 1L in train and 4R in test'):
        check_splits(bad)


def test_two_ids_on_one_side_leak_nothing(eyes: Path, tmp_path: Path) -> None:
    fine = edited(eyes, tmp_path / 'fine', lambda rows: rows['1L'].update({name: rows['0L'][name] for name in ('pixel_sha256', 'phash')}))
    assert check_splits(fine).images['train'] == 6


def test_images_without_hashes_are_told(eyes: Path, tmp_path: Path) -> None:
    report = check_splits(edited(eyes, tmp_path / 'old', lambda rows: rows['1L'].update(phash='')))
    assert len(report.unchecked) == 1 and '1 of 12 images' in report.unchecked[0] and 'phash' in report.unchecked[0]


def test_another_dataset_is_new_unless_it_shares_a_photograph(eyes: Path, others: Path, tmp_path: Path) -> None:
    report = check_external(eyes, others)
    assert list(report.images.values()) == [8, 4] and list(report.patients.values()) == [4, 2]
    assert len(report.unchecked) == 1 and 'patients' in report.unchecked[0]
    seen = {row['key']: row for row in pq.read_table(eyes / 'index.parquet').to_pylist()}

    def copy(rows: dict[str, Row]) -> None:
        rows['4R'].update(pixel_sha256=seen['3R']['pixel_sha256'])  # of validation, which chooses the checkpoint
        rows['5R'].update(phash=seen['0L']['phash'])
        rows['0R'].update(pixel_sha256=seen['1R']['pixel_sha256'], phash=seen['1R']['phash'])  # never tested on

    bad = edited(others, tmp_path / 'bad', copy)
    said = 'one photograph twice: 3R in what .* trains and 4R in the test images of .*, and 1 more; leave these 2'
    with pytest.raises(UserError, match=said) as error:
        check_external(eyes, bad)
    one_sentence(error)
    twins = external_twins(eyes, bad)
    assert [(twin.key_a, twin.key_b, twin.kind) for twin in twins] == [('3R', '4R', 'exact'), ('0L', '5R', 'near')]
    assert list(check_external(eyes, bad, left_out=[twin.key_b for twin in twins]).images.values()) == [8, 2]
    # What was trained on may be tested on in the other direction only where it is in no test split.
    with pytest.raises(UserError, match='1 more|leave'):
        check_external(eyes, bad, test_splits=('train', 'val', 'test'))


def test_every_copy_on_the_test_side_is_named(eyes: Path, others: Path, tmp_path: Path) -> None:
    seen = pq.read_table(eyes / 'index.parquet').to_pylist()[0]
    keys = ('4R', '4L', '5R')
    bad = edited(others, tmp_path / 'bad', lambda rows: [rows[key].update(phash=seen['phash']) for key in keys])
    assert sorted(twin.key_b for twin in external_twins(eyes, bad)) == sorted(keys)


def test_patients_of_two_datasets_are_compared_where_their_ids_mean_the_same(eyes: Path, others: Path, tmp_path: Path) -> None:
    assert check_external(eyes, others, shared_ids=True).unchecked == ()  # patients 0 to 3 trained, 4 and 5 tested
    bad = edited(others, tmp_path / 'bad', lambda rows: [rows[key].update(patient='p1') for key in ('4R', '4L')])
    check_external(eyes, bad)
    with pytest.raises(UserError, match='the patient p1 of'):
        check_external(eyes, bad, shared_ids=True)


def test_a_split_without_images_is_no_test(eyes: Path, others: Path) -> None:
    with pytest.raises(UserError, match='has no image in held_out'):
        check_external(eyes, others, test_splits=('held_out',))
    with pytest.raises(UserError, match='there is no dataset'):
        check_splits(eyes / 'nowhere')


def test_the_phantom_keeps_its_people_apart_and_says_what_is_not_compared() -> None:
    report = check_splits(DataConfig(phantom=PhantomConfig(patients=60, image_size=32, near_duplicate_fraction=0.4)))
    assert sum(report.images.values()) == 120 and sum(report.patients.values()) == 60
    assert len(report.unchecked) == 1 and 'drawn' in report.unchecked[0]


class Images:
    """The reader of a source whose images are given."""

    def __init__(self, images: list[bytes]) -> None:
        self.images = images

    def read(self, rows: np.ndarray) -> list[bytes]:
        return [self.images[row] for row in rows]


def of_tfds(monkeypatch: pytest.MonkeyPatch, splits: dict[str, list[tuple[str, str, bytes]]]) -> DataConfig:
    """A dataset of TFDS with these keys, patients and images."""
    from retfound_jax.data.sources import Source

    def opened(config: DataConfig) -> Source:
        keys, patients, images = zip(*splits[config.split], strict=True)
        table = {'key': np.array(keys), 'patient': np.array(patients), 'group': np.array(patients)}
        nothing = {'labels': np.zeros((len(keys), 0)), 'label_names': (), 'label_classes': {}, 'fingerprint': ''}
        return Source(table=table, reader=Images(list(images)), **nothing)

    monkeypatch.setattr(guard, 'open_source', opened)
    return DataConfig(tfds_name='somebodys')


def test_a_dataset_of_tfds_is_compared_by_patient_and_by_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    clean = {'train': [('a', 'p', b'1'), ('b', 'p', b'2')], 'val': [('c', 'q', b'3')], 'test': [('d', 'r', b'4')]}
    report = check_splits(of_tfds(monkeypatch, clean))
    assert report.patients == {'train': 1, 'val': 1, 'test': 1} and 'byte by byte' in report.unchecked[0]
    with pytest.raises(UserError, match='the patient q of somebodys is in val'):
        check_splits(of_tfds(monkeypatch, clean | {'test': [('d', 'q', b'4')]}))
    with pytest.raises(UserError, match='b in train and d in test'):
        check_splits(of_tfds(monkeypatch, clean | {'test': [('d', 'r', b'2')]}))
    # Numbered from 0 in each split, and nobody named: equal names are no patient.
    numbered = {split: [(str(i), str(i), f'{split}{i}'.encode()) for i in range(2)] for split in clean}
    report = check_splits(of_tfds(monkeypatch, numbered))
    assert report.patients == {'train': 0, 'val': 0, 'test': 0} and any('names no patients' in said for said in report.unchecked)


def test_a_hundred_thousand_photographs_take_seconds() -> None:
    rng, count = np.random.default_rng(0), 100_000
    hashes = rng.integers(0, 256, (count, 32), np.uint8)
    names = np.array([f'x{i}' for i in range(count)])
    side = np.where(np.arange(count) < 80_000, 'train', 'test')
    hashes[90_000] = hashes[10]
    phash = np.array([row.tobytes().hex() for row in hashes])
    rows = guard._Rows(name='many', key=names, patient=names, group=names, side=side, pixel_sha256=names, phash=phash)
    begun = time.process_time()
    twins = guard._twins(rows)
    assert [(twin.key_a, twin.key_b) for twin in twins] == [('x10', 'x90000')]
    assert time.process_time() - begun < 30
