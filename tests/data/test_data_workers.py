"""What decoding leaves behind: nothing, however it ends; and what is said when a worker is killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_sets import records, write_dataset

from retfound_jax.core.errors import UserError
from retfound_jax.data.config import DataConfig
from retfound_jax.data.loader import Loader
from retfound_jax.data.sources import open_source

_DEADLINE = 60.0  # [s]
# A program that uses a loader as `argv[3]` says. Workers read this file too, so that their shared memory has names of this test's own.
_PROGRAM = """
import gc, json, multiprocessing, os, sys, threading, time
from multiprocessing import shared_memory
from pathlib import Path
from absl import flags
from retfound_jax.data.config import DataConfig
from retfound_jax.data.loader import Loader
from retfound_jax.data.sources import open_source

shared_memory._SHM_NAME_PREFIX = '/' + os.environ['TEST_SHM_PREFIX']

def started(workers, **options):
    config = DataConfig(path=sys.argv[1], image_size=32, batch_size=8, workers=workers, **options)
    loader = Loader(config, open_source(config), seed=0)
    next(loader)
    return loader

def left():
    gc.collect()
    shared = len(list(Path('/dev/shm').glob(os.environ['TEST_SHM_PREFIX'] + '*')))
    handles = len(list(Path('/proc/self/fd').iterdir()))
    return [len(multiprocessing.active_children()), threading.active_count(), handles, shared]

def settled(limit):
    end = time.monotonic() + 60
    while any(now > most for now, most in zip(left(), limit)) and time.monotonic() < end:
        time.sleep(0.05)
    return left()

def cycle(number):
    loader = started(2 * (number % 2))
    if number % 4 < 2:
        loader.close()
        return
    try:
        for batch in loader:
            raise KeyError('as a step could')
    except KeyError:
        pass  # the loader is dropped, not closed

if __name__ == '__main__':
    flags.FLAGS.mark_as_parsed()
    workers, what = int(sys.argv[2]), sys.argv[3]
    if what == 'cycles':
        cycle(0)
        cycle(1)
        before = settled([0, 1000, 1000, 0])
        for number in range(int(sys.argv[4])):
            cycle(number)
        print(json.dumps([before, settled(before)]))
    else:
        loader = started(workers)
        print(json.dumps([child.pid for child in multiprocessing.active_children()]), flush=True)
        while what == 'decode':
            next(loader)
        if what == 'wait':
            time.sleep(600)
        if what == 'fail':
            raise KeyError('as a step could')
"""


@pytest.fixture(scope='module')
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """23 small images."""
    return write_dataset(tmp_path_factory.mktemp('data') / 'eyes', {'train': records(23, size=64)})


class Program:
    """A started program and the names that its shared memory has."""

    def __init__(self, folder: Path, dataset: Path, *words: object) -> None:
        self.prefix = 'rf' + secrets.token_hex(2)
        (folder / 'program.py').write_text(_PROGRAM, encoding='utf-8')
        environ = {**os.environ, 'TEST_SHM_PREFIX': self.prefix}
        command = [sys.executable, str(folder / 'program.py'), str(dataset), *map(str, words)]
        self.process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def shared(self) -> list[str]:
        """Names of its shared memory that is there."""
        return [path.name for path in Path('/dev/shm').glob(f'{self.prefix}*')]

    def children(self) -> list[int]:
        """Processes that it started, by their id."""
        tasks = Path(f'/proc/{self.process.pid}/task').glob('*/children')
        return [int(word) for task in tasks for word in task.read_text().split()]


def until(holds: Callable[[], bool]) -> bool:
    """Whether it holds before the deadline."""
    end = time.monotonic() + _DEADLINE
    while not holds() and time.monotonic() < end:
        time.sleep(0.02)
    return holds()


def gone(pid: int) -> bool:
    """Whether no process has that id, or one that has ended and is not yet asked for."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] == 'Z'
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize('what', ['wait', 'decode'])
def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path, dataset: Path, what: str) -> None:
    program = Program(tmp_path, dataset, 2, what)
    workers = json.loads(program.process.stdout.readline())
    children = program.children()  # the one that keeps the books of shared memory is among them
    assert len(workers) == 2 and set(workers) <= set(children) and len(children) == 3
    program.process.kill()
    program.process.wait()
    assert until(lambda: all(map(gone, children))), [pid for pid in children if not gone(pid)]
    assert until(lambda: not program.shared())


@pytest.mark.parametrize(
    ('workers', 'what', 'code'),
    [
        (0, 'exit', 0),
        (2, 'fail', 1),
        pytest.param(0, 'fail', 1, marks=pytest.mark.slow),
        pytest.param(2, 'exit', 0, marks=pytest.mark.slow),
    ],
)
def test_a_program_that_closes_nothing_ends_and_leaves_nothing(
    tmp_path: Path, dataset: Path, workers: int, what: str, code: int
) -> None:
    program = Program(tmp_path, dataset, workers, what)
    out, err = program.process.communicate(timeout=_DEADLINE)
    assert program.process.returncode == code, err
    assert until(lambda: all(map(gone, json.loads(out.splitlines()[0]))))
    assert until(lambda: not program.shared())


@pytest.mark.parametrize('count', [5, pytest.param(50, marks=pytest.mark.slow)])
def test_nothing_is_left_after_many_starts_and_stops(tmp_path: Path, dataset: Path, count: int) -> None:
    program = Program(tmp_path, dataset, 0, 'cycles', count)
    out, err = program.process.communicate(timeout=_DEADLINE * 10)
    assert program.process.returncode == 0, err
    before, after = json.loads(out.splitlines()[-1])
    assert before[0] == before[3] == 0
    assert all(now <= then for now, then in zip(after, before, strict=True)), f'processes, threads, handles, memory: {before}, {after}'
    assert not program.shared()


def test_workers_leave_signals_to_their_parent_and_one_that_is_killed_is_told_in_a_sentence(dataset: Path) -> None:
    configs = [DataConfig(path=str(dataset), image_size=32, batch_size=8, workers=workers) for workers in (0, 2)]
    plain, loader = (Loader(config, open_source(config), seed=0) for config in configs)
    batches = [next(loader), next(loader)]  # one of each worker: both have begun, and before that they do not yet leave signals alone
    workers = multiprocessing.active_children()
    for worker in workers:
        for given in (signal.SIGTERM, signal.SIGINT):
            os.kill(worker.pid, given)
    batches += [next(loader) for _ in range(9)]
    assert all((batch['image'] == next(plain)['image']).all() for batch in batches)
    os.kill(workers[1].pid, signal.SIGKILL)
    with pytest.raises(UserError, match=r'that decodes images ended by itself \(SIGKILL\), most often for want of memory; ') as told:
        for _ in range(100):
            next(loader)
    assert '\n' not in str(told.value)
    assert until(lambda: not any(worker.is_alive() for worker in workers))
    following = loader.step
    assert (next(loader)['index'] == np.stack([next(plain)['index'] for _ in range(following - 10)])[-1]).all()  # it may be tried again
    loader.close()
    plain.close()
