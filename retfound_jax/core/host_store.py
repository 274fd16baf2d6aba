"""The little table that all hosts of a run share: text by key, kept by process 0, each call with an end.

JAX's coordination service keeps it, which stands before any device is touched and needs none. JAX gives no public way to it, so this
file is the one place that reaches inside (Orbax uses the same client). A frozen process 0 would hold a plain call for ever: each one runs
in a thread of its own and is left behind at its deadline.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from jax._src import clusters, distributed, xla_bridge  # the public questions start a backend, and there is none for the client

from retfound_jax.core.errors import Preempted

T = TypeVar('T')


class MissingHosts(Preempted):
    """Some processes did not come; `ranks` are their numbers. The others end, so that all are started again."""

    def __init__(self, sentence: str, *, ranks: tuple[int, ...]) -> None:
        super().__init__(sentence)
        self.ranks = ranks


class NoAnswer(Exception):
    """Process 0, which keeps the table, did not answer in time or is gone."""


class Late(Exception):
    """Not everybody came to a barrier in time, or nobody set a key."""


def index() -> int:
    """This process' number, also after it has left the others; 0 where there is only one."""
    return distributed.global_state.process_id


def count() -> int:
    """How many processes the run has, also after this one has left."""
    return distributed.global_state.num_processes


def running() -> bool:
    """Whether this process has joined others."""
    return distributed.global_state.client is not None


def devices_are_known() -> bool:
    """Whether JAX has looked for devices already, after which no process can join others."""
    return xla_bridge.backends_are_initialized()


def detect() -> tuple[str | None, int | None, int | None]:
    """Coordinator, number and count as JAX finds them out, such as from the metadata of Cloud TPU; None where it finds nothing."""
    coordinator, count, index, _ = clusters.ClusterEnv.auto_detect_unset_distributed_params(
        coordinator_address=None,
        num_processes=None,
        process_id=None,
        local_device_ids=(),  # a process owns all devices of its host
        cluster_detection_method=None,
        initialization_timeout=60,
    )
    return coordinator, index, count


def put(key: str, value: str, *, timeout: float) -> None:
    """Sets a key, new or not.

    Raises:
      NoAnswer: process 0 does not answer within `timeout` [s].
    """
    _bounded(lambda: _client().key_value_set(key, value, allow_overwrite=True), timeout)


def folder(key: str, *, timeout: float) -> dict[str, str]:
    """Everything below `key/`, by the last part of its key; NoAnswer as `put`."""
    return {name.rsplit('/', 1)[-1]: value for name, value in _bounded(lambda: _client().key_value_dir_get(key), timeout)}


def wait_for(key: str, *, timeout: float) -> str:
    """A key's value, once somebody has set it; Late or NoAnswer as the case may be."""
    return _bounded(lambda: _client().blocking_key_value_get(key, _milliseconds(timeout)), timeout + 1.0)


def delete(key: str, *, timeout: float) -> None:
    """Removes a key and all below it; NoAnswer as `put`."""
    _bounded(lambda: _client().key_value_delete(key), timeout)


def meet(name: str, *, timeout: float) -> None:
    """Returns once every process has called it with this name, which is used once; Late or NoAnswer otherwise."""
    _bounded(lambda: _client().wait_at_barrier(name, _milliseconds(timeout)), timeout + 1.0)


def _client() -> Any:
    client = distributed.global_state.client
    if client is None:
        raise NoAnswer('this process has not joined the others, or has left them')
    return client


def _milliseconds(seconds: float) -> int:
    return max(int(seconds * 1000), 1)


def _bounded(call: Callable[[], T], timeout: float) -> T:
    """What `call` returns, its errors told apart, or NoAnswer after `timeout` [s]; the thread is a daemon and is then left where it is."""
    done: list[T] = []
    failed: list[Exception] = []

    def run() -> None:
        try:
            done.append(call())
        except Exception as error:  # handed to the caller below, not lost
            failed.append(error)

    thread = threading.Thread(target=run, name='host store', daemon=True)
    thread.start()
    thread.join(timeout)
    if done:
        return done[0]
    if not failed:
        raise NoAnswer(f'no answer within {timeout:g} s')
    error = failed[0]
    if isinstance(error, RuntimeError) and any(word in str(error) for word in ('DEADLINE_EXCEEDED', 'ABORTED', 'timed out')):
        raise Late(str(error)) from error
    if isinstance(error, RuntimeError):  # XLA's errors all are
        raise NoAnswer(str(error)) from error
    raise error
