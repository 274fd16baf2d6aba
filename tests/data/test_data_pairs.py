"""Pairs of visits: which there are, where they stand in the stream, and that nothing tears or changes them."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from data_sets import records, write_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.data.config import DataConfig
from retfound_jax.data.device import prepare
from retfound_jax.data.loader import Loader
from retfound_jax.data.pairs import epoch_rows, find_pairs, in_pairs
from retfound_jax.data.sources import Reader, Source, open_source
from retfound_jax.ingest.records import NAN

SEED = 5


def source_of(rows: list[tuple[str, str, float]], *, classes: list[str] | None = None) -> Source:
    """A source of (patient, laterality, time) whose images nobody reads."""
    patient, side, time = (list(column) for column in zip(*rows, strict=True))
    table = {'patient': np.array(patient), 'laterality': np.array(side), 'label:when': np.array(time, np.float32)}
    table |= {'key': np.array([f'k{row}' for row in range(len(rows))]), 'age': np.array(time, np.float32) + 50}
    reader = Reader(store=None, positions=np.arange(len(rows)))
    names = {'label_names': ('when',), 'label_classes': {'when': classes}}
    return Source(table=table, labels=np.array(time, np.float32)[:, None], fingerprint='none', reader=reader, **names)


ROW = st.tuples(st.sampled_from('ABC'), st.sampled_from(['R', 'L', '']), st.sampled_from([0.0, 1.0, 2.5, NAN]))
ROWS = st.lists(ROW, min_size=1, max_size=25)


@settings(max_examples=60)
@given(rows=ROWS)
def test_pairs_are_those_that_two_loops_over_the_rows_find(rows: list[tuple[str, str, float]]) -> None:
    wanted = {
        i: {j for j, (patient, side, time) in enumerate(rows) if (patient, side) == rows[i][:2] and side and time > rows[i][2]}
        for i in range(len(rows))
    }
    for by in ('when', 'age'):
        pairs = find_pairs(source_of(rows), by=by)
        found = {int(row): set(pairs.by_time[a:b].tolist()) for row, a, b in zip(pairs.earlier, pairs.start, pairs.stop, strict=True)}
        assert found == {row: later for row, later in wanted.items() if later}


EYES = source_of([(f'P{i // 4}', 'RL'[i % 2], float(i)) for i in range(40)] + [('P0', 'R', 99.0), ('P0', 'R', 99.0), ('alone', 'L', 1.0)])


@settings(max_examples=30)
@given(seed=st.integers(0, 2**40), start=st.integers(0, 200), count=st.integers(1, 60))
def test_the_stream_is_a_function_of_seed_and_place(seed: int, start: int, count: int) -> None:
    pairs = find_pairs(EYES, by='when')
    whole, part = pairs.at(np.arange(start + count), seed=seed), pairs.at(np.arange(start, start + count), seed=seed)
    for a, b in zip(whole, part, strict=True):
        assert (a[start:] == b).all()


def test_each_epoch_holds_each_row_with_a_later_visit_once_and_draws_all_its_later_visits_alike() -> None:
    pairs = find_pairs(EYES, by='when')
    epochs, which, rows = pairs.at(np.arange(600 * len(pairs)), seed=3)
    assert (rows[:, 0] == pairs.earlier[which]).all()
    for epoch in (0, 1, 599):
        assert sorted(rows[epochs == epoch, 0].tolist()) == pairs.earlier.tolist()
    drawn = Counter(rows[rows[:, 0] == 0, 1].tolist())  # of row 0: 2, 40 and 41
    assert set(drawn) == {2, 40, 41}
    assert sum((n - 200) ** 2 / 200 for n in drawn.values()) < 13.8  # chi square, 2 degrees of freedom, one in a thousand
    assert not (rows[epochs == 0] == rows[epochs == 1]).all()


def visits(count: int = 24, *, size: int = 40) -> list:
    """Records of both eyes of patients, two to four visits each by `thickness`, and a patient seen once."""
    made = records(count, size=size)
    for i, one in enumerate(made):
        who = f'P{i // 6}' if i < count - 1 else 'once'
        made[i] = dataclasses.replace(one, patient=who, group=who, laterality='RL'[i % 2], labels={**one.labels, 'thickness': (i % 6) / 2})
    return made


@pytest.fixture(scope='module')
def config(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """24 images, 3 visits of each eye; one of them cannot be read."""
    made = visits()
    made[9] = dataclasses.replace(made[9], image=made[9].image[:200])
    path = write_dataset(tmp_path_factory.mktemp('visits') / 'eyes', {'train': made, 'val': visits(), 'test': records(6)})
    return DataConfig(path=str(path), image_size=16, batch_size=8, labels=('thickness',), pairs='thickness', most_bad=0.5)


def stream(config: DataConfig, *, steps: int, hosts: int = 1, restart: int | None = None) -> Iterator[dict[str, np.ndarray]]:
    """The global batches of each step; `restart`: the step before which everything is started anew from the saved state."""
    source, state = open_source(config), None
    for start, end in ((0, restart), (restart, steps)) if restart else ((0, steps),):
        loaders = [Loader(config, source, seed=SEED, process_index=host, process_count=hosts) for host in range(hosts)]
        for loader in loaders:
            if state is not None:
                loader.restore(state)
        for _ in range(start, end):
            parts = [next(loader) for loader in loaders]
            yield {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        state = json.loads(json.dumps(loaders[0].state()))
        for loader in loaders:
            loader.close()


def same(one: list[dict[str, np.ndarray]], other: list[dict[str, np.ndarray]]) -> bool:
    return all((a[name] == b[name]).all() for a, b in zip(one, other, strict=True) for name in a)


def test_every_batch_is_pairs_and_an_unreadable_member_takes_its_pair_along(config: DataConfig) -> None:
    source = open_source(config)
    eye = np.char.add(source.table['patient'], source.table['laterality'])
    loader = Loader(config, source, seed=SEED)
    batches = [next(loader) for _ in range(12)]
    failed = {failure.row for failure in loader.take_failures()}
    assert failed == {9}
    for batch in batches:
        rows = batch['index'].reshape(-1, 2)
        assert (eye[rows[:, 0]] == eye[rows[:, 1]]).all()
        years = batch['labels'].reshape(-1, 2)
        assert (years[:, 1] > years[:, 0]).all()
        assert (batch['labels'] == source.labels[batch['index']]).all()
        assert 9 not in rows
    assert epoch_rows(config, source) == 2 * len(find_pairs(source, by='thickness'))


def test_hosts_and_restarts_give_the_same_batches(config: DataConfig) -> None:
    whole = list(stream(config, steps=6))
    assert same(whole, list(stream(config, steps=6, hosts=2, restart=2)))
    assert same(whole, list(stream(config, steps=6, hosts=4)))


@pytest.mark.slow
def test_processes_give_the_same_batches(config: DataConfig) -> None:
    assert same(list(stream(config, steps=3)), list(stream(dataclasses.replace(config, workers=2), steps=3)))


def test_chunks_never_part_a_pair(config: DataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = dataclasses.replace(config, batch_size=22)
    whole = list(stream(wide, steps=4))
    monkeypatch.setattr('retfound_jax.data.chunks.LARGEST', 4)
    assert same(whole, list(stream(wide, steps=4)))


def test_both_images_of_a_pair_have_crops_of_their_own_and_one_flip(config: DataConfig) -> None:
    twins = visits()
    twins = [dataclasses.replace(one, image=twins[0].image) for one in twins]  # every photograph is the same picture
    path = write_dataset(Path(config.path).parent / 'twins', {'train': twins})
    same_picture = dataclasses.replace(config, path=str(path))
    image = next(stream(same_picture, steps=1))['image'].astype(int)
    assert np.abs(image[0::2] - image[1::2]).mean(axis=(1, 2, 3)).min() > 1
    plain = dataclasses.replace(same_picture, crop_scale=(1.0, 1.0))
    asymmetric = np.zeros((64, 8, 8, 3), np.uint8)
    asymmetric[:, :, :4] = 255
    flipped = np.asarray(prepare(asymmetric, key=jax.random.key(1), config=plain))[:, 0, 0, 0] < 0
    assert (flipped[0::2] == flipped[1::2]).all() and 8 < flipped[0::2].sum() < 24
    single = np.asarray(prepare(asymmetric, key=jax.random.key(1), config=dataclasses.replace(plain, pairs='')))[:, 0, 0, 0] < 0
    assert (single[0::2] == flipped[0::2]).all() and (single[0::2] != single[1::2]).any()


def test_validation_goes_over_all_rows_with_a_later_visit_in_fixed_pairs(config: DataConfig) -> None:
    source = open_source(dataclasses.replace(config, split='val'))
    one, again = in_pairs(source, by='thickness'), in_pairs(source, by='thickness')
    assert one.table['key'].tolist() == again.table['key'].tolist()
    pairs = find_pairs(source, by='thickness')
    assert one.table['key'][0::2].tolist() == source.table['key'][pairs.earlier].tolist()
    assert (one.labels[1::2] > one.labels[0::2]).all() and len(one) == 2 * len(pairs)
    assert one[3]['image'] == source[int(np.flatnonzero(source.table['key'] == one.table['key'][3])[0])]['image']


def test_what_cannot_be_paired_is_refused_in_one_sentence(config: DataConfig) -> None:
    def loader(**changes: object) -> Loader:
        changed = dataclasses.replace(config, **{k: v for k, v in changes.items() if k != 'hosts'})
        return Loader(changed, open_source(changed), seed=0, process_count=changes.get('hosts', 1))

    with pytest.raises(UserError, match='no patient of the split "test" has two photographs of one eye at different "thickness"'):
        loader(split='test')
    with pytest.raises(UsageError, match='data.pairs is "thicknes", which is no label of the data, did you mean'):
        loader(pairs='thicknes')
    with pytest.raises(UsageError, match='parts pairs of rows'):
        loader(batch_size=7)
    with pytest.raises(UsageError, match='parts pairs of rows'):
        loader(batch_size=6, hosts=2)
    with pytest.raises(UsageError, match='data.pairs is thickness and must be'):
        dataclasses.replace(config, repeat=2)
    with pytest.raises(UsageError, match='classes are words'):
        find_pairs(source_of([('A', 'R', 0.0), ('A', 'R', 1.0)], classes=['first', 'second']), by='when')
    numbered = find_pairs(source_of([('A', 'R', 1.0), ('A', 'R', 0.0)], classes=['2', '10']), by='when')
    assert numbered.earlier.tolist() == [1]


def test_where_nothing_can_stand_in_the_image_is_named(config: DataConfig) -> None:
    made = visits()[:6]
    made[0] = dataclasses.replace(made[0], image=b'no image')
    path = write_dataset(Path(config.path).parent / 'one_pair', {'train': [made[0], made[2]]})
    alone = dataclasses.replace(config, path=str(path))
    with pytest.raises(UserError, match='the image "image0.jpg" cannot be decoded .*nor can those pairs'):
        next(Loader(alone, open_source(alone), seed=0))
