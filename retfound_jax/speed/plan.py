"""What an experiment would need on devices that are not there: its very step is compiled for them, and the program is read.

Everything a plan says is modelled, not measured. Memory is the compiler's own account, and whether a layout fits is its verdict.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from retfound_jax.speed import flops as flops_lib
from retfound_jax.speed import hlo
from retfound_jax.speed.chips import Topology
from retfound_jax.speed.collectives import Collective, collectives
from retfound_jax.speed.roofline import StepTime, step_time
from retfound_jax.speed.topologies import places_of
from retfound_jax.train.config import TrainConfig, assume
from retfound_jax.train.program import Program, make_program

LABEL = 'modelled, not measured'
_UNITS = {'B': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}
_EXHAUSTED = 'RESOURCE_EXHAUSTED'
_USED = re.compile(r'Used ([\d.]+)([BKMGT]) of ([\d.]+)([BKMGT]) (\w+)')
_EXCEEDED = re.compile(r'([\d.]+)([BKMGT])[^.\n]*? exceeds[^.\n]*?\(?([\d.]+)([BKMGT])\)?')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Feed:
    """What brings the images in: figures of another machine, to be replaced by one's own."""

    images_per_core: float = 2500.0  # [images/s] decode of the crop and resize by libjpeg-turbo: 2,637 on a core of a 2023 server CPU
    image_bytes: float = 17e3  # [bytes] of a JPEG of 256 px at quality 90, 4:2:0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """[bytes] of one device. The first four are exact, from shapes and shardings; temporaries are the compiler's."""

    parameters: int
    optimizer: int
    ema: int
    batch: int
    temporaries: int  # activations kept for backward, gradients, buffers of collectives
    other: int  # program, padding of tiles, results that are not donated
    capacity: int  # what a program has of a device

    @property
    def total(self) -> int:
        """All that lives at the fullest moment."""
        return self.parameters + self.optimizer + self.ema + self.batch + self.temporaries + self.other


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """How the work is laid out."""

    mesh: dict[str, int]
    zero: bool  # moments split over `data`
    batch: int  # [images] of a step
    batch_per_chip: float
    remat: str
    compute_dtype: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """One layout on one topology."""

    experiment: str
    topology: Topology
    layout: Layout
    fits: bool
    verdict: str  # in words
    compile_seconds: float
    parameters: int  # of the model
    memory: Memory | None = None  # None where the compiler gave up before it had an account
    needed: int | None = None  # [bytes] of one device, where it does not fit and the compiler said so
    collectives: tuple[Collective, ...] = ()
    time: StepTime | None = None
    model_flops: float = 0.0  # of an image, without recomputation
    program_flops: float = 0.0  # of an image, what the program multiplies
    unknown_loops: int = 0

    @property
    def images_per_second(self) -> float:
        """Of all chips, as the compiler has scheduled the collectives; 0 where it does not fit."""
        return self.layout.batch / self.time.compiled if self.time else 0.0

    def mfu(self, seconds: float) -> float:
        """Model FLOPs over what the chips could do in that time."""
        return self.model_flops * self.layout.batch / (seconds * self.topology.chip.flops * self.topology.chips)

    def hours(self, images: float) -> float:
        """To see so many images."""
        return images / self.images_per_second / 3600

    @property
    def gradient_bytes(self) -> float:
        """[bytes] each device sends in a step to sum over devices: gradients, and the few scalars beside them."""
        return sum(one.wire_bytes for one in self.collectives if one.is_reduction)


def make_plan(config: TrainConfig, *, topology: Topology, devices: Sequence[Any], capacity: int = 0) -> Plan:
    """Compiles the step of `config` for `devices` and reads what it costs; out of memory is a result.

    Args:
      capacity: [bytes] of a device, 0 for the chip's own.

    Raises:
      UsageError: mesh, batch or model do not fit each other.
    """
    config = assume(config)
    program = make_program(config, devices=devices)
    facts = {
        'experiment': config.name,
        'topology': topology,
        'layout': layout_of(program, topology=topology),
        'parameters': sum(leaf.size for leaf in jax.tree.leaves(program.abstract_state().params)),
        'model_flops': flops_lib.count(config.task).training,
    }
    capacity = capacity or topology.chip.capacity
    start = time.monotonic()
    try:
        compiled = program.step.lower(program.abstract_state(), program.abstract_batch()).compile()
    except jax.errors.JaxRuntimeError as error:
        if _EXHAUSTED not in str(error):
            raise
        needed, limit = needed_memory(str(error))
        verdict = does_not_fit(needed, limit or capacity)
        return Plan(**facts, fits=False, verdict=verdict, needed=needed, compile_seconds=time.monotonic() - start)
    seconds = time.monotonic() - start
    memory = memory_of(program, compiled, capacity=capacity)
    if memory.total > capacity:
        verdict = does_not_fit(memory.total, capacity)
        return Plan(**facts, fits=False, verdict=verdict, memory=memory, needed=memory.total, compile_seconds=seconds)
    module = hlo.parse(compiled.as_text())
    times = step_time(module, topology=topology, places=places_of(list(program.mesh.devices.flat)))
    share = config.data.batch_size / len(devices)
    return Plan(
        **facts,
        fits=True,
        verdict=f'fits: {gib(memory.total)} of {gib(capacity)} a device, {gib(capacity - memory.total)} free',
        compile_seconds=seconds,
        memory=memory,
        collectives=tuple(collectives(module, devices=len(devices))),
        time=times,
        program_flops=sum(stage.flops for stage in times.stages) / share,
        unknown_loops=module.unknown_loops,
    )


def layout_of(program: Program, *, topology: Topology) -> Layout:
    """Mesh, batch and what else a plan is told apart by."""
    return Layout(
        mesh={name: int(size) for name, size in program.mesh.shape.items()},
        zero=program.config.mesh.zero,
        batch=program.config.data.batch_size,
        batch_per_chip=program.config.data.batch_size / topology.chips,
        remat=value_of(program.config, 'remat'),
        compute_dtype=program.config.task.compute_dtype,
    )


def memory_of(program: Program, compiled: Any, *, capacity: int) -> Memory:
    """One device's memory by kind."""
    state, batch = program.abstract_state(), program.abstract_batch()
    kinds = {
        'parameters': shard_bytes(state.params),
        'optimizer': shard_bytes(state.opt_state) + shard_bytes((state.step, state.halted, state.recent, state.skipped)),
        'ema': shard_bytes(state.ema),
        'batch': shard_bytes(batch),
    }
    found = compiled.memory_analysis()
    padding = found.argument_size_in_bytes - sum(kinds.values())
    results = found.output_size_in_bytes - found.alias_size_in_bytes
    return Memory(
        **kinds,
        temporaries=found.temp_size_in_bytes,
        other=max(0, padding) + results + found.generated_code_size_in_bytes,
        capacity=capacity,
    )


def shard_bytes(tree: Any) -> int:
    """[bytes] of one device's shards of a tree of arrays or abstract ones that have shardings."""
    leaves = jax.tree.leaves(tree)
    return sum(int(np.prod(leaf.sharding.shard_shape(leaf.shape), dtype=np.int64)) * leaf.dtype.itemsize for leaf in leaves)


def needed_memory(message: str) -> tuple[int | None, int | None]:
    """What a compiler that ran out of memory says it needs and has, [bytes] of a device."""
    for pattern in (_USED, _EXCEEDED):
        found = pattern.search(message)
        if found:
            return round(float(found[1]) * _UNITS[found[2]]), round(float(found[3]) * _UNITS[found[4]])
    return None, None


def does_not_fit(needed: int | None, capacity: int) -> str:
    """The sentence for a layout that is too large."""
    if needed is None:
        return f'does not fit: the compiler needs more than the {gib(capacity)} of a device'
    return f'does not fit: needs {gib(needed)} of {gib(capacity)} a device, {gib(needed - capacity)} too much'


def gib(size: float) -> str:
    """Bytes as people read them."""
    return f'{size / 2**30:.2f} GiB' if abs(size) >= 2**27 else f'{size / 2**20:.2f} MiB'


def path_of(config: Any, field: str) -> str:
    """Dotted path of the outermost field of that name in a nest of dataclasses, or nothing."""
    waiting: list[tuple[str, Any]] = [('', config)]
    while waiting:
        path, one = waiting.pop(0)
        for name in (field.name for field in dataclasses.fields(one)):
            if name == field:
                return path + name
            if dataclasses.is_dataclass(getattr(one, name)):
                waiting.append((f'{path}{name}.', getattr(one, name)))
    return ''


def value_of(config: Any, field: str) -> str:
    """What stands at `path_of`, or nothing."""
    path = path_of(config, field)
    return str(functools.reduce(getattr, path.split('.'), config)) if path else ''
