"""A run whose home is an object store: killed whenever, home has whole steps or none, and a fresh machine goes on."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import threading
from pathlib import Path

import pytest
from flaky_store import FlakyFileSystem, busy, store_of

from retfound_jax.core import mirror as mirror_lib
from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.core.mirror import Mirror
from retfound_jax.core.runlog import RunLog, read_metrics, truncate_metrics
from retfound_jax.core.storage import cache_home


class Killed(BaseException):
    """As if the process were gone: nothing may catch it and tidy up."""


def state_of(step: int) -> bytes:
    """What a run of nothing but hashes has come to after so many steps."""
    state = b''
    for number in range(1, step + 1):
        state = hashlib.sha256(state + str(number).encode()).digest()
    return state


def train(local: Path, store, *, last: int, keep: int = 2, every: int = 5) -> bytes:
    """Goes on from what is home to step `last`, as the loop does: log, checkpoint, copy, and the oldest checkpoint dropped."""
    with Mirror(local, store, say=print) as mirror:
        first = mirror.fetch() or 0
        mirror.claim()
        folder = local / 'checkpoints'
        state = (folder / str(first) / 'state' / 'd').read_bytes() if first else b''
        truncate_metrics(local, after_step=first)
        with RunLog(local, tensorboard=False) as log:
            for step in range(first + 1, last + 1):
                mirror.check()
                state = hashlib.sha256(state + str(step).encode()).digest()
                log.write(step, loss=state[0])
                if step % every == 0:
                    log.sync()
                    save(folder, step, state)
                    mirror.push_step(step)
                    for old in sorted(int(path.name) for path in folder.iterdir())[:-keep]:
                        shutil.rmtree(folder / str(old))
    return state


def save(folder: Path, step: int, state: bytes) -> None:
    """A checkpoint of several files, there all at once."""
    (folder / f'{step}.tmp' / 'state').mkdir(parents=True)
    (folder / f'{step}.tmp' / 'state' / 'd').write_bytes(state)
    (folder / f'{step}.tmp' / 'state' / 'big').write_bytes(state * 1000)
    (folder / f'{step}.tmp' / 'commit').write_bytes(b'')
    (folder / f'{step}.tmp').rename(folder / str(step))


def is_whole(local: Path, *, last: int) -> None:
    """Parameters and log are those of a run that nothing disturbed."""
    assert (local / 'checkpoints' / str(last) / 'state' / 'd').read_bytes() == state_of(last)
    assert (local / 'checkpoints' / str(last) / 'state' / 'big').read_bytes() == state_of(last) * 1000
    rows = [(row['step'], row['value']) for row in read_metrics(local)]
    assert [row for row in rows if row[0] <= last] == [(step, float(state_of(step)[0])) for step in range(1, last + 1)]


def test_a_fresh_machine_goes_on_with_what_is_home_and_ends_alike(tmp_path):
    files = FlakyFileSystem()
    train(tmp_path / 'a', store_of(files), last=20)
    home = store_of(files).list()
    assert {name for name in home if name.startswith('complete/')} == {'complete/15.json', 'complete/20.json', 'complete/owner'}
    assert {name.split('/')[1] for name in home if name.startswith('checkpoints/')} == {'15', '20'}
    assert train(tmp_path / 'b', store_of(files), last=40) == state_of(40)
    with Mirror(tmp_path / 'c', store_of(files)) as mirror:
        assert mirror.fetch() == 40
    is_whole(tmp_path / 'c', last=40)
    assert not (tmp_path / 'b' / '.to_copy').exists() or not list((tmp_path / 'b' / '.to_copy').iterdir())
    assert not [thread for thread in threading.enumerate() if thread.name == 'mirror']


def test_troubles_that_pass_change_nothing(tmp_path):
    rng = random.Random(1)
    faults = lambda operation, path: rng.choice([busy(), ConnectionResetError(), TimeoutError()]) if rng.random() < 0.2 else None  # noqa: E731
    files = FlakyFileSystem(faults)
    store = store_of(files, tries=30)
    assert train(tmp_path / 'a', store, last=20) == state_of(20)
    assert train(tmp_path / 'b', store, last=30) == state_of(30)
    with Mirror(tmp_path / 'c', store) as mirror:
        assert mirror.fetch() == 30
    is_whole(tmp_path / 'c', last=30)
    assert min(files.done[f'{operation} failed'] for operation in ('read', 'write', 'list', 'delete')) > 0


@pytest.mark.parametrize('seed', range(8))
def test_killed_at_any_request_home_has_whole_steps_or_none(tmp_path, seed, monkeypatch):
    """The process dies at a request drawn at random, before or after it is done; a new machine takes over each time until all is done."""
    monkeypatch.setattr(mirror_lib.threading, 'excepthook', lambda given: None)
    rng, files = random.Random(seed), FlakyFileSystem()
    deaths = 0
    for start in range(40):
        left = [rng.randint(1, 60)]

        def dies(operation, path, left=left):
            left[0] -= 1
            return Killed() if left[0] < 0 else None  # once dead, nothing is done any more

        files.fault = dies
        try:
            train(tmp_path / str(start), store_of(files), last=40)
            ended = left[0] >= 0
        except Killed:
            ended = False
        deaths += not ended
        files.fault = lambda operation, path: None
        with Mirror(tmp_path / f'look{start}', store_of(files), say=pytest.fail) as mirror:
            newest = mirror.fetch()
        if newest is not None:
            is_whole(tmp_path / f'look{start}', last=newest)
        if newest == 40 and ended:
            return
    pytest.fail(f'not done after {deaths} deaths')


def test_an_upload_that_fails_is_raised_at_the_next_step_and_the_one_before_it_counts(tmp_path):
    files = FlakyFileSystem()
    with pytest.raises(UserError, match='^checkpoint 2 could not be copied to memory://runs/a: no permission to write ') as caught:
        with Mirror(tmp_path, store_of(files)) as mirror:
            save(tmp_path / 'checkpoints', 1, b'1')
            mirror.push_step(1)
            mirror.wait()
            files.fault = lambda operation, path: PermissionError('Access Denied') if '/checkpoints/2/' in path else None
            save(tmp_path / 'checkpoints', 2, b'2')
            mirror.push_step(2)
            with pytest.raises(UserError):
                mirror.wait()
            mirror.check()
    assert 'Access Denied' in str(caught.value)
    files.fault = lambda operation, path: None
    assert Mirror(tmp_path / 'b', store_of(files)).fetch() == 1


def test_a_step_that_the_run_drops_while_it_waits_is_copied_from_its_links(tmp_path):
    files, go = FlakyFileSystem(), threading.Event()

    def waits(operation, path):
        assert go.wait(30)
        return None

    with Mirror(tmp_path, store_of(files)) as mirror:
        files.fault = waits
        for step in (1, 2, 3):
            save(tmp_path / 'checkpoints', step, str(step).encode())
            mirror.push_step(step)
            shutil.rmtree(tmp_path / 'checkpoints' / str(step - 1), ignore_errors=True)
        go.set()
        mirror.wait()
        assert not list((tmp_path / '.to_copy').iterdir())
    there = store_of(files).list()
    assert 'complete/3.json' in there and 'complete/2.json' not in there and 'checkpoints/2/state/d' not in there


def test_a_step_dropped_after_the_last_copy_is_dropped_at_home_too(tmp_path):
    files = FlakyFileSystem()
    with Mirror(tmp_path, store_of(files)) as mirror:
        for step in (1, 2):
            save(tmp_path / 'checkpoints', step, str(step).encode())
            mirror.push_step(step)
        mirror.wait()
        shutil.rmtree(tmp_path / 'checkpoints' / '1')
    there = store_of(files).list()
    assert 'complete/2.json' in there and 'complete/1.json' not in there and 'checkpoints/1/state/d' not in there


@pytest.mark.parametrize('harm', ['cut', 'flipped', 'gone', 'marker'])
def test_a_damaged_step_is_named_and_the_one_before_it_is_used(tmp_path, harm):
    files, said = FlakyFileSystem(), []
    train(tmp_path / 'a', store_of(files), last=10)
    path = '/runs/a/complete/10.json' if harm == 'marker' else '/runs/a/checkpoints/10/state/big'
    data = files.store[path].getvalue()
    files.store.pop(path)
    if harm != 'gone':
        files.pipe_file(path, {'cut': data[:-1], 'flipped': data[:-1] + bytes([data[-1] ^ 1]), 'marker': data[: len(data) // 2]}[harm])
    with Mirror(tmp_path / 'b', store_of(files, tries=2), say=said.append) as mirror:
        assert mirror.fetch() == 5
    assert len(said) == 1 and said[0].startswith('checkpoint 10 of memory://runs/a was not used: ')
    assert not (tmp_path / 'b' / 'checkpoints' / '10').exists()
    assert train(tmp_path / 'b', store_of(files, tries=2), last=20) == state_of(20)
    files.store.pop('/runs/a/checkpoints/15/state/d'), files.store.pop('/runs/a/checkpoints/20/state/d')
    with pytest.raises(UserError, match='no whole checkpoint left of 2'):
        Mirror(tmp_path / 'c', store_of(files), say=said.append).fetch()


def test_what_was_not_copied_in_time_is_removed_here_and_what_agrees_is_not_fetched_again(tmp_path):
    files = FlakyFileSystem()
    train(tmp_path / 'a', store_of(files), last=10)
    save(tmp_path / 'a' / 'checkpoints', 11, b'never copied')
    (tmp_path / 'a' / 'checkpoints' / '12.tmp').mkdir()
    (tmp_path / 'a' / 'old.json').write_text('{}')
    (tmp_path / 'a' / 'checkpoints' / '10' / 'state' / 'd').write_bytes(bytes(32))  # as long as it was
    read = []
    files.fault = lambda operation, path: read.append(path) if operation == 'read' else None
    assert Mirror(tmp_path / 'a', store_of(files)).fetch() == 10
    is_whole(tmp_path / 'a', last=10)
    assert sorted(os.listdir(tmp_path / 'a' / 'checkpoints')) == ['10', '5']
    assert not (tmp_path / 'a' / 'old.json').exists()
    assert [path for path in read if path.startswith('/runs/a/checkpoints')] == ['/runs/a/checkpoints/10/state/d']


def test_a_forgotten_process_stops_and_deletes_nothing(tmp_path):
    files = FlakyFileSystem()
    old = Mirror(tmp_path / 'old', store_of(files))
    old.claim()
    train(tmp_path / 'new', store_of(files), last=20)
    save(tmp_path / 'old' / 'checkpoints', 25, b'stale')
    old.push_step(25)
    with pytest.raises(UserError, match='started once more since, elsewhere'):
        old.wait()
    assert Mirror(tmp_path / 'c', store_of(files)).fetch() == 20


def test_clear_deletes_everything(tmp_path):
    files = FlakyFileSystem()
    train(tmp_path / 'a', store_of(files), last=10)
    Mirror(tmp_path / 'b', store_of(files)).clear()
    assert store_of(files).list() == {}
    assert Mirror(tmp_path / 'c', store_of(files)).fetch() is None


def test_a_reader_gets_a_copy_and_what_it_writes_goes_home(tmp_path, monkeypatch):
    monkeypatch.setenv(mirror_lib.SCRATCH, str(tmp_path / 'scratch'))
    files = FlakyFileSystem()
    train(tmp_path / 'a', store_of(files), last=10)
    with mirror_lib.opened('memory://runs/a', store=store_of(files)) as folder:
        is_whole(folder, last=10)
        (folder / 'tables').mkdir()
        (folder / 'tables' / 'metrics_test.json').write_text('{}')
        before = files.done['write']
    assert files.done['write'] == before + 1 and 'tables/metrics_test.json' in store_of(files).list()
    with mirror_lib.opened(tmp_path / 'a') as folder:
        assert folder == tmp_path / 'a'
    with pytest.raises(UsageError, match='holds no run'), mirror_lib.opened('memory://none', store=store_of(files, address='memory://none')):
        pass


def test_training_begins_once_it_is_known_that_the_run_may_go_on(tmp_path, monkeypatch):
    monkeypatch.setenv(mirror_lib.SCRATCH, str(tmp_path / 'scratch'))
    files = FlakyFileSystem()
    train(tmp_path / 'a', store_of(files), last=10)
    with mirror_lib.training('memory://runs/a', store=store_of(files)) as (local, mirror):
        assert (local / 'metrics.jsonl').is_file() and not (local / 'checkpoints').exists()
        with pytest.raises(UserError, match='^--workdir memory://runs/a is not empty$'):
            with mirror_lib._named(local, 'memory://runs/a'):
                raise UserError(f'--workdir {local} is not empty')
        mirror.begin()
        is_whole(local, last=10)
    with mirror_lib.training('memory://runs/a', store=store_of(files)) as (local, mirror):
        shutil.rmtree(local)
        local.mkdir()
        assert 'complete/10.json' in store_of(files).list()
        mirror.begin(overwrite=True)
        assert set(store_of(files).list()) == {'complete/owner'}
    with mirror_lib.training(tmp_path / 'a', processes=4) as (local, mirror):
        assert local == tmp_path / 'a' and mirror is None


def test_two_processes_of_a_machine_do_not_share_a_scratch_folder(tmp_path, monkeypatch):
    monkeypatch.setenv(mirror_lib.SCRATCH, str(tmp_path))
    with mirror_lib.scratch('s3://b/a') as folder, mirror_lib.scratch('s3://b/b') as other:
        assert folder != other and folder.stat().st_mode & 0o077 == 0
        with pytest.raises(UserError, match='another process of this machine works on s3://b/a'), mirror_lib.scratch('s3://b/a'):
            pass
    with mirror_lib.scratch('s3://b/a') as again:
        assert again == folder


def test_the_folder_for_copies_is_the_users_alone(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    assert cache_home() == tmp_path / 'cache' / 'retfound_jax' and cache_home().stat().st_mode & 0o077 == 0


def test_several_processes_are_refused_before_anything_is_computed():
    with pytest.raises(UsageError, match='a file system that all of them share'):
        mirror_lib.check_alone('s3://b/a', processes=2)
    mirror_lib.check_alone('s3://b/a', processes=1)
    mirror_lib.check_alone('/a', processes=2)


def test_a_list_that_leads_out_of_the_folder_is_refused(tmp_path):
    files = FlakyFileSystem()
    train(tmp_path / 'a', store_of(files), last=5)
    files.pipe_file('/runs/a/complete/5.json', b'{"files": {"../../../../evil": {"bytes": 1, "sha256": ""}}}')
    with pytest.raises(UserError, match='no whole checkpoint'):
        Mirror(tmp_path / 'b', store_of(files), say=lambda text: None).fetch()
    assert not (tmp_path / 'evil').exists() and not (tmp_path.parent / 'evil').exists()
