"""A save that fails is one sentence at the next step, and the run goes on from the checkpoint before it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_states import abstract, assert_same, kept, save_steps, tiny

from retfound_jax.core.errors import UserError
from retfound_jax.train import checkpoint_files
from retfound_jax.train.saves import Checkpoints

LARGE = 1500  # side of the arrays of a state of 27 MB


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    place = tmp_path / 'disk'
    place.mkdir()
    tried = ['mount', '-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', str(place)]
    if shutil.which('mount') is None or os.geteuid() != 0 or subprocess.run(tried, capture_output=True, check=False).returncode != 0:
        pytest.skip('mounting a small file system needs root')
    try:
        yield place
    finally:
        subprocess.run(['umount', '-l', str(place)], check=True)


def until_it_fails(checkpoints: Checkpoints) -> str:
    """Steps go on; the sentence of the one that raises."""
    deadline = time.monotonic() + 60
    with pytest.raises(UserError) as caught:
        while time.monotonic() < deadline:
            checkpoints.check()
            time.sleep(0.01)
    return str(caught.value)


def goes_on_from(workdir: Path, step: int) -> list[str]:
    """A later start restores `step`; what it said."""
    said: list[str] = []
    with Checkpoints(workdir, say=said.append) as checkpoints:
        assert checkpoints.latest == step
        state, data = checkpoints.restore(step, like=abstract(tiny(0)))
        assert_same(state, tiny(step))
        assert data == {'step': step}
    return said


def test_a_full_disk_is_told_at_the_next_step_and_the_checkpoint_before_it_is_used(small_disk):
    save_steps(small_disk, 100)
    with pytest.raises(UserError, match='the disk is full'):  # on leaving as well
        with Checkpoints(small_disk) as checkpoints:
            checkpoints.save(tiny(120, side=LARGE), data={'step': 120}, metrics=None)
            text = until_it_fails(checkpoints)
            assert text.startswith('checkpoint 120 could not be written to ') and '\n' not in text
            assert text.endswith('the disk is full; free some space; then go on with --resume (checkpoint 100 is whole)')
            assert checkpoints.latest == 100
            for again in (checkpoints.check, checkpoints.wait):  # it does not pass
                with pytest.raises(UserError, match='the disk is full'):
                    again()
            with pytest.raises(UserError, match='the disk is full'):
                checkpoints.save(tiny(140), data={'step': 140}, metrics=None)
    (text,) = goes_on_from(small_disk, 100)
    assert 'checkpoint 120 is incomplete' in text and kept(small_disk) == [100]
    shutil.rmtree(small_disk / 'checkpoints' / 'set_aside')  # the space is freed
    with Checkpoints(small_disk) as checkpoints:
        checkpoints.save(tiny(120), data={'step': 120}, metrics=None)
    assert not goes_on_from(small_disk, 120)


def test_a_disk_that_became_read_only_is_told(small_disk):
    save_steps(small_disk, 100)
    checkpoints = Checkpoints(small_disk)
    subprocess.run(['mount', '-o', 'remount,ro', str(small_disk)], check=True)
    try:
        with pytest.raises(UserError, match='checkpoint 120 could not be written .*the disk can only be read'), checkpoints:
            checkpoints.save(tiny(120), data={'step': 120}, metrics=None)
            until_it_fails(checkpoints)
    finally:
        subprocess.run(['mount', '-o', 'remount,rw', str(small_disk)], check=True)
    goes_on_from(small_disk, 100)


_LIMITED = """
import json, resource, sys
sys.path.insert(0, sys.argv[1])
from tiny_states import save_steps, tiny
from retfound_jax.core.errors import UserError
from retfound_jax.train.saves import Checkpoints

save_steps(sys.argv[2], 100)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
said = []
for leave in (False, True):
    try:
        with Checkpoints(sys.argv[2], say=said.append) as checkpoints:
            checkpoints.save(tiny(120, side=1500), data={'step': 120}, metrics=None)
            if leave:
                raise KeyboardInterrupt
            checkpoints.wait()
    except (UserError, KeyboardInterrupt) as error:
        said.append(type(error).__name__ + ' ' + str(error))
print(json.dumps(said))
"""


def test_a_file_that_may_not_be_so_large_is_told_also_where_another_error_is_on_its_way(tmp_path):
    """A child, since a process cannot take back a limit of its own."""
    here = Path(__file__).parent
    call = [sys.executable, '-c', _LIMITED, str(here), str(tmp_path)]
    done = subprocess.run(call, env=os.environ | {'JAX_PLATFORMS': 'cpu'}, cwd=here.parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'Traceback' not in done.stderr  # what is raised as a sentence is told once
    failed, aside, told, interrupt = json.loads(done.stdout.splitlines()[-1])
    assert failed.startswith('UserError checkpoint 120 could not be written') and 'a file would be larger than the system allows' in failed
    assert 'checkpoint 120 is incomplete' in aside
    assert 'a file would be larger than the system allows' in told and interrupt.startswith('KeyboardInterrupt')
    goes_on_from(tmp_path, 100)


@pytest.mark.parametrize(
    ('code', 'said'), [(errno.ENOSPC, 'the disk is full'), (errno.EDQUOT, 'the quota'), (errno.EIO, 'Input/output error')]
)
def test_what_the_system_refuses_while_the_list_is_written_is_told(tmp_path, monkeypatch, code, said):
    save_steps(tmp_path, 100)

    def refuse(handle: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch, pytest.raises(UserError, match=f'checkpoint 120 could not be written .*{said}'):
        patch.setattr(os, 'fsync', refuse)
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(tiny(120), data={'step': 120}, metrics=None)
            until_it_fails(checkpoints)
    goes_on_from(tmp_path, 100)


def test_a_directory_removed_during_a_save_is_told(tmp_path, monkeypatch):
    save_steps(tmp_path, 100)
    reached, go_on, real = threading.Event(), threading.Event(), checkpoint_files.seal

    def held(folder: Path, **options) -> None:
        reached.set()
        assert go_on.wait(60)
        real(folder, **options)

    monkeypatch.setattr(checkpoint_files, 'seal', held)
    with pytest.raises(UserError, match='checkpoint 120 could not be written .*there is no earlier one'):
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(tiny(120), data={'step': 120}, metrics=None)
            checkpoints.check()
            assert reached.wait(60)
            shutil.rmtree(tmp_path / 'checkpoints')
            go_on.set()
            until_it_fails(checkpoints)
