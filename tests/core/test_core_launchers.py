"""Flags and the environments of launchers say which process of how many this is, or one sentence says what is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retfound_jax.core.errors import UsageError
from retfound_jax.core.launchers import Start, find, hosts_of

SLURM = {'SLURM_JOB_ID': '4242', 'SLURM_NTASKS': '4', 'SLURM_STEP_NUM_TASKS': '4', 'SLURM_PROCID': '2', 'SLURM_LOCALID': '0'}
OURS = {'RETFOUND_COORDINATOR': 'run-0.run:8476', 'RETFOUND_PROCESS_ID': '3', 'RETFOUND_NUM_PROCESSES': '8'}
TPU = {'TPU_WORKER_ID': '1', 'TPU_WORKER_HOSTNAMES': 'a.run,b.run,c.run,d.run'}


# The expansions are those of `scontrol show hostnames` in SLURM's manual, and of python-hostlist 2.3.0.
@pytest.mark.parametrize(
    ('text', 'hosts'),
    [
        ('node001', 'node001'),
        ('node001,gpu-2.site', 'node001 gpu-2.site'),
        ('tux[1-3,5]', 'tux1 tux2 tux3 tux5'),
        ('lx[15,18,32-33]', 'lx15 lx18 lx32 lx33'),
        ('node[08-11]', 'node08 node09 node10 node11'),
        ('node[098-101]', 'node098 node099 node100 node101'),
        ('rack[1-2]n[01-02]', 'rack1n01 rack1n02 rack2n01 rack2n02'),
        ('n[1-2]-ib,login', 'n1-ib n2-ib login'),
        ('a[1-2],b[7]', 'a1 a2 b7'),
    ],
)
def test_a_list_of_hosts_is_expanded_as_slurm_does(text: str, hosts: str) -> None:
    assert list(hosts_of(text)) == hosts.split()


RANGES = st.tuples(st.integers(0, 300), st.integers(0, 12), st.integers(1, 5))
WORDS = st.tuples(st.sampled_from(['node', 'gpu-a', 'x.y']), st.lists(RANGES, max_size=3), st.sampled_from(['', '-ib']))


@given(st.lists(WORDS, min_size=1, max_size=4))
def test_a_list_of_hosts_says_what_it_was_made_from(words: list) -> None:
    texts, hosts = [], []
    for prefix, ranges, suffix in words:
        pieces = [f'{first:0{width}d}-{first + more:0{width}d}' if more else f'{first:0{width}d}' for first, more, width in ranges]
        texts.append(f'{prefix}[{",".join(pieces)}]{suffix}' if pieces else f'{prefix}{suffix}')
        numbers = [str(first + k).rjust(width, '0') for first, more, width in ranges for k in range(more + 1)]
        hosts += [f'{prefix}{number}{suffix}' for number in numbers] if pieces else [f'{prefix}{suffix}']
    assert list(hosts_of(','.join(texts))) == hosts


@pytest.mark.parametrize(
    'text', ['', 'node[1-3', 'node[3-1]', 'node[a-b]', 'node[]', 'a b', 'node[1-999999999]', 'n[1-9999]m[1-9999]', '$(id)']
)
def test_what_is_no_list_of_hosts_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        list(hosts_of(text))


@given(st.text(st.sampled_from('n0123[],-. '), max_size=24))
def test_any_text_is_a_list_of_hosts_or_an_error(text: str) -> None:
    try:
        assert all(isinstance(host, str) for host in hosts_of(text))
    except UsageError:
        pass


@pytest.mark.parametrize(
    ('environ', 'found'),
    [
        ({}, None),
        ({**SLURM, 'SLURM_STEP_NODELIST': 'n[07-10]'}, ('n07', 2, 4, 'SLURM')),
        ({**SLURM, 'SLURM_STEP_NODELIST': 'n7', 'SLURM_STEP_NUM_TASKS': '1'}, None),  # one task of a job that has room for four
        ({'SLURM_JOB_ID': '1', 'SLURM_NTASKS': '1', 'SLURM_PROCID': '0'}, None),
        (OURS, ('run-0.run:8476', 3, 8, 'environment')),
        ({**OURS, 'RETFOUND_PROCESS_ID': '', 'JOB_COMPLETION_INDEX': '5'}, ('run-0.run:8476', 5, 8, 'environment')),
        (
            {**OURS, 'RETFOUND_PROCESS_ID': '', 'JOB_COMPLETION_INDEX': '1', 'JOB_INDEX': '1', 'RETFOUND_PROCESSES_PER_JOB': '4'},
            ('run-0.run:8476', 5, 8, 'environment'),
        ),
        ({**OURS, **SLURM, 'SLURM_STEP_NODELIST': 'n7'}, ('run-0.run:8476', 3, 8, 'environment')),
        ({'JOB_COMPLETION_INDEX': '5'}, None),  # one of an array of runs of their own
        (TPU, ('a.run:8476', 1, 4, 'Cloud TPU')),
        ({'TPU_WORKER_ID': '0', 'TPU_WORKER_HOSTNAMES': 'localhost'}, None),
        (
            {**TPU, 'MEGASCALE_NUM_SLICES': '2', 'MEGASCALE_SLICE_ID': '1', 'MEGASCALE_COORDINATOR_ADDRESS': 'z.run:8080'},
            ('z.run:8476', 5, 8, 'Cloud TPU'),
        ),
    ],
)
def test_an_environment_says_which_process_this_is(environ: Mapping[str, str], found: tuple | None) -> None:
    start = find(environ=environ)
    if found is None:
        assert start is None
        return
    assert start is not None and start.coordinator.startswith(found[0])
    assert (start.index, start.count, start.origin) == found[1:]


def test_flags_win_over_the_environment_and_the_coordinator_alone_replaces_the_address() -> None:
    slurm = {**SLURM, 'SLURM_STEP_NODELIST': 'n[07-10]'}
    wanted = Start(coordinator='here:1', index=0, count=2, origin='flags')
    assert find(coordinator='here:1', process_id=0, num_processes=2, environ=slurm) == wanted
    assert find(coordinator='here:1', environ=slurm) == Start(coordinator='here:1', index=2, count=4, origin='SLURM')
    mpi = {'OMPI_COMM_WORLD_SIZE': '3', 'OMPI_COMM_WORLD_RANK': '1'}
    assert find(coordinator='here:1', environ=mpi) == Start(coordinator='here:1', index=1, count=3, origin='Open MPI')


@pytest.mark.parametrize(
    ('environ', 'device'),
    [
        ({'SLURM_STEP_NUM_NODES': '4', 'SLURM_LOCALID': '0', 'CUDA_VISIBLE_DEVICES': '0,1,2,3'}, None),  # a task a node, all its GPUs
        ({'SLURM_STEP_NUM_NODES': '2', 'SLURM_LOCALID': '1', 'CUDA_VISIBLE_DEVICES': '0,1'}, 1),  # two tasks a node see both GPUs
        ({'SLURM_STEP_NUM_NODES': '2', 'SLURM_LOCALID': '1', 'CUDA_VISIBLE_DEVICES': '1'}, None),  # SLURM gave each task its own
        ({'SLURM_STEP_NUM_NODES': '2', 'SLURM_LOCALID': '1'}, None),  # no GPUs
    ],
)
def test_tasks_that_share_a_node_share_its_devices(environ: Mapping[str, str], device: int | None) -> None:
    start = find(environ={**SLURM, 'SLURM_STEP_NODELIST': 'n[1-4]', **environ})
    assert start is not None and start.device == device


def test_two_steps_of_a_slurm_job_have_two_ports() -> None:
    steps = [find(environ={**SLURM, 'SLURM_STEP_NODELIST': 'n1', 'SLURM_STEP_ID': str(step)}) for step in range(3)]
    ports = {int(step.coordinator.rsplit(':', 1)[1]) for step in steps if step}
    assert len(ports) == 3 and all(61440 <= port < 65536 for port in ports)


@pytest.mark.parametrize(
    ('flags', 'environ', 'words'),
    [
        ({'process_id': 1}, {}, ['--process_id', 'without --coordinator']),
        ({'coordinator': 'a:1'}, {}, ['--coordinator without --process_id']),
        ({'coordinator': 'a:1', 'process_id': 2, 'num_processes': 2}, {}, ['--process_id is 2', '0 to 1']),
        ({'coordinator': 'a:1', 'process_id': -1, 'num_processes': 2}, {}, ['--process_id is "-1"']),
        ({'coordinator': 'a:1', 'process_id': 0, 'num_processes': 0}, {}, ['--num_processes is 0']),
        ({}, {'SLURM_JOB_ID': '1', 'SLURM_NTASKS': '4'}, ['SLURM gives 4 tasks', 'SLURM_PROCID', 'srun']),
        ({}, {'SLURM_JOB_ID': '1', 'SLURM_NTASKS': '4', 'SLURM_PROCID': '0'}, ['SLURM_STEP_NODELIST', 'srun']),
        ({}, {'SLURM_JOB_ID': '1', 'SLURM_NTASKS': 'four'}, ['SLURM_NTASKS is "four"']),
        ({}, {**SLURM, 'SLURM_STEP_NODELIST': 'n[1-'}, ['list of hosts']),
        ({}, {'RETFOUND_PROCESS_ID': '1'}, ['RETFOUND_PROCESS_ID without RETFOUND_COORDINATOR']),
        ({}, {**OURS, 'RETFOUND_PROCESS_ID': '8'}, ['RETFOUND_PROCESS_ID is 8', '0 to 7']),
        ({}, {**OURS, 'RETFOUND_PROCESS_ID': '', 'JOB_COMPLETION_INDEX': '0', 'JOB_INDEX': '2'}, ['RETFOUND_PROCESSES_PER_JOB']),
        ({}, {'OMPI_COMM_WORLD_SIZE': '4', 'OMPI_COMM_WORLD_RANK': '0'}, ['--coordinator']),
        ({}, {'TPU_WORKER_HOSTNAMES': 'a,b'}, ['TPU_WORKER_ID']),
        ({}, {**TPU, 'MEGASCALE_NUM_SLICES': '2'}, ['MEGASCALE_COORDINATOR_ADDRESS']),
    ],
)
def test_half_a_setting_is_told_in_one_sentence(flags: dict, environ: Mapping[str, str], words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        find(**flags, environ=environ)
    assert all(word in str(caught.value) for word in words) and '\n' not in str(caught.value)


def test_jax_reads_the_same_from_slurm() -> None:
    """`auto` is JAX's own detection, written by others; it knows SLURM too, so that both can be asked the same."""
    code = (
        'import dataclasses, json; from retfound_jax.core.launchers import find; '
        'print(json.dumps([dataclasses.asdict(find(coordinator=name)) for name in ("auto", "")]))'
    )
    environ = {**os.environ, **SLURM, 'SLURM_STEP_NODELIST': 'n[07-10],m3', 'JAX_PLATFORMS': 'cpu'}
    done = subprocess.run([sys.executable, '-c', code], env=environ, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    theirs, ours = json.loads(done.stdout.splitlines()[-1])
    assert theirs['origin'] == 'JAX'
    for start in (theirs, ours):
        start['coordinator'] = start['coordinator'].rsplit(':', 1)[0]
        del start['origin']
    assert theirs == ours
