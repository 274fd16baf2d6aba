"""Two and four real processes over gloo: they agree, wait, name whoever is missing, and all end when one is frozen, stuck or gone."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retfound_jax.core import hosts
from retfound_jax.core.errors import RESTART

PROGRAMS = Path(__file__).with_name('hosts_programs.py')
PATIENCE = 120.0  # [s] for what takes a few seconds on a quiet machine


class Process:
    """One process of a run."""

    def __init__(self, program: str, index: int, count: int, port: int, folder: Path, options: dict[str, Any]) -> None:
        # One device each: two processes with eight are slower and show no more.
        flags = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count=1'
        environ = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': flags, 'PYTHONPATH': str(PROGRAMS.parent.parent.parent)}
        self._errors = folder / f'errors-{index}.txt'
        with open(self._errors, 'w') as errors:
            command = [sys.executable, str(PROGRAMS), program, str(index), str(count), str(port), json.dumps(options)]
            self._process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=errors, text=True)

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def wait_for(self, event: str, **values: object) -> dict[str, Any]:
        """The next line about that event with those values; lines before it are dropped."""
        for line in self._process.stdout:
            with contextlib.suppress(json.JSONDecodeError):  # gloo says something on the output too
                said = json.loads(line)
                if said['event'] == event and all(said[name] == value for name, value in values.items()):
                    return said
        raise AssertionError(f'ended without saying {event}: {self.errors()}')

    def send(self, number: signal.Signals) -> None:
        """Sends a signal."""
        self._process.send_signal(number)

    def end(self, *, within: float = PATIENCE) -> int:
        """The exit code; fails where it takes longer."""
        try:
            return self._process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f'still running after {within} s: {self.errors()}') from None

    def rest(self) -> str:
        """What it has said and nobody has read, once it has ended."""
        return self._process.stdout.read()

    def errors(self) -> str:
        """What it has said on its error stream."""
        return self._errors.read_text()

    def close(self) -> None:
        """Ends it, if it has not ended."""
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def run(program: str, count: int, errors: Path, *, only: tuple[int, ...] | None = None, **options: Any) -> Iterator[list[Process]]:
    """Processes of a run, all of them or `only` some, that are gone afterwards."""
    with socket.create_server(('127.0.0.1', 0)) as server:
        port = server.getsockname()[1]
    processes = [Process(program, index, count, port, errors, options) for index in (range(count) if only is None else only)]
    try:
        yield processes
    finally:
        for process in processes:
            process.close()


@pytest.mark.parametrize('count', [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_agree_wait_and_tell_each_other(tmp_path: Path, count: int) -> None:
    with run('talk', count, tmp_path) as processes:
        for index, process in enumerate(processes):
            said = process.wait_for('talked')
            assert (said['index'], said['count'], said['first'], said['early']) == (index, count, index == 0, False)
            assert said['told'] == [f'from {rank}' for rank in range(count)]
            assert said['again'] == [f'again {rank}' for rank in range(count)]
            assert said['heard'] == ['0 says 0', '0 says 1']
            assert said['agreed'] == [0, 5, count - 1]
            assert said['total'] == sum(10**rank for rank in range(count))
            assert said['behind'] == ''
            assert process.wait_for('stopped')['index'] == index  # a process keeps its number to the end
        assert [process.end() for process in processes] == [0] * count


def test_a_process_that_does_not_come_to_a_barrier_is_named(tmp_path: Path) -> None:
    with run('late', 2, tmp_path, absent=1) as processes:
        said = processes[0].wait_for('missing')
        assert said['ranks'] == [1] and 1.0 <= said['seconds'] < 20
        name = f'process 1 ({socket.gethostname()}, pid {processes[1].pid})'
        assert said['sentence'].startswith(f'{name} did not come to "restore" within 1 s')
        assert [process.end() for process in processes] == [0, 0]


@pytest.mark.slow
def test_a_process_that_never_starts_is_named_by_the_others(tmp_path: Path) -> None:
    with run('only_start', 3, tmp_path, only=(0, 2), timeout=4.0) as processes:
        for process in processes:
            said = process.wait_for('failed')
            assert said['kind'] == 'MissingHosts' and 'process 1 did not start within 4 s' in said['sentence']
            assert said['seconds'] < 20
        assert [process.end() for process in processes] == [0, 0]


def check_frozen(folder: Path, *, count: int, frozen: int, limit: float = 3.0, silence: float = 60.0) -> None:
    """One process is frozen: the others end by themselves and name it, and it ends too once it is woken."""
    (folder / 'run').mkdir()
    with run('steps', count, folder, folder=str(folder / 'run'), limit=limit, silence=silence) as processes:
        processes[frozen].wait_for('step', step=5)
        processes[frozen].send(signal.SIGSTOP)
        begin = time.monotonic()
        others = [process for index, process in enumerate(processes) if index != frozen]
        assert [process.end() for process in others] == [RESTART] * (count - 1)
        # The limit, then two questions of at most 3 s to a process 0 that may be the frozen one, and room for a busy machine.
        assert time.monotonic() - begin < (limit or silence) + 20
        for process in others:
            said = process.errors() + process.rest()  # of the watchdog or, where another one's was earlier, of a step that has lost a peer
            assert f'process {frozen} ({socket.gethostname()}, pid {processes[frozen].pid})' in said
        processes[frozen].send(signal.SIGCONT)
        # It finds the others gone: an exception in its step or, where process 0 is gone, JAX's abort. Launchers take both for a restart.
        assert processes[frozen].end() in (RESTART, -signal.SIGABRT)
    if limit:
        for index in set(range(count)) - {frozen}:
            assert 'in steps' in (folder / f'run/stacks-host-{index:05d}.txt').read_text()


def test_when_a_process_is_frozen_the_other_ends_and_names_it(tmp_path: Path) -> None:
    check_frozen(tmp_path, count=2, frozen=1)


@pytest.mark.slow
@pytest.mark.parametrize(('count', 'frozen'), [(2, 0), (4, 0), (4, 1), (4, 3)])
def test_when_any_process_is_frozen_all_others_end_and_name_it(tmp_path: Path, count: int, frozen: int) -> None:
    check_frozen(tmp_path, count=count, frozen=frozen)


@pytest.mark.slow
@pytest.mark.parametrize('frozen', [0, 1])
def test_without_a_limit_a_silent_process_is_given_up_all_the_same(tmp_path: Path, frozen: int) -> None:
    check_frozen(tmp_path, count=3, frozen=frozen, limit=0.0, silence=6.0)


@pytest.mark.slow
@pytest.mark.parametrize('killed', [0, 1])
def test_when_a_process_is_killed_the_others_end_at_once(tmp_path: Path, killed: int) -> None:
    with run('steps', 3, tmp_path, folder=str(tmp_path), limit=100.0) as processes:
        processes[killed].wait_for('step', step=5)
        processes[killed].send(signal.SIGKILL)
        others = [process for index, process in enumerate(processes) if index != killed]
        codes = [process.end(within=30) for process in others]
        if killed == 0:  # JAX aborts whoever loses its coordinator, and says so; nothing of ours is faster
            assert set(codes) <= {RESTART, -signal.SIGABRT}
            assert all('distributed service detected fatal errors' in process.errors() or code == RESTART
                       for code, process in zip(codes, others, strict=True))  # fmt: skip
        else:
            assert codes == [RESTART, RESTART]
            for process in others:
                said = process.wait_for('error')
                assert said['lost'] and said['kind'] == 'Preempted'
                assert f'process 1 ({socket.gethostname()}, pid {processes[1].pid}) is silent' in said['sentence']


@pytest.mark.slow
def test_a_process_that_ends_for_good_ends_all_for_good_with_its_reason(tmp_path: Path) -> None:
    with run('steps', 3, tmp_path, folder=str(tmp_path), limit=100.0, act='leave') as processes:
        assert [process.end() for process in processes] == [1, 1, 1]
        for process in (processes[0], processes[2]):
            said = process.wait_for('error')
            assert said['kind'] == 'UserError' and said['sentence'].endswith('ended: the disk is full')


@pytest.mark.slow
def test_a_process_that_lives_but_does_nothing_is_named_with_what_it_does(tmp_path: Path) -> None:
    with run('steps', 3, tmp_path, folder=str(tmp_path), limit=3.0, act='sleep') as processes:
        assert [process.end() for process in processes] == [RESTART] * 3
        for process in processes:
            said = process.errors() + process.rest()
            assert 'is at "data" of step 5 while others are at "train" of step 5' in said.replace('\\', '')


@pytest.mark.slow
def test_a_process_that_does_not_come_to_the_end_is_named_and_nobody_is_aborted(tmp_path: Path) -> None:
    with run('leave_early', 2, tmp_path, stays=0) as processes:
        said = processes[1].wait_for('missing')
        assert said['ranks'] == [0] and 'did not come to "the end" within 1 s' in said['sentence']
        assert [process.end() for process in processes] == [RESTART, RESTART]
        assert f'process 1 ({socket.gethostname()}, pid {processes[1].pid}) ended: process 0' in processes[0].errors()
        assert not any('fatal errors' in process.errors() for process in processes)


def test_a_process_that_has_looked_for_devices_cannot_join(tmp_path: Path) -> None:
    with run('devices_first', 2, tmp_path, only=(0,)) as (process,):
        assert process.wait_for('failed')['sentence'].startswith('JAX looked for devices before this process joined the others')


def test_one_process_waits_for_nobody_and_runs_no_program() -> None:
    hosts.start(None, timeout=1.0)
    hosts.start(hosts.Start(coordinator='nowhere:1', index=0, count=1, origin='flags'), timeout=1.0)
    assert (hosts.index(), hosts.count(), hosts.is_first()) == (0, 1, True)
    hosts.barrier('any', timeout=0.0)
    assert hosts.everyone('any', 'mine', timeout=0.0) == ['mine'] and hosts.broadcast('text', name='any', timeout=0.0) == 'text'
    assert int(hosts.agree(7)) == 7
    assert not hosts.lost_peer(ValueError('Gloo all-reduce failed: Connection closed by peer'))  # there is none
    hosts.note('train', 3)
    assert hosts.behind() == ''
    hosts.farewell('over')
    hosts.stop()
