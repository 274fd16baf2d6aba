"""The cache of compiled programs: a second start compiles nothing; nobody else's code is run; trouble is one sentence."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from retfound_jax.core import compile_cache

_JAX_OWN = ('JAX_COMPILATION_CACHE_DIR', 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', 'JAX_ENABLE_COMPILATION_CACHE')
_PROGRAM = """
import resource, sys
from retfound_jax.core import compile_cache
compile_cache.enable()
compile_cache.enable()
import jax
compile_cache.counts()
if sys.argv[1] == 'full':
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
x = jax.jit(lambda: jax.numpy.arange(4.0))()
for power in (2, 3):
    x = jax.jit(lambda x: x ** power)(x)
print(x.tolist(), compile_cache.counts())
"""


def start(tmp_path, *call, **environment):
    """A process with a cache home of its own and none of the variables that these tests' own cache is set by."""
    known = {name: value for name, value in os.environ.items() if name not in _JAX_OWN}
    mine = {'XDG_CACHE_HOME': str(tmp_path / 'cache'), 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': 'tests/train'}
    done = subprocess.run([sys.executable, *call], env=known | mine | environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def powers(tmp_path, state='fine', **environment):
    done = start(tmp_path, '-c', _PROGRAM, state, **environment)
    assert done.stdout.startswith('[0.0, 1.0, 64.0, 729.0]')
    compiled, loaded = map(int, re.search(r'compiled=(\d+), loaded=(\d+)', done.stdout).groups())
    return compiled, loaded, done.stderr


def kept(tmp_path):
    return [path for path in (tmp_path / 'cache').rglob('*') if path.is_file() and path.name.endswith('-cache')]


def test_a_second_training_compiles_nothing(tmp_path):
    def programs(name):
        call = ['-m', 'retfound_jax', 'train', '--experiment', 'train_runs:mae', '--workdir', str(tmp_path / name)]
        found = re.search(r'programs: (\d+) compiled, (\d+) loaded', start(tmp_path, *call).stdout)
        return int(found[1]), int(found[2])

    compiled, loaded = programs('first')
    assert compiled > 1 and loaded == 0
    assert programs('second') == (0, compiled)


def test_the_folder_is_this_users_and_this_cpus_and_half_written_entries_go(tmp_path):
    compiled, loaded, told = powers(tmp_path)
    assert (loaded, told) == (0, '') and compiled == len(kept(tmp_path)) >= 3
    folder = kept(tmp_path)[0].parent
    assert folder == tmp_path / 'cache' / 'retfound_jax' / 'compiled' / compile_cache.kind_of_cpu()
    assert all(level.stat().st_mode & 0o777 == 0o700 for level in (folder, folder.parent, folder.parent.parent))
    cut = kept(tmp_path)[0]
    cut.write_bytes(cut.read_bytes()[:99])
    (folder / f'{cut.name.removesuffix("-cache")}-atime').unlink()
    assert powers(tmp_path) == (1, compiled - 1, '')
    assert powers(tmp_path) == (0, compiled, '')


def test_a_disk_that_fills_up_is_one_sentence_and_work_goes_on(tmp_path):
    compiled, loaded, told = powers(tmp_path, 'full')
    assert compiled >= 3 and loaded == 0
    assert told.count('\n') == 1 and told.startswith('retfound: programs are compiled, but not kept for the next start')


@pytest.mark.parametrize(('name', 'value'), [('JAX_ENABLE_COMPILATION_CACHE', '0'), ('JAX_COMPILATION_CACHE_DIR', 'another')])
def test_what_the_user_has_set_wins(tmp_path, name, value):
    value = str(tmp_path / value) if value == 'another' else value
    powers(tmp_path, **{name: value})
    assert not (tmp_path / 'cache').exists()
    assert (tmp_path / 'another').exists() == (name == 'JAX_COMPILATION_CACHE_DIR')


@pytest.mark.parametrize('level', ['retfound_jax', 'retfound_jax/compiled'])
@pytest.mark.parametrize('how', ['open to others', 'a link', 'a file'])
def test_a_folder_that_others_can_write_to_is_not_used(tmp_path, monkeypatch, capsys, level, how):
    for name in _JAX_OWN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'home'))
    spoiled = tmp_path / 'home' / level
    spoiled.parent.parent.mkdir(exist_ok=True)
    spoiled.parent.mkdir(mode=0o700)
    if how == 'open to others':
        spoiled.mkdir()
        spoiled.chmod(0o777)
    elif how == 'a link':
        spoiled.symlink_to(tmp_path)
    else:
        spoiled.write_text('a file')
    compile_cache.enable()
    told = capsys.readouterr().err
    assert told.startswith('retfound: programs are compiled afresh each time') and told.count('\n') == 1
    assert str(spoiled) in told
    assert 'JAX_COMPILATION_CACHE_DIR' not in os.environ


def test_a_home_that_cannot_be_written_to_is_one_sentence(monkeypatch, capsys):
    for name in _JAX_OWN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', '/dev/null/no')
    compile_cache.enable()
    assert re.fullmatch(r'retfound: programs are compiled afresh each time \(.*\)\n', capsys.readouterr().err)
