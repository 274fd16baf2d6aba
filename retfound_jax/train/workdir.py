"""A run's directory: whose it is, whether a call may go on in it, and whether every process sees it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from retfound_jax.core import config as config_lib
from retfound_jax.core import hosts
from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.core.files import atomic_write, read_json, write_json
from retfound_jax.train.config import RESUMABLE_CHANGES, TrainConfig

CONFIG = 'config.json'
CHECKPOINTS = 'checkpoints'
_BETTER = 'better.json'
_PROBE = '.seen-'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Better:
    """The validation metric that decides which checkpoint is best."""

    metric: str = 'loss'
    mode: Literal['max', 'min'] = 'min'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """What a checkpoint came from: it is the fingerprint that every checkpoint carries, in words that can be compared."""

    config: TrainConfig
    data: str  # the fingerprint of the source, of the data and the choice of rows

    def to_json(self) -> dict[str, Any]:
        """As `origin.json` of a checkpoint has it."""
        return {'config': config_lib.to_dict(self.config), 'data': self.data}

    def difference(self, found: Mapping[str, Any]) -> str:
        """What differs in a checkpoint's `origin.json`, in words; '' where it came from this run.

        Raises:
          UsageError: this version cannot read its configuration.
        """
        there = str(found.get('data', ''))
        if there and self.data and there != self.data:
            return f'the fingerprint of its data is {there[:12]} there and {self.data[:12]} here'
        return difference(self.config, config_lib.from_dict(TrainConfig, found['config']))


def is_run(path: Path | str) -> bool:
    """Whether a directory is one of ours, also where half of it is missing: then `load_run` says which half."""
    folder = Path(path)
    if (folder / CHECKPOINTS).is_dir() or not (folder / CONFIG).is_file():
        return (folder / CHECKPOINTS).is_dir()
    said = read_json(folder / CONFIG)
    return isinstance(said, dict) and said.get('type') == f'{TrainConfig.__module__}:{TrainConfig.__qualname__}'


def read_config(workdir: Path | str) -> TrainConfig:
    """The resolved configuration of a run directory.

    Raises:
      UserError: there is none, or this version cannot read it.
    """
    path = Path(workdir) / CONFIG
    if not path.exists():
        raise UserError(f'{workdir} is not a run directory (it has no {CONFIG}); give the --workdir of a training run')
    return config_lib.from_dict(TrainConfig, read_json(path))


def read_better(workdir: Path | str) -> Better:
    """Which metric the run's best checkpoint is best by."""
    path = Path(workdir) / CHECKPOINTS / _BETTER
    return Better(**read_json(path)) if path.exists() else Better()


def prepare_workdir(config: TrainConfig, *, workdir: Path, resume: bool, overwrite: bool, better: Better) -> None:
    """Makes the run directory, or checks that it is this very run to be resumed. With several processes, the first alone calls this.

    Raises:
      UsageError: the directory is not empty and neither flag was given, or holds another experiment.
    """
    if resume and overwrite:
        raise UsageError('--resume and --overwrite exclude each other; give one')
    if workdir.exists() and not workdir.is_dir():
        raise UsageError(f'--workdir {workdir} is a file; give a directory')
    filled = workdir.exists() and any(workdir.iterdir())
    ours = (workdir / CONFIG).exists()
    if filled and not (resume or overwrite):
        raise UsageError(f'--workdir {workdir} is not empty; give --resume to go on, --overwrite to start again, or another directory')
    if filled and not ours:
        raise UsageError(f'--workdir {workdir} is not empty and holds no run of ours (no {CONFIG}); give another directory')
    if overwrite and filled:
        shutil.rmtree(workdir)
    if resume and ours:
        differs = difference(config, read_config(workdir))
        if differs:
            raise UsageError(f'--workdir {workdir} holds another run: {differs}; set it alike, or give another directory')
    write_json(workdir / CHECKPOINTS / _BETTER, dataclasses.asdict(better))
    write_json(workdir / CONFIG, config_lib.to_dict(config))


def difference(given: TrainConfig, found: TrainConfig) -> str:
    """The first field that computes and differs, in words; '' where none does."""
    here, there = (_flatten(config_lib.to_dict(item)) for item in (given, found))
    for name in sorted(here.keys() | there.keys(), key=lambda name: (name != 'name', name)):
        allowed = any(name == free or name.startswith(free + '.') for free in RESUMABLE_CHANGES)
        if here.get(name) != there.get(name) and not allowed:
            return f'{name} is {json.dumps(there.get(name))} there and {json.dumps(here.get(name))} in this call'
    return ''


def as_one(work: Callable[[], Any], *, name: str, timeout: float) -> Any:
    """Does something on the first process alone; all return its JSON value or raise its error.

    Args:
      name: what is waited for, in words.
      timeout: [s] the others wait for the first.

    Raises:
      MissingHosts: the first did not come.
    """
    said: dict[str, Any] = {}
    if hosts.is_first():
        try:
            said = {'value': work()}
        except UserError as error:
            said = {'usage' if isinstance(error, UsageError) else 'error': str(error)}
    said = json.loads(hosts.broadcast(json.dumps(said), name=name, timeout=timeout))
    if 'value' not in said:
        raise UsageError(said['usage']) if 'usage' in said else UserError(said['error'])
    return said['value']


def check_shared(workdir: Path | str, *, patience: float = 10.0, timeout: float = 600.0) -> None:
    """Refuses a work directory that not every process sees, before anything is computed: nobody could put a checkpoint together there.

    Args:
      patience: [s] a network's file system may take to show what another machine wrote.
      timeout: [s] the processes wait for each other.

    Raises:
      UserError: a process does not find what the first one wrote; it is named.
      MissingHosts: a process did not come.
    """
    if hosts.count() == 1:
        return
    workdir = Path(workdir)
    token = as_one(lambda: _leave(workdir), name='a file in the work directory', timeout=timeout)
    probe = workdir / (_PROBE + token)
    seen = hosts.everyone('a look at the work directory', 'yes' if _appears(probe, token, patience) else 'no', timeout=patience + timeout)
    if hosts.is_first():
        probe.unlink(missing_ok=True)
    blind = tuple(rank for rank, answer in enumerate(seen) if answer != 'yes')
    if blind:
        verb = 'do' if len(blind) > 1 else 'does'
        raise UserError(
            f'--workdir {workdir} is not one place for all: {hosts.names(blind)} {verb} not find there what process 0 wrote; '
            'give a directory on a file system that all hosts share'
        )


def _leave(workdir: Path) -> str:
    token = uuid.uuid4().hex
    atomic_write(workdir / (_PROBE + token), token)
    return token


def _appears(path: Path, content: str, patience: float) -> bool:
    deadline = time.monotonic() + patience
    while True:
        try:
            if path.read_text(encoding='utf-8') == content:
                return True
        except OSError:
            pass  # not there yet, or nothing that this process may read: what counts is the deadline
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)


def _flatten(value: Any, prefix: str = '') -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in _flatten(item, f'{prefix}.{key}'.strip('.')).items()}
    return {prefix: value}
