"""What the processes of the tests of many hosts run: `python hosts_programs.py PROGRAM INDEX COUNT PORT [JSON of options]`.

Each writes JSON lines on its output: `{"event": ...}`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def say(event: str, **values: Any) -> None:
    """One line for the test to read."""
    print(json.dumps({'event': event, **values}), flush=True)


def join(index: int, count: int, port: int, *, timeout: float = 60.0, silence: float = 60.0) -> None:
    """Joins the others."""
    from retfound_jax.core import hosts

    hosts.start(
        hosts.find(coordinator=f'127.0.0.1:{port}', process_id=index, num_processes=count), timeout=timeout, silence=silence
    )


def talk(index: int, count: int, port: int, **_: Any) -> None:
    """Everything that hosts say to each other, once."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    from retfound_jax.core import host_store, hosts

    join(index, count, port)
    early = host_store.devices_are_known()
    told = hosts.everyone('word', f'from {index}', timeout=30)
    again = hosts.everyone('word', f'again {index}', timeout=30)
    heard = [hosts.broadcast(f'{index} says {k}', name='step', timeout=30) for k in range(2)]
    for _ in range(3):
        hosts.barrier('same name', timeout=30)
    agreed = [hosts.agree(value) for value in (0, 5 if index == count - 1 else 2, index)]
    mesh = jax.make_mesh((jax.device_count(),), ('data',), axis_types=(AxisType.Auto,))
    split, whole = NamedSharding(mesh, PartitionSpec('data')), NamedSharding(mesh, PartitionSpec())
    rows = jax.make_array_from_process_local_data(split, np.full(jax.local_device_count(), 10.0**index, np.float32))
    total = float(jax.jit(jnp.sum, out_shardings=whole)(rows))
    say(
        'talked', index=hosts.index(), count=hosts.count(), first=hosts.is_first(), early=early, told=told, again=again, heard=heard,
        agreed=[int(value) for value in agreed], total=total, behind=hosts.behind(),
    )  # fmt: skip
    hosts.stop()
    say('stopped', index=hosts.index(), count=hosts.count())


def late(index: int, count: int, port: int, *, absent: int, **_: Any) -> None:
    """One process does not come to a barrier; it waits until the others have said so."""
    from retfound_jax.core import hosts

    join(index, count, port)
    if index == absent:
        hosts.barrier('after', timeout=30)
    else:
        begin = time.monotonic()
        try:
            hosts.barrier('restore', timeout=1.0)
        except hosts.MissingHosts as error:
            say('missing', sentence=str(error), ranks=error.ranks, seconds=time.monotonic() - begin)
        hosts.barrier('after', timeout=30)
    hosts.stop()


def only_start(index: int, count: int, port: int, *, timeout: float, **_: Any) -> None:
    """Starts, and says how that went."""
    from retfound_jax.core.errors import UserError

    begin = time.monotonic()
    try:
        join(index, count, port, timeout=timeout)
    except UserError as error:
        say('failed', kind=type(error).__name__, sentence=str(error), seconds=time.monotonic() - begin)
    else:
        say('started')


def leave_early(index: int, count: int, port: int, *, stays: int, **_: Any) -> None:
    """One process stays longer than the others wait for it at the end."""
    from retfound_jax.core import hosts
    from retfound_jax.core.errors import RESTART

    join(index, count, port)
    if index == stays:
        time.sleep(600)
    try:
        hosts.stop(timeout=1.0)
    except hosts.MissingHosts as error:
        say('missing', sentence=str(error), ranks=error.ranks)
        hosts.farewell(str(error))
        os._exit(RESTART)


def devices_first(index: int, count: int, port: int, **_: Any) -> None:
    """Looks for devices before it joins."""
    import jax

    from retfound_jax.core.errors import UserError

    jax.devices()
    try:
        join(index, count, port, timeout=5.0)
    except UserError as error:
        say('failed', sentence=str(error))


def steps(index: int, count: int, port: int, *, folder: str, limit: float, silence: float = 60.0, act: str = '', **_: Any) -> None:
    """Steps with a sum over all devices in each, under a watchdog, as training has them; process 1 does `act` at step 5."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    from retfound_jax.core import hosts
    from retfound_jax.core.errors import RESTART, Preempted
    from retfound_jax.core.watchdog import Watchdog

    join(index, count, port, silence=silence)
    mesh = jax.make_mesh((jax.device_count(),), ('data',), axis_types=(AxisType.Auto,))
    split, whole = NamedSharding(mesh, PartitionSpec('data')), NamedSharding(mesh, PartitionSpec())
    program = jax.jit(jnp.sum, out_shardings=whole)
    with Watchdog(Path(folder), index=index, who=hosts.behind, note=hosts.note, end=hosts.farewell, tick=0.1) as dog:
        with dog.watch('train', limit=limit):
            try:
                for step in range(100_000):
                    if step == 5 and index == 1 and act == 'leave':
                        hosts.farewell('the disk is full', code=1)
                        os._exit(1)
                    if step == 5 and index == 1 and act == 'sleep':
                        hosts.note('data', step - 1)
                        time.sleep(600)
                    rows = jax.make_array_from_process_local_data(split, np.ones(jax.local_device_count(), np.float32))
                    program(rows).block_until_ready()
                    dog.beat(step)
                    say('step', step=step)
                    time.sleep(0.02)
            except (RuntimeError, ValueError) as error:
                loss = hosts.loss(error)
                say('error', lost=hosts.lost_peer(error), kind=type(loss).__name__, sentence=str(loss))
                code = RESTART if isinstance(loss, Preempted) else 1
                hosts.farewell(str(loss), code=code)
                os._exit(code)


_ALL = (talk, late, only_start, leave_early, devices_first, steps)
PROGRAMS: dict[str, Callable[..., None]] = {program.__name__: program for program in _ALL}

if __name__ == '__main__':
    PROGRAMS[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), **json.loads(sys.argv[5] if len(sys.argv) > 5 else '{}'))
