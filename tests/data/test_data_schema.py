"""Datasets of the first schema stay readable; what they did not have is missing in them."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from data_sets import records, write_dataset

from retfound_jax.core.errors import UserError
from retfound_jax.core.files import read_json, write_json
from retfound_jax.data.config import DataConfig
from retfound_jax.data.sources import open_source
from retfound_jax.data.store import DEMOGRAPHICS, TEXT_COLUMNS
from retfound_jax.ingest import manifest
from retfound_jax.ingest.records import READABLE, SCHEMA_VERSION, SINCE_2, decode, encode


def _without(dataset: Path, *, version: int) -> Path:
    """The index without the columns that came with the second schema."""
    table = pq.read_table(dataset / 'index.parquet')
    pq.write_table(table.drop_columns(list(SINCE_2)), dataset / 'index.parquet')
    write_json(dataset / 'manifest.json', {**read_json(dataset / 'manifest.json'), 'schema_version': version})
    return dataset


def test_a_dataset_of_the_first_schema_is_read_and_says_nothing_of_what_came_later(tmp_path: Path) -> None:
    dataset = _without(write_dataset(tmp_path / 'old', {'train': records(8)}), version=1)
    source = open_source(DataConfig(path=str(dataset), split='train', labels=('grade', 'sex')))
    assert set(TEXT_COLUMNS) <= source.table.keys() and all(set(source.table[name]) == {''} for name in SINCE_2)
    assert len(source.reader.read([0, 1])) == 2 and source.label_classes['sex'] == ['F', 'M']
    assert manifest.read(dataset)['schema_version'] == 1 and READABLE == (1, SCHEMA_VERSION)
    empty = open_source(DataConfig(path=str(dataset), split='train', labels=('diabetes_type',)))
    assert 'diabetes_type' in DEMOGRAPHICS and empty.label_classes['diabetes_type'] == [] and len(empty) == 0


def test_a_dataset_of_this_schema_without_its_columns_is_damaged(tmp_path: Path) -> None:
    dataset = _without(write_dataset(tmp_path / 'new', {'train': records(2)}), version=SCHEMA_VERSION)
    with pytest.raises(UserError, match='is damaged: its index.parquet cannot be read'):
        open_source(DataConfig(path=str(dataset), split='train'))


def test_a_record_of_the_first_schema_is_decoded() -> None:
    from tensorflow_datasets.proto import tf_example_pb2

    (record,) = records(1)
    example = tf_example_pb2.Example.FromString(encode(record))
    for name in SINCE_2:
        del example.features.feature[name]
    old = decode(example.SerializeToString())
    assert all(getattr(old, name) == '' for name in SINCE_2) and (old.key, old.sex, old.age) == (record.key, record.sex, record.age)
    del example.features.feature['sex']
    with pytest.raises(ValueError, match='not a record of schema 1 or 2'):
        decode(example.SerializeToString())


def test_the_phantom_and_every_record_say_where_they_come_from(tmp_path: Path) -> None:
    from retfound_jax.data.phantom.config import PhantomConfig

    source = open_source(DataConfig(phantom=PhantomConfig(patients=6, image_size=32), split='train'))
    assert set(source.table['source']) == {'phantom'} and set(source.table['age_word']) == {''}
