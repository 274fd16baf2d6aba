"""What happens to a run of several processes on one machine: told to stop, started again as fewer or more, one of them frozen.

`python -m tests.drills.hosts` runs all of it; processes talk over gloo, as they do on machines without accelerators.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
import drill_runs  # noqa: E402 - found beside this file, by the children as well

from retfound_jax.core.errors import RESTART  # noqa: E402

_WHOLE = 400.0  # [s] that a run may take


class Drill:
    """Runs below one folder, which share a dataset and a cache of compiled programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._context = drill_runs.server()
        self._given = (drill_runs.dataset(folder / 'dataset'), str(folder / 'cache'))

    def start(self, name: str, *, processes: int, **changes: Any) -> list[Any]:
        """Starts a run, or goes on with it, as that many processes."""
        port = free_port()
        members = [None] if processes == 1 else [(port, rank, processes) for rank in range(processes)]
        run = str(self.folder / name)
        started = [self._context.Process(target=drill_runs.child, args=(run, *self._given, changes, member)) for member in members]
        for process in started:
            process.start()
        return started

    def run(self, name: str, *, processes: int, **changes: Any) -> Path:
        """A run to its end."""
        codes = ended(self.start(name, processes=processes, **changes))
        assert codes == [0] * processes, codes
        return self.folder / name

    def stop_by_notice(self, name: str, *, processes: int, after: int, **changes: Any) -> None:
        """Starts a run and sends one of its processes SIGTERM after some steps: all save and leave to be started again."""
        started = self.start(name, processes=processes, **changes)
        self.wait_for_step(name, after, started)
        os.kill(started[-1].pid, signal.SIGTERM)
        codes = ended(started)
        assert codes == [RESTART] * processes, codes

    def wait_for_step(self, name: str, step: int, started: Sequence[Any]) -> None:
        """Returns when the step has been logged."""
        end = time.monotonic() + _WHOLE
        while not any(row[0] >= step for row in drill_runs.logged(self.folder / name)):
            assert all(process.is_alive() for process in started), f'a process ended before step {step}'
            assert time.monotonic() < end, f'no step {step} within {_WHOLE} s'
            time.sleep(0.01)


def ended(started: Sequence[Any], *, within: float = _WHOLE) -> list[int]:
    """Exit codes; a process that does not end is killed and fails the drill."""
    end = time.monotonic() + within
    for process in started:
        process.join(max(0.0, end - time.monotonic()))
    late = [process for process in started if process.exitcode is None]
    for process in late:
        process.kill()
    assert not late, f'{len(late)} of {len(started)} processes did not end within {within} s'
    return [process.exitcode for process in started]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(('127.0.0.1', 0))
        return one.getsockname()[1]


def notice(drill: Drill, *, steps: int = drill_runs.STEPS, after: int = 7, **changes: Any) -> None:
    """Two processes, one of them told to stop, started again as two: bit-identical to two that were left alone."""
    changes = {'steps': steps, **changes}
    alone = drill.run('alone2', processes=2, **changes)
    drill.stop_by_notice('noticed', processes=2, after=after, **changes)
    drill_runs.assert_alike(drill.run('noticed', processes=2, **changes), alone, steps=steps)


def resize(drill: Drill, *, counts: Sequence[int] = (1, 4), steps: int = 100, after: int = 30) -> dict[int, float]:
    """Two processes, stopped and started again as one and as four: the same data, and losses within 1e-5.

    Returns:
      the largest difference of a loss for each count.
    """
    settings = {'steps': steps, 'checkpoint_every': 50}
    alone = drill.run('alone100', processes=2, **settings)
    worst = {}
    for count in counts:
        name = f'as{count}'
        drill.stop_by_notice(name, processes=2, after=after, **settings)
        run = drill.run(name, processes=count, **settings)
        drill_runs.assert_whole_log(run, steps=steps)
        assert drill_runs.batches(run) == drill_runs.batches(alone)
        losses = [np.array([value for _, key, value in drill_runs.logged(one) if key == 'loss']) for one in (run, alone)]
        worst[count] = float(np.abs(losses[0] - losses[1]).max())
        assert worst[count] < 1e-5, worst
    return worst


def frozen(drill: Drill, *, rank: int, limit: float = 15.0, steps: int = 100_000) -> float:
    """One of two processes is frozen: the other ends by itself, and the frozen one too once it thaws.

    Returns:
      how long the other took to end [s].
    """
    from retfound_jax.train.config import WatchdogConfig

    name = f'frozen{rank}'
    started = drill.start(name, processes=2, steps=steps, watchdog=WatchdogConfig(start=120.0, step=limit))
    drill.wait_for_step(name, 5, started)
    os.kill(started[rank].pid, signal.SIGSTOP)
    began = time.monotonic()
    try:
        assert ended([started[1 - rank]], within=4 * limit) == [RESTART]
        spent = time.monotonic() - began
    finally:
        os.kill(started[rank].pid, signal.SIGCONT)
    (code,) = ended([started[rank]], within=4 * limit)
    assert code in (RESTART, -signal.SIGABRT), code  # JAX aborts a process whose coordinator has gone
    return spent


def main() -> None:
    """Runs all drills; ends with an error where one fails."""
    with tempfile.TemporaryDirectory(prefix='hosts-drill-') as folder:
        drill = Drill(Path(folder))
        notice(drill)
        print('2 processes, SIGTERM, 2 processes: bit-identical', flush=True)
        print(f'2 processes started again as 1 and as 4: same data, losses differ by at most {resize(drill)}', flush=True)
        for rank in (1, 0):
            print(f'process {rank} of 2 frozen: the other ended by itself after {frozen(drill, rank=rank):.1f} s', flush=True)


if __name__ == '__main__':
    main()
