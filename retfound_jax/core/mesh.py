"""Meshes and sharding as data: array letters map to mesh axes, and code never asks how many devices there are.

Letters (see every file that uses them): B batch, D encoder width, M decoder width, F MLP width, N heads, E head width,
L patches, P pixels of a patch, Y outputs, T the fused q, k, v, G a gate and its value, R registers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from retfound_jax.core.errors import UsageError

AXES = ('data', 'fsdp', 'tensor')


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """How many devices stand along each axis, -1 on one axis for all that are left; and what replicas share."""

    data: int = -1  # replicas of the parameters
    fsdp: int = 1  # shards of parameters and optimiser; also splits the batch
    tensor: int = 1  # shards of heads and MLP width
    zero: bool = False  # moments and averaged parameters are split over `data` as well (ZeRO stage 1, Rajbhandari et al., arXiv 1910.02054)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardingRules:
    """Which mesh axis each array letter is split over ('' none). One axis is used once in an array, first letter first."""

    F: str = 'tensor'
    N: str = 'tensor'
    D: str = 'fsdp'
    M: str = 'fsdp'


def make_mesh(config: MeshConfig, *, devices: list[jax.Device] | None = None) -> Mesh:
    """The mesh with axes `data`, `fsdp`, `tensor`.

    Raises:
      UsageError: the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [config.data, config.fsdp, config.tensor]
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise UsageError(f'mesh data={sizes[0]} fsdp={sizes[1]} tensor={sizes[2]}: sizes are positive, and at most one is -1')
    known = math.prod(size for size in sizes if size != -1)
    sizes = [len(devices) // known if size == -1 else size for size in sizes]
    if math.prod(sizes) != len(devices):
        raise UsageError(f'mesh data={config.data} fsdp={config.fsdp} tensor={config.tensor} does not fit {len(devices)} devices')
    axis_types = (jax.sharding.AxisType.Auto,) * len(AXES)
    if devices == jax.devices():
        return jax.make_mesh(tuple(sizes), AXES, axis_types=axis_types)
    return Mesh(np.asarray(devices).reshape(sizes), AXES, axis_types=axis_types)


def param_spec(letters: str, shape: tuple[int, ...], *, rules: ShardingRules, mesh: Mesh) -> PartitionSpec:
    """The partition of one parameter; leading axes beyond the letters (a scanned stack) and axes that do not divide stay whole."""
    names: list[str | None] = [None] * len(shape)
    lead = len(shape) - len(letters)
    if lead < 0:
        raise ValueError(f'letters "{letters}" are more than the axes of shape {shape}')
    # Tensor letters first: a matrix 'DF' is split over both axes, and 'DD' over fsdp once.
    for wanted in ('tensor', 'fsdp', 'data'):
        for place, letter in enumerate(letters, start=lead):
            axis = getattr(rules, letter, '')
            if axis == wanted and names[place] is None and axis not in names and shape[place] % mesh.shape[axis] == 0:
                names[place] = axis
    return PartitionSpec(*names)


def moment_spec(spec: PartitionSpec, shape: tuple[int, ...], *, lead: int, mesh: Mesh) -> PartitionSpec:
    """The partition of a parameter's moments where `data` splits them too: each device's part of the parameter, cut further.

    The longest axis is cut, not one of the first `lead` (a scanned stack). Vectors stay with their parameter: what they would save is
    less than what moving them costs.
    """
    names = [() if name is None else (name,) for name in (*spec, *[None] * (len(shape) - len(spec)))]
    left = [size // math.prod(mesh.shape[name] for name in on) for size, on in zip(shape, names, strict=True)]
    free = [place for place in range(lead, len(shape)) if left[place] % mesh.shape['data'] == 0]
    if len(shape) - lead > 1 and free:
        names[max(free, key=lambda place: left[place])] += ('data',)
    return PartitionSpec(*(on or None for on in names))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Batches are split over `data` and `fsdp` on their first axis."""
    return NamedSharding(mesh, PartitionSpec(('data', 'fsdp')))


@functools.lru_cache(maxsize=8)  # asked at every step
def rows_here(place: NamedSharding, count: int) -> np.ndarray:
    """Which of `count` rows of a batch this process's devices hold, in rising order; devices need not stand in the order of processes."""
    indices = place.addressable_devices_indices_map((count,)).values()
    rows = np.unique(np.concatenate([np.arange(count)[index] for index in indices]))
    rows.flags.writeable = False
    return rows


def put_rows(x: np.ndarray, *, place: NamedSharding, count: int) -> jax.Array:
    """The global array of `count` rows, from those that this process holds (`rows_here`), each put on its own devices and nowhere else."""
    rows = rows_here(place, count)

    def part(index: tuple[slice, ...]) -> np.ndarray:
        first, last, _ = index[0].indices(count)
        here = int(np.searchsorted(rows, first))
        return x[here : here + last - first]

    return jax.make_array_from_callback((count, *x.shape[1:]), place, part)


def on_mesh(mesh: Mesh) -> contextlib.AbstractContextManager[None]:
    """While it is entered, what is traced may name mesh axes without holding the mesh (`models.layers.constrain`).

    It belongs inside the function that is compiled: around the call, axes that XLA partitions by itself are not seen.
    """
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())
