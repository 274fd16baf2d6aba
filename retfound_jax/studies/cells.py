"""Where a cell lies, and what it depends on: a result is taken again only where all that made it is the same."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from retfound_jax.core import config as config_lib
from retfound_jax.core.errors import UserError
from retfound_jax.core.files import read_json, sha256_file, write_json
from retfound_jax.studies.grid import CellSpec
from retfound_jax.studies.rows import RESULT
from retfound_jax.train import checkpoint_files
from retfound_jax.train.config import TrainConfig
from retfound_jax.train.workdir import CHECKPOINTS, is_run

PROTOCOL = 1  # another one where the way of making a result changes, so that no old result is taken for a new one
_SAFE = re.compile(r'[^A-Za-z0-9_.-]+')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """The folder of a cell."""

    folder: Path
    fingerprint: str

    @property
    def done(self) -> bool:
        """Whether its result is there: that is written last."""
        return (self.folder / RESULT).is_file()

    @contextlib.contextmanager
    def taken(self) -> Iterator[bool]:
        """Gives whether this process has the cell to itself; another one may be at it."""
        import filelock

        self.folder.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(f'{self.folder}.lock', timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()


def place(root: Path, spec: CellSpec, *, config: TrainConfig, data: Mapping[str, str], weights: str) -> Place:
    """Where a cell is made. data: fingerprints by dataset; weights: what `weights_fingerprint` gives.

    What a run may change when it is resumed does not count, nor where the data and the weights lie.

    Raises:
      UserError: the cell was made from something else before.
    """
    told = told_of(config)
    spec_told = dataclasses.asdict(spec)
    whole = json.dumps([PROTOCOL, spec_told, told, dict(sorted(data.items())), weights], sort_keys=True)
    fingerprint = hashlib.sha256(whole.encode()).hexdigest()
    name = f'{_SAFE.sub("_", spec.slug)}-{fingerprint[:8]}'
    other = [path for path in sorted(root.glob(f'{_SAFE.sub("_", spec.slug)}-????????')) if path.name != name and (path / RESULT).is_file()]
    if other:
        raise UserError(f'{other[0]} is the same cell made from other data, weights or settings; delete it, or use another --workdir')
    return Place(folder=root / name, fingerprint=fingerprint)


def told_of(config: TrainConfig) -> dict[str, Any]:
    """What of a configuration decides a result, as JSON."""
    told = config_lib.to_dict(dataclasses.replace(config, init_from='', data=dataclasses.replace(config.data, path='', tfds_dir='')))
    for name in ('mesh', 'log_every', 'checkpoint_every', 'keep', 'faults', 'watchdog'):
        del told[name]
    for name in ('workers', 'most_bad'):
        del told['data'][name]
    return told


def weights_fingerprint(address: str) -> str:
    """What stands for weights: '' for random ones; of a run its configuration and checkpoints; of files their content; else the address."""
    if not address:
        return ''
    path = Path(address)
    if is_run(path):
        # The list of a checkpoint's files holds their SHA-256.
        files = [path / 'config.json', *sorted((path / CHECKPOINTS).glob(f'*/{checkpoint_files.FILES}'))]
    else:
        files = sorted(file for file in path.rglob('*') if file.is_file()) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        return f'address {address}'
    parts = [f'{file.relative_to(path)} {_sha256(file, *_form(file))}' for file in files]
    return hashlib.sha256('\n'.join(parts).encode()).hexdigest()


def _form(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns


@functools.lru_cache(maxsize=4096)
def _sha256(file: Path, size: int, modified: int) -> str:
    """Each file is read once, however many cells start from it; another size or time is another file."""
    del size, modified
    return sha256_file(file)


def write_result(where: Place, result: Mapping[str, Any]) -> None:
    """Writes the result, after which the cell is done."""
    write_json(where.folder / RESULT, result)


def read_result(where: Place) -> dict[str, Any]:
    """The result of a cell that is done."""
    return read_json(where.folder / RESULT)
