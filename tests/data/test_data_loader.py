"""The loader: the stream is a function of (seed, step) and of nothing else."""

from __future__ import annotations

import dataclasses
import json
import shutil
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from data_sets import records, write_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.data.config import DataConfig
from retfound_jax.data.loader import Batch, Loader, eval_batches
from retfound_jax.data.sources import Source, open_source
from retfound_jax.data.transforms import eval_image

ROWS = 23


@pytest.fixture(scope='module')
def config(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """23 small images in batches of 4."""
    path = write_dataset(tmp_path_factory.mktemp('data') / 'eyes', {'train': records(ROWS, size=40)})
    return DataConfig(path=str(path), image_size=16, batch_size=4, labels=('grade', 'cataract'))


@pytest.fixture(scope='module')
def source(config: DataConfig) -> Source:
    """Its training split."""
    return open_source(config)


def take(config: DataConfig, source: Source, count: int, *, seed: int = 5, start: int = 0, **hosts: int) -> list[Batch]:
    """Batches `start` to `start + count` of a fresh loader."""
    loader = Loader(config, source, seed=seed, **hosts)
    loader.restore({**loader.state(), 'step': start})
    try:
        return [next(loader) for _ in range(count)]
    finally:
        loader.close()


def same(left: list[Batch], right: list[Batch]) -> bool:
    """Bit for bit."""
    return len(left) == len(right) and all(
        a.keys() == b.keys() and all(np.array_equal(a[name], b[name], equal_nan=name == 'labels') for name in a)
        for a, b in zip(left, right, strict=True)
    )


def test_a_batch_is_what_its_rows_say(config: DataConfig, source: Source) -> None:
    (batch,) = take(config, source, 1)
    assert {name: (value.shape, value.dtype.name) for name, value in batch.items()} == {
        'image': ((4, 16, 16, 3), 'uint8'),
        'index': ((4,), 'int64'),
        'labels': ((4, 2), 'float32'),
    }
    np.testing.assert_array_equal(batch['labels'], source.labels[batch['index']])


def test_each_epoch_covers_each_row_once(config: DataConfig, source: Source) -> None:
    rows = np.concatenate([batch['index'] for batch in take(config, source, ROWS)])  # 4 epochs of 23 rows in 23 batches of 4
    for epoch in range(4):
        assert sorted(rows[epoch * ROWS : (epoch + 1) * ROWS]) == list(range(ROWS))
    assert (rows[:ROWS] != rows[ROWS : 2 * ROWS]).any()


def test_the_same_row_is_cropped_anew_in_each_epoch(config: DataConfig, source: Source) -> None:
    batches = take(config, source, 12)
    seen = [(row, image.tobytes()) for batch in batches for row, image in zip(batch['index'], batch['image'], strict=True)]
    assert Counter(row for row, _ in seen).most_common(1)[0][1] > 1
    assert len({image for _, image in seen}) == len(seen)


def test_another_seed_is_another_stream(config: DataConfig, source: Source) -> None:
    assert not same(take(config, source, 2), take(config, source, 2, seed=6))
    assert same(take(config, source, 2), take(config, source, 2))


@settings(max_examples=8)
@given(step=st.integers(0, 10), batch_size=st.sampled_from([1, 4, 7, 30]))
def test_it_resumes_at_any_step(config: DataConfig, source: Source, step: int, batch_size: int) -> None:
    config = dataclasses.replace(config, batch_size=batch_size)
    assert same(take(config, source, step + 2)[step:], take(config, source, 2, start=step))


@pytest.mark.parametrize('hosts', [2, 4])
def test_the_hosts_parts_join_to_the_batch_of_one_host(config: DataConfig, source: Source, hosts: int) -> None:
    config = dataclasses.replace(config, batch_size=8)
    parts = [take(config, source, 4, process_index=host, process_count=hosts) for host in range(hosts)]
    joined = [{name: np.concatenate([part[step][name] for part in parts]) for name in parts[0][step]} for step in range(4)]
    assert same(joined, take(config, source, 4))


def test_a_batch_larger_than_a_chunk_is_the_same_stream(config: DataConfig, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    config = dataclasses.replace(config, batch_size=10)
    whole, ordered = take(config, source, 3), list(eval_batches(config, source))
    monkeypatch.setattr('retfound_jax.data.chunks.LARGEST', 4)
    assert same(whole, take(config, source, 3))
    assert same(ordered, list(eval_batches(config, source)))


def test_a_source_smaller_than_a_batch_works(config: DataConfig, source: Source) -> None:
    config = dataclasses.replace(config, batch_size=60)
    counts = Counter(take(config, source, 1)[0]['index'].tolist())
    assert len(counts) == ROWS and set(counts.values()) == {2, 3}


def test_one_worker_gives_the_same_stream_and_closes(config: DataConfig, source: Source) -> None:
    threads = threading.active_count()
    assert same(take(config, source, 3, start=2), take(dataclasses.replace(config, workers=1), source, 3, start=2))
    assert threading.active_count() <= threads + 4  # nothing piles up


@pytest.mark.slow
def test_two_workers_give_the_same_stream_and_resume_by_any_number(config: DataConfig, source: Source) -> None:
    two = dataclasses.replace(config, workers=2)
    assert same(take(config, source, 6), take(two, source, 6))
    assert same(take(config, source, 2, start=3), take(two, source, 2, start=3))
    assert same(list(eval_batches(config, source)), list(eval_batches(two, source)))


def test_the_state_is_json_and_goes_on_exactly(config: DataConfig, source: Source) -> None:
    first = Loader(config, source, seed=1)
    for _ in range(3):
        next(first)
    state = json.loads(json.dumps(first.state()))
    second = Loader(config, source, seed=1)
    second.restore(state)
    assert second.step == first.step == 3
    assert same([next(first)], [next(second)])
    first.close()
    second.close()


@pytest.mark.parametrize(('field', 'what'), [('seed', 'another seed'), ('fingerprint', 'other data'), ('batch_size', 'another batch size')])
def test_a_state_of_another_stream_is_refused(config: DataConfig, source: Source, field: str, what: str) -> None:
    loader = Loader(config, source, seed=1)
    with pytest.raises(UserError, match=f'belongs to {what}'):
        loader.restore({**loader.state(), field: 99})


def test_close_is_quick_and_may_come_at_any_time(config: DataConfig, source: Source) -> None:
    loader = Loader(config, source, seed=1)
    loader.close()
    first = next(loader)
    loader.close()
    loader.close()
    loader.restore({**loader.state(), 'step': 0})
    assert same([first], [next(loader)])
    loader.close()


@pytest.mark.parametrize('workers', [0, pytest.param(1, marks=pytest.mark.slow)])
def test_evaluation_names_an_image_that_cannot_be_decoded(tmp_path: Path, workers: int) -> None:
    made = records(6)
    made[4] = dataclasses.replace(made[4], image=made[4].image[:300])
    path = write_dataset(tmp_path / 'eyes', {'train': made})
    config = DataConfig(path=str(path), image_size=16, batch_size=3, workers=workers)
    with pytest.raises(UserError, match='the image "image4.jpg" cannot be decoded'):
        list(eval_batches(config, open_source(config)))


def test_too_little_shared_memory_is_said_before_workers_die(config: DataConfig, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type(shutil.disk_usage('.'))(1 << 26, 0, 1 << 20)
    monkeypatch.setattr('retfound_jax.data.stream.shutil.disk_usage', lambda path: usage)
    loader = Loader(dataclasses.replace(config, workers=8, image_size=224, batch_size=64), source, seed=0)
    with pytest.raises(UserError, match='8 workers need .* MiB of shared memory and .* has 1 MiB'):
        next(loader)


def test_hosts_that_cannot_share_and_sources_without_rows_are_refused(config: DataConfig, source: Source) -> None:
    with pytest.raises(UsageError, match='batch_size is 4 and 3 hosts cannot share it equally'):
        Loader(config, source, seed=0, process_count=3)
    empty = dataclasses.replace(config, split='val')
    with pytest.raises(UserError, match='the split "val" has no image'):
        Loader(empty, open_source(empty), seed=0)


@pytest.mark.parametrize('batch_size', [4, 23, 40])
def test_evaluation_sees_each_row_once_in_order(config: DataConfig, source: Source, batch_size: int) -> None:
    batches = list(eval_batches(dataclasses.replace(config, batch_size=batch_size), source))
    assert all(len(batch['index']) == batch_size for batch in batches)
    mask = np.concatenate([batch['mask'] for batch in batches])
    index = np.concatenate([batch['index'] for batch in batches])
    assert index[mask].tolist() == list(range(ROWS)) and (index[~mask] == -1).all()
    first = batches[0]
    assert (first['image'][2] == eval_image(source[2]['image'], size=16, share=1.0)).all()
    np.testing.assert_array_equal(np.concatenate([b['labels'] for b in batches])[mask], source.labels)
    assert np.isnan(np.concatenate([b['labels'] for b in batches])[~mask]).all()


def test_evaluation_over_hosts_covers_each_row_once(config: DataConfig, source: Source) -> None:
    parts = [list(eval_batches(config, source, process_index=host, process_count=2)) for host in range(2)]
    assert len(parts[0]) == len(parts[1])
    joined = [{name: np.concatenate([a[name], b[name]]) for name in a} for a, b in zip(*parts, strict=True)]
    assert same(joined, list(eval_batches(config, source)))


def test_an_empty_source_gives_no_batch(config: DataConfig) -> None:
    config = dataclasses.replace(config, split='test')
    assert list(eval_batches(config, open_source(config))) == []
