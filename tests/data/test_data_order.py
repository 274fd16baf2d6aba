"""The order of rows: a true shuffle of any size, computed at any position."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retfound_jax.data.order import permute, permute_each, rows_at


@given(rows=st.integers(1, 3000), seed=st.integers(0, 2**63), epoch=st.integers(0, 10**6))
def test_each_epoch_holds_each_row_once(rows: int, seed: int, epoch: int) -> None:
    assert sorted(permute(np.arange(rows), rows=rows, seed=seed, epoch=epoch).tolist()) == list(range(rows))


@settings(max_examples=25)
@given(rows=st.integers(1, 50), seed=st.integers(0, 100), start=st.integers(0, 300), count=st.integers(1, 100))
def test_any_stretch_of_the_stream_equals_that_stretch_of_the_whole(rows: int, seed: int, start: int, count: int) -> None:
    whole = rows_at(np.arange(start + count), rows=rows, seed=seed)
    part = rows_at(np.arange(start, start + count), rows=rows, seed=seed)
    for a, b in zip(whole, part, strict=True):
        assert (a[start:] == b).all()


def test_orders_differ_between_epochs_and_seeds() -> None:
    orders = {tuple(permute(np.arange(50), rows=50, seed=seed, epoch=epoch)) for seed in range(20) for epoch in range(20)}
    assert len(orders) == 400


def test_all_orders_of_four_rows_are_about_equally_likely() -> None:
    counts = Counter(tuple(permute(np.arange(4), rows=4, seed=7, epoch=epoch)) for epoch in range(2400))
    expected = 2400 / 24
    chi_square = sum((counts[order] - expected) ** 2 / expected for order in counts)
    assert len(counts) == 24
    assert chi_square < 49.7  # 23 degrees of freedom, one in a thousand


def test_a_row_stands_anywhere_and_neighbours_are_unrelated() -> None:
    rows = 1000
    orders = np.stack([permute(np.arange(rows), rows=rows, seed=1, epoch=epoch) for epoch in range(200)])
    assert abs(np.mean(orders[:, 0]) - (rows - 1) / 2) < 4 * rows / np.sqrt(12 * 200)
    a, b = orders[:, :-1].ravel(), orders[:, 1:].ravel()
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.01


@pytest.mark.parametrize(
    ('rows', 'seed', 'epoch', 'order'),
    [
        (5236, 3, 1, [736, 1350, 4284, 4639, 957, 2573]),  # kept whole
        (100_000_000, 2**63 + 1, 7, [69019704, 3876956, 97739886, 33017317, 34890228, 8364183]),  # rounds from tables
        (2**33 + 5, 0, 0, [796271439, 8260215952, 3232182223, 6713208754, 5891914546, 5836297298]),
    ],
)
def test_the_order_is_that_of_runs_begun_before(rows: int, seed: int, epoch: int, order: list[int]) -> None:
    assert permute(np.arange(6), rows=rows, seed=seed, epoch=epoch).tolist() == order
    assert permute(np.array([5, 0]), rows=rows, seed=seed, epoch=epoch).tolist() == [order[5], order[0]]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 2**34), st.integers(0, 2**40), st.integers(0, 50), st.integers(0, 2**34)), min_size=1, max_size=8))
def test_many_orders_at_once_are_each_its_own(sets: list[tuple[int, int, int, int]]) -> None:
    rows, seeds, epochs, ranks = (np.array(column) for column in zip(*sets, strict=True))
    found = permute_each(ranks % rows, rows=rows, seeds=seeds, epochs=epochs)
    for place, (size, seed, epoch, rank) in enumerate(sets):
        assert found[place] == permute(np.array([rank % size]), rows=size, seed=seed, epoch=epoch)[0]


def test_a_hundred_million_rows_cost_nothing() -> None:
    found = permute(np.array([0, 1, 99_999_999]), rows=100_000_000, seed=0, epoch=3)
    assert len(set(found.tolist())) == 3 and found.max() < 100_000_000
