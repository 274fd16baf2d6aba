"""Every dataset of the registry: its card is whole, and its fixture draws, reads, builds here and in TFDS, with one count."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from retfound_jax.ingest.columns import ROLES
from retfound_jax.registry import members, npz, on_disk, reading
from retfound_jax.registry.base import Dataset, Example
from retfound_jax.registry.build import build
from retfound_jax.registry.catalogue import datasets

Drawn = Callable[[str], Path]
NAMES = list(datasets())
EIGHT = {'aptos2019', 'idrid', 'messidor2', 'papila', 'glaucoma_fundus', 'jsiec', 'retina', 'octid'}
TFDS_QUICK = {'aptos2019', 'octid', 'retinamnist'}  # colour, grey, an archive; the slow tier takes them all
every = pytest.mark.parametrize('name', [pytest.param(name, marks=pytest.mark.slow) if name.endswith('_224') else name for name in NAMES])
every_in_tfds = pytest.mark.parametrize(
    'name', [name if name in TFDS_QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)


@pytest.fixture(scope='module')
def read(drawn: Drawn) -> Callable[[str], reading.Reading]:
    """What a fixture's folder holds."""
    known: dict[str, reading.Reading] = {}

    def once(name: str) -> reading.Reading:
        if name not in known:
            known[name] = reading.read(datasets()[name], drawn(name))
        return known[name]

    return once


def test_the_eight_sets_of_retfounds_tables_are_there_with_their_splits() -> None:
    assert EIGHT <= set(NAMES)
    sums = {name: (s := datasets()[name].retfound_split) and s.train + s.val + s.test for name in EIGHT}
    # UrFound's Table 2 and JSIEC's and MESSIDOR-2's exceptions: 997 of 1,000 and 1,744 of 1,748 images are in the tables.
    assert sums == {'aptos2019': 3662, 'idrid': 516, 'messidor2': 1744, 'papila': 488, 'glaucoma_fundus': 1544, 'jsiec': 997, 'retina': 601,
                    'octid': 572}


@every
def test_a_card_is_whole(name: str) -> None:
    dataset = datasets()[name]
    assert re.fullmatch(r'[a-z][a-z0-9_]*', name)
    for text in (dataset.title, dataset.licence, dataset.citation, dataset.homepage, dataset.instructions):
        assert text.strip() == text != ''
    assert dataset.homepage.startswith('http') and dataset.images > 0
    assert all(label.meaning and len(set(label.classes)) == len(label.classes) for label in dataset.labels)
    taken = {'image', 'split', 'key', 'group', *ROLES}
    assert not taken & {label.name for label in dataset.labels}
    assert set(dataset.demographics) <= {'age', 'sex', 'ethnicity', 'country', 'site', 'camera'}
    assert set(dataset.made_from) <= set(NAMES)
    for file in dataset.files:
        assert re.fullmatch(r'[0-9a-f]{64}|', file.sha256) and re.fullmatch(r'[0-9a-f]{32}|', file.md5)


@every
def test_a_fixture_reads_as_its_card_says(name: str, drawn: Drawn, read: Callable[[str], reading.Reading]) -> None:
    dataset, found = datasets()[name], read(name)
    for file in dataset.files:
        assert on_disk.is_archive(file) or (drawn(name) / file.name).exists(), file.name
    for example in found.examples:
        _check(example, dataset)
    fields = ('age', 'sex', 'ethnicity', 'country', 'site', 'camera')
    said = {field for field in fields for example in found.examples if _known(getattr(example, field))}
    assert said == set(dataset.demographics)
    assert bool(dataset.patient_key) == any(example.patient for example in found.examples)
    assert bool(dataset.official_split) == (found.split() == 'official')
    for label in dataset.labels:
        words = {example.labels.get(label.name, '') for example in found.examples} - {''}
        assert words == set(label.classes) or not label.classes and words
    assert not found.missing and found.published == dataset.images


@every
def test_no_picture_of_a_fixture_is_there_twice(name: str, read: Callable[[str], reading.Reading]) -> None:
    found = read(name)
    files = [found.root / example.file for example in found.examples if not npz.split_member(example.file)]
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    hashes += [hashlib.sha256(pixels.tobytes()).hexdigest() for _, pixels in members.walk(found.root, found.examples)]
    assert len(set(hashes)) == len(found.examples)


@every
def test_a_fixture_becomes_one_of_our_datasets(name: str, drawn: Drawn, read: Callable[[str], reading.Reading], tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    dataset, found = datasets()[name], read(name)
    manifest = build(name, source=drawn(name), out=tmp_path / 'out').manifest
    assert manifest['images'] == len(found.examples) == sum(split['images'] for split in manifest['splits'].values())
    assert manifest['rejects']['count'] == 0 and manifest['modality'] == {dataset.modality: len(found.examples)}
    used = [label for label in dataset.labels if any(example.labels.get(label.name) for example in found.examples)]
    assert {label: content['classes'] for label, content in manifest['labels'].items()} == {
        label.name: list(label.classes) or None for label in used}
    rows = {row['key']: row for row in pq.read_table(tmp_path / 'out' / 'index.parquet').to_pylist()}
    for example in found.examples:
        row = rows[example.key]
        assert row['patient'] == (example.patient or example.key)
        assert row['age'] == pytest.approx(example.age, nan_ok=True) and row['sex'] == example.sex
        for label in used:
            assert row[f'label:{label.name}'] == pytest.approx(_number(example, label.name, dataset), nan_ok=True)
        if found.split() == 'official':
            assert row['split'] == example.split or (row['split'], example.split) == ('val', 'train')


@every_in_tfds
def test_a_fixture_goes_through_tfds_and_our_source_reads_it(name: str, drawn: Drawn, read: Callable[[str], reading.Reading],
                                                            tmp_path: Path) -> None:
    import tensorflow_datasets as tfds

    from retfound_jax.data.decode import open_image
    from retfound_jax.data.tfds_source import open_tfds
    from retfound_jax.registry.tfds.builders import BUILDERS

    dataset, found = datasets()[name], read(name)
    builder = tfds.builder(name, data_dir=tmp_path)
    assert type(builder) is BUILDERS[name] and dataset.instructions in builder.MANUAL_DOWNLOAD_INSTRUCTIONS
    config = tfds.download.DownloadConfig(manual_dir=drawn(name).parent)
    builder.download_and_prepare(file_format='array_record', download_config=config)
    assert sum(split.num_examples for split in builder.info.splits.values()) == len(found.examples)
    labels, seen = [label.name for label in dataset.labels], {}
    for split in builder.info.splits:
        contents = open_tfds(name, directory=str(tmp_path), split=split)
        assert {label.name: list(label.classes) or None for label in dataset.labels} == {label: contents.classes[label] for label in labels}
        columns = contents.columns
        for row, key in enumerate(columns['key']):
            seen[key] = (str(columns['patient'][row]), [columns[f'label:{label}'][row] for label in labels])
        assert open_image(contents.store.read([0])[0]).pixels().shape[2] == 3
    for example in found.examples:
        patient, values = seen[example.key]
        assert patient == (example.patient or example.key)
        assert values == pytest.approx([_number(example, label, dataset) for label in labels], nan_ok=True)
    plain = next(iter(builder.as_data_source(next(iter(builder.info.splits)))))  # as a stranger reads it
    assert plain['image'].ndim == 3 and plain['image'].shape[2] == (1 if dataset.modality == 'OCT' else 3)


def _check(example: Example, dataset: Dataset) -> None:
    assert re.fullmatch(r'[A-Za-z0-9._-]+', example.key)
    assert example.split in ('', 'train', 'val', 'test') and example.laterality in ('', 'L', 'R') and example.sex in ('', 'F', 'M')
    classes = {label.name: label.classes for label in dataset.labels}
    for name, word in example.labels.items():
        assert word in ('', *classes[name]) or not classes[name] and math.isfinite(float(word))


def _known(value: str | float) -> bool:
    return value == value and value != ''


def _number(example: Example, name: str, dataset: Dataset) -> float:
    (label,) = (label for label in dataset.labels if label.name == name)
    word = example.labels.get(name, '')
    return math.nan if not word else float(label.classes.index(word)) if label.classes else float(word)


def test_two_fixtures_have_no_picture_in_common(drawn: Drawn) -> None:
    names = ('aptos2019', 'idrid', 'messidor2', 'papila')  # the loop over all of them would draw what this process may not need
    counted = Counter(hashlib.sha256(path.read_bytes()).hexdigest() for name in names for path in drawn(name).rglob('*.*g')
                      if path.is_file())
    assert max(counted.values()) == 1
