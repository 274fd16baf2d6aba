"""Configuration: round trips, typed overrides, and errors that name the nearest valid thing."""

from __future__ import annotations

import dataclasses
import json
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retfound_jax.core import config as config_lib
from retfound_jax.core.errors import UsageError
from retfound_jax.core.mesh import MeshConfig, ShardingRules


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.1
    name: str = 'x'
    names: tuple[str, ...] = ()
    limit: float | None = None
    mode: Literal['none', 'full'] = 'none'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    steps: int
    inner: Inner = Inner()
    mesh: MeshConfig = MeshConfig()
    flip: bool = True
    range: tuple[float, float] = (0.2, 1.0)


def build(value: dict) -> Outer:
    return config_lib._build(Outer, value, path='')


@pytest.mark.parametrize(
    ('assignment', 'read', 'expected'),
    [
        ('steps=7', lambda c: c.steps, 7),
        ('inner.rate=3e-4', lambda c: c.inner.rate, 3e-4),
        ('inner.rate=1', lambda c: c.inner.rate, 1.0),
        ('inner.name=none', lambda c: c.inner.name, 'none'),
        ('inner.name=3', lambda c: c.inner.name, '3'),
        ('inner.names=age,sex', lambda c: c.inner.names, ('age', 'sex')),
        ('inner.limit=none', lambda c: c.inner.limit, None),
        ('inner.limit=2.5', lambda c: c.inner.limit, 2.5),
        ('inner.mode=full', lambda c: c.inner.mode, 'full'),
        ('mesh.fsdp=4', lambda c: c.mesh.fsdp, 4),
        ('flip=false', lambda c: c.flip, False),
        ('range=0.5,1', lambda c: c.range, (0.5, 1.0)),
    ],
)
def test_override_parses_by_the_type_of_the_field(assignment, read, expected):
    changed = read(config_lib.override(Outer(steps=1), [assignment]))
    assert changed == expected and type(changed) is type(expected)


@pytest.mark.parametrize(
    ('assignment', 'says'),
    [
        ('step=7', 'did you mean "steps"'),
        ('inner.rat=7', 'did you mean "rate"'),
        ('steps=seven', 'must be a int'),
        ('steps=1.5', 'must be a int'),
        ('inner=3', 'group of fields'),
        ('steps.x=3', 'single value'),
        ('steps', 'no "="'),
        ('inner.mode=half', 'one of none, full'),
        ('range=1', 'must be a list'),
        ('range=1,2,3', 'must have 2'),
        ('inner.rate=nan', 'must be a float'),
    ],
)
def test_override_refuses_in_one_sentence(assignment, says):
    with pytest.raises(UsageError, match=says):
        config_lib.override(Outer(steps=1), [assignment])


@given(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(), st.lists(st.text()), st.booleans())
def test_json_round_trip(steps, rate, name, names, flip):
    config = Outer(steps=steps, inner=Inner(rate=rate, name=name, names=tuple(names)), flip=flip)
    value = json.loads(json.dumps(config_lib.to_dict(config)))
    for part in (value, value['inner']):
        del part['type']  # classes of a test module are not classes of the package
    assert build(value) == config


def test_a_file_cannot_name_a_class_outside_the_package():
    with pytest.raises(UsageError, match='not a configuration of this package'):
        config_lib.from_dict(MeshConfig, {'type': 'os:system'})
    with pytest.raises(UsageError, match='not a MeshConfig'):
        config_lib.from_dict(MeshConfig, config_lib.to_dict(ShardingRules()))


def test_missing_fields_are_named():
    with pytest.raises(UsageError, match='needs steps'):
        build({})


def test_load_function_names_the_nearest():
    assert config_lib.load_function('retfound_jax.core.config:to_json') is config_lib.to_json
    with pytest.raises(UsageError, match='did you mean "to_json"'):
        config_lib.load_function('retfound_jax.core.config:to_jsn')
    with pytest.raises(UsageError, match='did you mean "retfound_jax.core.config"'):
        config_lib.load_function('retfound_jax.core.confg:to_json')
    with pytest.raises(UsageError, match='module:function'):
        config_lib.load_function('to_json')


def test_of_classes_to_choose_from_the_one_that_is_meant_says_what_is_wrong():
    for value, told in (
        ({'fspd': 2}, 'MeshConfig has no field "fspd", did you mean "fsdp"'),
        ({'type': 'retfound_jax.core.mesh:MeshConfig', 'fsdp': 'x'}, "one.fsdp is 'x' and must be a int"),
        (3, 'one is 3 and must be a group of fields'),
    ):
        for kinds in (Inner | MeshConfig | None, MeshConfig | None):
            with pytest.raises(UsageError, match=told):
                config_lib._build(kinds, value, path='one')
