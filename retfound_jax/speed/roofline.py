"""How long a compiled step takes at best: arithmetic, memory and interconnect, each at its published rate. Modelled, not measured.

A step is taken apart into stages: each loop's body, and all that stands outside of loops (the optimiser, first and last layers). In a stage
arithmetic and memory traffic overlap perfectly, so it takes the longer of the two (Williams et al. 2009, "Roofline"); stages follow one
another, so an optimiser that is bound by memory is not hidden behind the model's products. Collectives run by ring at the rate of the links
their group spans, and are put on top of their stage, or hidden behind it. Latencies, launch times and everything slower than published
rates are left out: a real step takes longer, by about half as published figures of JAX programs go.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from retfound_jax.speed.arithmetic import instruction_flops
from retfound_jax.speed.chips import Chip, Topology
from retfound_jax.speed.collectives import BETWEEN_SLICES, Collective, collectives
from retfound_jax.speed.hlo import Module
from retfound_jax.speed.traffic import instruction_bytes

Place = tuple[int, tuple[int, ...]]  # slice, coordinates of the chip in it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One loop's body or the rest, all its runs of a step together, on one device."""

    name: str
    count: int  # runs in a step
    flops: float
    bytes: float
    compute: float = 0.0  # [s]
    memory: float = 0.0  # [s]
    hidden: float = 0.0  # [s] of collectives that the compiled schedule runs beside work
    exposed: float = 0.0  # [s] of collectives that it waits for

    @property
    def device(self) -> float:
        """[s] without collectives."""
        return max(self.compute, self.memory)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepTime:
    """[s] of one step, by what is assumed of collectives."""

    stages: tuple[Stage, ...]

    @property
    def device(self) -> float:
        """Arithmetic and memory alone: the step on a chip that has nobody to talk to."""
        return sum(stage.device for stage in self.stages)

    @property
    def communication(self) -> float:
        """All collectives, one after the other."""
        return sum(stage.hidden + stage.exposed for stage in self.stages)

    @property
    def serial(self) -> float:
        """Without overlap: every collective is waited for."""
        return self.device + self.communication

    @property
    def compiled(self) -> float:
        """As the compiler has scheduled it: what it started asynchronously hides behind the stage, the rest is waited for."""
        return sum(max(stage.device, stage.hidden) + stage.exposed for stage in self.stages)

    @property
    def overlapped(self) -> float:
        """With overlap: every collective hides behind the work of its stage, as far as there is work."""
        return sum(max(stage.device, stage.hidden + stage.exposed) for stage in self.stages)


def step_time(module: Module, *, topology: Topology, places: Sequence[Place]) -> StepTime:
    """Models a compiled step.

    Args:
      places: of each device of the program, in the order of its partitions.
    """
    chip = topology.chip
    sizes: dict[str, list[float]] = {}
    counts: dict[str, int] = {}
    names = {name: {line.name: line for line in lines} for name, lines in module.computations.items()}
    for run in module.runs():
        if run.is_scheduled:
            inside = names[run.computation]
            total = sizes.setdefault(run.stage, [0.0, 0.0])
            counts[run.stage] = run.count
            total[0] += run.count * instruction_flops(module, run.instruction, inside)
            total[1] += run.count * instruction_bytes(module, run.instruction, inside)
    sent: dict[tuple[str, bool], float] = {}
    for one in collectives(module, devices=len(places)):
        key = one.stage, one.overlapped
        sent[key] = sent.get(key, 0.0) + collective_seconds(one, topology=topology, places=places)
    return StepTime(
        stages=tuple(
            Stage(
                name=name,
                count=counts[name],
                flops=flops,
                bytes=moved,
                compute=flops * chip.cores / chip.flops,
                memory=moved * chip.cores / chip.hbm_bandwidth,
                hidden=sent.get((name, True), 0.0),
                exposed=sent.get((name, False), 0.0),
            )
            for name, (flops, moved) in sizes.items()
            if flops or moved or (name, True) in sent or (name, False) in sent
        )
    )


def collective_seconds(one: Collective, *, topology: Topology, places: Sequence[Place]) -> float:
    """[s] of all runs of a collective in a step: within a slice by its links, then, each chip its share, between slices by the network."""
    chip = topology.chip
    if one.kind.endswith(BETWEEN_SLICES):
        return one.wire_bytes * chip.cores / chip.network
    group = [places[number] for number in one.groups[0]]
    slices = len({number for number, _ in group})
    inside = len(group) // slices
    rate = link_rate(chip, group, shape=topology.shape)
    if slices == 1:
        return one.wire_bytes / rate
    within = one.sent(members=inside) / rate
    return within + one.sent(members=slices) / inside * chip.cores / chip.network


def link_rate(chip: Chip, group: Sequence[Place], *, shape: Sequence[int]) -> float:
    """[bytes/s] that each device of a group can send within its slice.

    A chip has two links along each axis of the torus. A ring over several axes uses the links of all of them; along an axis that the group
    does not fill, or whose ends are not joined, one of the two.
    """
    if not chip.axes:
        return (chip.link if len(group) <= chip.host else chip.network) / chip.cores
    link = chip.link / (2 * chip.axes)
    coordinates = np.array([place for _, place in group])
    links = 0
    for axis, size in enumerate(shape):
        spanned = len(set(coordinates[:, axis].tolist()))
        if spanned > 1:
            links += 2 if spanned == size and joined(chip, size) else 1
    return link * (links or 2 * chip.axes) / chip.cores


def joined(chip: Chip, size: int) -> bool:
    """Whether the ends of an axis of a slice are wired together: v5e and v6e at 16, the cubes of the others at every multiple of 4."""
    return size == 16 if chip.axes == 2 else size % 4 == 0


def weak_scaling(time: StepTime, total: Callable[[StepTime], float]) -> float:
    """Share of a step that is not spent waiting for others, by the chosen `total`: 1 is a chip with nobody to talk to.

    Where parameters or moments are split, a chip alone would also have more to update than its share, which is not counted here.
    """
    return time.device / total(time)
