"""Records to a dataset directory that TFDS and Grain read without us: ArrayRecord shards and the two JSON files of TFDS."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from retfound_jax.core.errors import UserError
from retfound_jax.core.files import sha256_file, write_json
from retfound_jax.ingest import records
from retfound_jax.ingest.records import Record

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

NAME = 'retina'
_OPTIONS = 'group_size:1'  # one record a group: any record is read without its neighbours
_ROW_GROUP = 1 << 20  # [rows] of the index that a reader may take at once; what pyarrow does unasked
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
    bounds = cuts(len(sizes), sum(sizes), shard_bytes=shard_bytes)
    shards = []
    for number, (begin, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        path = folder / shard_name(split, number, len(bounds) - 1)
        shards.append(write_shard(path, split=split, encoded=(records.encode(record(place)) for place in range(begin, end))))
    return shards


def cuts(images: int, total: int, *, shard_bytes: int) -> list[int]:
    """Where the records of a split are cut into shards of about `shard_bytes`: the first of each, and their number. total [bytes]."""
    count = max(1, min(images, -(-total // shard_bytes)))
    return [images * number // count for number in range(count + 1)]


def shard_name(split: str, number: int, count: int) -> str:
    """The file name of a shard, as TFDS expects it."""
    return f'{NAME}-{split}.array_record-{number:05d}-of-{count:05d}'


def write_shard(path: Path, *, split: str, encoded: Iterable[bytes]) -> Shard:
    """Writes one file of records.

    Raises:
      UserError: the disk is full.
    """
    written = _write_records(path, encoded)
    return Shard(file=path.name, split=split, count=written, bytes=path.stat().st_size, sha256=sha256_file(path))


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


def index_table(columns: Mapping[str, Sequence[object]]) -> pa.Table:
    """The columns as Arrow has them: text, whole numbers, and float32 for all else."""
    import pyarrow as pa

    def array(values: Sequence[object]) -> pa.Array:
        if all(isinstance(value, str) for value in values):
            return pa.array(values, pa.string())
        return pa.array(values, pa.int64() if all(isinstance(value, int) for value in values) else pa.float32())

    return pa.table({name: array(values) for name, values in columns.items()})


def write_index(path: Path, tables: Iterable[pa.Table]) -> None:
    """Writes the table of all records without their images. Text columns hold '' and number columns NaN where missing.

    tables: its parts from top to bottom, all of one schema. The bytes do not depend on how it is parted, and memory holds
    `_ROW_GROUP` rows at most, with the part that is added.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _saying_full(path), contextlib.ExitStack() as stack:
        writer, waiting = None, None
        for table in tables:
            writer = writer or stack.enter_context(pq.ParquetWriter(path, table.schema, compression='zstd'))
            waiting = table if waiting is None else pa.concat_tables([waiting, table])
            while len(waiting) >= _ROW_GROUP:
                _write_rows(writer, waiting.slice(0, _ROW_GROUP))
                waiting = waiting.slice(_ROW_GROUP)
        if writer and len(waiting):
            _write_rows(writer, waiting)


def _write_rows(writer: pq.ParquetWriter, rows: pa.Table) -> None:
    # Pages break where pieces of a column end: one piece, or the parts would show in the bytes.
    writer.write_table(rows.combine_chunks(), row_group_size=_ROW_GROUP)


def _write_records(path: Path, encoded: Iterable[bytes]) -> int:
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), _OPTIONS)
    written = 0
    with _saying_full(path):
        for data in encoded:
            writer.write(data)
            written += 1
        writer.close()
        # The library buffers, and says little when the disk is full: make the kernel say it here.
        with open(path, 'rb') as file:
            os.fsync(file.fileno())
    return written


@contextlib.contextmanager
def _saying_full(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or 'No space left' in str(error) or 'RESOURCE_EXHAUSTED' in str(error):
            raise UserError(f'the disk is full: {path.name} could not be written; free some space and run again') from error
        raise
