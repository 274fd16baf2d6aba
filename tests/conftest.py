"""What every test shares: JAX on the CPU, parsed flags for Grain, steady hypothesis, and the optional folder of real images."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

# Before anything imports JAX or matplotlib; an accelerator's owner overrides with JAX_PLATFORMS=cuda.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('MPLBACKEND', 'Agg')
# Many tests train the same tiny models: each program is compiled once a session. The folder goes with the session.
_COMPILED = tempfile.TemporaryDirectory(prefix='retfound_jax_compiled_')
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', _COMPILED.name)
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')

import hypothesis
import pytest
from absl import flags

ROOT = Path(__file__).resolve().parent.parent

if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # Grain's workers read their switches from absl's global flags

# No deadline: the first call of a jitted function compiles. The same examples every run: a test that fails, fails for all.
hypothesis.settings.register_profile('project', deadline=None, derandomize=True)
hypothesis.settings.load_profile('project')


@pytest.fixture(scope='session')
def root() -> Path:
    """The project's root."""
    return ROOT


@pytest.fixture(scope='session')
def shared_data() -> Path:
    """The folder of real images that may lie beside the project; where it does not, the test is skipped."""
    folder = ROOT.parent / 'shared' / 'data'
    if not folder.is_dir():
        pytest.skip('the folder of real images, ../shared/data, is not here')
    return folder
