"""Where a cell lies, and what it depends on: a result is taken again only where all that made it is the same."""

from __future__ import annotations

import contextlib
import dataclasses
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
from retfound_jax.train.config import TrainConfig
from retfound_jax.train.workdir import is_run

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
    told = config_lib.to_dict(dataclasses.replace(config, init_from='', data=dataclasses.replace(config.data, path='', tfds_dir='')))
    for name in ('mesh', 'log_every', 'checkpoint_every', 'keep', 'faults', 'watchdog'):
        del told[name]
    for name in ('workers', 'most_bad'):
        del told['data'][name]
    spec_told = dataclasses.asdict(spec)
    whole = json.dumps([PROTOCOL, spec_told, told, dict(sorted(data.items())), weights], sort_keys=True)
    fingerprint = hashlib.sha256(whole.encode()).hexdigest()
    name = f'{_SAFE.sub("_", spec.slug)}-{fingerprint[:8]}'
    other = [path for path in sorted(root.glob(f'{_SAFE.sub("_", spec.slug)}-????????')) if path.name != name and (path / RESULT).is_file()]
    if other:
        raise UserError(f'{other[0]} is the same cell made from other data, weights or settings; delete it, or use another --workdir')
    return Place(folder=root / name, fingerprint=fingerprint)


def weights_fingerprint(address: str) -> str:
    """What stands for weights: '' for random ones; of a run its configuration and checkpoints; of a file its content; else the address."""
    if not address:
        return ''
    path = Path(address)
    if is_run(path):
        from retfound_jax.train import checkpoint_files as files
        from retfound_jax.train.workdir import CHECKPOINTS

        listed = [f'{step} {sha256_file(path / CHECKPOINTS / str(step) / files.FILES)}' for step in files.steps(path / CHECKPOINTS)]
        parts = [sha256_file(path / 'config.json'), *listed]
        return hashlib.sha256('\n'.join(parts).encode()).hexdigest()
    if path.is_file():
        return sha256_file(path)
    return f'address {address}'


def write_result(where: Place, result: Mapping[str, Any]) -> None:
    """Writes the result, after which the cell is done."""
    write_json(where.folder / RESULT, result)


def read_result(where: Place) -> dict[str, Any]:
    """The result of a cell that is done."""
    return read_json(where.folder / RESULT)
