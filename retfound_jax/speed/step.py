"""`retfound bench step`: the training step of an experiment, measured on whatever is there beside a peer and the device's own limits."""

from __future__ import annotations

import dataclasses
import datetime
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import jax
import numpy as np

from retfound_jax.core import environment
from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.speed import flops, measure
from retfound_jax.speed.chips import chip_of
from retfound_jax.speed.peers.process import MODES, WAYS, Peer, setup_request
from retfound_jax.speed.tables import aligned, duration, human
from retfound_jax.train.config import TrainConfig, assume
from retfound_jax.train.program import make_program
from retfound_jax.train.state import abstract_params

OURS = 'ours'
_WARM_UP = 2  # [steps]
Record = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How long to measure, and beside whom."""

    steps: int = 20  # [steps] of a turn, dispatched one after another and waited for at the end
    turns: int = 5  # of each side
    peer_modes: tuple[str, ...] = ()  # names of `peers.process.MODES`
    peer_python: str = ''  # interpreter that has the peer's library
    peer_ways: tuple[str, ...] | None = None  # that the peer at its best tries beside eager; None: those of `peers.process.WAYS`
    peer_budget: float = 240.0  # [s] of the peer's setup, after which it tries no further one

    def __post_init__(self) -> None:
        if self.steps < 1 or self.turns < 1:
            raise UsageError(f'{self.turns} turns of {self.steps} steps measure nothing; give at least one of each')
        unknown = [mode for mode in self.peer_modes if mode not in MODES]
        if unknown:
            raise UsageError(f'a peer has no mode "{unknown[0]}"; it has {", ".join(MODES)}')


class Ours:
    """Our compiled step, its state and one synthetic batch that stays on the device."""

    def __init__(self, config: TrainConfig) -> None:
        self._program = make_program(config)
        with measure.compiling() as self.compiling:
            self.compiled = self._program.step.lower(self._program.abstract_state(), self._program.abstract_batch()).compile()
        self._seed = np.uint32(config.seed)
        self._state = self._program.init_state()
        self._batch = self._program.put(self._program.random_batch())
        self.loss = math.nan
        self.turn(_WARM_UP)

    def turn(self, steps: int) -> float:
        """Seconds of a step.

        Raises:
          UserError: the loss is not finite, so that later steps change nothing.
        """
        start = time.perf_counter()
        for _ in range(steps):
            self._state, metrics = self.compiled(self._state, self._batch, self._seed)
        jax.block_until_ready((self._state, metrics))
        taken = (time.perf_counter() - start) / steps
        self.loss = float(metrics['loss'])
        if not math.isfinite(self.loss):
            raise UserError('the loss is no longer finite on random images, so its steps are no measure; lower optim.lr or choose float32')
        return taken

    def parameters(self) -> int:
        """How many numbers the model has."""
        return sum(leaf.size for leaf in jax.tree.leaves(abstract_params(self._program.spec)))


def bench(config: TrainConfig, *, plan: Plan, say: Callable[[str], None] = lambda _: None) -> list[Record]:
    """Measures; one record a line of the table: the run with its limits, each side, each ratio.

    Sides take turns: on the CPU all of them in one round, on an accelerator ours with one peer at a time, so that its memory must hold two
    models and not three.

    Args:
      config: of the experiment; what only data could settle is assumed.
      say: told what is under way, a line at a time.

    Raises:
      UsageError: the experiment cannot be put together, or the peer has no such model.
      UserError: the peer or the step failed.
    """
    config = assume(config)
    cost = flops.count(config.task)
    dtype = config.task.compute_dtype
    requests = {mode: _request(config, mode, plan) for mode in plan.peer_modes}  # before anything is compiled: it may be refused
    say(f'compiling {config.name}, {config.data.batch_size} images, {dtype}')
    ours = Ours(config)
    say(f'compiled in {ours.compiling.seconds:.1f} s (cache: {ours.compiling.cache}); measuring the device')
    limits = _limits(dtype)
    turns = _Turns()
    for modes in [list(requests)] if _all_at_once() or not requests else [[mode] for mode in requests]:
        turns.round(ours, {mode: requests[mode] for mode in modes}, plan, say=say)
    # The device at its best, before or after, by whichever library multiplies faster: what a step could have had.
    again = _limits(dtype)
    rates = {'XLA': max(limits['matmul'], again['matmul'])}
    rates |= {MODES[mode]: about['matmul_flops_per_second'] for mode, about in turns.abouts.items()}
    limits = {
        'matmul_flops_per_second': max(rates.values()),
        'matmul_by_library': rates,
        'copy_bytes_per_second': max(limits['copy'], again['copy']),
        'data_sheet_flops_per_second': _data_sheet(dtype),
    }
    run = _run_record(config, plan, cost, limits, ours)
    own = {'memory': dataclasses.asdict(measure.memory(ours.compiled)), 'compile': dataclasses.asdict(ours.compiling), 'loss': ours.loss}
    sides = {OURS: own, **turns.abouts}
    ratios = {mode: dataclasses.asdict(measure.Spread.of(samples)) for mode, samples in turns.ratios.items()}
    return [
        run,
        *(_side(name, turns.samples[name], run, about) for name, about in sides.items()),
        *({'bench': 'step', 'kind': 'ratio', 'side': mode, 'ours_over_side': ratio} for mode, ratio in ratios.items()),
    ]


def _request(config: TrainConfig, mode: str, plan: Plan) -> Record:
    cpu = jax.devices()[0].platform == 'cpu'
    if not cpu and (jax.devices()[0].platform != 'gpu' or jax.device_count() > 1):
        raise UsageError('the PyTorch peer runs on the CPU or on one GPU; drop --peer on other devices')
    threads = len(os.sched_getaffinity(0)) if cpu and hasattr(os, 'sched_getaffinity') else 0
    where = {'device': 'cpu' if cpu else 'gpu', 'threads': threads}
    ways = WAYS[where['device']] if plan.peer_ways is None else plan.peer_ways
    return setup_request(config, mode=mode, **where, ways=ways, budget=plan.peer_budget)


def _all_at_once() -> bool:
    return jax.devices()[0].platform == 'cpu'


def _limits(dtype: str) -> dict[str, float]:
    return {'matmul': measure.matmul_rate(dtype), 'copy': measure.copy_rate()}


def _data_sheet(dtype: str) -> float | None:
    """[FLOP/s] of a device as published, where that is known: for bfloat16."""
    chip = chip_of(jax.devices()[0].device_kind)
    return chip.flops / chip.cores if chip is not None and chip.name != 'cpu' and dtype == 'bfloat16' else None


class _Turns:
    """Seconds of a step of each turn by side, theirs over ours of each pair of turns, and what the peers said of themselves."""

    def __init__(self) -> None:
        self.samples: dict[str, list[float]] = {OURS: []}
        self.ratios: dict[str, list[float]] = {}
        self.abouts: dict[str, Record] = {}

    def round(self, ours: Ours, requests: Mapping[str, Record], plan: Plan, *, say: Callable[[str], None]) -> None:
        """Ours and these peers, in turns; the peers end with it."""
        with ExitStack() as stack:
            sides: dict[str, Callable[[], float]] = {OURS: lambda: ours.turn(plan.steps)}
            peers: dict[str, Peer] = {}
            for mode, request in requests.items():
                say(f'setting up {MODES[mode]}')
                peers[mode] = stack.enter_context(Peer(MODES[mode], python=plan.peer_python))
                self.abouts[mode] = peers[mode].ask(request)
                sides[mode] = _turn_of(peers[mode], self.abouts[mode], plan.steps)
            say(f'{plan.turns} turns of {plan.steps} steps: {", ".join(sides)}')
            taken = measure.alternate(plan.turns, sides)
            for mode, peer in peers.items():
                _ask_limits(peer, self.abouts[mode])
        self.samples[OURS] += taken[OURS]
        for mode in requests:
            self.samples[mode] = taken[mode]
            self.ratios[mode] = [theirs / own for own, theirs in zip(taken[OURS], taken[mode], strict=True)]


def _turn_of(peer: Peer, about: Record, steps: int) -> Callable[[], float]:
    def turn() -> float:
        answer = peer.ask({'do': 'turn', 'steps': steps})
        source = 'peak in use' if about['gpu'] else 'peak of the process'
        about.update(loss=answer['loss'], memory={'bytes': answer['memory'], 'source': source})
        return answer['seconds'] / steps

    return turn


def _ask_limits(peer: Peer, about: Record) -> None:
    """The peer's own matrix products: they tell whether a difference lies in them or around them."""
    about['matmul_flops_per_second'] = peer.ask({'do': 'matmul', 'size': 8192 if about['gpu'] else 2048})['rate']


def _run_record(config: TrainConfig, plan: Plan, cost: flops.Flops, limits: Record, ours: Ours) -> Record:
    devices = f'{jax.device_count()} {jax.devices()[0].device_kind}'
    return {
        'bench': 'step',
        'kind': 'run',
        'experiment': config.name,
        'batch': config.data.batch_size,
        'dtype': config.task.compute_dtype,
        'steps': plan.steps,
        'turns': plan.turns,
        'parameters': ours.parameters(),
        'flops_per_image': {'forward': cost.forward, 'training': cost.training},
        'devices': jax.device_count(),
        'limits': limits,
        'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
        **environment.facts(devices=devices),
    }


def _side(name: str, samples: Sequence[float], run: Record, about: Record) -> Record:
    step = measure.Spread.of(samples)
    rate = run['batch'] / step.median
    done = rate * run['flops_per_image']['training']
    published = run['limits']['data_sheet_flops_per_second']
    return {
        'bench': 'step',
        'kind': 'side',
        'side': name,
        'images_per_second': rate,
        'step_seconds': dataclasses.asdict(step),
        'samples': list(samples),
        'model_flops_per_second': done,
        'mfu': done / (run['limits']['matmul_flops_per_second'] * run['devices']),
        'mfu_data_sheet': done / (published * run['devices']) if published else None,
        **about,
    }


def table(records: Sequence[Record]) -> str:
    """The records for people."""
    run = records[0]
    sides = [record for record in records if record['kind'] == 'side']
    head = f'{run["experiment"]}: {run["batch"]} images a step, {run["dtype"]}, {run["parameters"] / 1e6:.1f} M parameters, '
    head += f'{run["flops_per_image"]["training"] / 1e9:.2f} GFLOP an image; {run["hardware"]}'
    rows = [['', 'images/s', 'step', '(quartiles)', 'model FLOP/s', 'of matmul', 'memory', 'set-up'], *map(_row, sides)]
    limits = run['limits']
    rates = ', '.join(f'{human(rate)}FLOP/s ({name})' for name, rate in limits['matmul_by_library'].items())
    tail = [f'matmul in {run["dtype"]}: {rates}; copy {human(limits["copy_bytes_per_second"])}B/s']
    if limits['data_sheet_flops_per_second']:
        tail.append(f'of the data sheet ({human(limits["data_sheet_flops_per_second"])}FLOP/s): {100 * sides[0]["mfu_data_sheet"]:.0f} %')
    for record in sides[1:]:
        tried = ', '.join(f'{way} {found if isinstance(found, str) else duration(found)}' for way, found in record['tried'].items())
        tail.append(f'{MODES[record["side"]]}: {record["dtype"]}, {record["way"]}{f" (tried: {tried})" if tried else ""}')
    for record in (record for record in records if record['kind'] == 'ratio'):
        ratio = record['ours_over_side']
        tail.append(f'ours is {ratio["median"]:.2f} times as fast as {MODES[record["side"]]} ({ratio["low"]:.2f} to {ratio["high"]:.2f})')
    return '\n'.join([head, *aligned(rows), *tail])


def _row(side: Record) -> list[str]:
    step = side['step_seconds']
    setup = side['compile']['seconds'] if side['side'] == OURS else side['setup_seconds']
    return [
        OURS if side['side'] == OURS else MODES[side['side']],
        f'{side["images_per_second"]:,.2f}',
        duration(step['median']),
        f'{duration(step["low"])} to {duration(step["high"])}',
        human(side['model_flops_per_second']),
        f'{100 * side["mfu"]:.0f} %',
        f'{human(side["memory"]["bytes"])}B ({side["memory"]["source"]})',
        f'{setup:.0f} s',
    ]

