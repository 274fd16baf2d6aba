"""Processed pictures and the table to a dataset folder: what becomes of each record is decided here."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retfound_jax.core.errors import UserError
from retfound_jax.core.files import atomic_write, csv_text, sha256_file, write_json
from retfound_jax.ingest import duplicates, manifest, splits, tally, writer
from retfound_jax.ingest.duplicates import Duplicates
from retfound_jax.ingest.items import ODD_HEADER, SEX_HEADER, WORDS, YOUNG, Abouts, Item, items
from retfound_jax.ingest.labels import delimiter_word
from retfound_jax.ingest.plan import Plan
from retfound_jax.ingest.records import SCHEMA_VERSION, Record
from retfound_jax.ingest.tally import Census, Tally
from retfound_jax.ingest.work import Picture
from retfound_jax.ingest.writer import Shard

if TYPE_CHECKING:
    import pyarrow as pa

_LIBRARIES = ('retfound-jax', 'numpy', 'opencv-python-headless', 'simplejpeg', 'pydicom', 'array-record', 'pyarrow')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Written:
    """What was put into the folder so far, by split in the order of `splits.SPLITS`: all that the rest of a dataset is made from."""

    shards: Sequence[Shard]
    census: Mapping[str, Census]  # of the splits that are not empty
    twins: Duplicates
    rejects: Mapping[str, str]  # file to reason


def write(folder: Path, *, plan: Plan, pictures: Sequence[Picture], rejects: Mapping[str, str]) -> dict[str, Any]:
    """Writes the whole dataset into an empty folder and returns the manifest."""
    found = _items(plan, pictures)
    twins = duplicates.find([item.fingerprint() for item in found], threshold=plan.config.near_threshold)
    by_split = _by_split(plan, [grouped(item, twins.groups) for item in found])
    shards, census, tables = [], {}, []
    for split, group in by_split.items():
        shards += writer.write_shards(
            folder, split=split, sizes=[item.size for item in group], record=lambda place, group=group: group[place].whole(),
            shard_bytes=plan.config.shard_bytes,
        )
        census[split] = _census(group, plan.classes)
        tables.append(index_table(group, split=split, first=0))
    return finish(folder, plan=plan, written=Written(shards=shards, census=census, twins=twins, rejects=rejects), index=tables)


def finish(folder: Path, *, plan: Plan, written: Written, index: Iterable[pa.Table]) -> dict[str, Any]:
    """Writes all but the shards and returns the manifest. index: tables of `index_table` in the order of the records."""
    writer.write_tfds(folder, shards=written.shards, labels=list(plan.classes))
    writer.write_index(folder / 'index.parquet', index)
    atomic_write(folder / 'rejects.csv', csv_text([('file', 'reason'), *sorted(written.rejects.items())]))
    atomic_write(folder / 'duplicates.csv', written.twins.to_csv())
    content = {**_contents(plan, written), **_account(plan, written)}
    write_json(folder / manifest.FILE, content)
    return content


@functools.cache
def versions() -> dict[str, str]:
    """Versions of what shapes the bytes of a dataset."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = 'not installed'
    return found


def refuse_twice(keys: Sequence[str]) -> None:
    """Refuses two pictures of one key. keys: those that are there more than once, in the order of the files.

    Raises:
      UserError: there is one.
    """
    if keys:
        raise UserError(f'two pictures have the key "{keys[0]}", one of them as a picture inside a file; rename the other file')


def grouped(item: Item, groups: Mapping[str, str]) -> Item:
    """The item with its group: its patient's own where `groups` names none."""
    patient = item.record.patient
    return dataclasses.replace(item, record=dataclasses.replace(item.record, group=groups.get(patient, patient)))


def index_table(group: Sequence[Item], *, split: str, first: int) -> pa.Table:
    """The rows of neighbours in a split for the index. first: position of the first of them."""
    names = [field.name for field in dataclasses.fields(Record) if field.name not in ('image', 'labels', 'fov')]
    quality = sorted({name for item in group for name in item.quality})
    return writer.index_table({
        'split': [split] * len(group),
        'position': list(range(first, first + len(group))),
        'file': [item.file for item in group],
        **{name: [getattr(item.record, name) for item in group] for name in names},
        **{f'label:{name}': [item.record.labels[name] for item in group] for name in group[0].record.labels},
        **{f'quality:{name}': [float(item.quality.get(name, math.nan)) for item in group] for name in quality},
    })


def _items(plan: Plan, pictures: Sequence[Picture]) -> list[Item]:
    abouts, config = Abouts(plan), plan.config
    found: list[Item] = []
    for file, group in itertools.groupby(pictures, key=lambda picture: picture.file):
        found += items(list(group), abouts.of(file), min_age=plan.least_age, modality=config.modality)
    refuse_twice([key for key, count in Counter(item.record.key for item in found).items() if count > 1])
    return found


def _by_split(plan: Plan, found: Sequence[Item]) -> dict[str, list[Item]]:
    """Items of each split that is not empty, in the order in which they are written."""
    if plan.config.split_column:
        given = splits.given_splits((item.record.group, item.split, item.record.key) for item in found)
        places = {group: splits.placed(split, group, config=plan.config.splits) for group, split in given.items()}
    else:
        places = {item.record.group: splits.split_of(item.record.group, config=plan.config.splits) for item in found}
    ordered = sorted(found, key=lambda item: writer.order(item.record.key))
    by_split = {split: [item for item in ordered if places[item.record.group] == split] for split in splits.SPLITS}
    return {split: group for split, group in by_split.items() if group}


def _census(group: Sequence[Item], classes: tally.Classes) -> Census:
    rows = [item.record for item in group]
    patients = tally.one_a_patient(rows)
    return Census(
        images=Tally.of(rows, classes=classes, notes=(note for item in group for note in item.notes)), patients=Tally.of(patients),
        groups=tally.count_groups(patients),
    )


def _contents(plan: Plan, written: Written) -> dict[str, Any]:
    """What the dataset holds, and who is in it."""
    everyone = sum(written.census.values(), start=Census())
    return {
        'schema_version': SCHEMA_VERSION,
        'name': writer.NAME,
        'images': everyone.images.rows,
        'modality': dict(sorted(everyone.images.words['modality'].items())),
        'splits': manifest.describe_splits(written.census, plan.classes),
        'labels': {label.name: {'kind': label.kind, 'classes': label.classes and list(label.classes)} for label in plan.columns.labels},
        'summary': everyone.images.summary(),
        'summary_patients': everyone.patients.summary(of_patients=True),
        'shards': manifest.describe_shards(written.shards),
        'fingerprint': manifest.fingerprint(written.shards),
        'duplicates': {f'{kind}_groups': written.twins.clusters(kind) for kind in ('exact', 'near')}
        | {'joined_patients': written.twins.joined_patients},
    }


def _account(plan: Plan, written: Written) -> dict[str, Any]:
    """Where it comes from, and what was left out or overruled."""
    notes = sum((census.images.notes for census in written.census.values()), start=Counter())
    found = len(plan.listing.files) + len(plan.listing.refused)
    return {
        'provenance': _provenance(plan),
        'files': {'found': found, 'read': found - len(written.rejects), 'ignored': plan.listing.ignored},
        'rejects': {'count': len(written.rejects), 'reasons': manifest.reasons(written.rejects)},
        'ages_below_minimum': notes[YOUNG],
        'cells_not_understood': dict(plan.people.odd),
        'demographics': plan.people.account.to_json() | {'header_ages': notes[ODD_HEADER], 'header_sexes': notes[SEX_HEADER]},
        'table_over_header': {role: notes[f'differs:{role}'] for role in (*WORDS, 'age') if notes[f'differs:{role}']},
        'rows_without_file': len(plan.table.rows) - len(plan.rows) if plan.table else 0,
        'columns_passed_over': dict(plan.columns.passed_over),
    }


def _provenance(plan: Plan) -> dict[str, Any]:
    config, table = plan.config, plan.table
    options = {
        'shorter_side': config.pictures.shorter_side, 'jpeg_quality': config.pictures.jpeg_quality,
        'min_age': None if config.min_age is None else float(config.min_age), 'modality': config.modality,
        'near_threshold': config.near_threshold, 'shard_bytes': config.shard_bytes, 'split_column': config.split_column,
        'splits': dataclasses.asdict(config.splits),
    }
    labels = {'file': table.name, 'sha256': sha256_file(config.labels), 'rows': len(table.rows), 'encoding': table.encoding,
              'delimiter': delimiter_word(table.delimiter)} if table else None
    return {'source': Path(config.source).resolve().name, 'labels': labels, 'columns': dict(plan.columns.roles), 'options': options,
            'versions': versions()}
