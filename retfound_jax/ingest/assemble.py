"""Processed pictures and the table to a dataset folder: what becomes of each record is decided here."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from retfound_jax.core.errors import UserError
from retfound_jax.core.files import atomic_write, csv_text, sha256_file, write_json
from retfound_jax.ingest import columns as columns_lib
from retfound_jax.ingest import duplicates, manifest, splits, writer
from retfound_jax.ingest.columns import Person
from retfound_jax.ingest.duplicates import Duplicates, Fingerprint
from retfound_jax.ingest.labels import delimiter_word
from retfound_jax.ingest.plan import IngestConfig, Plan
from retfound_jax.ingest.process import Processed
from retfound_jax.ingest.records import SCHEMA_VERSION, Record
from retfound_jax.ingest.work import Picture
from retfound_jax.ingest.writer import Shard

_WORDS = ('patient', 'laterality', 'sex', 'camera', 'site', 'modality')  # what both a table and a file's header may say
_LIBRARIES = ('retfound-jax', 'numpy', 'opencv-python-headless', 'simplejpeg', 'pydicom', 'array-record', 'pyarrow')


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Item:
    """A record without its image, and where that lies."""

    record: Record
    picture: Picture
    split: str = ''  # as a table gives it


def write(folder: Path, *, plan: Plan, pictures: Sequence[Picture], rejects: Mapping[str, str]) -> dict[str, Any]:
    """Writes the whole dataset into an empty folder and returns the manifest."""
    counts: Counter[str] = Counter()
    items = _items(plan, pictures, counts)
    twins = duplicates.find([_fingerprint(item.record) for item in items], threshold=plan.config.near_threshold)
    by_split = _by_split(plan, [_grouped(item, twins) for item in items])
    shards = _write_shards(folder, by_split, shard_bytes=plan.config.shard_bytes)
    writer.write_tfds(folder, shards=shards, labels=[label.name for label in plan.columns.labels])
    writer.write_index(folder / 'index.parquet', _index(by_split))
    atomic_write(folder / 'rejects.csv', csv_text([('file', 'reason'), *sorted(rejects.items())]))
    atomic_write(folder / 'duplicates.csv', twins.to_csv())
    content = {
        **_contents(plan, by_split, shards),
        **_account(plan, pictures, rejects, counts),
        'duplicates': {f'{kind}_groups': twins.clusters(kind) for kind in ('exact', 'near')} | {'joined_patients': twins.joined_patients},
    }
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


def _items(plan: Plan, pictures: Sequence[Picture], counts: Counter[str]) -> list[_Item]:
    """Joins pictures and rows. counts: told what was dropped or contradicted."""
    table, columns = plan.table, plan.columns
    keys = table.column(columns.roles['key']) if table else []
    given = table.column(plan.config.split_column) if table and plan.config.split_column else []
    labels = {label.name: columns_lib.label_values(table, label) for label in columns.labels} if table else {}
    frames = Counter(picture.file for picture in pictures)
    items = []
    for picture in pictures:
        row = plan.rows.get(picture.file)
        name = picture.file if row is None else keys[row]
        person = Person() if row is None else plan.people[row]
        record = Record(
            image=b'', group='', key=f'{name}#{picture.info.frame}' if frames[picture.file] > 1 else name,
            labels={} if row is None else {label: values[row] for label, values in labels.items()},
            **_pixels(picture.info), **_merged(person, picture.info, name=name, config=plan.config, counts=counts),
        )
        items.append(_Item(record=record, picture=picture, split='' if row is None or not given else splits.split_word(given[row])))
    twice = [key for key, count in Counter(item.record.key for item in items).items() if count > 1]
    if twice:
        raise UserError(f'two pictures have the key "{twice[0]}", one of them as a picture inside a file; rename the other file')
    return items


def _pixels(info: Processed) -> dict[str, Any]:
    return {name: getattr(info, name) for name in ('frame', 'source_height', 'source_width', 'fov', 'pixel_sha256', 'phash')}


def _merged(person: Person, info: Processed, *, name: str, config: IngestConfig, counts: Counter[str]) -> dict[str, Any]:
    """What is known of the patient: the table first, then the file's header; contradictions are counted."""
    for role in _WORDS:
        counts[f'differs:{role}'] += bool(getattr(person, role) and getattr(info, role) and getattr(person, role) != getattr(info, role))
    counts['differs:age'] += abs(person.age - info.age) >= 1  # never true of a missing age, which is NaN
    values = {role: getattr(person, role) or getattr(info, role) for role in _WORDS}
    age = info.age if math.isnan(person.age) else person.age
    young = age < config.min_age
    counts['young'] += young
    values |= {'patient': values['patient'] or name, 'modality': values['modality'] or config.modality, 'age': math.nan if young else age}
    return values | {'ethnicity': person.ethnicity, 'country': person.country}


def _fingerprint(record: Record) -> Fingerprint:
    return Fingerprint(key=record.key, patient=record.patient, pixel_sha256=record.pixel_sha256, phash=record.phash)


def _grouped(item: _Item, twins: Duplicates) -> _Item:
    return dataclasses.replace(item, record=dataclasses.replace(item.record, group=twins.groups[item.record.patient]))


def _by_split(plan: Plan, items: Sequence[_Item]) -> dict[str, list[_Item]]:
    """Items of each split that is not empty, in the order in which they are written."""
    if plan.config.split_column:
        places = splits.given_splits((item.record.group, item.split, item.record.key) for item in items)
    else:
        places = {item.record.group: splits.split_of(item.record.group, config=plan.config.splits) for item in items}
    ordered = sorted(items, key=lambda item: writer.order(item.record.key))
    by_split = {split: [item for item in ordered if places[item.record.group] == split] for split in splits.SPLITS}
    return {split: group for split, group in by_split.items() if group}


def _write_shards(folder: Path, by_split: Mapping[str, Sequence[_Item]], *, shard_bytes: int) -> list[Shard]:
    shards = []
    for split, group in by_split.items():

        def record(place: int, group: Sequence[_Item] = group) -> Record:
            return dataclasses.replace(group[place].record, image=group[place].picture.jpeg())

        sizes = [item.picture.size for item in group]
        shards += writer.write_shards(folder, split=split, sizes=sizes, record=record, shard_bytes=shard_bytes)
    return shards


def _index(by_split: Mapping[str, Sequence[_Item]]) -> dict[str, list[Any]]:
    rows = [(split, place, item) for split, group in by_split.items() for place, item in enumerate(group)]
    names = [field.name for field in dataclasses.fields(Record) if field.name not in ('image', 'labels', 'fov')]
    labels = list(rows[0][2].record.labels)
    quality = sorted({name for _, _, item in rows for name in item.picture.info.quality})
    return {
        'split': [split for split, _, _ in rows],
        'position': [place for _, place, _ in rows],
        'file': [item.picture.file for _, _, item in rows],
        **{name: [getattr(item.record, name) for _, _, item in rows] for name in names},
        **{f'label:{name}': [item.record.labels[name] for _, _, item in rows] for name in labels},
        **{f'quality:{name}': [float(item.picture.info.quality.get(name, math.nan)) for _, _, item in rows] for name in quality},
    }


def _contents(plan: Plan, by_split: Mapping[str, Sequence[_Item]], shards: Sequence[Shard]) -> dict[str, Any]:
    """What the dataset holds, and who is in it."""
    classes = {label.name: label.classes for label in plan.columns.labels}
    rows = {split: [item.record for item in group] for split, group in by_split.items()}
    everyone = [row for group in rows.values() for row in group]
    return {
        'schema_version': SCHEMA_VERSION,
        'name': writer.NAME,
        'images': len(everyone),
        'modality': dict(sorted(Counter(row.modality for row in everyone).items())),
        'splits': manifest.describe_splits(rows, classes),
        'labels': {label.name: {'kind': label.kind, 'classes': label.classes and list(label.classes)} for label in plan.columns.labels},
        'summary': manifest.summary(everyone),
        'summary_patients': manifest.summary(manifest.one_a_patient(everyone), of_patients=True),
        'shards': manifest.describe_shards(shards),
        'fingerprint': manifest.fingerprint(shards),
    }


def _account(plan: Plan, pictures: Iterable[Picture], rejects: Mapping[str, str], counts: Counter[str]) -> dict[str, Any]:
    """Where it comes from, and what was left out or overruled."""
    found = len(plan.listing.files) + len(plan.listing.refused)
    differs = {role: counts[f'differs:{role}'] for role in (*_WORDS, 'age') if counts[f'differs:{role}']}
    return {
        'provenance': _provenance(plan),
        'files': {'found': found, 'read': len({picture.file for picture in pictures}), 'ignored': plan.listing.ignored},
        'rejects': {'count': len(rejects), 'reasons': manifest.reasons(rejects)},
        'ages_below_minimum': counts['young'],
        'cells_not_understood': dict(plan.odd),
        'table_over_header': differs,
        'rows_without_file': len(plan.table.rows) - len(plan.rows) if plan.table else 0,
        'columns_passed_over': dict(plan.columns.passed_over),
    }


def _provenance(plan: Plan) -> dict[str, Any]:
    config, table = plan.config, plan.table
    options = {
        'shorter_side': config.pictures.shorter_side, 'jpeg_quality': config.pictures.jpeg_quality, 'min_age': float(config.min_age),
        'modality': config.modality,
        'near_threshold': config.near_threshold, 'shard_bytes': config.shard_bytes, 'split_column': config.split_column,
        'splits': dataclasses.asdict(config.splits),
    }
    labels = {'file': table.name, 'sha256': sha256_file(config.labels), 'rows': len(table.rows), 'encoding': table.encoding,
              'delimiter': delimiter_word(table.delimiter)} if table else None
    return {'source': Path(config.source).resolve().name, 'labels': labels, 'columns': dict(plan.columns.roles), 'options': options,
            'versions': versions()}
