"""Sharding rules: letters to mesh axes."""

from __future__ import annotations

import pytest
from jax.sharding import PartitionSpec

from retfound_jax.core.errors import UsageError
from retfound_jax.core.mesh import MeshConfig, ShardingRules, make_mesh, param_spec


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
