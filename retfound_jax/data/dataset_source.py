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

import numpy as np

from retfound_jax.core.errors import UsageError, UserError, nearest
from retfound_jax.core.files import read_json
from retfound_jax.data.store import DEMOGRAPHICS, LABEL, NUMBER_COLUMNS, SPLITS, TEXT_COLUMNS, Contents, text_column
from retfound_jax.ingest.records import SCHEMA_VERSION, decode_image

_WAITED = 1e-3  # [s] a record that takes longer was not in memory (seven microseconds are usual), or another program had the core
_SLOW = 3  # such records in one call are no chance
_CALLS_IN_PARALLEL = 32  # before it is tried again one by one
_BUFFER = 1 << 14  # [bytes] of a file read at once: a record of 256 px, mostly


def open_dataset(path: Path | str, *, split: str) -> Contents:
    """Opens one split without touching an image. A split that the dataset could have and has not is empty.

    Raises:
      UserError: the directory is missing, unfinished, damaged or of another schema version.
      UsageError: there is no such split.
    """
    path = Path(path)
    manifest = _manifest(path)
    known = {*SPLITS, *manifest['splits']}
    if split not in known:
        raise UsageError(f'the dataset {path} has no split "{split}"{nearest(split, known)}; it has {", ".join(manifest["splits"])}')
    shards = [_shard(path, item) for item in manifest['shards'] if item['split'] == split]
    columns, words = _columns(path, split=split, labels=list(manifest['labels']))
    counted = sum(shard.take for shard in shards)
    if counted != len(columns['key']):
        raise _damaged(path, f'index.parquet lists {len(columns["key"])} images of the split "{split}" and the shards hold {counted}')
    classes = {name: item['classes'] for name, item in manifest['labels'].items()}
    store = RecordStore(shards=tuple(shards))
    return Contents(columns=columns, classes=classes, words=words, store=store, fingerprint=manifest['fingerprint'])


def _shard(path: Path, item: dict[str, Any]) -> _Shard:
    """One shard of the manifest; the size is compared here, the SHA-256 by ingest when asked."""
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
    if version != SCHEMA_VERSION:
        raise UserError(f'the dataset {path} has schema version {version} and this program reads {SCHEMA_VERSION}; ingest the images again')
    missing = [name for name in ('splits', 'shards', 'labels', 'fingerprint') if name not in manifest]
    if missing:
        raise _damaged(path, f'its manifest.json has no {" and no ".join(missing)}')
    return manifest


def _columns(path: Path, *, split: str, labels: list[str]) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """The rows of the split in the order of their positions, and the words of each demographic in all splits."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    names = [*TEXT_COLUMNS, *NUMBER_COLUMNS, *(LABEL + label for label in labels)]
    try:
        table = pq.read_table(path / 'index.parquet', columns=['split', 'position', *names])
        words = {name: sorted(filter(None, pc.unique(table.column(name)).to_pylist())) for name in DEMOGRAPHICS if name in TEXT_COLUMNS}
        table = table.filter(pc.equal(table.column('split'), split)).sort_by('position')
        text = {name: text_column(table.column(name).to_pylist()) for name in TEXT_COLUMNS}
    except FileNotFoundError as error:
        raise _damaged(path, 'it has no index.parquet') from error
    except (pa.ArrowException, KeyError) as error:
        raise _damaged(path, f'its index.parquet cannot be read ({str(error).splitlines()[0]})') from error
    return text | {name: table.column(name).to_numpy().astype(np.float32) for name in names[len(TEXT_COLUMNS) :]}, words


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f'the dataset {path} is damaged: {what}; copy it again or ingest the images again')


@dataclass(frozen=True, kw_only=True)
class _Shard:
    """One ArrayRecord file as array_record wants it described; with the count given, it need not open the file to learn it."""

    filename: str
    take: int
    skip: int = 0

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

        Raises:
          UserError: a shard is damaged.
        """
        if self._open is None:
            self._open = _Records(self.shards)
        try:
            return [decode_image(data) for data in self._open.read(positions)]
        except (ValueError, RuntimeError, OSError, IndexError) as error:
            raise _damaged(Path(self.shards[0].filename).parent, f'a record cannot be read ({str(error).splitlines()[0]})') from error

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

    def read(self, positions: Sequence[int]) -> list[bytes]:
        """Records in the order asked for."""
        if self._calls_in_parallel:
            self._calls_in_parallel -= 1
            return self._read_parallel(positions)
        found: list[bytes] = []
        slow = 0
        for place, position in enumerate(positions):
            shard = bisect.bisect_right(self._ends, position)
            reader = self._readers.get(shard) or self._opened(shard)
            begun = time.perf_counter()
            with self._lock:  # two calls, and another thread may seek between them
                reader.seek(position - self._ends[shard] + self._shards[shard].take)
                found.append(reader.read())
            slow += time.perf_counter() - begun > _WAITED
            if slow == _SLOW:
                self._calls_in_parallel = _CALLS_IN_PARALLEL
                return found + self._read_parallel(positions[place + 1 :])
        return found

    def _opened(self, shard: int) -> Any:
        from array_record.python.array_record_module import ArrayRecordReader

        with self._lock:
            if shard not in self._readers:
                # Without these options a reader looks ahead 16 MB at every seek.
                options = 'readahead_buffer_size:0,max_parallelism:0'
                self._readers[shard] = ArrayRecordReader(self._shards[shard].filename, options=options, file_reader_buffer_size=_BUFFER)
        return self._readers[shard]

    def _read_parallel(self, positions: Sequence[int]) -> list[bytes]:
        with self._lock:
            if self._parallel is None:
                import grain

                self._parallel = grain.sources.ArrayRecordDataSource(list(self._shards))
        return list(self._parallel.__getitems__(list(positions))) if positions else []
