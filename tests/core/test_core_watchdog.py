"""A stuck process ends itself with the stacks of its threads and a name; one that works, rests or was itself frozen goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from retfound_jax.core import watchdog
from retfound_jax.core.errors import RESTART
from retfound_jax.core.watchdog import Watchdog

HEAD = """
import multiprocessing, os, signal, sys, threading, time
from pathlib import Path
from retfound_jax.core import watchdog
from retfound_jax.core.watchdog import Watchdog
folder = Path(sys.argv[1])
def stuck_for_ever():
    threading.Event().wait()
"""


def start(body: str, folder: Path, **options: object) -> subprocess.Popen:
    """A Python process that runs the lines; `folder` is theirs."""
    code = HEAD + textwrap.dedent(body)
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, '-c', code, str(folder)], stdout=pipe, stderr=pipe, text=True, **options)


def test_a_stuck_process_ends_with_its_stacks_and_the_name_of_who_is_behind(tmp_path: Path) -> None:
    body = """
        threading.Thread(target=stuck_for_ever, daemon=True).start()
        notes = []
        dog = Watchdog(folder, index=3, who=lambda: 'process 1 (node07) is silent', note=lambda *words: notes.append(words),
                       end=lambda told: print('told:', told, flush=True), tick=0.05)
        with dog.watch('restore', limit=60):
            with dog.watch('train', limit=0.4):
                for step in range(1, 6):
                    dog.beat(step)
                print(notes, flush=True)
                stuck_for_ever()
    """
    begin = time.monotonic()
    out, err = start(body, tmp_path).communicate(timeout=60)
    told = 'train, after step 5: no progress for 0.4 s; process 1 (node07) is silent; the process ends, to be started again'
    assert told in err.splitlines() and f'told: {told}' in out
    assert "('restore', -1), ('train', -1), ('train', 1)" in out
    stacks = (tmp_path / 'stacks-host-00003.txt').read_text()
    assert stacks.count('in stuck_for_ever') == err.count('in stuck_for_ever') == 2 and 'most recent call first' in stacks
    assert time.monotonic() - begin < 20


def test_the_exit_code_is_that_on_which_launchers_start_again(tmp_path: Path) -> None:
    process = start("with Watchdog(None, tick=0.05) as dog, dog.watch('start', limit=0.2): stuck_for_ever()", tmp_path)
    process.communicate(timeout=60)
    assert process.returncode == RESTART and not list(tmp_path.iterdir())


def test_work_rest_and_a_jump_of_the_clock_are_no_reason_to_end(tmp_path: Path) -> None:
    body = """
        real = time.time
        with Watchdog(folder, tick=0.02) as dog:
            with dog.watch('train', limit=1.0):
                for step in range(24):
                    dog.beat(step)
                    time.time = lambda: real() + 1e6 * (-1) ** step
                    time.sleep(0.05)
                with dog.watch('save', limit=60):
                    time.sleep(1.1)
                with dog.watch('off', limit=0):
                    time.sleep(1.1)
                time.sleep(0.1)
            time.sleep(1.1)
    """
    process = start(body, tmp_path)
    assert (*process.communicate(timeout=60), process.returncode) == ('', '', 0)


def test_a_process_that_was_frozen_is_given_its_limit_again(tmp_path: Path) -> None:
    body = """
        with Watchdog(folder, tick=0.05) as dog, dog.watch('train', limit=1.0):
            print('ready', flush=True)
            for step in range(int(sys.stdin.readline())):
                dog.beat(step)
            print('awake', flush=True)
            stuck_for_ever()
    """
    process = start(body, tmp_path, stdin=subprocess.PIPE)
    try:
        assert process.stdout.readline() == 'ready\n'
        process.send_signal(signal.SIGSTOP)
        time.sleep(3.0)  # a time that has to pass, longer than the limit and than what a busy machine makes of a tick
        process.send_signal(signal.SIGCONT)
        process.stdin.write('3\n')
        process.stdin.flush()
        assert process.stdout.readline() == 'awake\n'
        assert process.wait(timeout=30) == RESTART  # and then it is watched as before
        assert 'after step 2' in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


def test_its_workers_end_with_it_and_whoever_cannot_answer_is_left(tmp_path: Path) -> None:
    body = """
        watchdog.ASKING = 0.3
        def work():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            (folder / str(os.getpid())).touch()
            time.sleep(600)
        workers = [multiprocessing.get_context('fork').Process(target=work) for _ in range(2)]
        for worker in workers:
            worker.start()
        while len(list(folder.iterdir())) < 2:
            time.sleep(0.01)
        with Watchdog(folder, who=stuck_for_ever, end=lambda told: 1 / 0, tick=0.05) as dog, dog.watch('train', limit=0.2):
            stuck_for_ever()
    """
    process = start(body, tmp_path)
    _, err = process.communicate(timeout=60)  # returns once nobody holds the pipes, which a process that is ending lets go first
    assert process.returncode == RESTART and 'train: no progress for 0.2 s; the process ends' in err
    pids = [int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()]
    end = time.monotonic() + 10
    while any(is_running(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.01)
    assert len(pids) == 2 and not any(is_running(pid) for pid in pids)


def is_running(pid: int) -> bool:
    """Whether there is such a process, other than one that has ended and waits to be counted."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0] != 'Z'
    except OSError:
        return False


@pytest.mark.parametrize('how', ['no folder', 'no error stream'])
def test_it_ends_where_nothing_can_be_written(tmp_path: Path, how: str) -> None:
    folder = tmp_path / 'gone' if how == 'no folder' else tmp_path
    close = 'os.close(2)' if how == 'no error stream' else ''
    process = start(f"{close}\nwith Watchdog(folder, tick=0.05) as dog, dog.watch('train', limit=0.2): stuck_for_ever()", folder)
    _, err = process.communicate(timeout=60)
    assert process.returncode == RESTART
    assert 'could not be written to' in err if how == 'no folder' else (tmp_path / 'stacks-host-00000.txt').exists()


def test_fifty_watchdogs_leave_nothing(tmp_path: Path) -> None:
    before = threading.active_count(), len(os.listdir('/proc/self/fd'))
    for step in range(50):
        with Watchdog(tmp_path, tick=0.005) as dog, dog.watch('train', limit=5):
            dog.beat(step)
    assert (threading.active_count(), len(os.listdir('/proc/self/fd'))) == before


def test_children_are_those_of_this_process() -> None:
    with subprocess.Popen(['sleep', '60']) as child:
        assert child.pid in watchdog.children()
        child.kill()
    assert child.pid not in watchdog.children()
