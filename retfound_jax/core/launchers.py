"""Which process of how many this one is, from flags or from what started it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

from retfound_jax.core.errors import UsageError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """What a process must know to join the others."""

    coordinator: str  # host:port of process 0
    index: int
    count: int
    origin: str  # who said so, such as 'flags' or 'SLURM'


def find(
    *, coordinator: str = '', process_id: int | None = None, num_processes: int | None = None, environ: Mapping[str, str] = os.environ
) -> Start | None:
    """What the flags say, else RETFOUND_COORDINATOR, RETFOUND_PROCESS_ID and RETFOUND_NUM_PROCESSES; None for a run of one process.

    Raises:
      UsageError: a setting is missing or makes no sense.
    """
    if coordinator or process_id is not None or num_processes is not None:
        given = {'--coordinator': coordinator, '--process_id': process_id, '--num_processes': num_processes}
        return _start(given, origin='flags')
    names = ('RETFOUND_COORDINATOR', 'RETFOUND_PROCESS_ID', 'RETFOUND_NUM_PROCESSES')
    if any(environ.get(name) for name in names):
        return _start({name: environ.get(name) for name in names}, origin='the environment')
    return None


def _start(given: Mapping[str, object], *, origin: str) -> Start:
    missing = [name for name, value in given.items() if value in (None, '')]
    if missing:
        raise UsageError(f'{", ".join(name for name in given if name not in missing)} without {", ".join(missing)}: give all three')
    (_, coordinator), (index_name, index), (count_name, count) = given.items()
    index, count = int(index), int(count)
    if not 0 <= index < count:
        raise UsageError(f'{index_name} {index} does not fit {count_name} {count}: processes are numbered 0 to {count - 1}')
    return Start(coordinator=str(coordinator), index=index, count=count, origin=origin)
