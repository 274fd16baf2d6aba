"""The best layout that fits: batch, remat and mesh are varied, each layout is compiled, the highest modelled rate wins."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence

from retfound_jax.core.config import override
from retfound_jax.core.errors import UsageError, nearest
from retfound_jax.speed.chips import Topology
from retfound_jax.speed.plan import Plan, path_of, value_of
from retfound_jax.train.config import TrainConfig

VARIED = ('batch', 'remat', 'mesh')
REMATS = ('none', 'dots', 'full')
DOUBLINGS = 6  # of the config's own batch, where no batches are named
# A split finer than this leaves matrices of a thousand columns with shards of less than a register's 128 lanes: gathers and scatters then
# become sums of whole matrices.
FINEST_SPLIT = 16
_WORTH = 1.01  # a larger batch has to be this much faster to be tried further


Chain = tuple[str, int, bool]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """A layout to compile."""

    batch_per_chip: int
    remat: str
    fsdp: int
    zero: bool = False

    @property
    def chain(self) -> Chain:
        """Candidates of one chain differ in the batch alone."""
        return self.remat, self.fsdp, self.zero


def candidates(
    config: TrainConfig, *, topology: Topology, varied: Sequence[str], batches: Sequence[int] = ()
) -> dict[Chain, list[Candidate]]:
    """Chains of layouts, the batch growing along each; what is not varied stays as the config has it.

    Raises:
      UsageError: there is nothing of that name to vary, or this model has no remat to choose.
    """
    for name in varied:
        if name not in VARIED:
            raise UsageError(f'--sweep {name}: only {", ".join(VARIED)} can be varied{nearest(name, VARIED)}')
    own = value_of(config, 'remat')
    if 'remat' in varied and not own:
        raise UsageError(f'--sweep remat: {config.name} has no field `remat`; leave it out')
    share = max(1, config.data.batch_size // topology.chips)
    doubled = [share * 2**power for power in range(DOUBLINGS + 1)]
    sizes = (sorted(batches) or doubled) if 'batch' in varied else [share]
    remats = REMATS if 'remat' in varied else (own,)
    splits = _splits(topology) if 'mesh' in varied else ((config.mesh.fsdp, config.mesh.zero),)
    chains: dict[Chain, list[Candidate]] = {}
    for remat, (fsdp, zero), size in itertools.product(remats, splits, sizes):
        one = Candidate(batch_per_chip=size, remat=remat, fsdp=fsdp, zero=zero)
        chains.setdefault(one.chain, []).append(one)
    return chains


def apply(config: TrainConfig, candidate: Candidate, *, topology: Topology) -> TrainConfig:
    """The config in that layout. The batch changes the recipe: the learning rate follows it by the config's own rule."""
    changes = [f'data.batch_size={candidate.batch_per_chip * topology.chips}']
    changes += ['mesh.data=-1', f'mesh.fsdp={candidate.fsdp}', f'mesh.zero={str(candidate.zero).lower()}']
    path = path_of(config, 'remat')
    return override(config, [*changes, f'{path}={candidate.remat}'] if path else changes)


def sweep(chains: dict[Chain, list[Candidate]], make: Callable[[Candidate], Plan]) -> Iterator[Plan]:
    """Plans of all layouts worth compiling: a chain ends where a batch does not fit, or is no faster than the one before.

    Where not even the first fits, halves of it are tried. No layout is left out because of another chain: what remat or a split costs is
    what the table is to show.
    """
    for chain in chains.values():
        rate = 0.0
        for candidate in chain:
            plan = make(candidate)
            yield plan
            if not plan.fits or plan.images_per_second < rate * _WORTH:
                break
            rate = plan.images_per_second
        if not rate and len(chain) > 1:
            yield from _halves(chain[0], make)


def _halves(candidate: Candidate, make: Callable[[Candidate], Plan]) -> Iterator[Plan]:
    """The largest half, quarter, ... of a batch that fits, and those before it that do not."""
    size = candidate.batch_per_chip // 2
    while size:
        plan = make(dataclasses.replace(candidate, batch_per_chip=size))
        yield plan
        if plan.fits:
            return
        size //= 2


def best(plans: Sequence[Plan]) -> Plan | None:
    """Of those that fit the fastest; of equals (within 1 %) the one that leaves most memory free."""
    fitting = [plan for plan in plans if plan.fits]
    if not fitting:
        return None
    top = max(plan.images_per_second for plan in fitting)
    equals = [plan for plan in fitting if plan.images_per_second * _WORTH >= top]
    return min(equals, key=lambda plan: plan.memory.total)


def _splits(topology: Topology) -> list[tuple[int, bool]]:
    """Pairs of `mesh.fsdp` and `mesh.zero`: all whole, moments split, parameters split over a few chips or over many."""
    inside = topology.chips * topology.chip.cores // topology.slices
    return [(1, False), (1, True), *((size, False) for size in (4, FINEST_SPLIT) if inside % size == 0)]
