"""Datasets that lie in an object store: the table is read from there at each start, shards come to a local folder when first needed.

ArrayRecord files are read by position, thousands of small reads a second, so they are fetched whole, compared with the SHA-256 of the
manifest, and renamed into place: a file that is there is right. Processes of a host share the folder, and one of them fetches.

`RETFOUND_JAX_DATA_CACHE` names the folder, XDG_CACHE_HOME/retfound_jax/data unless set; with `RETFOUND_JAX_DATA_CACHE_GB` the datasets
used longest ago make room for new ones. Any of it may be deleted when nobody reads it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.core.files import atomic_write
from retfound_jax.core.mirror import download
from retfound_jax.core.storage import Store, cache_home, inside

FOLDER, BOUND = 'RETFOUND_JAX_DATA_CACHE', 'RETFOUND_JAX_DATA_CACHE_GB'
_MANIFEST, _INDEX, _LOCKS = 'manifest.json', 'index.parquet', '.locks'
_PARALLEL = 4  # shards at a time


@dataclasses.dataclass(frozen=True, kw_only=True)
class RemoteShard:
    """One file of a dataset in an object store, and where it comes to lie here."""

    address: str  # of the dataset
    file: str
    bytes: int
    sha256: str
    folder: Path

    @property
    def path(self) -> Path:
        """The local file, once it is fetched."""
        return self.folder / self.file

    def is_here(self) -> bool:
        """Whether it is fetched."""
        return self.path.is_file() and self.path.stat().st_size == self.bytes

    def fetch(self) -> None:
        """Returns once it is here, fetched by this process or by another.

        Raises:
          UserError: it cannot be had, is damaged, or the disk is full.
        """
        import filelock

        if self.is_here():
            return
        locks = self.folder / _LOCKS
        locks.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(locks / hashlib.sha256(self.file.encode()).hexdigest()[:16]):
            if not self.is_here():
                download(_store(self.address), self.file, self.path, size=self.bytes, sha256=self.sha256)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RemoteDataset:
    """A dataset in an object store whose manifest and table are here."""

    address: str
    folder: Path

    def shard(self, item: Mapping[str, Any]) -> RemoteShard:
        """One shard, by its entry in the manifest."""
        return RemoteShard(
            address=self.address, file=inside(item['file']), bytes=item['bytes'], sha256=item['sha256'], folder=self.folder
        )

    def check_room(self, shards: Iterable[RemoteShard]) -> None:
        """Whether what is still to come has room, before the first step; older datasets are removed where a bound asks for it.

        Raises:
          UserError: it has not.
        """
        shards = list(shards)
        missing = sum(shard.bytes for shard in shards if not shard.is_here())
        bound = _bound()
        if bound is not None:
            whole = sum(shard.bytes for shard in shards)
            if whole > bound:
                said = f'{self.address} takes {_gb(whole)} here, and {BOUND} allows {_gb(bound)}'
                raise UserError(f'{said}; raise it, or use a smaller split')
            _evict(self.folder, room=bound - missing)
        free = shutil.disk_usage(self.folder).free
        if missing > free:
            raise UserError(
                f'{self.address} needs {_gb(missing)} more in {self.folder.parent} and the disk has {_gb(free)} left; '
                f'free some space, or name another folder in {FOLDER}'
            )


def open_remote(address: str) -> RemoteDataset:
    """Fetches manifest and table of a dataset. A dataset that was made anew at the same address gets a folder of its own.

    Raises:
      UserError: there is none, or the store cannot be read.
    """
    store = _store(address)
    if not store.exists(_MANIFEST):
        raise UserError(f'{address} is not a dataset: it has no {_MANIFEST}; copy there what `retfound ingest` wrote, as a whole')
    manifest = store.read(_MANIFEST)
    place = hashlib.sha256(store.root.encode()).hexdigest()[:16]
    version = hashlib.sha256(manifest).hexdigest()[:16]
    folder = _root() / f'{PurePosixPath(store.root).name}-{place}-{version}'
    folder.mkdir(exist_ok=True, mode=0o700)
    if not (folder / _INDEX).is_file():
        size = store.size(_INDEX)
        if size is None:
            raise UserError(f'{address} is not whole: it has no {_INDEX}; copy the dataset there again')
        download(store, _INDEX, folder / _INDEX, size=size)
    atomic_write(folder / _MANIFEST, manifest)  # at each start: its time says when the dataset was last used
    return RemoteDataset(address=store.root, folder=folder)


def fetch_all(shards: Sequence[RemoteShard]) -> None:
    """Returns once all are here, several fetched at a time.

    Raises:
      UserError: as `RemoteShard.fetch`.
    """
    missing = [shard for shard in shards if not shard.is_here()]
    if missing:
        with ThreadPoolExecutor(_PARALLEL) as pool:
            list(pool.map(RemoteShard.fetch, missing))


@functools.lru_cache(maxsize=8)
def _store(address: str) -> Store:
    return Store(address)


def _root() -> Path:
    named = os.environ.get(FOLDER)
    root = Path(named).absolute() if named else cache_home() / 'data'
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    return root


def _bound() -> float | None:
    """What the folder may hold [bytes]; None without a bound."""
    text = os.environ.get(BOUND, '')
    try:
        return float(text) * 1e9 if text else None
    except ValueError as error:
        raise UsageError(f'{BOUND} is {text!r} and should be a number of gigabytes, such as 500') from error


def _evict(keep: Path, *, room: float) -> None:
    """Removes the datasets used longest ago until all together take `room` [bytes] or less. Who has a file open reads on."""
    others = [path for path in keep.parent.iterdir() if path != keep and (path / _MANIFEST).is_file()]
    held = {path: sum(file.stat().st_size for file in path.rglob('*') if file.is_file()) for path in [*others, keep]}
    for path in sorted(others, key=lambda path: (path / _MANIFEST).stat().st_mtime):
        if sum(held.values()) <= room:
            return
        shutil.rmtree(path, ignore_errors=True)
        del held[path]


def _gb(count: float) -> str:
    return f'{count / 1e9:.1f} GB'
