"""Which counts may not be printed, so that no small group can be read from a table, nor worked out by subtraction from its totals.

A count under the floor is withheld (primary suppression). What is printed beside it could still give it away: 100 patients, 95 of them
women. So further counts are withheld (complementary suppression) until it is protected: a reader who knows every printed number, that no
count is negative, and that a withheld group is not empty, must still think it possible that the group reaches the floor. Its feasible
range then holds the true value and the floor, hence more than one value, and any union of withheld groups that can be worked out is as
large as the floor. The range is found by linear programming (Fischetti and Salazar, Management Science 47, 2001, state the attacker's two
problems; the upper one is enough here). Further counts are picked among those that bound the range, the smallest first; they are few, not
fewest. Why a count is withheld is not told apart in print, since that would tell the small one.

A printed 0 stands: an empty group reveals nobody. Nobody with a finding among some is another matter, as it says something of each of them;
`zero_tells` marks such counts.

Two tables of different people are not guarded against each other, nor a table against an older print of itself.

Letters: A atoms (the finest cells, of which every count is a sum), K counts.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_array

from retfound_jax.core.demographics import FLOOR

_SLACK = 1e-6  # of the solver's answers
_TIDY = 300  # linear programs spent on printing again what need not have been withheld


@dataclass(frozen=True, kw_only=True)
class Count:
    """One number that a table would print: the people in some of the atoms."""

    atoms: Iterable[int]
    floor: int = FLOOR
    total: bool = False  # printed in any case, and protected by nothing
    unprinted: bool = False  # never printed, but to be protected all the same
    zero_tells: bool = False  # whether 0 has to be protected too
    takes_along: tuple[Hashable, ...] = ()  # counts that are withheld when this one is
    order: int = 0  # of what can be withheld to protect another count, the lowest goes first


def note(floor: int = FLOOR) -> str:
    """What stands in place of a withheld number; the same for the small group and for the one that hides it."""
    return f'withheld: fewer than {floor} patients, or hides such a group'


def withhold_counts(counts: Mapping[str, int], *, floor: int = FLOOR, total_printed: bool = True) -> dict[str, str]:
    """The values of a one-column table that may not be printed, with the note to print in their place.

    The values are exclusive. With k values withheld that sum to W, the largest that one of them can be is W - (k - 1), each other being at
    least 1; the smallest counts are added until this reaches the floor. Several one-column tables of the same people may each be treated
    so: whatever fills one of them can be crossed with whatever fills another, so none narrows another's ranges.
    """
    ranked = sorted((n, name) for name, n in counts.items() if n > 0)
    small = sum(n < floor for n, _ in ranked)
    taken = small
    while total_printed and 0 < taken < len(ranked) and sum(n for n, _ in ranked[:taken]) - (taken - 1) < floor:
        taken += 1
    return {name: note(floor) for _, name in ranked[:taken]}


def withheld(counts: Mapping[Hashable, Count], *, people: np.ndarray) -> frozenset[Hashable]:
    """The names of the counts that may not be printed.

    Args:
      counts: every number that would be printed, totals included, and what is to be protected though it is not.
      people: how many people there are in each atom [A]. Atoms that are known to be empty are left out; one that the reader cannot know to
        be empty belongs in, with 0.
    """
    table = _Table(counts, people=np.asarray(people))
    unsafe = [k for k in range(len(table.names)) if table.is_small(k)]
    for k in unsafe:
        table.withhold(k)
    primary = ~table.printed_K.copy()
    while unsafe:
        k = unsafe[0]
        found = table.highest(k)
        if found.reaches[k]:
            unsafe = [other for other in unsafe if not found.reaches[other]]  # one possible world can clear several
            continue
        bounding = [j for j in np.flatnonzero(found.weight_K > _SLACK) if table.printed_K[j] and not table.counts[j].total]
        if not bounding:  # only totals bound it: the whole is too small to hide anybody in
            unsafe = unsafe[1:]
            continue
        table.withhold(min(bounding, key=table.cheapness))
    table.print_again(~primary & ~table.printed_K, protected=[k for k in range(len(table.names)) if table.is_small(k)])
    return frozenset(name for name, printed in zip(table.names, table.printed_K, strict=True) if not printed)


@dataclass(frozen=True, kw_only=True)
class _World:
    """People as a reader could think them to be."""

    reaches: np.ndarray  # [K] whether the count is at its floor or above
    weight_K: np.ndarray  # how strongly each printed count bounds the one that was asked for


class _Table:
    """Counts as rows of a matrix over the atoms, with what is printed so far."""

    def __init__(self, counts: Mapping[Hashable, Count], *, people: np.ndarray) -> None:
        self.names, self.counts = list(counts), list(counts.values())
        self.index = {name: k for k, name in enumerate(self.names)}
        atoms = [np.unique(np.fromiter(count.atoms, np.int64)) for count in self.counts]
        rows = np.repeat(np.arange(len(atoms)), [len(one) for one in atoms])
        columns = np.concatenate([*atoms, np.zeros(0, np.int64)])
        self.matrix_KA = csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(atoms), len(people)))
        self.n_K = self.matrix_KA @ people.astype(np.float64)
        self.floor_K = np.array([count.floor for count in self.counts], np.float64)
        self.printed_K = np.array([not count.unprinted for count in self.counts], bool)

    def is_small(self, k: int) -> bool:
        """Whether this count has to be protected."""
        count = self.counts[k]
        return not count.total and self.n_K[k] < count.floor and (self.n_K[k] > 0 or count.zero_tells)

    def cheapness(self, k: int) -> tuple[bool, int, float]:
        """What is lost least comes first; a printed 0 is kept as long as anything else will do."""
        return bool(self.n_K[k] == 0), self.counts[k].order, float(self.n_K[k])

    def withhold(self, k: int) -> None:
        """Takes this count, and those that go with it, out of print."""
        self.printed_K[[j for j in self._bundle(k) if not self.counts[j].total]] = False

    def highest(self, k: int) -> _World:
        """The world that fits all that is printed and has the most people in one withheld count."""
        known_K = self.printed_K
        # that a withheld group is not empty is known, since empty ones are printed
        some_K = ~known_K & np.array([not count.zero_tells for count in self.counts]) & (self.n_K > 0)
        solved = linprog(
            -self.matrix_KA[[k]].toarray()[0],
            A_eq=self.matrix_KA[known_K] if known_K.any() else None,
            b_eq=self.n_K[known_K] if known_K.any() else None,
            A_ub=-self.matrix_KA[some_K] if some_K.any() else None,
            b_ub=-np.ones(some_K.sum()) if some_K.any() else None,
            bounds=(0, None),
            method='highs',
        )
        weight_K = np.zeros(len(self.names))
        if solved.status == 3:  # unbounded: nothing printed bounds it
            reaches = np.arange(len(self.names)) == k
        elif solved.status == 0:
            reaches = self.matrix_KA @ solved.x >= self.floor_K - _SLACK
            weight_K[known_K] = np.abs(solved.eqlin.marginals) if known_K.any() else 0.0
        else:
            raise ArithmeticError(f'what a reader can work out from the table could not be computed: {solved.message}')
        return _World(reaches=reaches, weight_K=weight_K)

    def print_again(self, added_K: np.ndarray, *, protected: list[int]) -> None:
        """Puts back, the largest first, what was withheld to protect others and proved to be needless."""
        left = _TIDY
        for k in sorted(np.flatnonzero(added_K), key=self.cheapness, reverse=True):
            group = self._bundle(k)
            pulled = any(not self.printed_K[j] and group & self._along(j) for j in set(range(len(self.names))) - group)
            if self.printed_K[k] or pulled or left < len(protected) or not all(added_K[j] for j in group):
                continue
            self.printed_K[list(group)], unsafe = True, list(protected)
            while unsafe and self.printed_K[k]:
                found, left = self.highest(unsafe[0]), left - 1
                if not found.reaches[unsafe[0]]:
                    self.printed_K[list(group)] = False
                unsafe = [j for j in unsafe if not found.reaches[j]]

    def _along(self, k: int) -> set[int]:
        return {self.index[name] for name in self.counts[k].takes_along}

    def _bundle(self, k: int) -> set[int]:
        """This count and all that go with it."""
        found, waiting = {k}, [k]
        while waiting:
            new = self._along(waiting.pop()) - found
            found, waiting = found | new, [*waiting, *new]
        return found
