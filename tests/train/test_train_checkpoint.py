"""Which saved step a run goes on from: damage of every kind, unfinished saves, other runs, and what is kept."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import threading
from pathlib import Path

import api_runs
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import train_runs
from tiny_states import abstract, assert_same, flip, kept, largest, save_steps, tiny

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.optim import OptimConfig
from retfound_jax.train.checkpoint import load_run
from retfound_jax.train.config import Keep
from retfound_jax.train.saves import Checkpoints
from retfound_jax.train.workdir import Better, Origin, check_shared, prepare_workdir

TWO = Keep(last=2, best=0)


def reopened(workdir: Path, *, said: list[str] | None = None, **options) -> int | None:
    """The step that a new process would go on from, checked to be the one that was saved."""
    with Checkpoints(workdir, say=(said if said is not None else []).append, **options) as checkpoints:
        if checkpoints.latest is not None:
            state, data = checkpoints.restore(checkpoints.latest, like=abstract(tiny(0)))
            assert data == {'step': checkpoints.latest}
            assert_same(state, tiny(checkpoints.latest))
        return checkpoints.latest


def truncate(folder: Path) -> str:
    path = largest(folder)
    path.write_bytes(path.read_bytes()[:-1])
    return 'bytes'


def delete(folder: Path) -> str:
    largest(folder).unlink()
    return 'cannot be found'


def flip_a_bit(folder: Path) -> str:
    path = largest(folder)
    flip(path, bit=8 * path.stat().st_size // 2)
    return 'is not what was written'


def drop_a_process(folder: Path) -> str:
    shutil.rmtree(folder / 'state' / 'ocdbt.process_0')
    return 'cannot be found'


def empty_the_list(folder: Path) -> str:
    (folder / 'files.json').write_text('{"files": [')
    return 'is not valid JSON'


def mistype_the_list(folder: Path) -> str:
    (folder / 'files.json').write_text('{"files": {"state/d": 3}}')
    return 'does not read'


def lead_the_list_outside(folder: Path) -> str:
    (folder / 'files.json').write_text('{"files": {"../../better.json": {"bytes": 1, "sha256": ""}}}')
    return 'does not read'


def spoil_the_metadata(folder: Path) -> str:
    (folder / '_CHECKPOINT_METADATA').write_text('{')
    return 'is not valid JSON'


def lose_the_commit(folder: Path) -> str:
    (folder / 'commit_success.txt').unlink()
    return 'never committed'


def cut_an_early_version(folder: Path) -> str:
    (folder / 'files.json').unlink()
    os.truncate(largest(folder), largest(folder).stat().st_size // 2)
    return 'Error'


KINDS = (
    truncate, delete, flip_a_bit, drop_a_process, empty_the_list, mistype_the_list, lead_the_list_outside, spoil_the_metadata,
    lose_the_commit, cut_an_early_version,
)  # fmt: skip


@pytest.mark.parametrize('spoil', KINDS, ids=lambda spoil: spoil.__name__)
def test_a_damaged_step_is_named_and_set_aside_and_the_one_before_is_used_and_saves_go_on(tmp_path, spoil):
    save_steps(tmp_path, 100, 120, keep=TWO)
    why, said = spoil(tmp_path / 'checkpoints' / '120'), []
    assert reopened(tmp_path, said=said, keep=TWO) == 100
    (text,) = said
    assert 'checkpoint 120 is damaged' in text and why in text and text.endswith('checkpoint 100 is used') and '\n' not in text
    aside = tmp_path / 'checkpoints' / 'set_aside' / '120-damaged'
    assert aside.is_dir() and str(aside) in text
    with Checkpoints(tmp_path, keep=TWO) as checkpoints:  # the save at 120 happens, and at later steps too
        assert checkpoints.set_aside == ()
        for step in (120, 140):
            checkpoints.save(tiny(step), data={'step': step}, metrics=None)
    assert kept(tmp_path) == [120, 140] and aside.is_dir()
    assert reopened(tmp_path, keep=TWO) == 140


def test_orbax_alone_reads_a_flipped_bit_as_if_nothing_were(tmp_path):
    """Why there is a list of hashes: of the flips in the arrays' file, some change numbers and raise nothing."""
    save_steps(tmp_path, 7)
    folder = tmp_path / 'checkpoints' / '7'
    path = largest(folder)
    whole, silent = path.read_bytes(), 0
    for byte in np.random.default_rng(0).integers(0, len(whole), 12):
        flip(path, bit=8 * int(byte))
        try:
            with ocp.StandardCheckpointer() as reader:
                found = reader.restore((folder / 'state').absolute())
            # Which of the three the file holds varies.
            saved = {name: np.asarray(getattr(tiny(7), name)['w']) for name in ('params', 'opt_state', 'ema')}
            silent += any(np.asarray(found[name]['w']).tobytes() != value.tobytes() for name, value in saved.items())
        except Exception:  # noqa: BLE001, S110 (that is the other outcome)
            pass
        path.write_bytes(whole)
    assert silent > 0


def test_an_unfinished_save_is_set_aside_and_is_no_loss(tmp_path):
    save_steps(tmp_path, 100)
    half = tmp_path / 'checkpoints' / '120.orbax-checkpoint-tmp'
    for name in ('120.orbax-checkpoint-tmp', '130.orbax-checkpoint-tmp-17'):
        shutil.copytree(tmp_path / 'checkpoints' / '100', half.with_name(name))
    said = []
    assert reopened(tmp_path, said=said) == 100
    assert len(said) == 2 and all('its save was never finished' in text and 'checkpoint 100 is used' in text for text in said)
    assert sorted(path.name for path in (tmp_path / 'checkpoints' / 'set_aside').iterdir()) == ['120-incomplete', '130-incomplete']
    shutil.copytree(tmp_path / 'checkpoints' / '100', half)
    assert reopened(tmp_path) == 100
    # Of unfinished saves the last one stays: a piece for each interruption would fill the disk.
    assert [path.name for path in (tmp_path / 'checkpoints' / 'set_aside').iterdir()] == ['120-incomplete']


def test_a_run_killed_in_its_first_save_begins_again(tmp_path):
    (tmp_path / 'checkpoints' / '20.orbax-checkpoint-tmp' / 'state').mkdir(parents=True)
    said = []
    assert reopened(tmp_path, said=said) is None
    assert 'nothing was saved before it' in said[0]


def test_a_run_that_lost_its_only_checkpoint_does_not_begin_again_by_itself(tmp_path):
    save_steps(tmp_path, 100)
    truncate(tmp_path / 'checkpoints' / '100')
    for _ in range(2):  # nor at the second try
        with pytest.raises(UserError, match='has no whole checkpoint left .*100.*--overwrite'):
            Checkpoints(tmp_path)
    (tmp_path / 'checkpoints' / 'set_aside' / '100-damaged').rename(tmp_path / 'elsewhere')
    assert reopened(tmp_path) is None


def test_a_step_of_an_early_version_without_a_list_counts_where_it_reads(tmp_path):
    save_steps(tmp_path, 100, 120, keep=TWO)
    (tmp_path / 'checkpoints' / '120' / 'files.json').unlink()
    assert reopened(tmp_path, keep=TWO) == 120


def test_the_list_names_every_file_but_those_that_are_written_after_it(tmp_path):
    save_steps(tmp_path, 3)
    folder = tmp_path / 'checkpoints' / '3'
    listed = json.loads((folder / 'files.json').read_text())['files']
    there = {path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file()}
    assert there - set(listed) == {'files.json', 'commit_success.txt', '_CHECKPOINT_METADATA'}
    for name in listed:
        flip(folder / name, bit=0)
        assert reopened_would_refuse(folder)
        flip(folder / name, bit=0)
    assert not reopened_would_refuse(folder)


def reopened_would_refuse(folder: Path) -> bool:
    from retfound_jax.train.checkpoint_files import fault

    return bool(fault(folder, thorough=True))


def test_a_save_of_a_step_that_is_there_leaves_it_as_it_is(tmp_path):
    save_steps(tmp_path, 100)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / 'checkpoints' / '100').rglob('*')}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(dataclasses.replace(tiny(5), step=jnp.asarray(100)), data={'step': 100}, metrics=None)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / 'checkpoints' / '100').rglob('*')}


def test_a_save_that_orbax_leaves_out_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(ocp.CheckpointManager, 'save', lambda *_, **__: False)
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError, match='checkpoint 9 was not written'):
        checkpoints.save(tiny(9), data={}, metrics=None)


@pytest.mark.parametrize(
    ('keep', 'left'),
    [
        (Keep(), [5, 10]),
        (Keep(last=3), [5, 8, 9, 10]),
        (Keep(last=1, best=0), [10]),
        (Keep(last=1, best=2), [4, 5, 10]),
        (Keep(last=1, best=0, every=4), [4, 8, 10]),
        (Keep(last=2, best=1, every=3), [3, 5, 6, 9, 10]),
    ],
)
def test_the_last_the_best_and_every_kth_stay_and_nothing_else(tmp_path, keep, left):
    """The score is best at step 5, then at step 4, and was not measured at step 7."""
    (tmp_path / 'checkpoints' / 'set_aside' / '1-incomplete').mkdir(parents=True)
    with Checkpoints(tmp_path, keep=keep, better=Better(metric='AUROC', mode='max')) as checkpoints:
        for step in range(1, 11):
            metrics = None if step == 7 else {'AUROC': 1 - abs(step - 4.9) / 10, 'loss': 0.0}
            checkpoints.save(tiny(step, side=4), data={}, metrics=metrics)
    assert kept(tmp_path) == left
    assert (tmp_path / 'checkpoints' / 'set_aside' / '1-incomplete').is_dir() and not (tmp_path / 'checkpoints' / '.deleting').exists()


def test_what_is_saved_is_the_state_at_the_save_though_the_steps_go_on_in_its_buffers(tmp_path):
    step = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    state, wanted = tiny(1, side=700), {}
    with Checkpoints(tmp_path, keep=Keep(last=9)) as checkpoints:
        for _ in range(4):
            wanted[int(state.step)] = jax.tree.map(lambda leaf: np.array(leaf, copy=True), state)
            checkpoints.save(state, data={}, metrics=None)
            state = step(step(state))
    with Checkpoints(tmp_path, keep=Keep(last=9)) as checkpoints:
        for number, before in wanted.items():
            assert_same(checkpoints.restore(number, like=abstract(tiny(0, side=700)))[0], before)


def test_a_checkpoint_of_another_run_is_refused_with_what_differs(tmp_path):
    one = train_runs.mae(steps=2)
    other = train_runs.mae(steps=2, optim=OptimConfig(lr=2e-3))
    for name, config in (('one', one), ('other', other)):
        prepare_workdir(config, workdir=tmp_path / name, resume=False, overwrite=False, better=Better())
        save_steps(tmp_path / name, 3, origin=Origin(config=config, data='d' * 64))
    theirs = tmp_path / 'one' / 'checkpoints' / '3'
    for copy in (shutil.copytree, os.symlink):
        copy(theirs, tmp_path / 'other' / 'checkpoints' / '9')
        with pytest.raises(UsageError, match=r'checkpoint 9 in .* is of another run: optim.lr is 0.001 there and 0.002 in this call'):
            Checkpoints(tmp_path / 'other', origin=Origin(config=other, data='d' * 64))
        assert (tmp_path / 'other' / 'checkpoints' / '9').exists()
        (shutil.rmtree if copy is shutil.copytree else os.unlink)(tmp_path / 'other' / 'checkpoints' / '9')
    with pytest.raises(UsageError, match='the fingerprint of its data is dddddddddddd there and eeeeeeeeeeee here'):
        Checkpoints(tmp_path / 'other', origin=Origin(config=other, data='e' * 64))
    moved = dataclasses.replace(other, log_every=5, keep=TWO, mesh=dataclasses.replace(other.mesh, zero=True))
    assert reopened(tmp_path / 'other', origin=Origin(config=moved, data='d' * 64)) == 3  # what a resumed run may change
    shutil.copytree(theirs, tmp_path / 'other' / 'checkpoints' / '9')
    with pytest.raises(UsageError, match=r'is of another run than the config.json beside it: optim.lr is 0.001 there and 0.002 here'):
        load_run(tmp_path / 'other', which='latest')


def test_leaves_that_do_not_fit_are_named(tmp_path):
    save_steps(tmp_path, 3)
    with Checkpoints(tmp_path) as checkpoints:
        for changes, said in (
            ({'params': {'w': jnp.zeros((48, 4))}}, r'params\.w is float32\[48, 48\] there and float32\[48, 4\] here'),
            ({'params': {'w': jnp.zeros((48, 48), jnp.int32)}}, r'params\.w is float32\[48, 48\] there and int32\[48, 48\] here'),
            ({'ema': {}}, r'ema\.w is float32\[48, 48\] there and missing here'),
            ({'ema': {'w': jnp.zeros((48, 48)), 'v': jnp.zeros(3)}}, r'ema\.v is missing there and float32\[3\] here'),
        ):
            with pytest.raises(UserError, match=said):
                checkpoints.restore(3, like=abstract(tiny(0, **changes)))


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.rglob('*'))}


def test_reading_a_run_touches_nothing_and_says_what_is_wrong(tmp_path, monkeypatch):
    api_runs.save_run(tmp_path, api_runs.TASKS['mae'])
    (tmp_path / 'checkpoints' / '9.orbax-checkpoint-tmp').mkdir()
    before = snapshot(tmp_path)
    assert load_run(tmp_path).step == 7 and snapshot(tmp_path) == before
    path = largest(tmp_path / 'checkpoints' / '7')
    flip(path, bit=77)
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match='checkpoint 7 is damaged and was not used .*is not what was written'):
        load_run(tmp_path)
    assert snapshot(tmp_path) == before
    flip(path, bit=77)
    with monkeypatch.context() as patch:  # the run goes on meanwhile, and its retention takes the step away
        read = ocp.Checkpointer.restore

        def gone(self, *args, **kwargs):
            (tmp_path / 'checkpoints' / '7').rename(tmp_path / 'gone')
            return read(self, *args, **kwargs)

        patch.setattr(ocp.Checkpointer, 'restore', gone)
        with pytest.raises(UserError, match='checkpoint 7 of .* went away while it was read: its training goes on; run again'):
            load_run(tmp_path)


def test_a_read_only_directory_can_be_loaded_from(tmp_path):
    with pytest.raises(UserError, match='is not a run directory'):
        load_run(tmp_path / 'nowhere')
    assert not (tmp_path / 'nowhere').exists()
    prepare_workdir(train_runs.mae(), workdir=tmp_path / 'new', resume=False, overwrite=False, better=Better())
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match='has no checkpoint yet'):
        load_run(tmp_path / 'new')
    assert snapshot(tmp_path) == before


def open_things() -> tuple[int, int]:
    """Open files, and threads beside those of asyncio's pool, of which a process has one of a bounded size."""
    return len(os.listdir('/proc/self/fd')), sum(not thread.name.startswith('asyncio_') for thread in threading.enumerate())


def cycle(workdir: Path, times: int) -> None:
    for number in range(times):
        with Checkpoints(workdir) as checkpoints:
            checkpoints.save(tiny(number + 1, side=8), data={'step': number + 1}, metrics=None)
            checkpoints.restore(number + 1, like=abstract(tiny(0, side=8)))


@pytest.mark.skipif(not Path('/proc/self/fd').is_dir(), reason='open files are counted under /proc')
@pytest.mark.parametrize('times', [5, pytest.param(50, marks=pytest.mark.slow)])
def test_no_thread_and_no_file_is_left_open(tmp_path, times):
    cycle(tmp_path / 'warm', 3)  # pools that the process keeps once are made
    before = open_things()
    cycle(tmp_path / 'run', times)
    after = open_things()
    assert after[0] <= before[0] and after[1] <= before[1]
    assert threading.active_count() - after[1] <= min(32, os.cpu_count() + 4)


def test_one_process_needs_no_shared_disk(tmp_path):
    check_shared(tmp_path)
    assert not list(tmp_path.iterdir())
