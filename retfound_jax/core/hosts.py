"""Many processes as one run: how they start, agree, wait for each other, and name the one that is missing.

A run of one process needs nothing here: it is number 0 of 1, waits for nobody and agrees with itself, and no service is started.
"""

from __future__ import annotations

import collections
import functools
import os
import socket
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from retfound_jax.core import heartbeat, host_store, roll_call
from retfound_jax.core.errors import RESTART, Preempted, UserError
from retfound_jax.core.heartbeat import names as names
from retfound_jax.core.host_store import MissingHosts as MissingHosts
from retfound_jax.core.launchers import Start as Start
from retfound_jax.core.launchers import find as find

HEARTBEAT = 300  # [s] after which JAX aborts all processes where one is silent: later than core/heartbeat.py, which says who it is
SHUTDOWN = 30  # [s] that JAX waits for the others at the end, where all have said already that they are there
ANSWER = 10.0  # [s] for one question to the table of process 0
_ROOT = 'retfound'
_LEAST = 30.0  # [s] that JAX has for joining processes that are known to be there
_heart: heartbeat.Heart | None = None
_calls: collections.Counter[str] = collections.Counter()  # how often each name was used; the same everywhere, as all call in one order


def index() -> int:
    """This process' number, from 0; starts no backend."""
    return host_store.index()


def count() -> int:
    """How many processes the run has; starts no backend."""
    return host_store.count()


def is_first() -> bool:
    """Whether this is process 0, the one that writes logs."""
    return index() == 0


def start(found: Start | None, *, timeout: float, silence: float = heartbeat.SILENCE) -> None:
    """Joins the other processes of the run; nothing to do where `found` is None. To be called before JAX looks for devices.

    From here to `stop` the process tells the others that it lives. Where one says nothing for `silence` [s], the others end with
    RESTART and its name, whatever they are stuck in; 0 is never.

    Raises:
      MissingHosts: some process did not come within `timeout` [s].
      UserError: the port is in use, the processes do not fit together, or JAX has already looked for devices.
    """
    global _heart
    if found is None or found.count == 1:
        return
    if host_store.devices_are_known():
        raise UserError('JAX looked for devices before this process joined the others: join first, then ask for devices')
    begin, me = time.monotonic(), f'{socket.gethostname()}, pid {os.getpid()}'
    roll_call.call(
        roll_call.Roll(coordinator=found.coordinator, index=found.index, count=found.count, me=me), timeout=timeout
    )
    _join(found, timeout=max(timeout - (time.monotonic() - begin), _LEAST))
    heartbeat.introduce(found.index, me, timeout=ANSWER)
    _heart = heartbeat.Heart(index=found.index, count=found.count, silence=silence)


def _join(found: Start, *, timeout: float) -> None:
    # Ours are signals and platform notices (core/notice.py); JAX's service takes SIGTERM for itself.
    jax.config.update('jax_enable_preemption_service', False)
    try:
        jax.distributed.initialize(
            found.coordinator,
            found.count,
            found.index,
            local_device_ids=found.device,
            cluster_detection_method='deactivate',  # what there was to find is found
            initialization_timeout=int(timeout),
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=SHUTDOWN,
            coordinator_bind_address=roll_call.bind_address(found.coordinator),
        )
    except RuntimeError as error:
        raise UserError(f'process {found.index} could not join the run at {found.coordinator} ({str(error).splitlines()[0]})') from error


def stop(*, timeout: float = 600.0) -> None:
    """Leaves the run together with the other processes; nothing to do where there are none, or after `farewell`.

    Raises:
      MissingHosts: some did not come to the end within `timeout` [s].
    """
    global _heart
    if not host_store.running() or (_heart is not None and _heart.gone):
        return
    barrier('the end', timeout=timeout)  # JAX's own wait at the end aborts everybody where one does not come
    if _heart is not None:
        _heart.close()
        _heart = None
    thread = threading.Thread(target=jax.distributed.shutdown, name='leave the other hosts', daemon=True)
    thread.start()
    thread.join(SHUTDOWN + 5)


def note(doing: str, step: int = -1) -> None:
    """What this process is at, such as `restore`, for the others to know; costs nothing, as it is told with the next heartbeat."""
    if _heart is not None:
        _heart.doing, _heart.step = doing, step


def behind() -> str:
    """Which process is silent, or has done fewer steps than the others, in words; '' where that is none. Takes some seconds."""
    return _heart.behind() if _heart is not None else ''


def farewell(sentence: str, *, code: int = RESTART) -> None:
    """Tells the others that this process ends, why and with which code: they end with the same, a few seconds later at most.

    To be called before a process of many ends for any reason but having finished. Process 0 waits here, some seconds at most, for the
    others to end: JAX aborts them the moment it goes.
    """
    if _heart is not None:
        _heart.farewell(sentence, code=code)


def barrier(name: str, *, timeout: float) -> None:
    """Returns once every process has called it with this name, on the host's side, whatever the devices are doing.

    Raises:
      MissingHosts: some did not come within `timeout` [s]; or process 0, which keeps the list, does not answer.
    """
    if count() == 1:
        return
    place = _place('barrier', name)
    _meet(place, name, timeout, '')


def everyone(name: str, value: str, *, timeout: float) -> list[str]:
    """Each process' value, by process number; raises as `barrier`."""
    if count() == 1:
        return [value]
    place = _place('everyone', name)
    found = _meet(place, name, timeout, value)
    return [found[f'{rank:05d}'] for rank in range(count())]


def broadcast(text: str, *, name: str, timeout: float) -> str:
    """Process 0's text, on every process.

    Raises:
      MissingHosts: process 0 did not say it within `timeout` [s].
    """
    if count() == 1:
        return text
    key = _place('broadcast', name)
    try:
        if is_first():
            host_store.put(key, text, timeout=timeout)
            return text
        return host_store.wait_for(key, timeout=timeout)
    except (host_store.Late, host_store.NoAnswer) as error:
        raise _missing((0,), name, timeout) from error


def agree(value: int) -> jax.Array:
    """The largest of all processes' values, as a scalar that is still being computed: read it a step later, and nobody waits.

    Every process must call it at the same step. Where there is one process, no program runs.
    """
    if count() == 1:
        return jax.device_put(np.int32(value))
    return _largest()(_values(value))


@functools.cache
def _largest() -> jax.stages.Wrapped:
    return jax.jit(jnp.max, out_shardings=NamedSharding(_mesh(), PartitionSpec()))


@functools.lru_cache(maxsize=8)  # nearly always the same few values: nothing is copied to the devices then
def _values(value: int) -> jax.Array:
    local = np.full(jax.local_device_count(), value, np.int32)
    return jax.make_array_from_process_local_data(NamedSharding(_mesh(), PartitionSpec('host')), local)


@functools.cache
def _mesh() -> Mesh:
    # All devices, as the step has them: no second group of devices has to find each other.
    return Mesh(np.asarray(jax.devices()), ('host',), axis_types=(AxisType.Auto,))


def lost_peer(error: BaseException) -> bool:
    """Whether an error of a step means that another process is gone, rather than that something is wrong here."""
    words = ('gloo', 'nccl', 'connection closed by peer', 'connection reset by peer', 'coordination service', 'heartbeat')
    text = str(error).lower()
    return count() > 1 and isinstance(error, (RuntimeError, ValueError)) and any(word in text for word in words)


def loss(error: BaseException) -> UserError:
    """What to raise instead of an error that `lost_peer` knows: who is gone, and why where it has left word. Takes some seconds.

    A process that ended for good (code other than RESTART) ends this one for good as well.
    """
    try:
        ended = _heart.ended() if _heart is not None else None
    except host_store.NoAnswer:
        ended = None
    if ended is not None and ended[1] != RESTART:
        return UserError(ended[0])
    who = ended[0] if ended is not None else behind() or f'another process is gone ({str(error).splitlines()[0][:200]})'
    return Preempted(f'{who}; this process ends too, to be started again')


def _place(kind: str, name: str) -> str:
    place = f'{kind}/{name.replace("/", "_")}'
    _calls[place] += 1
    return f'{_ROOT}/{place}/{_calls[place]}'


def _meet(place: str, name: str, timeout: float, value: str) -> dict[str, str]:
    """Leaves `value`, waits for all, and returns what all have left."""
    end = time.monotonic() + timeout
    try:
        host_store.put(f'{place}/{index():05d}', value, timeout=timeout)
        host_store.meet(place, timeout=max(end - time.monotonic(), 0.001))
        return host_store.folder(place, timeout=ANSWER)
    except host_store.NoAnswer as error:
        raise _missing((0,), name, timeout) from error
    except host_store.Late as error:
        raise _missing(_absent(place), name, timeout) from error


def _absent(place: str) -> tuple[int, ...]:
    try:
        came = host_store.folder(place, timeout=ANSWER)
    except host_store.NoAnswer:
        return (0,)
    return tuple(rank for rank in range(count()) if f'{rank:05d}' not in came)


def _missing(ranks: tuple[int, ...], name: str, timeout: float) -> MissingHosts:
    return MissingHosts(f'{heartbeat.names(ranks)} did not come to "{name}" within {timeout:g} s; look at the log there', ranks=ranks)
