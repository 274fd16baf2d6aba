"""The training rate with the loader over that with one synthetic batch, by the same compiled step, in turns."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from retfound_jax.data.loader import Loader
from retfound_jax.data.sources import open_source
from retfound_jax.speed.measure import Spread, alternate
from retfound_jax.train.config import TrainConfig, align, resolve
from retfound_jax.train.program import make_program

_WARM = 2  # steps before the first turn: the first compiles


def bench(config: TrainConfig, *, turns: int, steps: int) -> dict[str, Any]:
    """Takes turns of `steps` steps on one batch that lies on the device, and on batches of the loader.

    Returns:
      A record: images/s of both, and the median over the turns of their ratio, each turn with the one beside it.

    Raises:
      UserError: the data are missing or damaged.
      UsageError: the experiment does not fit the data or this machine.
    """
    config = align(config)
    source = open_source(config.data)
    program = make_program(resolve(config, source=source))
    loader = Loader(program.config.data, source, seed=config.seed)
    run = _Run(program)
    same = program.put(program.random_batch())

    def repeated() -> Iterator[dict[str, jax.Array]]:
        while True:
            yield same

    def loaded() -> Iterator[dict[str, jax.Array]]:
        while True:
            yield program.put(next(loader))

    real, synthetic = loaded(), repeated()
    try:
        for batches in (synthetic, real):
            run.turn(batches, steps=_WARM)()
        taken = alternate(turns, {'synthetic': run.turn(synthetic, steps=steps), 'loader': run.turn(real, steps=steps)})
    finally:
        loader.close()
    unit = program.config.data.batch_size * steps
    rates = {name: dataclasses.asdict(Spread.of([unit / seconds for seconds in samples])) for name, samples in taken.items()}
    share = statistics.median(made / real for made, real in zip(taken['synthetic'], taken['loader'], strict=True))
    about = {'experiment': config.name, 'batch_size': program.config.data.batch_size, 'steps': steps, 'turns': turns}
    device = {'devices': jax.device_count(), 'device': jax.devices()[0].device_kind, 'workers': program.config.data.workers}
    return {'kind': 'end to end', **about, **device, **rates, 'ratio': share}


class _Run:
    """A state that steps go on with."""

    def __init__(self, program: Any) -> None:
        self._program = program
        self._state = program.init_state()

    def turn(self, batches: Iterator[dict[str, jax.Array]], *, steps: int) -> Callable[[], float]:
        """A function that takes `steps` steps and returns their seconds; a step is in flight while the next batch is drawn."""

        def take() -> float:
            start = time.perf_counter()
            for _ in range(steps):
                self._state, metrics = self._program.step(self._state, next(batches))
            jax.block_until_ready((self._state, metrics))
            return time.perf_counter() - start

        return take
