"""Pictures to their groups, splits and shards: each shard is sorted and written by one worker, and no worker sees all pictures.

A record's place is its rank in its split by the hash of its key. Hashes are spread evenly, so they are counted in bins, and
from the counts alone follows which bins a shard takes from: `Layout`. A picture goes to every shard that its bin reaches into,
mostly one; there the pictures are sorted, and those of the neighbours left out.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retfound_jax.ingest import assemble, records, splits, tally, writer
from retfound_jax.ingest.beam import job as jobs
from retfound_jax.ingest.beam.job import Job, bucket
from retfound_jax.ingest.beam.read import part_items
from retfound_jax.ingest.items import Item
from retfound_jax.ingest.tally import Census, Tally

if TYPE_CHECKING:
    import pyarrow as pa

BINS, SIDE = 'bins', 'side'
_BUCKET = 1 << 14  # [pictures] whose patients one worker brings together, about 50 MB
_BIN = 512  # [pictures] at most in a bin, about
Placed = tuple[str, bytes, tuple[Any, ...]]  # split, hash of the key, Item.to_plain


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """Which shard takes from which bins, of each split."""

    bounds: dict[str, np.ndarray]  # of the shards, as `writer.cuts` gives them
    before: dict[str, np.ndarray]  # how many records lie in the bins before each, and at the end all

    @classmethod
    def of(cls, counts: np.ndarray, *, shard_bytes: int) -> Layout:
        """Of what `count_bins` counted."""
        bounds, before = {}, {}
        for split, row in zip(splits.SPLITS, counts, strict=True):
            images, total = row[:-1], int(row[-1])
            if images.sum():
                before[split] = np.concatenate([[0], np.cumsum(images)])
                bounds[split] = np.asarray(writer.cuts(int(images.sum()), total, shard_bytes=shard_bytes))
        return cls(bounds=bounds, before=before)

    def shards_of(self, split: str, place: int) -> range:
        """The shards that a bin reaches into."""
        first, last = self.before[split][place], self.before[split][place + 1] - 1
        bounds = self.bounds[split]
        return range(int(np.searchsorted(bounds, first, side='right')) - 1, int(np.searchsorted(bounds, last, side='right')))

    def cut(self, split: str, number: int) -> slice:
        """A shard's own records among all, in order, that its bins hold."""
        begin, end = self.bounds[split][number:number + 2].tolist()
        before = self.before[split]
        first = int(before[int(np.searchsorted(before, begin, side='right')) - 1])
        return slice(begin - first, end - first)


def bins(files: int) -> int:
    """How many bins the hashes of a split are counted in."""
    return max(1, -(-files // _BIN))


def patient_buckets(files: int) -> int:
    """How many buckets of patients there are."""
    return max(1, -(-files // _BUCKET))


def by_patient(number: int, *, job: Job) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """The pictures of a part, each to the bucket of its patient."""
    for item in part_items(number, job=job):
        yield bucket(item.record.patient, patient_buckets(job.files)), item.to_plain()


def place(element: tuple[int, Iterable[tuple[Any, ...]]], *, job: Job) -> Iterator[Any]:
    """Gives the pictures of a bucket their group and split, and counts the patients, who are whole in it.

    As tagged outputs: how many pictures lie in which bin, and who could stand on two sides of given splits.
    """
    from apache_beam.pvalue import TaggedOutput

    number, plain = element
    groups = _groups_of(job, number)
    by_split: dict[str, list[tuple[bytes, Item]]] = {}
    counts = np.zeros((len(splits.SPLITS), bins(job.files) + 1), np.int64)
    for item in map(Item.from_plain, plain):
        item = assemble.grouped(item, groups)
        group = item.record.group
        split = splits.placed(item.split, group, config=job.splits) if job.given else splits.split_of(group, config=job.splits)
        order = writer.order(item.record.key)
        by_split.setdefault(split, []).append((order, item))
        row = counts[splits.SPLITS.index(split)]
        row[_bin(order, job.files)] += 1
        row[-1] += item.size
        yield split, order, item.to_plain()
    yield TaggedOutput(BINS, counts)
    if job.given:
        for row in _doubtful((item for group in by_split.values() for _, item in group), groups):
            yield TaggedOutput(SIDE, row)
    _count_patients(job, number, by_split)


def two_sides(element: tuple[str, Iterable[tuple[Any, ...]]]) -> Iterator[tuple[Any, ...]]:
    """Of a group, all rows where they are of several splits."""
    group, rows = element
    rows = list(rows)
    if len({split for _, _, split, _ in rows}) > 1:
        for file, frame, split, key in rows:
            yield file, frame, group, split, key


def add_bins(counts: Iterable[np.ndarray]) -> np.ndarray | int:
    """The sum of counts, or of their sums."""
    return sum(counts)


def to_shards(placed: Placed, *, job: Job, layout: Layout) -> Iterator[tuple[tuple[str, int], tuple[bytes, tuple[Any, ...]]]]:
    """The picture to each shard that its bin reaches into."""
    split, order, plain = placed
    for number in layout.shards_of(split, _bin(order, job.files)):
        yield (split, number), (order, plain)


def write_shard(element: tuple[tuple[str, int], Iterable[tuple[bytes, tuple[Any, ...]]]], *, job: Job, layout: Layout) -> str:
    """Writes one shard, its rows of the index and its counts, each whole or not at all; the same again where it is tried again."""
    (split, number), found = element
    begin, end = layout.bounds[split][number:number + 2].tolist()
    cut = layout.cut(split, number)
    items = [Item.from_plain(plain) for _, plain in sorted(found, key=lambda pair: pair[0])[cut]]
    if len(items) != end - begin or cut.start < 0:
        raise AssertionError(f'shard {number} of {split} got {len(items)} records of {end - begin}')
    path = job.folder(jobs.DATASET) / writer.shard_name(split, number, len(layout.bounds[split]) - 1)
    name = f'{split}-{number:05d}'
    unfinished = job.folder(jobs.UNFINISHED) / f'{name}-{uuid.uuid4().hex}'
    shard = writer.write_shard(unfinished, split=split, encoded=(records.encode(item.whole()) for item in items))
    os.replace(unfinished, path)
    writer.write_index(unfinished, [assemble.index_table(items, split=split, first=begin)])
    os.replace(unfinished, job.folder(jobs.INDEX) / f'{name}.parquet')
    counted = Tally.of((item.record for item in items), classes=job.classes, notes=(note for item in items for note in item.notes))
    told = {'shard': dataclasses.asdict(dataclasses.replace(shard, file=path.name)), 'tally': counted.to_json()}
    jobs.write_result(job.folder(jobs.SHARDS), name, told)
    return name


def read_shards(job: Job) -> tuple[list[writer.Shard], dict[str, Census]]:
    """What the workers tell: all shards in order, and who is in each split that is not empty."""
    shards, census = [], collections.defaultdict(Census)
    for split in splits.SPLITS:
        for path in sorted(job.folder(jobs.SHARDS).glob(f'{split}-*.json')):
            told = json.loads(path.read_text(encoding='utf-8'))
            shards.append(writer.Shard(**told['shard']))
            census[split] += Census(images=Tally.from_json(told['tally']))
    for path in sorted(job.folder(jobs.CENSUS).glob('*.json')):
        for split, told in json.loads(path.read_text(encoding='utf-8')).items():
            census[split] += Census(patients=Tally.from_json(told['patients']), groups=told['groups'])
    return shards, dict(census)


def read_index(job: Job) -> Iterator[pa.Table]:
    """The workers' parts of the index in order, one at a time, all with the columns and types of all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = [path for split in splits.SPLITS for path in sorted(job.folder(jobs.INDEX).glob(f'{split}-*.parquet'))]
    types: dict[str, pa.DataType] = {}
    for path in paths:
        for field in pq.read_schema(path):
            # A column of whole numbers here and of fractions there is one of fractions.
            types[field.name] = field.type if types.get(field.name, field.type) == field.type else pa.float32()
    fixed = [name for name in types if not name.startswith('quality:')]
    names = [*fixed, *sorted(name for name in types if name.startswith('quality:'))]
    schema = pa.schema([(name, types[name]) for name in names])
    for path in paths:
        table = pq.read_table(path)
        for name in itertools.filterfalse(table.column_names.__contains__, names):
            table = table.append_column(name, pa.array(np.full(len(table), np.nan, np.float32)))
        yield table.select(names).cast(schema)


def write_groups(job: Job, groups: dict[str, str]) -> None:
    """Lays the groups of joined patients where `place` finds them: a file for each bucket that has some."""
    folder = jobs.fresh(job.folder(jobs.GROUPS))
    by_bucket: dict[int, dict[str, str]] = {}
    for patient, group in groups.items():
        by_bucket.setdefault(bucket(patient, patient_buckets(job.files)), {})[patient] = group
    for number, found in by_bucket.items():
        jobs.write_result(folder, f'{number:07d}', found)


def _groups_of(job: Job, number: int) -> dict[str, str]:
    path = Path(job.folder(jobs.GROUPS), f'{number:07d}.json')
    return json.loads(path.read_text(encoding='utf-8')) if path.exists() else {}


def _bin(order: bytes, files: int) -> int:
    return int.from_bytes(order[:8]) * bins(files) >> 64


def _doubtful(items: Iterable[Item], groups: dict[str, str]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """(group, (file, frame, split, key)) of all who are joined with others, or whose own pictures are of several splits."""
    by_patient: dict[str, list[Item]] = {}
    for item in items:
        by_patient.setdefault(item.record.patient, []).append(item)
    for patient, own in by_patient.items():
        if patient in groups or len({item.split for item in own}) > 1:
            for item in own:
                yield item.record.group, (item.file, item.record.frame, item.split, item.record.key)


def _count_patients(job: Job, number: int, by_split: dict[str, list[tuple[bytes, Item]]]) -> None:
    told = {}
    for split, found in by_split.items():
        patients = tally.one_a_patient(item.record for _, item in sorted(found, key=lambda pair: pair[0]))
        told[split] = {'patients': Tally.of(patients).to_json(), 'groups': tally.count_groups(patients)}
    jobs.write_result(job.folder(jobs.CENSUS), f'{number:07d}', told)
