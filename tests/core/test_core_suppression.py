"""Small counts cannot be read, nor worked out: an attacker who is given all that is printed solves for what is not."""

from __future__ import annotations

import itertools
import time
from collections.abc import Hashable, Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from retfound_jax.core.suppression import Count, note, withheld, withhold_counts

FLOOR = 20


def attack(printed: Mapping[Hashable, np.ndarray], hidden: np.ndarray, *, some: list[np.ndarray], people: np.ndarray) -> tuple[int, int]:
    """Fewest and most people that can be in the atoms `hidden`, in whole numbers, given the printed sums and that `some` are not empty."""
    rows, low, high = [], [], []
    for atoms in printed.values():
        rows.append(np.isin(np.arange(len(people)), atoms).astype(float))
        low.append(rows[-1] @ people)
        high.append(rows[-1] @ people)
    for atoms in some:
        rows.append(np.isin(np.arange(len(people)), atoms).astype(float))
        low.append(1)
        high.append(np.inf)
    aim = np.isin(np.arange(len(people)), hidden).astype(float)
    ends = []
    for sign in (1, -1):
        limits = LinearConstraint(np.array(rows), low, high)
        found = milp(sign * aim, constraints=limits, bounds=Bounds(0, people.sum()), integrality=np.ones(len(people)))
        assert found.success
        ends.append(round(sign * found.fun))
    return ends[0], ends[1]


def tables(shape: tuple[int, ...], *, crossed: bool) -> dict[Hashable, np.ndarray]:
    """Each column's groups, and where `crossed` those of each pair of columns: names to atoms."""
    atoms = np.arange(np.prod(shape)).reshape(shape)
    found: dict[Hashable, np.ndarray] = {}
    for size in (1, 2) if crossed else (1,):
        for axes in itertools.combinations(range(len(shape)), size):
            for values in itertools.product(*(range(shape[axis]) for axis in axes)):
                index = [slice(None)] * len(shape)
                for axis, value in zip(axes, values, strict=True):
                    index[axis] = value
                found[axes, values] = atoms[tuple(index)].ravel()
    return found


@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(2, 4), min_size=1, max_size=3),
    crossed=st.booleans(),
    seed=st.integers(0, 2**31),
    mean=st.sampled_from([2, 8, 25, 60]),
)
def test_no_withheld_count_can_be_worked_out(shape: list[int], crossed: bool, seed: int, mean: int) -> None:
    rng = np.random.default_rng(seed)
    people = rng.poisson(rng.gamma(0.7, mean / 0.7, size=int(np.prod(shape))))
    groups = tables(tuple(shape), crossed=crossed)
    counts: dict[Hashable, Count] = {'all': Count(atoms=range(len(people)), total=True)}
    counts |= {name: Count(atoms=atoms, floor=FLOOR) for name, atoms in groups.items()}
    hidden = withheld(counts, people=people)
    n = {name: int(people[atoms].sum()) for name, atoms in groups.items()}
    assert {name for name in groups if 0 < n[name] < FLOOR} <= hidden
    printed = {name: atoms for name, atoms in groups.items() if name not in hidden} | {'all': np.arange(len(people))}
    some = [groups[name] for name in hidden if n[name]]
    for name in hidden:
        low, high = attack(printed, groups[name], some=some, people=people)
        assert low <= n[name] <= high
        if people.sum() >= 2 * FLOOR + len(groups):  # a whole that is small itself has nowhere to hide anybody
            assert low < high and (not 0 < n[name] < FLOOR or high >= FLOOR), (name, n[name], low, high)


def test_the_smallest_other_group_goes_with_a_small_one() -> None:
    shown = {'F': 120, 'M': 95, 'missing': 5, 'declined': 0}
    assert withhold_counts(shown) == {'missing': note(), 'M': note()}
    assert withhold_counts(shown, total_printed=False) == {'missing': note()}
    assert withhold_counts({'a': 20, 'b': 30}) == {} == withhold_counts({})
    assert set(withhold_counts({'a': 7, 'b': 8, 'c': 9, 'd': 50})) == {'a', 'b', 'c'}  # one of them may be 22, the others 1
    assert set(withhold_counts({'a': 9, 'b': 9, 'c': 50})) == {'a', 'b', 'c'}  # 9 + 9 together are under the floor


@settings(max_examples=50)
@given(st.dictionaries(st.text(max_size=3), st.integers(0, 60), max_size=8))
def test_one_column_by_the_rule_and_by_the_solver_agree_on_what_is_safe(values: dict[str, int]) -> None:
    by_rule, names = withhold_counts(values), list(values)
    counts: dict[Hashable, Count] = {('all',): Count(atoms=range(len(names)), total=True)}
    counts |= {name: Count(atoms=[k]) for k, name in enumerate(names)}
    by_solver = withheld(counts, people=np.array([values[name] for name in names], int))
    assert len(by_rule) == len(by_solver)
    hidden = sum(values[name] for name in by_rule)
    assert not by_rule or len(by_rule) == sum(n > 0 for n in values.values()) or hidden - (len(by_rule) - 1) >= FLOOR


def test_counts_that_go_together_and_zeros_that_tell() -> None:
    people = np.array([0, 25, 12, 18])  # women with and without, men with and without
    counts: dict[Hashable, Count] = {
        'all': Count(atoms=range(4), total=True),
        'all with': Count(atoms=[0, 2], total=True),
        'F': Count(atoms=[0, 1]),
        'M': Count(atoms=[2, 3]),
        'F with': Count(atoms=[0], floor=10, zero_tells=True, takes_along=('F without',)),
        'F without': Count(atoms=[1], floor=10, zero_tells=True, takes_along=('F with',)),
        'M with': Count(atoms=[2], floor=10, zero_tells=True, takes_along=('M without',)),
        'M without': Count(atoms=[3], floor=10, zero_tells=True, takes_along=('M with',)),
    }
    assert withheld(counts, people=people) == {'F with', 'F without', 'M with', 'M without'}


@pytest.mark.parametrize('largest', [15, 60])
def test_ten_thousand_groups_take_no_time(largest: int) -> None:
    values = {f'site {i}': i % largest for i in range(10_000)}
    start = time.process_time()
    hidden = withhold_counts(values)
    assert time.process_time() - start < 1
    assert {name for name, n in values.items() if 0 < n < FLOOR} <= set(hidden)
