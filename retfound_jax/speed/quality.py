"""Whether a change that makes a step cheaper costs quality: the same training with and without it, and the losses it ends at.

Both sides see the same batches, masks and flips in the same order and start from the same parameters, so that what is left between them
is the change. What is compared is the mean training loss of the last tenth of the steps. That is a gate and no proof: a change that
passes is worth a linear probe, one that fails is not.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from retfound_jax.core.config import override
from retfound_jax.core.errors import UsageError
from retfound_jax.data.loader import Loader
from retfound_jax.data.sources import Reader, Source, open_source
from retfound_jax.speed.tables import aligned
from retfound_jax.train.config import TrainConfig, align, resolve
from retfound_jax.train.program import Program, make_program
from retfound_jax.train.state import TrainState

SMOOTHED = 0.1  # of the steps, the last, make the loss that counts
LIMIT = 0.005  # how much higher it may be, as a share
_AHEAD = 4  # [steps] given to the device before their numbers are waited for
_POINTS = 10  # of the curve that is kept


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """What one seed gave. A curve has the mean loss of each tenth of the steps."""

    seed: int
    base: float
    changed: float
    base_curve: list[float]
    changed_curve: list[float]

    @property
    def excess(self) -> float:
        """By how much the changed loss is higher, as a share of the base; infinite where it is not finite."""
        return self.changed / self.base - 1 if math.isfinite(self.changed) else math.inf


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """All seeds together."""

    changes: tuple[str, ...]
    steps: int
    limit: float
    pairs: tuple[Pair, ...]

    @property
    def excess(self) -> float:
        """The mean over seeds."""
        return statistics.fmean(pair.excess for pair in self.pairs)

    @property
    def passed(self) -> bool:
        """Whether the changed loss is at most `limit` above the base."""
        return self.excess <= self.limit

    def record(self) -> dict[str, Any]:
        """For JSON; an infinite excess is null."""
        return {**dataclasses.asdict(self), 'passed': self.passed, 'excess': self.excess if math.isfinite(self.excess) else None}


def compare(
    config: TrainConfig,
    changes: Sequence[str],
    *,
    steps: int,
    seeds: int = 1,
    limit: float = LIMIT,
    say: Callable[[str], None] = lambda line: None,
) -> Verdict:
    """Trains `config` and `config` with `changes` (path=value) for `steps`, side by side, once a seed.

    Raises:
      UsageError: nothing is changed, or the data, the seed or the length of the run are.
      UserError: the data cannot be used, or the base itself has no finite loss.
    """
    _check(changes, steps=steps)
    source = _kept(open_source(align(config).data), config)
    base = shortened(config, source, steps=steps)
    changed = shortened(override(config, list(changes)), source, steps=steps)
    pairs = tuple(_pair(base, changed, source, seed=config.seed + number, say=say) for number in range(seeds))
    return Verdict(changes=tuple(changes), steps=steps, limit=limit, pairs=pairs)


def table(verdict: Verdict) -> str:
    """For a terminal."""
    rows = [('seed', 'base', 'changed', 'higher by')]
    rows += [(str(pair.seed), f'{pair.base:.5f}', f'{pair.changed:.5f}', f'{pair.excess:+.3%}') for pair in verdict.pairs]
    rows.append(('mean', '', '', f'{verdict.excess:+.3%}'))
    title = f'{" ".join(verdict.changes)}: loss after {verdict.steps} steps, mean of the last {max(1, round(SMOOTHED * verdict.steps))}'
    word = 'passed' if verdict.passed else 'failed'
    return '\n'.join([title, *aligned(rows), f'{word}: at most {verdict.limit:+.2%} is let through'])


def _check(changes: Sequence[str], *, steps: int) -> None:
    if not changes:
        raise UsageError('nothing is changed; give at least one --change path=value')
    if steps < _POINTS:
        raise UsageError(f'{steps} steps are too few to compare; give at least {_POINTS}')
    for change in changes:
        if change.split('=')[0].split('.')[0] in ('data', 'seed', 'steps', 'epochs', 'init_from'):
            raise UsageError(f'--change {change} gives the two sides different work; only what is done with the same batches is compared')


def shortened(config: TrainConfig, source: Source, *, steps: int) -> TrainConfig:
    """The configuration of a run of `steps` with the schedule of the whole one in it: the warm-up keeps its share."""
    whole = resolve(align(config), source=source)
    warmup = round(whole.optim.warmup_steps / whole.steps * steps)
    return dataclasses.replace(whole, steps=steps, optim=dataclasses.replace(whole.optim, warmup_steps=warmup))


def _pair(base: TrainConfig, changed: TrainConfig, source: Source, *, seed: int, say: Callable[[str], None]) -> Pair:
    configs = [dataclasses.replace(config, seed=seed) for config in (base, changed)]
    programs = [make_program(config) for config in configs]
    losses = _losses(programs, source, say=say)
    ends = [float(np.mean(loss[-max(1, round(SMOOTHED * base.steps)) :])) for loss in losses]
    curves = [[float(np.mean(part)) for part in np.array_split(loss, _POINTS)] for loss in losses]
    if not math.isfinite(ends[0]):
        raise UsageError(f'{base.name} without the change has a loss that is not finite (seed {seed}); lower its learning rate')
    return Pair(seed=seed, base=ends[0], changed=ends[1], base_curve=curves[0], changed_curve=curves[1])


def _losses(programs: Sequence[Program], source: Source, *, say: Callable[[str], None]) -> list[np.ndarray]:
    """The loss of each step [steps] of each program, all on the same batches."""
    config = programs[0].config
    states: list[TrainState] = [program.init_state() for program in programs]
    losses: list[list[jax.Array]] = [[] for _ in programs]
    loader = Loader(config.data, source, seed=config.seed)
    try:
        for step in range(config.steps):
            batch = next(loader)
            for side, program in enumerate(programs):
                states[side], metrics = program.step(states[side], program.put(batch))
                losses[side].append(metrics['loss'])
            if step >= _AHEAD:
                jax.block_until_ready([loss[step - _AHEAD] for loss in losses])
            if (step + 1) % max(1, config.steps // _POINTS) == 0:
                told = ' and '.join(f'{float(loss[-1]):.4f}' for loss in losses)
                say(f'seed {config.seed}, step {step + 1} of {config.steps}: loss {told}')
    finally:
        loader.close()
    return [np.asarray(jax.device_get(loss), np.float64) for loss in losses]


def _kept(source: Source, config: TrainConfig) -> Source:
    """A phantom's photographs are drawn once and kept: drawing takes far longer than a small model's step."""
    if config.data.phantom is None or config.data.workers:
        return source
    return dataclasses.replace(source, reader=_Keeping(store=source.reader.store, positions=source.reader.positions))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Keeping(Reader):
    """Reads each row once."""

    seen: dict[int, Any] = dataclasses.field(default_factory=dict)

    def read(self, rows: np.ndarray) -> list[Any]:
        fresh = np.array([row for row in dict.fromkeys(rows.tolist()) if row not in self.seen], np.int64)
        self.seen.update(zip(fresh.tolist(), super().read(fresh), strict=True))
        return [self.seen[row] for row in rows.tolist()]
