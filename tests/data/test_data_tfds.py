"""Datasets of TFDS as sources, without TensorFlow."""

from __future__ import annotations

import io
import pickle
import shutil
import sys
from pathlib import Path

import corruptions
import numpy as np
import pytest
from data_sets import picture
from PIL import Image

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.data.config import DataConfig
from retfound_jax.data.loader import Loader, eval_batches
from retfound_jax.data.sources import open_source
from retfound_jax.data.store import RecordFailure


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TFDS data directory that holds the tiny dataset as ArrayRecord."""
    from tiny_fundus.builder import TinyFundus

    path = tmp_path_factory.mktemp('tfds')
    TinyFundus(data_dir=path, file_format='array_record').download_and_prepare()
    return path


def config(folder: Path, **options: object) -> DataConfig:
    """The tiny dataset in batches of four."""
    return DataConfig(**{'tfds_name': 'tiny_fundus', 'tfds_dir': str(folder), 'image_size': 16, 'batch_size': 4, **options})


def test_images_labels_and_people_are_found(folder: Path) -> None:
    source = open_source(config(folder, labels=('label', 'grade', 'thickness', 'age', 'sex')))
    numbers = [int(key.removesuffix('.png')) for key in source.table['key']]
    assert sorted(numbers) == list(range(8))
    assert source.table['patient'].tolist() == [f'P{number // 2}' for number in numbers]
    assert source.label_classes['label'] == ['healthy', 'sick'] and source.label_classes['thickness'] is None
    assert source.label_classes['grade'] == ['0', '1', '2', '10']  # of both splits, in the order of the numbers
    expected = [[n % 2, n % 3, n / 8, 50 + n, n % 2] for n in numbers]
    np.testing.assert_allclose(source.labels, expected)
    assert 'label:box' not in source.table and 'label:filename' not in source.table
    for row in range(3):
        pixels = np.asarray(Image.open(io.BytesIO(source[row]['image'])))
        assert (pixels == picture(numbers[row], height=30, width=40)).all()
    assert 'tensorflow' not in sys.modules


def test_it_trains_and_evaluates(folder: Path) -> None:
    options = config(folder, labels=('label',))
    source = open_source(options)
    loader = Loader(options, source, seed=0)
    rows = [row for _ in range(2) for row in next(loader)['index']]
    loader.close()
    assert sorted(rows) == list(range(8))
    (batch,) = eval_batches(config(folder, split='val', labels=('label',)), open_source(config(folder, split='val', labels=('label',))))
    assert batch['mask'].tolist() == [True, True, True, False]
    assert (pickle.loads(pickle.dumps(source.reader)).read(np.array([1]))) == source.reader.read(np.array([1]))


def test_splits_by_their_tfds_names_and_ours(folder: Path) -> None:
    assert len(open_source(config(folder, split='train[:50%]'))) == 4
    assert len(open_source(config(folder, split='validation'))) == len(open_source(config(folder, split='val'))) == 3
    assert len(open_source(config(folder, split='test', labels=('label',)))) == 0
    with pytest.raises(UsageError, match='no split "trian", did you mean "train"'):
        open_source(config(folder, split='trian'))
    with pytest.raises(UsageError, match='the split "train.*" cannot be read'):
        open_source(config(folder, split='train[:x]'))


def test_an_unknown_or_unprepared_dataset_says_what_to_do(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='TFDS has no dataset "cifar_10" in .*, did you mean "cifar10"'):
        open_source(config(folder, tfds_name='cifar_10'))
    with pytest.raises(UserError, match='"mnist" is not prepared in .*download_and_prepare'):
        open_source(config(tmp_path, tfds_name='mnist'))
    with pytest.raises(UsageError, match='no label "labl", did you mean "label"'):
        open_source(config(folder, labels=('labl',)))


def test_a_damaged_record_is_one_sentence_when_it_is_opened_and_when_it_is_read(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / 'tfds')
    options = config(tmp_path / 'tfds')
    reader = open_source(options).reader
    (shard,) = (tmp_path / 'tfds').rglob('*train.array_record*')
    corruptions.zeroed(shard, [2])
    with pytest.raises(RecordFailure, match='the TFDS dataset is damaged: a record cannot be read .Corrupted'):
        open_source(options)
    with pytest.raises(RecordFailure, match='a record cannot be read'):
        reader.read(np.array([2]))
    assert len(reader.read(np.array([1, 3]))) == 2
