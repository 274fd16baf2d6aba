"""What every test shares: JAX on the CPU, parsed flags for Grain, steady hypothesis, and the optional folder of real images."""

from __future__ import annotations

import gc
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

# Compiling is most of what the tests do, and what is compiled runs for milliseconds: LLVM is told to spend no time on it. Tests of compiled
# programs themselves, of their cost or speed, run them in processes of their own, whose flags they set.
os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} --xla_backend_optimization_level=0'.strip()

import hypothesis
import pytest
from absl import flags

ROOT = Path(__file__).resolve().parent.parent

# Tracing makes objects by the million, few of them in cycles: looking for those every 700 objects costs a tenth of it.
gc.set_threshold(100_000, 20, 20)

# Files that take longest, which start first: one that starts last keeps one worker busy while the other has nothing left to do.
LONGEST = (
    'train/test_train_loop.py',
    'drills/test_drills.py',
    'tasks/test_tasks_token_reconstruction.py',
    'speed/test_speed_step.py',
    'speed/test_speed_quality.py',
    'core/test_core_compile_cache.py',
    'data/test_data_workers.py',
    'cli/test_cli_convert.py',
    'speed/test_speed_compiled.py',
    'train/test_train_mesh.py',
    'speed/test_speed_plan.py',
    'train/test_train_bad_numbers.py',
)

if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # Grain's workers read their switches from absl's global flags

# No deadline: the first call of a jitted function compiles. The same examples every run: a test that fails, fails for all.
hypothesis.settings.register_profile('project', deadline=None, derandomize=True)
hypothesis.settings.load_profile('project')


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the files of LONGEST first; with --no-loadscope-reorder, workers take files in this order."""
    place = {ROOT / 'tests' / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


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
