"""Nothing is left behind by a run: processes, threads, file handles and shared memory are counted over many starts and stops.

`python -m tests.drills.cycles --n 50`
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import sys
import tempfile
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import drill_runs  # noqa: E402 - found beside this file, by the children as well

# Of TensorStore's pool, one for the process, which takes on a worker where there is more to do at a time than before.
_POOL = 'ts_pool_worker'


def count(folder: Path) -> dict[str, int]:
    """What this process holds: children, threads, open files, and segments of shared memory of this user."""
    from retfound_jax.core.watchdog import children

    gc.collect()
    shared = [path for path in Path('/dev/shm').glob('*') if path.stat().st_uid == os.getuid()] if Path('/dev/shm').is_dir() else []
    return {
        'children': len(children()),
        'threads': sum(_name(thread) != _POOL for thread in Path('/proc/self/task').iterdir()),
        'Python threads': threading.active_count(),
        'files': len(os.listdir('/proc/self/fd')),
        'files of the runs': sum(str(folder) in os.path.realpath(f'/proc/self/fd/{name}') for name in os.listdir('/proc/self/fd')),
        'shared memory': len(shared),
    }


def _name(thread: Path) -> str:
    with contextlib.suppress(OSError):  # it has ended meanwhile
        return (thread / 'comm').read_text().strip()
    return _POOL


def drill(folder: Path, *, cycles: int, workers: int) -> tuple[dict[str, int], dict[str, int]]:
    """Trains, stops and goes on, again and again, in this process; every third run ends by a notice, every fifth by an error.

    Returns:
      what was held after the third cycle, by when libraries have made what they keep, and after the last one.
    """
    from retfound_jax.core.errors import Preempted, UserError
    from retfound_jax.train.loop import train

    data = drill_runs.dataset(folder / 'dataset')
    early: dict[str, int] = {}
    for cycle in range(cycles):
        config = drill_runs.config(data, steps=4, checkpoint_every=2, eval_every=-1)
        config = _with(config, workers=workers, learning_rate=1e30 if cycle % 5 == 4 else 1e-3)
        notice = (lambda: 'a drill') if cycle % 3 == 2 else str
        try:
            train(config, workdir=folder / f'run{cycle}', notice=notice)
            assert cycle % 3 != 2 and cycle % 5 != 4, 'a run that should have been stopped went on'
        except Preempted:
            assert cycle % 3 == 2
        except UserError:
            assert cycle % 5 == 4
        if cycle == 2:
            early = count(folder)
    return early, count(folder)


def _with(config: object, *, workers: int, learning_rate: float) -> object:
    import dataclasses

    data = dataclasses.replace(config.data, workers=workers)
    return dataclasses.replace(config, data=data, optim=dataclasses.replace(config.optim, lr=learning_rate))


def main() -> None:
    """Prints what was held early and late, with decoding in threads and in two processes."""
    from absl import flags, logging

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--n', type=int, default=50, help='cycles')
    values = parser.parse_args()
    flags.FLAGS.mark_as_parsed()  # for Grain
    logging.set_verbosity(logging.ERROR)
    os.environ.setdefault('JAX_PLATFORMS', 'cpu')
    with tempfile.TemporaryDirectory(prefix='cycles-drill-') as folder:
        drill_runs.use_cache(f'{folder}/cache')
        for workers in (0, 2):
            early, late = drill(Path(folder) / str(workers), cycles=values.n, workers=workers)
            print(f'{workers} workers, {values.n} cycles: after 3 {early}, at the end {late}', flush=True)
            assert all(late[name] <= early[name] for name in early), 'something is left behind'


if __name__ == '__main__':
    main()
