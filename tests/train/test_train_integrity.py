"""Silent data corruption: a flipped bit of one device's copy, or of a step's result, is found and named; sound runs are left alone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import many_devices
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from retfound_jax.core.mesh import MeshConfig, make_mesh
from retfound_jax.train.integrity import fingerprint, fingerprints, replicas_differ

CASES = [
    ['the_copy_is_a_copy'],
    ['no_false_alarm', 'data2'],
    ['names_a_copy_that_differs', 'data2'],
    ['names_a_step_that_went_wrong', 'one'],
    ['names_a_step_that_went_wrong', 'data2'],
]
MORE = [
    ['no_false_alarm', 'one'],
    *([check, mesh] for mesh in ('data4', 'zero', 'fsdp', 'all') for check in ('no_false_alarm', 'names_a_copy_that_differs')),
    *(['names_a_step_that_went_wrong', mesh] for mesh in ('data4', 'zero', 'fsdp')),
]


@pytest.fixture(scope='module')
def results():
    return many_devices.results('integrity_cases', CASES, devices=2)


@pytest.mark.parametrize('case', CASES, ids=many_devices.words)
def test_checks_on_devices(results, case):
    assert not results[many_devices.words(case)], results[many_devices.words(case)]


@pytest.fixture(scope='module')
def more_results():
    return many_devices.results('integrity_cases', MORE, devices=4)


@pytest.mark.slow
@pytest.mark.parametrize('case', MORE, ids=many_devices.words)
def test_more_checks_on_devices(more_results, case):
    assert not more_results[many_devices.words(case)], more_results[many_devices.words(case)]


@pytest.mark.slow
def test_every_process_learns_whose_copy_differs():
    count = 2
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        address = f'127.0.0.1:{free.getsockname()[1]}'
    here = Path(__file__).parent
    flags = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count=1'
    environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': flags}
    calls = [[sys.executable, str(here / 'integrity_hosts.py'), address, str(count), str(index)] for index in range(count)]
    started = [
        subprocess.Popen(call, env=environment, cwd=here.parents[1], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for call in calls
    ]
    try:
        done = [process.communicate(timeout=300) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * count, done[0][1][-2000:] + done[1][1][-2000:]
    said = [json.loads(out.splitlines()[-1]) for out, _ in done]
    assert said[0] == said[1] and said[0][0] == ''
    assert said[0][1].startswith('after step 4 of tiny the copies on cpu')
    assert 'of process 0' in said[0][1] and 'of process 1' in said[0][1] and 'last the same at step 2' in said[0][1]


@pytest.mark.parametrize('dtype', [np.float32, np.int32, np.uint8, np.float16, bool, jnp.bfloat16])
@pytest.mark.parametrize('shape', [(), (7,), (1, 5), (2, 3, 4)])
def test_any_change_of_one_value_changes_the_fingerprint(dtype, shape):
    rng, number = np.random.default_rng(0), jax.jit(fingerprint)
    size = np.dtype(dtype).itemsize
    for _ in range(20):
        raw = rng.integers(0, 2 if dtype is bool else 256, (int(np.prod(shape)), size), np.uint8)
        other = raw.copy()
        other[rng.integers(len(raw)), rng.integers(size)] ^= 1 if dtype is bool else rng.integers(1, 256)
        one, changed = (int(number(jnp.asarray(x.reshape(-1).view(dtype).reshape(shape)))) for x in (raw, other))
        assert one != changed


def test_fingerprints_are_those_of_a_second_implementation():
    def mixed(word: int) -> int:  # MurmurHash3's finaliser, from its description
        word = (word ^ (word >> 16)) * 0x85EBCA6B % 2**32
        word = (word ^ (word >> 13)) * 0xC2B2AE35 % 2**32
        return word ^ (word >> 16)

    x = np.random.default_rng(0).standard_normal((4, 3, 2)).astype(np.float32)
    words = x.view(np.uint32).reshape(-1).tolist()
    assert int(fingerprint(jnp.asarray(x))) == sum(mixed((word + place * 0x9E3779B1) % 2**32) for place, word in enumerate(words)) % 2**32


@pytest.mark.parametrize('bit', [0, 30, 31])
def test_a_bit_that_is_stuck_in_many_places_is_seen(bit):
    """Sums with weights miss the sign bit of an even number of values: their changes are multiples of 2^31."""
    rng = np.random.default_rng(bit)
    one = rng.standard_normal(4096).astype(np.float32)
    for count in (2, 4, 1024, 4096):
        other = one.copy()
        other.view(np.uint32)[rng.choice(4096, count, replace=False)] ^= np.uint32(1 << bit)
        assert int(fingerprint(jnp.asarray(one))) != int(fingerprint(jnp.asarray(other)))


def test_values_that_change_places_are_seen():
    one = np.arange(6, dtype=np.float32)
    found = {int(fingerprint(jnp.asarray(x))) for x in (one, one[::-1], np.roll(one, 1), one[[1, 0, 2, 3, 4, 5]])}
    assert len(found) == 4


def test_on_one_device_there_is_nothing_to_compare():
    mesh = make_mesh(MeshConfig(), devices=jax.devices()[:1])
    table = np.asarray(fingerprints((jnp.arange(3.0), jnp.ones(())), specs=(PartitionSpec(), PartitionSpec()), mesh=mesh))
    assert table.shape == (1, 2)
    assert not replicas_differ(table, specs=(PartitionSpec(), PartitionSpec()), mesh=mesh).any()
