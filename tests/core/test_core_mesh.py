"""Sharding rules: letters to mesh axes."""

from __future__ import annotations

import numpy as np
import pytest
from jax.sharding import PartitionSpec

from retfound_jax.core.errors import UsageError
from retfound_jax.core.mesh import MeshConfig, ShardingRules, batch_sharding, make_mesh, param_spec, put_rows, rows_here


class FakeMesh:
    shape = {'data': 2, 'fsdp': 4, 'tensor': 2}


@pytest.mark.parametrize(
    ('letters', 'shape', 'spec'),
    [
        ('DF', (8, 32), ('fsdp', 'tensor')),
        ('FD', (32, 8), ('tensor', 'fsdp')),
        ('DF', (12, 8, 32), (None, 'fsdp', 'tensor')),  # a scanned stack
        ('DF', (6, 32), (None, 'tensor')),  # 6 does not divide by 4
        ('DD', (8, 8), ('fsdp', None)),  # one axis once
        ('D', (8,), ('fsdp',)),
        ('Y', (10,), (None,)),
    ],
)
def test_param_spec(letters, shape, spec):
    assert param_spec(letters, shape, rules=ShardingRules(), mesh=FakeMesh()) == PartitionSpec(*spec)


def test_a_mesh_that_does_not_fit_is_a_sentence():
    with pytest.raises(UsageError, match='does not fit'):
        make_mesh(MeshConfig(data=3, fsdp=5))
    with pytest.raises(UsageError, match='at most one is -1'):
        make_mesh(MeshConfig(data=-1, fsdp=-1))


class Scattered:
    """The batch axis as a host sees it whose devices stand apart in the mesh, two of them with copies (the tensor axis)."""

    def addressable_devices_indices_map(self, shape):
        return {'a': (slice(8, 10),), 'b': (slice(2, 4),), 'c': (slice(8, 10),), 'd': (slice(0, 2),)}


def test_a_host_reads_the_rows_of_its_devices_wherever_they_stand():
    assert rows_here(Scattered(), 16).tolist() == [0, 1, 2, 3, 8, 9]


def test_rows_come_back_from_the_devices_as_they_were():
    place = batch_sharding(make_mesh(MeshConfig()))
    x = np.arange(24).reshape(8, 3)
    assert rows_here(place, 8).tolist() == list(range(8))
    np.testing.assert_array_equal(np.asarray(put_rows(x, place=place, count=8)), x)
