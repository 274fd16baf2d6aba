"""fsspec's store in memory, which fails by a plan: nothing to install, and no network."""

from __future__ import annotations

import errno
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from fsspec.implementations.memory import MemoryFileSystem

from retfound_jax.core.storage import Store

Fault = Callable[[str, str], BaseException | None]  # (operation, path) -> what goes wrong before it, or nothing


class FlakyFileSystem(MemoryFileSystem):
    """Asks a plan before each request; a `ShortRead` gives half of what was asked for."""

    cachable = False
    store: dict[str, Any] = {}  # noqa: RUF012 (fsspec's way: what is stored is kept by the class)

    def __init__(self, fault: Fault = lambda operation, path: None) -> None:
        super().__init__()
        self.store, self.pseudo_dirs = {}, ['']
        self.fault, self.done = fault, Counter()

    def _before(self, operation: str, path: str) -> None:
        self.done[operation] += 1
        wrong = self.fault(operation, path)
        if wrong is not None:
            self.done[f'{operation} failed'] += 1
            raise wrong

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        try:
            self._before('read', path)
        except ShortRead:
            return super().cat_file(path, start=start, end=end)[: ((end or 2) - (start or 0)) // 2]
        return super().cat_file(path, start=start, end=end)

    def pipe_file(self, path: str, value: bytes, **_: Any) -> None:
        self._before('write', path)
        super().pipe_file(path, value)

    def rm_file(self, path: str) -> None:
        self._before('delete', path)
        super().rm_file(path)

    def find(self, path: str, **options: Any) -> Any:
        self._before('list', path)
        return super().find(path, **options)

    def info(self, path: str, **options: Any) -> Any:
        return super().info(path, **options)


class ShortRead(Exception):
    """Half of what was asked for comes, and no error."""


def busy() -> OSError:
    """What s3fs makes of `503 SlowDown`."""
    return OSError(errno.EBUSY, 'Please reduce your request rate')


def store_of(filesystem: FlakyFileSystem, *, address: str = 'memory://runs/a', **options: Any) -> Store:
    """A store that does not really wait."""
    return Store(address, filesystem=filesystem, sleep=lambda seconds: None, rng=random.Random(0), **options)
