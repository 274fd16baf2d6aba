"""Records that cannot be read: passed over in one way whatever runs, all listed, and never too many of them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import corruptions
import numpy as np
import pytest
from data_sets import jpeg, picture, records, write_dataset

from retfound_jax.core.errors import UserError
from retfound_jax.data import dataset_source
from retfound_jax.data.config import DataConfig
from retfound_jax.data.decode import DecodeFailure, open_image
from retfound_jax.data.failures import Failure, Tally, read_failures
from retfound_jax.data.loader import Loader, eval_batches
from retfound_jax.data.order import stand_ins
from retfound_jax.data.sources import Source, open_source
from retfound_jax.data.store import RecordFailure

ROWS, STEPS, KILLED_AT = 200, 500, 123
ONE_PER_CENT, TWENTY_PER_CENT = (57, 140), tuple(range(3, ROWS, 5))
WAYS = pytest.mark.parametrize('way', corruptions.SIX.values(), ids=corruptions.SIX)


@pytest.fixture(scope='module')
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 photographs that ingest wrote."""
    return corruptions.ingest_phantoms(tmp_path_factory.mktemp('sound'), ROWS)


@pytest.fixture
def damaged(sound: Path, tmp_path: Path) -> Callable[..., DataConfig]:
    """A copy with records at positions spoilt in a way, in batches of 4 at 16 px."""

    def make(positions: tuple[int, ...], way: Callable, **options: object) -> DataConfig:
        path = tmp_path / f'eyes{len(list(tmp_path.iterdir()))}'
        shutil.copytree(sound, path)
        corruptions.corrupt(path, positions, way)
        return DataConfig(**{'path': str(path), 'image_size': 16, 'batch_size': 4, **options})

    return make


@dataclasses.dataclass
class Run:
    """What a stretch of the stream was."""

    digests: list[str]
    failures: list[Failure]
    state: dict


def run(config: DataConfig, source: Source, *, until: int, state: dict | None = None, **hosts: int) -> Run:
    """Batches up to step `until`, from the start or from a saved state; asks after each whether there are too many."""
    loader = Loader(config, source, seed=5, **hosts)
    if state is not None:
        loader.restore(json.loads(json.dumps(state)))
    digests, failures = [], []
    try:
        while loader.step < until:
            batch = next(loader)
            digests.append(hashlib.sha256(b''.join(batch[name].tobytes() for name in ('index', 'image', 'labels'))).hexdigest())
            failures += loader.take_failures()
            assert loader.too_many() == ''
        return Run(digests, failures, loader.state())
    finally:
        loader.close()


@WAYS
def test_one_per_cent_is_passed_over_the_same_on_resume_and_all_listed(damaged: Callable[..., DataConfig], way: Callable) -> None:
    config = damaged(ONE_PER_CENT, way)
    source = open_source(config)
    whole = run(config, source, until=STEPS)
    first = run(config, source, until=KILLED_AT)
    second = run(config, source, until=STEPS, state=first.state)
    assert first.digests + second.digests == whole.digests
    assert first.failures + second.failures == whole.failures
    assert {failure.key for failure in whole.failures} == set(source.table['key'][list(ONE_PER_CENT)])
    assert len(whole.failures) >= 2 * STEPS * 4 // ROWS and all(failure.reason for failure in whole.failures)
    assert second.state == whole.state


def test_six_per_cent_in_six_ways_at_once_is_one_stream_for_hosts_and_workers(damaged: Callable[..., DataConfig]) -> None:
    config = damaged((), corruptions.zeroed, batch_size=8, most_bad=0.1)
    spoilt = [(10 + 30 * number, 20 + 30 * number) for number in range(6)]
    for positions, way in reversed(list(zip(spoilt, corruptions.SIX.values(), strict=True))):  # those of whole records first
        corruptions.corrupt(Path(config.path), positions, way)
    source = open_source(config)
    alone = run(config, source, until=50)
    assert {failure.row for failure in alone.failures} == {row for rows in spoilt for row in rows}
    parts = [run(config, source, until=50, process_index=host, process_count=2) for host in range(2)]
    joined = {(failure.step, failure.row): failure for part in parts for failure in part.failures}
    assert [joined[place] for place in sorted(joined)] == alone.failures
    assert run(dataclasses.replace(config, workers=1), source, until=20).digests == alone.digests[:20]


@WAYS
def test_twenty_per_cent_stops_and_says_so(damaged: Callable[..., DataConfig], way: Callable) -> None:
    config = damaged(TWENTY_PER_CENT, way)
    source = open_source(config)
    loader = Loader(config, source, seed=5)
    told: list[str] = []
    while not loader.too_many() and loader.step < STEPS:
        next(loader)
        told += [failure.key for failure in loader.take_failures()]
    loader.close()
    assert loader.step * 4 <= 500
    assert 'images drawn for training cannot be read, more than data.most_bad = 0.05 lets pass' in loader.too_many()
    assert set(told) <= set(source.table['key'][list(TWENTY_PER_CENT)])
    with pytest.raises(UserError, match='the image ".*" cannot be decoded'):
        list(eval_batches(config, source))


def test_what_stands_in_is_another_row_cropped_for_this_place(damaged: Callable[..., DataConfig], sound: Path) -> None:
    config = damaged(ONE_PER_CENT, corruptions.truncated_jpeg)
    loaders = [Loader(c, open_source(c), seed=5) for c in (config, dataclasses.replace(config, path=str(sound)))]
    replaced = 0
    for _ in range(100):
        one, other = (next(loader) for loader in loaders)
        same = one['index'] == other['index']
        assert (one['image'][same] == other['image'][same]).all()
        assert set(other['index'][~same]) <= set(ONE_PER_CENT) and not set(one['index']) & set(ONE_PER_CENT)
        replaced += (~same).sum()
    for loader in loaders:
        loader.close()
    assert replaced == 4  # two rows in two epochs


def test_stand_ins_are_a_function_of_their_arguments_and_spread() -> None:
    some = stand_ins(7, epoch=3, rows=50, seed=1)
    assert (some == stand_ins(7, epoch=3, rows=50, seed=1)).all() and 7 not in some and len(some) == 16
    chains = {tuple(stand_ins(row, epoch=epoch, rows=50, seed=seed)) for row in range(5) for epoch in range(5) for seed in range(5)}
    assert len(chains) == 125
    drawn = np.bincount([stand_ins(row, epoch=epoch, rows=10, seed=0)[0] for row in range(10) for epoch in range(500)], minlength=10)
    assert abs(drawn - 500).max() < 5 * np.sqrt(500)
    assert stand_ins(1, epoch=0, rows=2, seed=0).tolist() == [0] * 16 and len(stand_ins(0, epoch=0, rows=1, seed=0)) == 0


@pytest.mark.parametrize('count', [1, 4])
def test_where_nothing_can_stand_in_the_image_is_named(tmp_path: Path, count: int) -> None:
    made = [dataclasses.replace(record, image=b'') for record in records(count)]
    config = DataConfig(path=str(write_dataset(tmp_path / 'eyes', {'train': made})), image_size=16, batch_size=2)
    with pytest.raises(UserError, match='the image "image.*" cannot be decoded .there are no bytes; nor can those'):
        next(Loader(config, open_source(config), seed=0))


def fed(tally: Tally, shares: list[float], *, batch: int = 8, seed: int = 0) -> int:
    """Images until there are too many of them, each unreadable by the chance that `shares` gives it; 0 if never."""
    bad = np.random.default_rng(seed).random(len(shares)) < shares
    for end in range(batch, len(shares) + 1, batch):
        tally.add(seen=batch, bad=int(bad[end - batch : end].sum()))
        if tally.too_many():
            return end
    return 0


@pytest.mark.parametrize('seed', range(5))
def test_one_in_a_hundred_passes_for_ever_and_one_in_five_is_told_soon(seed: int) -> None:
    assert fed(Tally(most_bad=0.05), [0.01] * 400_000, seed=seed) == 0
    assert fed(Tally(most_bad=0.05), [0.05] * 400_000, seed=seed) == 0
    assert 80 <= fed(Tally(most_bad=0.05), [0.2] * 2000, seed=seed) <= 500
    assert 400 <= fed(Tally(most_bad=0.05), [0.1] * 5000, seed=seed) <= 4000
    late = fed(Tally(most_bad=0.05), [0.0] * 400_000 + [0.2] * 2000, seed=seed)
    assert 400_080 <= late <= 400_500


@pytest.mark.parametrize('most_bad', [0.001, 0.05, 0.3, 0.9])
def test_data_of_which_nothing_can_be_read_are_told_whatever_is_allowed(most_bad: float) -> None:
    assert 30 < fed(Tally(most_bad=most_bad), [1.0] * 2000) <= 700


def test_one_record_in_the_first_batch_is_not_too_many_unless_none_is_allowed() -> None:
    for most_bad, said in ((0.05, False), (0.0, True)):
        tally = Tally(most_bad=most_bad)
        tally.add(seen=1, bad=1)
        assert bool(tally.too_many()) == said
    tally.add(seen=10**6, bad=0)
    assert tally.too_many()


def test_counting_goes_on_from_its_state() -> None:
    straight, first, second = (Tally(most_bad=0.05) for _ in range(3))
    straight.add(seen=100, bad=20)
    straight.add(seen=100, bad=30)
    first.add(seen=100, bad=20)
    second.restore(json.loads(json.dumps(first.state())))
    second.add(seen=100, bad=30)
    assert second == straight and straight.too_many().startswith('50 of the last 200 images')
    second.restore({})
    assert second == Tally(most_bad=0.05)


def test_failures_of_hosts_are_merged_by_key(tmp_path: Path) -> None:
    one, two = (Failure(step=step, row=row, key=key, reason='cut "short"') for step, row, key in ((9, 1, 'ä.jpg'), (3, 0, 'a.jpg')))
    again = dataclasses.replace(one, step=4)
    files = [tmp_path / f'host-{number:05d}.jsonl' for number in range(2)]
    files[0].write_text(one.line() + '\n' + two.line() + '\n', encoding='utf-8')
    files[1].write_text(again.line() + '\n' + two.line()[:20], encoding='utf-8')  # cut by a crash
    assert read_failures(files) == [two, again]
    files[1].write_text('{"step": 1}\n' + two.line() + '\n', encoding='utf-8')
    with pytest.raises(UserError, match='host-00001.jsonl line 1 is not what was written'):
        read_failures(files)


@pytest.mark.parametrize('waited', [None, 0.0], ids=['one by one', 'many at once'])
@pytest.mark.parametrize('way', [corruptions.zeroed, corruptions.chunk_header, corruptions.flipped_bit, corruptions.not_a_record])
def test_a_damaged_record_does_not_take_its_neighbours(
    damaged: Callable[..., DataConfig], sound: Path, way: Callable, waited: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if waited is not None:
        monkeypatch.setattr(dataset_source, '_WAITED', waited)
    store = open_source(damaged(ONE_PER_CENT, way)).reader.store
    whole = open_source(DataConfig(path=str(sound))).reader.store.read(range(ROWS))
    for _ in range(2):
        with pytest.raises(RecordFailure, match='is damaged: a record cannot be read'):
            store.read(range(ROWS))
        for bad in ONE_PER_CENT:
            with pytest.raises(RecordFailure, match='eyes.* is damaged: a record cannot be read'):
                store.read([bad])
            assert store.read([bad - 1, bad + 1]) == [whole[bad - 1], whole[bad + 1]]
    others = [row for row in range(ROWS) if row not in ONE_PER_CENT]
    assert store.read(others) == [whole[row] for row in others]


def test_a_failure_travels_between_processes() -> None:
    sent = RecordFailure('the dataset eyes', 'hash mismatch')
    got = pickle.loads(pickle.dumps(sent))
    assert str(got) == str(sent) and (got.where, got.reason) == ('the dataset eyes', 'hash mismatch')


@pytest.mark.parametrize('waited', [None, 0.0], ids=['one by one', 'many at once'])
def test_a_shard_that_is_cut_or_whose_end_is_spoilt_stops_training(
    damaged: Callable[..., DataConfig], waited: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if waited is not None:
        monkeypatch.setattr(dataset_source, '_WAITED', waited)
    config = damaged((), corruptions.zeroed)
    (shard,) = Path(config.path).glob('*array_record*')
    data = shard.read_bytes()
    at = len(data) - (1 << 16) + 70  # in the last block, where the list of records begins
    for spoilt in (data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], data[: len(data) // 2]):
        source = open_source(config)  # as it was when the run began
        shard.write_bytes(spoilt)
        loader = Loader(config, source, seed=0)
        with pytest.raises(UserError, match='is damaged: retina.* cannot be read .*copy it again or ingest') as error:
            for _ in range(60):
                next(loader)
        assert '\n' not in str(error.value)
        shard.write_bytes(data)
    os.truncate(shard, 100_000)
    with pytest.raises(UserError, match='has 100000 bytes and should have'):
        open_source(config)
    shard.unlink()
    with pytest.raises(UserError, match='retina.* is missing'):
        open_source(config)


@pytest.mark.parametrize(('height', 'width'), [(65500, 65500), (20000, 20000), (65000, 30)])
def test_an_image_of_a_size_that_no_photograph_has_costs_no_memory(height: int, width: int) -> None:
    data = jpeg(picture(0))
    at = data.index(b'\xff\xc0') + 5
    with pytest.raises(DecodeFailure, match=f'it says that it is {width} x {height} px'):
        open_image(data[:at] + height.to_bytes(2) + width.to_bytes(2) + data[at + 4 :])


def test_a_png_of_a_size_that_no_photograph_has_costs_no_memory() -> None:
    import cv2

    data = cv2.imencode('.png', picture(0))[1].tobytes()
    for size in (1 << 15, (1 << 31) - 1):
        with pytest.raises(DecodeFailure, match='it says that it is'):
            open_image(data[:16] + size.to_bytes(4) * 2 + data[24:])


def test_a_skipped_stretch_moves_the_stream_and_not_the_steps(sound: Path) -> None:
    config = DataConfig(path=str(sound), image_size=32, resolution=((0, 16), (6, 32)), batch_size=4)
    source = open_source(config)
    plain, skipping = Loader(config, source, seed=2), Loader(config, source, seed=2)
    rows = [next(plain)['index'].tolist() for _ in range(12)]
    assert [next(skipping)['index'].tolist() for _ in range(3)] == rows[:3]
    skipping.skip(4)
    batches = [next(skipping) for _ in range(2)]
    state = json.loads(json.dumps(skipping.state()))
    assert (skipping.step, skipping.offset, state['offset']) == (5, 4, 4)
    other = Loader(config, source, seed=2)
    other.restore(state)
    batches += [next(other) for _ in range(3)]
    assert [batch['index'].tolist() for batch in batches] == rows[7:]
    assert [batch['image'].shape[1] for batch in batches] == [16, 16, 16, 32, 32]  # of steps 3 to 7
    other.restore({name: value for name, value in state.items() if name not in ('offset', 'unreadable')})  # as saved before there were any
    assert other.offset == 0 and next(other)['index'].tolist() == rows[5]
    with pytest.raises(ValueError, match='-1 batches cannot be skipped'):
        other.skip(-1)
    for loader in (plain, skipping, other):
        loader.close()
