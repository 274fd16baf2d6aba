"""Silent data corruption: devices that compute or keep wrong bits without an error (Dixit et al., arXiv 2102.11245).

Two checks, each every so many steps. `repeat_every`: the step is done twice, first on a copy of the state, and both results must be
the same to the last bit. `compare_replicas_every`: what several devices hold copies of must be the same on all of them. Neither reads
arrays: each device reduces what it holds to a number, and the numbers travel. They are read by `verify`, as late as the step's metrics.

What they cannot see: a repeat on the same device misses a fault that is the same each time, and where gradients are summed over devices,
a fault before the sum shows on every device. Steps must be reproducible, which XLA's are on CPU and TPU; on GPU some operations add in
the order in which threads arrive, unless XLA_FLAGS has --xla_gpu_deterministic_ops=true (or --xla_gpu_exclude_nondeterministic_ops=true).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from retfound_jax.core.errors import Preempted
from retfound_jax.core.mesh import replicated
from retfound_jax.train.config import FaultConfig
from retfound_jax.train.state import TrainState

Tree = Any
Metrics = dict[str, jax.Array]
StepFunction = Callable[[TrainState, dict[str, jax.Array]], tuple[TrainState, Metrics]]
_MOST_NAMED = 8  # devices or arrays in a sentence


class CorruptedError(Preempted):
    """A device gave or kept wrong bits: what it has now is not to be saved, and the run goes on from its last checkpoint, elsewhere."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Pending:
    """A check whose numbers are still on the devices, uint32 [devices, arrays]."""

    step: int
    names: tuple[str, ...]  # of the arrays
    tables: tuple[jax.Array, ...]  # two of a repeat, one of a comparison of replicas
    specs: tuple[PartitionSpec, ...]


class Integrity:
    """A training step with the checks of `FaultConfig`: call it as the step itself, with the step's number, and `verify` before a save."""

    def __init__(self, step: StepFunction, *, shardings: TrainState, mesh: Mesh, faults: FaultConfig, name: str) -> None:
        """Compiles nothing yet.

        Args:
          step: `(state, batch) -> (state, metrics)`, which consumes the state.
          shardings: of the state.
          name: of the run.
        """
        self._step, self._shardings, self._mesh, self._faults, self._name = step, shardings, mesh, faults, name
        self._copy = jax.jit(lambda state: jax.tree.map(jnp.copy, state), out_shardings=shardings)
        self._pending: list[_Pending] = []
        self._sound = 0  # the last step whose replicas were the same

    def __call__(self, number: int, state: TrainState, batch: dict[str, jax.Array]) -> tuple[TrainState, Metrics]:
        """Does step `number`, and what is to be checked with it. A repeat takes twice the time and room for a second state."""
        if not _is_due(number, self._faults.repeat_every):
            state, metrics = self._step(state, batch)
        else:
            first = self._table(*self._step(self._copy(state), batch))
            state, metrics = self._step(state, batch)
            names, specs, second = self._table(state, metrics)
            self._pending.append(_Pending(step=number, names=names, specs=specs, tables=(first[2], second)))
        if _is_due(number, self._faults.compare_replicas_every) and self._mesh.size > 1:
            names, specs, table = self._table(state, {})
            self._pending.append(_Pending(step=number, names=names, specs=specs, tables=(table,)))
        return state, metrics

    def verify(self, *, through: int | None = None) -> None:
        """Waits for the checks that were made since the last call, up to those of step `through`. All processes learn the same.

        Raises:
          CorruptedError: bits differ; devices, their hosts and the arrays are named.
        """
        while self._pending and (through is None or self._pending[0].step <= through):
            check = self._pending.pop(0)
            tables = [np.asarray(jax.device_get(table)) for table in check.tables]
            wrong = repeats_differ(*tables) if len(tables) == 2 else replicas_differ(tables[0], specs=check.specs, mesh=self._mesh)
            if wrong.any():
                raise CorruptedError(self._sentence(check, wrong))
            if len(tables) == 1:
                self._sound = check.step

    def _table(self, state: TrainState, metrics: Metrics) -> tuple[tuple[str, ...], tuple[PartitionSpec, ...], jax.Array]:
        tree = {'state': state, 'metrics': metrics}
        shardings = {'state': self._shardings, 'metrics': jax.tree.map(lambda _: replicated(self._mesh), metrics)}
        names = tuple(jax.tree_util.keystr(path, simple=True, separator='.') for path, _ in jax.tree_util.tree_leaves_with_path(tree))
        specs = tuple(place.spec for place in jax.tree.leaves(shardings))
        return names, specs, fingerprints(tuple(jax.tree.leaves(tree)), specs=specs, mesh=self._mesh)

    def _sentence(self, check: _Pending, wrong: np.ndarray) -> str:
        rows, columns = wrong.any(axis=1), wrong.any(axis=0)
        arrays = _listed([name for name, is_wrong in zip(check.names, columns, strict=True) if is_wrong], 'arrays')
        devices = [device for device, is_wrong in zip(self._mesh.devices.flat, rows, strict=True) if is_wrong]
        where = _listed([_device(device) for device in devices], 'devices')
        if len(check.tables) == 2:
            before = ' (all of them, so the fault came before gradients were summed)' if len(devices) == self._mesh.size > 1 else ''
            what = f'step {check.step} of {self._name}, done twice, gave other bits the second time on {where}{before}, in {arrays}'
            advice = 'start it again, without that machine if it happens there again (on a GPU, first with deterministic operations)'
            return f'{what}: the machine is suspect, nothing of this step is saved, and the run stopped; {advice}'
        what = f'after step {check.step} of {self._name} the copies on {where} differ in {arrays} from those on other devices'
        since = f'step {self._sound}' if self._sound else 'the start'
        advice = f'start it again, without that machine if it happens there again; all copies were last the same at {since}'
        return f'{what}: the machine is suspect, nothing of this step is saved, and the run stopped; {advice}'


def repeats_differ(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Where two tables [devices, arrays] of one step differ, bool."""
    return first != second


def replicas_differ(table: np.ndarray, *, specs: Sequence[PartitionSpec], mesh: Mesh) -> np.ndarray:
    """Which devices hold another copy than most of those that should hold the same, bool [devices, arrays].

    Where no copy has the majority, as with two that differ, all of them are marked.
    """
    wrong = np.zeros(table.shape, bool)
    for column, spec in enumerate(specs):
        for group in _holders(spec, mesh):
            copies, counts = np.unique(table[group, column], return_counts=True)
            if len(copies) > 1:
                usual = copies[counts.argmax()] if 2 * counts.max() > len(group) else None
                wrong[group, column] = True if usual is None else table[group, column] != usual
    return wrong


def _holders(spec: PartitionSpec, mesh: Mesh) -> np.ndarray:
    """Places in `mesh.devices.flat` of devices that hold the same part of an array, [parts, copies]."""
    used = {name for names in spec if names is not None for name in ([names] if isinstance(names, str) else names)}
    split = [axis for axis, name in enumerate(mesh.axis_names) if name in used]
    whole = [axis for axis, name in enumerate(mesh.axis_names) if name not in used]
    places = np.arange(mesh.size).reshape(mesh.devices.shape).transpose(*split, *whole)
    return places.reshape(int(np.prod([mesh.devices.shape[axis] for axis in split], dtype=int)), -1)


@functools.partial(jax.jit, static_argnames=('specs', 'mesh'))
def fingerprints(arrays: tuple[jax.Array, ...], *, specs: tuple[PartitionSpec, ...], mesh: Mesh) -> jax.Array:
    """What each device of the mesh holds of each array, as numbers: uint32 [devices, arrays], on every device."""

    def here(*parts: jax.Array) -> jax.Array:
        return jnp.stack([fingerprint(part) for part in parts])[None]

    table = jax.shard_map(here, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(mesh.axis_names), check_vma=False)(*arrays)
    return jax.lax.with_sharding_constraint(table, NamedSharding(mesh, PartitionSpec()))


def fingerprint(x: jax.Array) -> jax.Array:
    """A number, uint32 [], of all bits of an array and their places.

    Each word is moved by its place and mixed one to one, with the finaliser of MurmurHash3 (A. Appleby, public domain), and the words are
    summed: whole numbers, so in any order. One word that changes, by a bit or by any number of them, always changes the sum; several do
    but for one case in 2^32.
    """
    word = _words(x)
    place = jnp.zeros((), jnp.uint32)
    for axis, size in enumerate(word.shape):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, word.shape, axis)
    word = word + place * jnp.uint32(0x9E3779B1)
    word = (word ^ (word >> 16)) * jnp.uint32(0x85EBCA6B)
    word = (word ^ (word >> 13)) * jnp.uint32(0xC2B2AE35)
    word = word ^ (word >> 16)
    if word.ndim > 1 and len(word) > 1:  # over the first axis first, kept apart: XLA for CPU makes it four times as fast as one sum
        word = jax.lax.optimization_barrier(word.sum(axis=0, dtype=jnp.uint32))
    return word.sum(dtype=jnp.uint32)


def _words(x: jax.Array) -> jax.Array:
    """Bits as uint32, a word a number; two along a new last axis where numbers have eight bytes."""
    if x.dtype == bool:
        return x.astype(jnp.uint32)
    narrow = {1: jnp.uint8, 2: jnp.uint16}.get(x.dtype.itemsize, jnp.uint32)
    return jax.lax.bitcast_convert_type(x, narrow).astype(jnp.uint32)


def _is_due(number: int, every: int) -> bool:
    return every > 0 and number % every == 0


def _device(device: jax.Device) -> str:
    return f'{device.platform} {device.id} of process {device.process_index}'


def _listed(names: Sequence[str], what: str) -> str:
    more = f' and {len(names) - _MOST_NAMED} more {what}' if len(names) > _MOST_NAMED else ''
    return ', '.join(names[:_MOST_NAMED]) + more
