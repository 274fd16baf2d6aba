"""Sources: which rows are chosen, what their table says, and one sentence for each thing that can be wrong with the data."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path

import grain
import numpy as np
import pytest
from data_sets import records, write_dataset

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.data.config import DataConfig
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.data.sources import Source, open_source


@pytest.fixture(scope='module')
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images of 12 people for training in five shards, 4 for validation."""
    everything = records(28)
    return write_dataset(tmp_path_factory.mktemp('data') / 'eyes', {'train': everything[:24], 'val': everything[24:]})


def opened(path: Path, **options: object) -> Source:
    """A source of that directory."""
    return open_source(DataConfig(path=str(path), **options))


def test_the_table_is_that_of_the_index_and_the_images_match_it(dataset: Path) -> None:
    source, made = opened(dataset), records(28)
    assert len(source) == 24
    assert source.table['key'].tolist() == [record.key for record in made[:24]]
    assert source.table['sex'].tolist() == [record.sex for record in made[:24]]
    np.testing.assert_array_equal(source.table['age'], [np.float32(record.age) for record in made[:24]])
    np.testing.assert_array_equal(source.table['label:cataract'], [record.labels['cataract'] for record in made[:24]])
    assert [source[row]['image'] for row in range(24)] == [record.image for record in made[:24]]
    assert source.labels.shape == (24, 0)


def test_shards_are_what_grain_reads_alone(dataset: Path) -> None:
    from retfound_jax.ingest.records import decode

    files = sorted(str(path) for path in dataset.glob('*train*'))
    plain = grain.sources.ArrayRecordDataSource(files)
    assert [decode(plain[row]).key for row in range(24)] == opened(dataset).table['key'].tolist()


def test_rows_without_any_of_the_labels_are_dropped(dataset: Path) -> None:
    one = opened(dataset, labels=('cataract',))
    assert len(one) == 18 and not np.isnan(one.labels).any()
    assert one[1]['image'] == records(28)[2].image  # row 1 of 24 has no label and is gone
    both = opened(dataset, labels=('cataract', 'grade'))
    assert len(both) == 24 and np.isnan(both.labels[:, 0]).sum() == 6
    assert both.label_classes['cataract'] == ['no', 'yes'] and both.label_classes['thickness'] is None


def test_demographics_can_be_labels(dataset: Path) -> None:
    source = opened(dataset, labels=('sex', 'age'))
    assert source.label_classes['sex'] == ['F', 'M'] and source.label_classes['age'] is None
    expected = [np.nan if word == '' else 'FM'.index(word) for word in source.table['sex']]
    np.testing.assert_array_equal(source.labels[:, 0], np.float32(expected))
    assert opened(dataset, split='val', labels=('site',)).label_classes['site'] == ['north', 'south']  # those of all splits


def test_a_fraction_is_of_patients_and_smaller_lies_inside_larger(dataset: Path) -> None:
    people = {fraction: set(opened(dataset, fraction=fraction).table['patient']) for fraction in (0.01, 0.25, 0.5, 1.0)}
    assert {fraction: len(found) for fraction, found in people.items()} == {0.01: 1, 0.25: 3, 0.5: 6, 1.0: 12}
    assert people[0.01] < people[0.25] < people[0.5] < people[1.0]
    assert len(opened(dataset, fraction=0.5)) == 12  # both eyes of each


def test_the_fingerprint_stands_for_data_and_choice(dataset: Path) -> None:
    choices = [{}, {'split': 'val'}, {'labels': ('grade',)}, {'fraction': 0.5}]
    assert len({opened(dataset, **choice).fingerprint for choice in choices}) == 4
    assert opened(dataset, image_size=64).fingerprint == opened(dataset).fingerprint


def test_a_source_travels_to_another_process(dataset: Path) -> None:
    source = opened(dataset)
    image = source[3]['image']
    assert pickle.loads(pickle.dumps(source))[3]['image'] == image
    assert len(pickle.dumps(source.reader)) < 5000


def test_a_split_that_could_be_there_is_empty_and_another_is_an_error(dataset: Path) -> None:
    assert len(opened(dataset, split='test', labels=('grade',))) == 0
    with pytest.raises(UsageError, match='no split "vall", did you mean "val"'):
        opened(dataset, split='vall')


def test_an_unknown_label_names_the_nearest(dataset: Path) -> None:
    with pytest.raises(UsageError, match='no label "catarakt", did you mean "cataract"'):
        opened(dataset, labels=('catarakt',))
    with pytest.raises(UsageError, match='cataract, grade, thickness and age, sex'):
        opened(dataset, labels=('zzzz',))


@pytest.mark.parametrize('places', [{}, {'path': 'x', 'tfds_name': 'y'}, {'path': 'x', 'phantom': PhantomConfig(patients=1)}])
def test_exactly_one_place_is_wanted(places: dict[str, object]) -> None:
    with pytest.raises(UsageError, match='exactly one of data.path, data.tfds_name and data.phantom'):
        open_source(DataConfig(**places))


def test_directories_that_are_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='there is no dataset .*retfound ingest'):
        opened(tmp_path / 'nowhere')
    (tmp_path / 'photos').mkdir()
    with pytest.raises(UserError, match='no manifest.json'):
        opened(tmp_path / 'photos')
    (tmp_path / 'eyes.partial').mkdir()
    for name in ('eyes', 'eyes.partial'):
        with pytest.raises(UserError, match='eyes is not finished: its ingest was interrupted'):
            opened(tmp_path / name)


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (lambda d: (d / 'manifest.json').write_text('{"sche'), 'not valid JSON'),
        (lambda d: (d / 'manifest.json').write_text('{"schema_version": 99}'), 'schema version 99 and this program reads 1 and 2'),
        (lambda d: (d / 'manifest.json').write_text('{"schema_version": 1}'), 'damaged: its manifest.json has no splits'),
        (lambda d: (d / 'index.parquet').unlink(), 'damaged: it has no index.parquet'),
        (lambda d: (d / 'index.parquet').write_bytes(b'PAR1 and then nothing'), 'damaged: its index.parquet cannot be read'),
        (lambda d: next(d.glob('*00001-of*')).unlink(), 'damaged: .*00001-of.* is missing'),
        (lambda d: next(d.glob('*00001-of*')).write_bytes(b'short'), 'damaged: .*00001-of.* has 5 bytes and should have'),
    ],
)
def test_a_damaged_dataset_says_what_is_damaged(tmp_path: Path, damage: object, message: str) -> None:
    path = write_dataset(tmp_path / 'eyes', {'train': records(6)}, shard=3)
    damage(path)
    with pytest.raises(UserError, match=message) as caught:
        opened(path)
    assert '\n' not in str(caught.value)


def test_an_index_that_does_not_fit_the_shards_is_refused(tmp_path: Path) -> None:
    path = write_dataset(tmp_path / 'eyes', {'train': records(6)}, shard=3)
    manifest = json.loads((path / 'manifest.json').read_text())
    manifest['shards'] = manifest['shards'][:1]
    (path / 'manifest.json').write_text(json.dumps(manifest))
    with pytest.raises(UserError, match='index.parquet lists 6 images of the split "train" and the shards hold 3'):
        opened(path)


def test_a_record_that_rotted_says_so_when_it_is_read(tmp_path: Path) -> None:
    path = write_dataset(tmp_path / 'eyes', {'train': records(3)}, shard=3)
    shard = next(path.glob('retina*'))
    data = bytearray(shard.read_bytes())
    data[200:1200] = bytes(1000)
    shard.write_bytes(bytes(data))
    source = opened(path)
    with pytest.raises(UserError, match='damaged: a record cannot be read'):
        [source[row] for row in range(3)]


def test_the_phantom_splits_by_patient_and_keeps_repeated_people_together() -> None:
    config = DataConfig(phantom=PhantomConfig(patients=100, image_size=32, near_duplicate_fraction=0.3), labels=('dr_grade', 'cup_to_disc'))
    parts = {split: open_source(dataclasses.replace(config, split=split)) for split in ('train', 'val', 'test')}
    assert sum(len(part) for part in parts.values()) == 200
    assert 110 < len(parts['train']) < 170
    groups = [set(part.table['group']) for part in parts.values()]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    assert parts['train'].label_classes['dr_grade'] == ['0', '1', '2', '3', '4'] and parts['train'].label_classes['cup_to_disc'] is None
    assert len(set(parts['train'].table['group'])) < len(set(parts['train'].table['patient']))
    image = parts['val'][0]['image']
    assert image.shape == (32, 32, 3) and image.dtype == np.uint8
    with pytest.raises(UsageError, match='the phantom has no split "trian", did you mean "train"'):
        open_source(dataclasses.replace(config, split='trian'))


def test_configurations_that_make_no_sense_are_refused() -> None:
    wrong = {'fraction': 0.0, 'batch_size': 0, 'crop_scale': (0.5, 0.2), 'workers': -1, 'labels': ('a', 'a'), 'eval_crop': 2.0}
    for field, value in wrong.items():
        with pytest.raises(UsageError, match=f'data.{field} is'):
            DataConfig(**{field: value})
