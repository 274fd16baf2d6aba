"""Options for XLA: each is known to the XLA that is installed, the user's own win, an unknown one is left out and told."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import pytest

from retfound_jax.core import xla_flags

_TOPOLOGY = """
import sys
from jax.experimental import topologies
from retfound_jax.core import xla_flags
devices = topologies.get_topology_desc(platform='tpu', topology_name='v5e:2x2').devices
wanted = {option.name: option.value for option in xla_flags.TPU}
assert xla_flags.compiler_options(devices) == wanted
assert xla_flags.unknown_options(wanted | {'xla_tpu_no_such': 'true'}, device=devices[0]) == ['xla_tpu_no_such']
print('known')
"""


def several(platform):
    """Two devices of a platform, as far as options ask."""
    return [SimpleNamespace(platform=platform, process_index=0)] * 2


@pytest.fixture
def none_unknown(monkeypatch):
    monkeypatch.setattr(xla_flags, 'unknown_options', lambda options, *, device: [])


def test_the_installed_xla_knows_every_gpu_option():
    # Options of all platforms but TPU are fields of one message, whatever the device.
    options = {option.name: option.value for option in xla_flags.GPU}
    assert xla_flags.unknown_options(options | {'xla_gpu_no_such': True}, device=jax.devices()[0]) == ['xla_gpu_no_such']


@pytest.mark.skipif(importlib.util.find_spec('libtpu') is None, reason='libtpu (extra `plan`) is not installed')
def test_the_installed_libtpu_knows_every_tpu_option():
    switches = {'JAX_PLATFORMS': 'cpu', 'TPU_SKIP_MDS_QUERY': '1', 'ALLOW_MULTIPLE_LIBTPU_LOAD': '1'}
    done = subprocess.run([sys.executable, '-c', _TOPOLOGY], env=os.environ | switches, capture_output=True, text=True, check=False)
    assert done.stdout == 'known\n', done.stderr[-2000:]


@pytest.mark.parametrize('platform', ['gpu', 'cuda', 'tpu'])
def test_one_device_is_asked_for_nothing_and_several_for_all(none_unknown, platform):
    assert xla_flags.compiler_options(several(platform)[:1]) == {}
    assert len(xla_flags.compiler_options(several(platform))) == len(xla_flags.BY_PLATFORM[platform])


def test_a_cpu_is_asked_for_nothing():
    assert xla_flags.compiler_options(jax.devices() * 2) == {}


@pytest.mark.parametrize(('variable', 'platform'), [('XLA_FLAGS', 'gpu'), ('LIBTPU_INIT_ARGS', 'tpu')])
def test_what_the_user_has_set_is_left_to_the_user(none_unknown, monkeypatch, variable, platform):
    first, *others = (option.name for option in xla_flags.BY_PLATFORM[platform])
    monkeypatch.setenv(variable, f'--xla_dump_to=/nowhere --{first}=false')
    assert list(xla_flags.compiler_options(several(platform))) == others


def test_an_unknown_option_is_left_out_and_told(monkeypatch, capsys):
    gone = xla_flags.Option(name='xla_gpu_of_another_year', value=True, why='', source='')
    monkeypatch.setattr(xla_flags, 'BY_PLATFORM', {'cpu': (xla_flags.GPU[0], gone)})
    assert xla_flags.compiler_options(jax.devices() * 2) == {xla_flags.GPU[0].name: True}
    assert capsys.readouterr().err == 'retfound: this XLA does not know xla_gpu_of_another_year, so the step is compiled without\n'


def test_every_option_has_a_reason_and_a_source():
    for option in (*xla_flags.GPU, *xla_flags.TPU):
        assert option.why and option.source
