"""Datasets in an object store: what is fetched, when, how it is checked, and who waits for whom."""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from data_sets import records, write_dataset

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.core.files import read_json
from retfound_jax.core.storage import Store
from retfound_jax.data import remote

fsspec = pytest.importorskip('fsspec')
ADDRESS = 'memory://sets/retina'


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A dataset, whose copy is in the store in memory; the local cache is empty."""
    monkeypatch.setenv(remote.FOLDER, str(tmp_path / 'cache'))
    remote._store.cache_clear()
    made = write_dataset(tmp_path / 'retina', {'train': records(12), 'val': records(3)})
    files = fsspec.filesystem('memory')
    files.store.clear()
    for path in made.iterdir():
        files.pipe_file(f'/sets/retina/{path.name}', path.read_bytes())
    return made


@pytest.fixture
def reads(monkeypatch) -> Counter:
    """How often each object was read."""
    count, plain = Counter(), Store.read_range

    def counted(self, name, **span):
        count[name] += 1
        return plain(self, name, **span)

    monkeypatch.setattr(Store, 'read_range', counted)
    return count


def shards(dataset, folder, split='train'):
    return [dataset.shard(item) for item in read_json(folder / 'manifest.json')['shards'] if item['split'] == split]


def test_a_shard_comes_when_it_is_asked_for_and_once(folder, reads):
    dataset = remote.open_remote(ADDRESS)
    assert sorted(path.name for path in dataset.folder.iterdir()) == ['index.parquet', 'manifest.json']
    first, *others = shards(dataset, folder)
    first.fetch()
    first.fetch()
    assert first.path.read_bytes() == (folder / first.file).read_bytes()
    assert reads[first.file] == 1 and not any(reads[shard.file] or shard.is_here() for shard in others)
    remote.fetch_all([first, *others])
    assert all(shard.is_here() for shard in others) and set(reads.values()) == {1}
    again = remote.open_remote(ADDRESS)
    assert again.folder == dataset.folder and reads['index.parquet'] == 1


def test_many_at_once_fetch_a_shard_once(folder, reads):
    [shard, *_] = shards(remote.open_remote(ADDRESS), folder)
    barrier = threading.Barrier(8)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: (barrier.wait(), shard.fetch()), range(8)))
    assert reads[shard.file] == 1


def test_a_dataset_made_anew_at_the_same_address_is_another(folder):
    before = remote.open_remote(ADDRESS)
    files = fsspec.filesystem('memory')
    files.pipe_file('/sets/retina/manifest.json', (folder / 'manifest.json').read_bytes() + b' ')
    assert remote.open_remote(ADDRESS).folder != before.folder


def test_a_damaged_download_is_fetched_once_more_and_a_damaged_object_is_told(folder, monkeypatch, reads):
    dataset = remote.open_remote(ADDRESS)
    first, second, *_ = shards(dataset, folder)
    plain, rng = Store.read_range, random.Random(0)
    harm = [1]

    def damaging(self, name, **span):
        data = bytearray(plain(self, name, **span))
        if harm[0] > 0:
            harm[0] -= 1
            data[rng.randrange(len(data))] ^= 1
        return bytes(data)

    monkeypatch.setattr(Store, 'read_range', damaging)
    first.fetch()
    assert first.path.read_bytes() == (folder / first.file).read_bytes() and reads[first.file] == 2
    harm[0] = 99
    with pytest.raises(UserError, match=f'^{ADDRESS}/{second.file} is damaged: .* copy it there again$'):
        second.fetch()
    assert not second.is_here() and [path.name for path in dataset.folder.iterdir() if '.part' in path.name] == []


def test_what_is_missing_or_does_not_fit_is_one_sentence(folder, monkeypatch):
    files = fsspec.filesystem('memory')
    with pytest.raises(UserError, match='memory://sets/none is not a dataset: it has no manifest.json'):
        remote.open_remote('memory://sets/none')
    dataset = remote.open_remote(ADDRESS)
    wanted = shards(dataset, folder)
    dataset.check_room(wanted)
    with monkeypatch.context() as patch, pytest.raises(UserError, match='needs .* GB more .* the disk has 0.0 GB left'):
        patch.setattr(shutil, 'disk_usage', lambda path: SimpleNamespace(free=5))
        dataset.check_room(wanted)
    files.rm_file(f'/sets/retina/{wanted[0].file}')
    with pytest.raises(UserError, match='does not exist'):
        wanted[0].fetch()
    files.rm_file('/sets/retina/index.parquet')
    shutil.rmtree(dataset.folder)
    with pytest.raises(UserError, match='it has no index.parquet'):
        remote.open_remote(ADDRESS)


def test_a_manifest_that_leads_out_of_the_folder_is_refused(folder):
    dataset = remote.open_remote(ADDRESS)
    item = read_json(folder / 'manifest.json')['shards'][0]
    for name in ('../evil', '/etc/evil', 'a/../../evil'):
        with pytest.raises(UserError, match='no place in its folder'):
            dataset.shard(item | {'file': name})


def test_a_bound_makes_the_dataset_used_longest_ago_go(folder, monkeypatch):
    old = remote.open_remote(ADDRESS)
    remote.fetch_all(shards(old, folder))
    files = fsspec.filesystem('memory')
    files.pipe_file('/sets/retina/manifest.json', (folder / 'manifest.json').read_bytes() + b' ')
    new = remote.open_remote(ADDRESS)
    os.utime(old.folder / 'manifest.json', (1, 1))
    wanted = shards(new, folder)
    size = sum(shard.bytes for shard in wanted)
    monkeypatch.setenv(remote.BOUND, '1')
    new.check_room(wanted)
    assert old.folder.exists()
    held = sum(path.stat().st_size for path in new.folder.iterdir() if path.is_file())
    monkeypatch.setenv(remote.BOUND, str((size + held) / 1e9))
    reader = open(shards(old, folder)[0].path, 'rb')
    new.check_room(wanted)
    assert not old.folder.exists() and new.folder.exists()
    with reader:
        assert reader.read() == (folder / wanted[0].file).read_bytes()  # who has it open reads on
    monkeypatch.setenv(remote.BOUND, str(size / 2e9))
    with pytest.raises(UserError, match=f'{remote.BOUND} allows .* raise it'):
        new.check_room(wanted)
    monkeypatch.setenv(remote.BOUND, 'much')
    with pytest.raises(UsageError, match='a number of gigabytes'):
        new.check_room(wanted)
