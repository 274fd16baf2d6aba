"""Withholding over linked tables: an attacker with all printed cells and the sums, by linear programming, never gets at a small cell."""

import numpy as np
import pytest
from scipy.optimize import linprog

from retfound_jax.report.linked import withheld

FLOOR = 20


def table(rng: np.random.Generator, rows: int, columns: int, mean: float) -> tuple[dict, list]:
    """A table of counts with its margins, and the sums that bind them."""
    cells = rng.poisson(rng.gamma(0.6, mean / 0.6, size=(rows, columns)))
    counts = {('cell', i, j): int(cells[i, j]) for i in range(rows) for j in range(columns)}
    counts |= {('row', i): int(cells[i].sum()) for i in range(rows)} | {('column', j): int(cells[:, j].sum()) for j in range(columns)}
    counts[('all',)] = int(cells.sum())
    sums = [(('row', i), tuple(('cell', i, j) for j in range(columns))) for i in range(rows)]
    sums += [(('column', j), tuple(('cell', i, j) for i in range(rows))) for j in range(columns)]
    sums += [(('all',), tuple(('row', i) for i in range(rows))), (('all',), tuple(('column', j) for j in range(columns)))]
    return counts, sums


def attack(counts: dict, sums: list, hidden: frozenset) -> list[tuple[float, float]]:
    """The least and the most that each small withheld cell can be, for one who knows the rest and that counts are not negative."""
    cells = sorted(hidden, key=str)
    matrix = np.array([[(cell in parts) - (cell == whole) for cell in cells] for whole, parts in sums], float)
    known = [sum((cell == whole) * n - (cell in parts) * n for cell, n in counts.items() if cell not in hidden) for whole, parts in sums]
    ranges = []
    for place, cell in enumerate(cells):
        if 0 < counts[cell] < FLOOR:
            ends = []
            for sign in (1, -1):
                solved = linprog(sign * np.eye(len(cells))[place], A_eq=matrix, b_eq=known, bounds=(0, None))
                ends.append(sign * solved.fun if solved.status == 0 else np.inf)
            ranges.append(tuple(ends))
    return ranges


@pytest.mark.parametrize('mean', [20, 60, 200])
def test_no_small_cell_can_be_worked_out(mean):
    rng = np.random.default_rng(mean)
    tried = 0
    for _ in range(6):
        counts, sums = table(rng, int(rng.integers(2, 6)), int(rng.integers(2, 5)), mean)
        hidden = withheld(counts, sums=sums, floor=FLOOR)
        assert {cell for cell, n in counts.items() if 0 < n < FLOOR} <= hidden
        assert all(counts[cell] for cell in hidden)
        for low, high in attack(counts, sums, hidden):
            tried += 1
            assert high - low > 0.5
    assert tried > 5


def test_a_sum_of_withheld_cells_is_not_small_either():
    counts = {'a': 3, 'b': 4, 'c': 50, 'd': 400, 'all': 457}
    assert withheld(counts, sums=[('all', ('a', 'b', 'c', 'd'))]) == {'a', 'b', 'c'}


def test_nothing_is_withheld_where_nothing_is_small():
    counts = {'a': 20, 'b': 0, 'c': 50, 'all': 70}
    assert withheld(counts, sums=[('all', ('a', 'b', 'c'))]) == frozenset()


def test_what_is_worth_less_goes_first():
    counts = {'small': 5, 'dear': 30, 'cheap': 90, 'all': 125}
    rank = {'dear': 1}
    assert withheld(counts, sums=[('all', ('small', 'dear', 'cheap'))], rank=lambda cell: rank.get(cell, 0)) == {'small', 'cheap'}


def test_several_sums_together_fix_no_cell():
    # Each sum alone has two unknown cells; a ring of an odd number of such sums would fix them all.
    counts = {'x': 7, 'y': 15, 'z': 17, 'xy': 22, 'yz': 32, 'zx': 24}
    sums = [('xy', ('x', 'y')), ('yz', ('y', 'z')), ('zx', ('z', 'x'))]
    hidden = withheld(counts, sums=sums, floor=FLOOR)
    assert {'x', 'y', 'z'} < hidden
    assert all(high - low > 0.5 for low, high in attack(counts, sums, hidden))
