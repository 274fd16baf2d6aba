"""Datasets that ingest wrote: the table from `index.parquet`, the images from ArrayRecord shards by position."""

from __future__ import annotations

import bisect
import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grain
import numpy as np
from array_record.python.array_record_module import ArrayRecordReader
from tensorflow_datasets.proto import tf_example_pb2  # noqa: F401 - records are decoded with it

from retfound_jax.core.errors import UsageError, UserError, nearest
from retfound_jax.core.files import read_json
from retfound_jax.core.storage import is_remote
from retfound_jax.data.remote import RemoteDataset, RemoteShard, fetch_all, open_remote
from retfound_jax.data.store import DEMOGRAPHICS, LABEL, NUMBER_COLUMNS, SPLITS, TEXT_COLUMNS, Contents, RecordFailure, text_column
from retfound_jax.ingest.records import READABLE, SINCE_2, decode_image

# What reading needs is imported above, and not in the threads that read: tensorflow_datasets makes every import of the process a lazy one
# while it is being imported itself, and a thread that imports something then gets a stand-in that cannot be used.
_WAITED = 1e-3  # [s] a record that takes longer was not in memory (seven microseconds are usual), or another program had the core
_SLOW = 3  # such records in one call are no chance
_CALLS_IN_PARALLEL = 32  # before it is tried again one by one
_OF_THE_DATA = 'Corrupted'  # how Riegeli begins to tell of a checksum that does not fit
_BUFFER = 1 << 14  # [bytes] of a file read at once: a record of 256 px, mostly


def open_dataset(path: Path | str, *, split: str) -> Contents:
    """Opens one split without touching an image. A split that the dataset could have and has not is empty.

    Raises:
      UserError: the directory is missing, unfinished, damaged or of another schema version.
      UsageError: there is no such split.
    """
    remote = open_remote(str(path)) if is_remote(path) else None
    path = remote.folder if remote else Path(path)
    manifest = _manifest(path)
    known = {*SPLITS, *manifest['splits']}
    if split not in known:
        raise UsageError(f'the dataset {path} has no split "{split}"{nearest(split, known)}; it has {", ".join(manifest["splits"])}')
    shards = [_shard(path, item, remote) for item in manifest['shards'] if item['split'] == split]
    if remote:
        remote.check_room([shard.remote for shard in shards if shard.remote])
    columns, words = _columns(path, split=split, labels=list(manifest['labels']), absent=SINCE_2 if manifest['schema_version'] == 1 else ())
    counted = sum(shard.take for shard in shards)
    if counted != len(columns['key']):
        raise _damaged(path, f'index.parquet lists {len(columns["key"])} images of the split "{split}" and the shards hold {counted}')
    classes = {name: item['classes'] for name, item in manifest['labels'].items()}
    store = RecordStore(shards=tuple(shards))
    return Contents(columns=columns, classes=classes, words=words, store=store, fingerprint=manifest['fingerprint'])


def _shard(path: Path, item: dict[str, Any], remote: RemoteDataset | None) -> _Shard:
    """One shard of the manifest; the size is compared here, the SHA-256 by ingest when asked, or when it is fetched."""
    if remote:
        shard = remote.shard(item)
        return _Shard(filename=str(shard.path), take=item['count'], remote=shard)
    file = path / item['file']
    if not file.is_file():
        raise _damaged(path, f'{file.name} is missing')
    size = file.stat().st_size
    if size != item['bytes']:
        raise _damaged(path, f'{file.name} has {size} bytes and should have {item["bytes"]}')
    return _Shard(filename=str(file), take=item['count'])


def _manifest(path: Path) -> dict[str, Any]:
    if path.name.endswith('.partial') or (not path.exists() and path.with_name(path.name + '.partial').exists()):
        whole = path.with_name(path.name.removesuffix('.partial'))
        raise UserError(f'the dataset {whole} is not finished: its ingest was interrupted; run the same ingest command again')
    if not path.is_dir():
        raise UserError(f'there is no dataset {path}; make one with "retfound ingest --out {path}"')
    if not (path / 'manifest.json').exists():
        raise UserError(f'{path} is not a dataset: it has no manifest.json; name the directory that ingest wrote')
    manifest = read_json(path / 'manifest.json')
    version = manifest.get('schema_version') if isinstance(manifest, dict) else None
    if version not in READABLE:
        known = ' and '.join(map(str, READABLE))
        raise UserError(f'the dataset {path} has schema version {version} and this program reads {known}; ingest the images again')
    missing = [name for name in ('splits', 'shards', 'labels', 'fingerprint') if name not in manifest]
    if missing:
        raise _damaged(path, f'its manifest.json has no {" and no ".join(missing)}')
    return manifest


def _columns(
    path: Path, *, split: str, labels: list[str], absent: Sequence[str] = ()
) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """The rows of the split in the order of their positions, and the words of each demographic in all splits. absent: '' everywhere."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    texts = [name for name in TEXT_COLUMNS if name not in absent]
    numbers = [*NUMBER_COLUMNS, *(LABEL + label for label in labels)]
    try:
        table = pq.read_table(path / 'index.parquet', columns=['split', 'position', *texts, *numbers])
        words = {name: sorted(filter(None, pc.unique(table.column(name)).to_pylist())) for name in DEMOGRAPHICS if name in texts}
        table = table.filter(pc.equal(table.column('split'), split)).sort_by('position')
        text = {name: text_column(table.column(name).to_pylist() if name in texts else [''] * len(table)) for name in TEXT_COLUMNS}
    except FileNotFoundError as error:
        raise _damaged(path, 'it has no index.parquet') from error
    except (pa.ArrowException, KeyError) as error:
        raise _damaged(path, f'its index.parquet cannot be read ({str(error).splitlines()[0]})') from error
    words |= {name: [] for name in DEMOGRAPHICS if name in absent}
    return text | {name: table.column(name).to_numpy().astype(np.float32) for name in numbers}, words


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f'the dataset {path} is damaged: {what}; copy it again or ingest the images again')


@dataclass(frozen=True, kw_only=True)
class _Shard:
    """One ArrayRecord file as array_record wants it described; with the count given, it need not open the file to learn it."""

    filename: str
    take: int
    skip: int = 0
    remote: RemoteShard | None = None  # where it comes from when it is first read

    @property
    def examples_in_shard(self) -> int:
        return self.take


@dataclass(kw_only=True)
class RecordStore:
    """Encoded images of a sequence of ArrayRecord shards."""

    shards: tuple[_Shard, ...]
    _open: _Records | None = field(default=None, repr=False)

    def read(self, positions: Sequence[int]) -> list[bytes | np.ndarray]:
        """Encoded images at positions of the concatenated shards.

        Each record has a checksum of its own in the file, so that a flipped bit is found, wherever in the record it is.

        Raises:
          RecordFailure: a record is damaged.
          UserError: a shard is damaged, or storage fails.
        """
        if self._open is None:
            self._open = _Records(self.shards)
        records = self._open.read(positions)
        try:
            return [decode_image(data) for data in records]
        except ValueError as error:
            raise RecordFailure(f'the dataset {Path(self.shards[0].filename).parent}', str(error)) from error

    def __getstate__(self) -> dict[str, Any]:
        return {'shards': self.shards, '_open': None}


class _Records:
    """Records one by one while they come from memory, many at once while storage keeps us waiting.

    A call that reads many hands them to threads that spin, and walks the whole index of each shard: three times the processor time of
    reading them one by one. That in turn waits for each record, and holds the interpreter meanwhile.
    """

    def __init__(self, shards: Sequence[_Shard]) -> None:
        self._shards = shards
        self._ends = list(itertools.accumulate(shard.take for shard in shards))
        self._readers: dict[int, Any] = {}
        self._lock = threading.Lock()
        self._parallel: Any = None
        self._calls_in_parallel = 0
        self._remote = {index: shard.remote for index, shard in enumerate(shards) if shard.remote}  # not asked for yet

    def read(self, positions: Sequence[int]) -> list[bytes]:
        """Records in the order asked for."""
        self._fetch(positions)
        if self._calls_in_parallel:
            self._calls_in_parallel -= 1
            return self._read_parallel(positions)
        return self._in_order(positions)

    def _fetch(self, positions: Sequence[int]) -> None:
        """Makes the shards that are read for the first time be here, several at once."""
        if self._remote:
            wanted = {bisect.bisect_right(self._ends, position) for position in positions} & self._remote.keys()
            fetch_all([self._remote[index] for index in sorted(wanted)])
            self._remote = {index: shard for index, shard in self._remote.items() if index not in wanted}

    def _in_order(self, positions: Sequence[int]) -> list[bytes]:
        found: list[bytes] = []
        slow = 0
        for place, position in enumerate(positions):
            with self._lock:  # seeking and reading are two calls, and another thread may come between them
                shard = bisect.bisect_right(self._ends, position)
                reader = self._readers.get(shard) or self._opened(shard)
                begun = time.perf_counter()
                found.append(self._one(reader, shard, position - self._ends[shard] + self._shards[shard].take))
                slow += time.perf_counter() - begun > _WAITED
            if slow == _SLOW:
                self._calls_in_parallel = _CALLS_IN_PARALLEL
                return found + self._read_parallel(positions[place + 1 :])
        return found

    def _one(self, reader: Any, shard: int, place: int) -> bytes:
        try:
            reader.seek(place)
            return reader.read()
        except (RuntimeError, IndexError) as error:
            del self._readers[shard]  # a reader that has failed once fails at every record that follows
            self._opened(shard)
            raise _failure(error, path=Path(self._shards[shard].filename).parent) from error

    def _opened(self, shard: int) -> Any:
        """A reader of the shard, kept; the lock is held."""
        # Without these options a reader looks ahead 16 MB at every seek.
        options = 'readahead_buffer_size:0,max_parallelism:0'
        reader = ArrayRecordReader(self._shards[shard].filename, options=options, file_reader_buffer_size=_BUFFER)
        _check_open(reader, self._shards[shard])
        self._readers[shard] = reader
        return reader

    def _read_parallel(self, positions: Sequence[int]) -> list[bytes]:
        with self._lock:
            if self._parallel is None:
                self._parallel = grain.sources.ArrayRecordDataSource(list(self._shards))
        try:
            return list(self._parallel.__getitems__(list(positions))) if positions else []
        except (RuntimeError, IndexError) as error:
            if len(positions) == 1:  # one by one it is known what is damaged, the record or its shard
                return self._in_order(positions)
            raise _failure(error, path=Path(self._shards[0].filename).parent) from error


def _check_open(reader: Any, shard: _Shard) -> None:
    """A shard whose list of records is lost is no single record: it cannot be passed over."""
    if reader.ok() and reader.num_records() == shard.take:
        return
    path = Path(shard.filename)
    try:
        reader.seek(0)
        reason = f'it has {reader.num_records()} records and should have {shard.take}'
    except (RuntimeError, IndexError) as error:
        reason = _reason(error)
    raise _damaged(path.parent, f'{path.name} cannot be read ({reason})')


def _failure(error: Exception, *, path: Path) -> UserError:
    """What a checksum found is of the data, and the same for whoever reads them; anything else may be gone at the next try."""
    reason = _reason(error)
    if reason.startswith(_OF_THE_DATA):
        return RecordFailure(f'the dataset {path}', reason)
    return UserError(f'{path} cannot be read ({reason}); see to the storage, and start again')


def _reason(error: Exception) -> str:
    """The library's first line, without the names of places in memory and in the file that follow."""
    return (str(error).splitlines() or ['no reason is given'])[0].split(' (')[0]
