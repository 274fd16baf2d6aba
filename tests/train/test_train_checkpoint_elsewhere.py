"""A checkpoint goes on elsewhere: on other devices, on another mesh, in other processes, after a kill; and a disk that is not shared."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import checkpoint_programs
import pytest
from tiny_states import abstract, assert_same, tiny

from retfound_jax.train.config import Keep
from retfound_jax.train.saves import Checkpoints

PROGRAMS = Path(checkpoint_programs.__file__)


def start(*arguments: object, devices: int = 1) -> subprocess.Popen:
    flags = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count={devices}'
    environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': flags}
    call = [sys.executable, str(PROGRAMS), *map(str, arguments)]
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    return subprocess.Popen(call, env=environment, cwd=PROGRAMS.parents[2], **pipes)


def answers(*arguments: object, devices: int = 1) -> list[dict]:
    done = start(*arguments, devices=devices)
    out, errors = done.communicate(timeout=300)
    assert done.returncode == 0, errors[-2000:]
    return [json.loads(line) for line in out.splitlines() if line.startswith('{')]


SOME, ALL = 'one,data4zero,fsdp2,data2tensor2', 'one,data2,data4,data4zero,fsdp2,fsdp4,data2tensor2,fsdp2tensor2'


@pytest.mark.parametrize('targets', [SOME, pytest.param(ALL, marks=pytest.mark.slow)], ids=['some', 'all'])
def test_saved_on_one_two_and_four_devices_restored_on_any_mesh_bit_by_bit_onto_our_shardings(tmp_path, capsys, targets):
    checkpoint_programs.meshes(str(tmp_path), 'one', 'one')  # in this process, which has one device
    found = answers('meshes', tmp_path, 'data2,data4zero,fsdp2tensor2', targets, devices=4)
    names = set(targets.split(','))
    assert len(found) == 4 * len(names) and {row['step'] for row in found} == {1, 2, 3, 4}
    assert [row for row in found if not (row['same'] and row['ours'])] == []
    assert {row['onto'] for row in found if row['split']} == names - {'one', 'data2', 'data4'}
    checkpoint_programs.meshes(str(tmp_path), 'one', 'one')  # and from four devices back to one
    here = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith('{')]
    assert len(here) == 1 + 5 and all(row['same'] and row['ours'] for row in here)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def together(shared: Path, *, count: int) -> list[dict]:
    """What each of several processes said."""
    port = free_port()
    own = [shared.parent / f'own{index}' for index in range(count)]
    for folder in (shared, *own):
        folder.mkdir(exist_ok=True)
    running = [start('processes', index, count, port, shared, own[index]) for index in range(count)]
    told = []
    try:
        for process in running:
            out, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors[-3000:]
            told += [json.loads(line) for line in out.splitlines() if line.startswith('{')]
    finally:
        for process in running:
            process.kill()
    return told


@pytest.mark.parametrize('count', [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_decide_alike_name_a_disk_that_is_not_shared_and_one_process_goes_on(tmp_path, count):
    told = together(tmp_path / 'run', count=count)
    assert len(told) == count
    for item in told:
        assert 'is not one place for all' in item['own'] and 'process 0 wrote' in item['own']
        assert all(str(rank) in item['own'] for rank in range(1, count))
        assert item['first'] is None and item['then'] == 1 and item['data'] == {'step': 1} and item['same']
        assert item['aside'] == told[0]['aside'] and 'checkpoint 2 is damaged' in item['aside'][0]
    assert sorted(path.name for path in (tmp_path / 'run' / 'checkpoints' / 'set_aside').iterdir()) == ['2-damaged']
    assert not list((tmp_path / 'run').glob('.seen-*'))
    with Checkpoints(tmp_path / 'run', keep=Keep(last=3)) as checkpoints:  # one process, one device
        assert checkpoints.latest == 2
        for step in (1, 2):
            assert_same(checkpoints.restore(step, like=abstract(tiny(0)))[0], tiny(step))


def test_a_process_that_cannot_write_its_part_says_so_while_the_others_wait_for_it(tmp_path):
    port = free_port()
    running = [start('fails', index, 2, port, tmp_path) for index in range(2)]
    try:
        out, errors = running[1].communicate(timeout=120)
        (told,) = (json.loads(line) for line in out.splitlines() if line.startswith('{'))
    finally:
        for process in running:
            process.kill()
            process.communicate()
    assert told['said'].startswith('checkpoint 1 could not be written') and 'a file would be larger' in told['said'], errors
    assert told['after'] < 30
    with Checkpoints(tmp_path, say=lambda text: None) as checkpoints:
        assert checkpoints.latest is None and 'its save was never finished' in checkpoints.set_aside[0]


@pytest.mark.parametrize('kills', [3, pytest.param(30, marks=pytest.mark.slow)])
def test_after_a_kill_during_a_save_the_newest_whole_step_is_there_bit_by_bit(tmp_path, kills):
    rng, last = random.Random(7), 0
    for _ in range(kills):
        child = start('kill', tmp_path)
        told = int(child.stdout.readline())  # it saves without a pause from here on
        time.sleep(rng.uniform(0, 0.4))  # the moment of the kill, not a wait for something
        os.kill(child.pid, signal.SIGKILL)
        out, _ = child.communicate()
        told = max([told, *(int(line) for line in out.splitlines() if line)])
        said: list[str] = []
        with Checkpoints(tmp_path, keep=Keep(last=2, best=0), say=said.append) as checkpoints:
            found = checkpoints.latest
            assert found in (told, told + 1) and found > last
            assert all('its save was never finished' in text for text in said)
            state, data = checkpoints.restore(found, like=abstract(tiny(0, side=200)))
        assert_same(state, tiny(found, side=200))
        assert data == {'step': found}
        last = found
