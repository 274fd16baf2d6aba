"""Sampling by temperature: exact proportions, computed at any position, checked by plain counts and against Grain's own mixture."""

from __future__ import annotations

import collections
import dataclasses
import json

import grain
import numpy as np
import pytest
from data_sets import records, write_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from retfound_jax.core.config import from_dict, to_dict
from retfound_jax.core.errors import UsageError
from retfound_jax.data.balance import BalanceConfig, Balanced, row_shares, shares
from retfound_jax.data.compose import ComposeConfig
from retfound_jax.data.config import DataConfig
from retfound_jax.data.loader import Loader
from retfound_jax.data.sources import Source, open_source
from retfound_jax.data.strata import Strata

SIZES = st.lists(st.integers(1, 400), min_size=1, max_size=12)


def strata(sizes: list[int], *, names: str = 'abcdefghijkl') -> Strata:
    """Rows of the strata mixed up."""
    index = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes), dtype=np.int32), sizes))
    return Strata(names=tuple(names[: len(sizes)]), index=index)


def order(sizes: list[int], *, seed: int = 3, **options: object) -> tuple[Strata, Balanced]:
    found = strata(sizes)
    return found, Balanced.of(BalanceConfig(by='site', **options), strata=found, seed=seed)


def test_the_published_example() -> None:
    """10,000, 1,000 and 100 at T = 0.5."""
    found = strata([10000, 1000, 100])
    assert shares(BalanceConfig(by='site', temperature=0.5), strata=found).round(3).tolist() == [0.706, 0.223, 0.071]
    assert np.allclose(shares(BalanceConfig(by='site', temperature=0), strata=found), 1 / 3, rtol=1e-12)
    assert np.allclose(shares(BalanceConfig(by='site', temperature=1), strata=found), np.array([10000, 1000, 100]) / 11100, rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(SIZES, st.floats(0, 1), st.integers(0, 10**12), st.integers(1, 600))
def test_any_stretch_of_the_stream_has_each_stratum_by_its_quota(sizes: list[int], temperature: float, start: int, count: int) -> None:
    found, drawn = order(sizes, temperature=temperature)
    wanted = np.array(sizes, float) ** temperature
    for first in (0, start):
        _, rows = drawn.at(np.arange(first, first + count))
        counts = np.stack([np.cumsum(found.index[rows] == stratum) for stratum in range(len(sizes))], axis=1)
        off = np.abs(counts - np.arange(1, count + 1)[:, None] * wanted / wanted.sum())
        # From the start a stratum is never 2 from its quota, so a stretch of any place never 4; from the start of a stream 1.3 is usual.
        assert off.max() < (2 if first == 0 else 4)
        if len(sizes) == 2 and first == 0:
            assert off.max() <= 0.5 + 1e-6


@settings(max_examples=40, deadline=None)
@given(SIZES, st.integers(0, 100), st.integers(0, 500), st.integers(1, 100))
def test_any_position_can_be_asked_for_at_once(sizes: list[int], seed: int, start: int, count: int) -> None:
    _, drawn = order(sizes, seed=seed)
    whole, part = drawn.at(np.arange(start + count)), drawn.at(np.arange(start, start + count))
    assert all((a[start:] == b).all() for a, b in zip(whole, part, strict=True))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(0, 1000))
def test_within_a_stratum_each_row_comes_once_before_any_comes_twice(sizes: list[int], seed: int) -> None:
    found, drawn = order(sizes, seed=seed, temperature=0.3)
    epochs, rows = drawn.at(np.arange(400))
    for stratum, size in enumerate(sizes):
        here = rows[found.index[rows] == stratum]
        for start in range(0, len(here), size):
            part = here[start : start + size]
            assert len(set(part.tolist())) == len(part)
        assert (epochs[found.index[rows] == stratum] == np.arange(len(here)) // size).all()


def test_a_stratum_goes_over_its_rows_in_an_order_that_differs_by_seed_and_time() -> None:
    found, (_, one), (_, other) = strata([30, 90]), order([30, 90], temperature=0), order([30, 90], temperature=0, seed=4)
    rows = [drawn.at(np.arange(240))[1] for drawn in (one, other)]
    small = [tuple(r[found.index[r] == 0][i : i + 30]) for r in rows for i in (0, 30, 60)]
    assert len(set(small)) == 6 and len({frozenset(part) for part in small}) == 1


def test_grains_own_mixture_has_the_same_proportions() -> None:
    weights = [0.706, 0.223, 0.071]
    mixed = grain.MapDataset.mix([grain.MapDataset.source([stratum] * 4000).repeat() for stratum in range(3)], weights=weights)
    theirs = np.array([mixed[place] for place in range(2000)])
    given = tuple(zip('abc', weights, strict=True))
    found = strata([4000, 4000, 4000])
    _, rows = Balanced.of(BalanceConfig(by='site', weights=given), strata=found, seed=0).at(np.arange(2000))
    for until in (10, 100, 1000, 2000):
        ours = np.bincount(found.index[rows[:until]], minlength=3)
        assert np.abs(ours - np.bincount(theirs[:until], minlength=3)).max() <= 2
        assert np.abs(ours - until * np.array(weights)).max() < 1


def test_who_is_not_described_keeps_its_share_or_is_a_stratum() -> None:
    found = Strata(names=('F', 'M', 'declined', 'missing'), index=np.repeat(np.arange(4, dtype=np.int32), [60, 20, 5, 15]))
    left = shares(BalanceConfig(by='sex', temperature=0), strata=found)
    assert np.allclose(left, [0.4, 0.4, 0.05, 0.15])
    assert np.allclose(shares(BalanceConfig(by='sex', temperature=0, unknown='stratum'), strata=found), 0.25)
    weighted = shares(BalanceConfig(by='sex', weights=(('F', 3.0), ('M', 1.0), ('missing', 0.0))), strata=found)
    assert np.allclose(weighted, [0.95 * 0.75, 0.95 * 0.25, 0.05, 0.0])
    rows = row_shares(BalanceConfig(by='sex', temperature=0), strata=found, rows=100)
    assert np.allclose([rows[:60].sum(), rows[60:80].sum(), rows.sum()], [0.4, 0.4, 1.0])
    assert np.allclose(row_shares(None, strata=None, rows=4), 0.25)


@pytest.fixture(scope='module')
def config(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """24 images, two thirds of them of the site north, one of which cannot be read."""
    made = records(24, size=40)
    made[2] = dataclasses.replace(made[2], image=b'no photograph')
    path = write_dataset(tmp_path_factory.mktemp('data') / 'eyes', {'train': made, 'val': records(6, size=40)})
    balance = BalanceConfig(by='site', temperature=0)
    return DataConfig(path=str(path), image_size=16, batch_size=8, balance=balance, groups='site', most_bad=0.5)


def batches(config: DataConfig, source: Source, count: int, **hosts: int) -> list[dict[str, np.ndarray]]:
    loader = Loader(config, source, seed=5, **hosts)
    try:
        return [next(loader) for _ in range(count)]
    finally:
        loader.close()


def test_batches_are_balanced_though_a_record_cannot_be_read(config: DataConfig) -> None:
    source = open_source(config)
    loader = Loader(config, source, seed=5)
    made = [next(loader) for _ in range(30)]
    bad = loader.take_failures()
    loader.close()
    names = source.strata('site', field='data.groups').names
    assert names == ('north', 'south') and {failure.key for failure in bad} == {'image2.jpg'}
    for batch in made:
        assert collections.Counter(source.table['site'][batch['index']].tolist()) == {'north': 4, 'south': 4}
        assert batch['group'].dtype == np.int32
        assert [names[group] for group in batch['group']] == source.table['site'][batch['index']].tolist()


def test_it_resumes_and_is_the_same_for_any_hosts_and_samples_of_an_image(config: DataConfig) -> None:
    source = open_source(config)
    whole = batches(config, source, 6)
    parts = [batches(config, source, 6, process_index=host, process_count=2) for host in range(2)]
    for step, batch in enumerate(whole):
        for name in ('index', 'group', 'image'):
            assert (np.concatenate([part[step][name] for part in parts]) == batch[name]).all()
    loader = Loader(config, source, seed=5)
    state = json.loads(json.dumps([next(loader) for _ in range(4)] and loader.state()))
    loader.close()
    loader = Loader(config, source, seed=5)
    loader.restore(state)
    assert (next(loader)['index'] == whole[4]['index']).all()
    loader.close()
    (twice,) = batches(dataclasses.replace(config, batch_size=16, repeat=2), source, 1)
    assert (twice['index'] == whole[0]['index']).all()


@pytest.mark.slow
def test_worker_processes_make_the_same_batches(config: DataConfig) -> None:
    source = open_source(config)
    for one, other in zip(batches(config, source, 4), batches(dataclasses.replace(config, workers=2), source, 4), strict=True):
        assert all((one[name] == other[name]).all() for name in one)


def test_a_part_of_the_data_is_balanced_too(config: DataConfig) -> None:
    part = dataclasses.replace(config, fraction=0.8, compose=ComposeConfig(by='site', shares=(('north', 0.8), ('south', 0.2)), images=10))
    source = open_source(part)
    assert collections.Counter(source.table['site'].tolist()) == {'north': 8, 'south': 2}
    (batch,) = batches(part, source, 1)
    assert batch['group'].tolist().count(0) == 4
    assert from_dict(DataConfig, to_dict(part)) == part


def test_a_stratum_of_one_bad_record_is_stood_in_for_by_another(config: DataConfig) -> None:
    found = Strata(names=('north', 'south'), index=np.array([0, 1, 0, 0], np.int32))
    drawn = Balanced.of(BalanceConfig(by='site'), strata=found, seed=0)
    assert set(drawn.stand_ins(1, epoch=0).tolist()) <= {0, 2, 3}
    first = drawn.stand_ins(0, epoch=4)
    assert set(first[:16].tolist()) <= {2, 3} and 0 not in first


def test_ten_thousand_strata_are_drawn_and_more_are_refused() -> None:
    found = Strata(names=tuple(map(str, range(10_000))), index=np.repeat(np.arange(10_000, dtype=np.int32), 2))
    drawn = Balanced.of(BalanceConfig(by='site', temperature=0), strata=found, seed=0)
    _, rows = drawn.at(np.arange(64))
    assert len(set(found.index[rows].tolist())) == 64
    people = {'key': np.arange(10_001).astype(str), 'site': np.arange(10_001).astype(str)}
    source = Source(table=people, labels=np.zeros((10_001, 0)), label_names=(), label_classes={}, fingerprint='', reader=None)
    with pytest.raises(UsageError, match='10,001 different values; name a column that has 10,000 or fewer'):
        source.strata('site', field='data.balance.by')


def test_what_cannot_be_balanced_is_said_in_one_sentence(config: DataConfig) -> None:
    wrong = {
        'did you mean "site"': BalanceConfig(by='sites'),
        'which no image to train on has': BalanceConfig(by='country'),
        'value "nort" of site, did you mean "north"': BalanceConfig(by='site', weights=(('nort', 1.0), ('south', 1.0))),
        'no weight for the value "south"': BalanceConfig(by='site', weights=(('north', 1.0),)),
        'a number: name a column that has classes': BalanceConfig(by='thickness'),
    }
    for message, balance in wrong.items():
        with pytest.raises(UsageError, match=message) as caught:
            Loader(changed := dataclasses.replace(config, balance=balance), open_source(changed), seed=0)
        assert '\n' not in str(caught.value)
    broken = {'0 .*to 1': {'temperature': 1.5}, 'twice': {'weights': (('a', 1.0),) * 2}, 'above 0': {'weights': (('a', 0.0),)}}
    for message, options in broken.items():
        with pytest.raises(UsageError, match=message):
            BalanceConfig(by='site', **options)
    with pytest.raises(UsageError, match='data.balance is .* and must be null with data.pairs'):
        dataclasses.replace(config, pairs='thickness', groups='')
