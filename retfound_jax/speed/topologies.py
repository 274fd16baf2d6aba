"""Devices that are not there: topologies that libtpu can compile for on any machine, and host CPUs in the place of accelerators."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Any

from retfound_jax.core.errors import UsageError
from retfound_jax.speed.chips import Topology

_FORCED = '--xla_force_host_platform_device_count'
# JAX stays on the CPU; libtpu asks no metadata server, takes no lock of a TPU that others may use, and keeps its log to itself.
_TPU = {
    'JAX_PLATFORMS': 'cpu',
    'TPU_SKIP_MDS_QUERY': '1',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
    'TPU_STDERR_LOG_LEVEL': '3',
    'TPU_MIN_LOG_LEVEL': '3',
    'TPU_LOG_DIR': 'disabled',
    'TF_CPP_MIN_LOG_LEVEL': '3',
}


def prepare(topology: Topology) -> None:
    """Sets what JAX and libtpu read when they start, so it comes before the first use of JAX in a process.

    Raises:
      UsageError: libtpu is not installed.
    """
    if topology.chip.is_tpu:
        if importlib.util.find_spec('libtpu') is None:
            raise UsageError(
                f'--topology {topology.name} needs libtpu, which is not installed: install the extra `plan` '
                '(pip install "retfound-jax[plan]"), or try --topology cpu:8'
            )
        os.environ.update(_TPU)
        return
    os.environ['JAX_PLATFORMS'] = 'cpu'
    flags = [flag for flag in os.environ.get('XLA_FLAGS', '').split() if not flag.startswith(_FORCED)]
    os.environ['XLA_FLAGS'] = ' '.join([*flags, f'{_FORCED}={topology.chips}'])


def devices_of(topology: Topology) -> list[Any]:
    """JAX devices of the topology, in the order of a mesh: slice by slice, row by row.

    Raises:
      UsageError: this process was started with another number of host devices, or libtpu does not know the topology.
    """
    import jax
    from jax.experimental import topologies

    if not topology.chip.is_tpu:
        found = jax.devices('cpu')
        if len(found) != topology.chips:
            raise UsageError(f'--topology {topology.name}: JAX already runs with {len(found)} CPU devices; plan in a process of its own')
        return list(found)
    more = {'num_slices': topology.slices} if topology.slices > 1 else {}
    try:
        found = topologies.get_topology_desc(platform='tpu', topology_name=topology.name, **more).devices
    except jax.errors.JaxRuntimeError as error:
        raise UsageError(f'--topology {topology.name} is unknown to the libtpu that is installed: {_first_line(error)}') from error
    return sorted(found, key=lambda device: (getattr(device, 'slice_index', 0) or 0, device.id))


def places_of(devices: list[Any]) -> list[tuple[int, tuple[int, ...]]]:
    """Slice and coordinates of each device; CPU devices stand in one row."""
    return [(getattr(d, 'slice_index', 0) or 0, tuple(getattr(d, 'coords', None) or (number,))) for number, d in enumerate(devices)]


def libtpu_version() -> str:
    """Of the libtpu that is loaded, or nothing."""
    return getattr(sys.modules.get('libtpu'), '__version__', '')


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200]
