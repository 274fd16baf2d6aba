"""The flags of a verb that runs as one of many processes, and how it joins and leaves the others."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

from absl import flags

from retfound_jax.cli import _errors

_TIMEOUT = 600.0  # [s] for all processes to come: images are pulled and nodes are booted meanwhile


def define(values: flags.FlagValues) -> None:
    """Declares --coordinator, --process_id, --num_processes, --preemption_notice."""
    text = 'host:port of process 0, where this is one process of many; empty: as the launcher says; auto: as JAX finds out on Cloud TPU'
    flags.DEFINE_string('coordinator', '', text, flag_values=values)
    flags.DEFINE_integer('process_id', None, 'the number of this process, from 0', flag_values=values)
    flags.DEFINE_integer('num_processes', None, 'how many processes the run has', flag_values=values)
    text = 'whose metadata server is asked whether this machine is to go'
    flags.DEFINE_enum('preemption_notice', '', ['', 'gce', 'aws'], text, flag_values=values)


def start(values: flags.FlagValues, *, timeout: float = _TIMEOUT) -> None:
    """Joins the other processes, where there are any; to be called before JAX looks for devices.

    Raises:
      UsageError: a setting is missing, or does not fit the others.
      MissingHosts: some process did not come within `timeout` [s].
    """
    from retfound_jax.core import hosts

    found = hosts.find(coordinator=values.coordinator, process_id=values.process_id, num_processes=values.num_processes)
    hosts.start(found, timeout=timeout)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Host:
    """This process as one of those of a run."""

    first: bool  # it is the one that tells people
    notice: Callable[[], str]  # '' until this machine is wanted back, then what was heard


@contextlib.contextmanager
def joined(values: flags.FlagValues) -> Iterator[Host]:
    """Inside, the process is one of the run's and hears notices; the others are told if it ends badly."""
    from retfound_jax.core import hosts
    from retfound_jax.core.notice import Notice

    with Notice(poll=values.preemption_notice) as notice:
        start(values)
        try:
            yield Host(first=hosts.is_first(), notice=lambda: notice.given)
            hosts.stop()
        except BaseException as error:  # Ctrl-C too: the others would wait for ever
            hosts.farewell(_errors.sentence(error, ['train']), code=_errors.exit_code(error))
            raise
