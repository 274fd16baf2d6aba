"""Records to a dataset directory that TFDS and Grain read without us: ArrayRecord shards and the two JSON files of TFDS."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from retfound_jax.core.errors import UserError
from retfound_jax.core.files import atomic_write, sha256_file, write_json
from retfound_jax.ingest import records
from retfound_jax.ingest.records import Record

NAME = 'retina'
_OPTIONS = 'group_size:1'  # one record a group: any record is read without its neighbours
_VERSION = '1.0.0'
_TEMPLATE = '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """One file of records."""

    file: str
    split: str
    count: int
    bytes: int
    sha256: str


def order(key: str) -> bytes:
    """What records are sorted by within a split: neither the order of files nor that of patients shows."""
    return hashlib.sha256(key.encode()).digest()


def write_shards(
    folder: Path, *, split: str, sizes: Sequence[int], record: Callable[[int], Record], shard_bytes: int
) -> list[Shard]:
    """Writes the records 0..n-1 of one split. sizes: of their images [bytes]; shard_bytes: aimed at for one file.

    Raises:
      UserError: the disk is full.
    """
    count = max(1, min(len(sizes), -(-sum(sizes) // shard_bytes)))
    bounds = [len(sizes) * number // count for number in range(count + 1)]
    shards = []
    for number, (begin, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        path = folder / f'{NAME}-{split}.array_record-{number:05d}-of-{count:05d}'
        _write_shard(path, (records.encode(record(place)) for place in range(begin, end)))
        shards.append(Shard(file=path.name, split=split, count=end - begin, bytes=path.stat().st_size, sha256=sha256_file(path)))
    return shards


def write_tfds(folder: Path, *, shards: Sequence[Shard], labels: Sequence[str]) -> None:
    """Writes `features.json` and `dataset_info.json`, in an order of ours: TFDS itself would write them in no fixed order."""
    splits: dict[str, list[Shard]] = {}
    for shard in shards:
        splits.setdefault(shard.split, []).append(shard)
    info = {
        'name': NAME, 'version': _VERSION, 'fileFormat': 'array_record', 'moduleName': 'retfound_jax.ingest.writer',
        'description': 'Retinal photographs; manifest.json beside this file says what they are and where they come from.',
        'splits': [
            {'name': name, 'filepathTemplate': _TEMPLATE, 'numBytes': str(sum(shard.bytes for shard in group)),
             'shardLengths': [str(shard.count) for shard in group]}
            for name, group in splits.items()
        ],
    }
    write_json(folder / 'features.json', records.features(labels).to_json())
    write_json(folder / 'dataset_info.json', info)


def write_index(path: Path, columns: Mapping[str, Sequence[object]]) -> None:
    """Writes the table of all records without their images. Text columns hold '' and number columns NaN where missing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def array(name: str, values: Sequence[object]) -> pa.Array:
        if all(isinstance(value, str) for value in values):
            return pa.array(values, pa.string())
        return pa.array(values, pa.int64() if all(isinstance(value, int) for value in values) else pa.float32())

    buffer = io.BytesIO()
    pq.write_table(pa.table({name: array(name, values) for name, values in columns.items()}), buffer, compression='zstd')
    atomic_write(path, buffer.getvalue())


def _write_shard(path: Path, encoded: Iterator[bytes]) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), _OPTIONS)
    try:
        for data in encoded:
            writer.write(data)
        writer.close()
        # The library buffers, and says little when the disk is full: make the kernel say it here.
        with open(path, 'rb') as file:
            os.fsync(file.fileno())
    except (OSError, RuntimeError, ValueError) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or 'No space left' in str(error) or 'RESOURCE_EXHAUSTED' in str(error):
            raise UserError(f'the disk is full: {path.name} could not be written; free some space and run again') from error
        raise
