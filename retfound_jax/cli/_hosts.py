"""The flags of a verb that runs as one of many processes."""

from __future__ import annotations

from absl import flags


def define(values: flags.FlagValues) -> None:
    """Declares --coordinator, --process_id, --num_processes, --preemption_notice."""
    flags.DEFINE_string(
        'coordinator', '', 'host:port of process 0, where this is one process of many; empty: as the launcher says', flag_values=values
    )
    flags.DEFINE_integer('process_id', None, 'the number of this process, from 0', flag_values=values)
    flags.DEFINE_integer('num_processes', None, 'how many processes the run has', flag_values=values)
    flags.DEFINE_enum(
        'preemption_notice', '', ['', 'gce', 'aws'], 'whose metadata server says that this machine is to go', flag_values=values
    )


def start(values: flags.FlagValues, *, timeout: float = 300.0) -> None:
    """Joins the other processes, where there are any; to be called before JAX looks for devices.

    Raises:
      UsageError: a setting is missing or makes no sense.
      MissingHosts: some process did not come within `timeout` [s].
    """
    from retfound_jax.core import hosts

    found = hosts.find(coordinator=values.coordinator, process_id=values.process_id, num_processes=values.num_processes)
    hosts.start(found, timeout=timeout)
