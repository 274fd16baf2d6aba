"""Which counts of people to withhold where they add up: a small one itself, and others, until no sum gives it away.

Complementary cell suppression (Hundepool et al., Statistical Disclosure Control, 2012, chapter 4) over all the tables of a page at once,
each sum an equation: the smallest cell that helps is withheld first, and linear algebra then looks for what several sums tell together.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

import numpy as np

from retfound_jax.core.demographics import FLOOR

Sum = tuple[Hashable, tuple[Hashable, ...]]  # the whole, and its parts
_FLAT = 1e-9  # a direction of a null space below which a cell does not move
_MOST_UNKNOWN = 1500  # cells of one tangle of sums; of a larger one every part is withheld


def withheld(
    counts: Mapping[Hashable, int], *, sums: Sequence[Sum], floor: int = FLOOR, rank: Callable[[Hashable], int] = lambda cell: 0
) -> frozenset[Hashable]:
    """The cells that may not be printed.

    A cell of 1 to `floor` - 1 is withheld, and so is whatever must be so that the printed cells and the sums neither fix such a cell nor
    give a sum of withheld cells that is itself so small. Zeros are printed: nobody is in them. `rank` says what a cell is worth: of
    those that would do, one of the lowest rank is withheld, then the smallest.
    """
    work = _Work(counts=counts, sums=sums, floor=floor, rank=rank)
    while work.by_sums() or work.by_algebra():
        pass
    return frozenset(work.hidden)


class _Work:
    """The cells withheld so far, and what to withhold next."""

    def __init__(
        self, *, counts: Mapping[Hashable, int], sums: Sequence[Sum], floor: int, rank: Callable[[Hashable], int]
    ) -> None:
        self.counts, self.sums, self.floor, self.rank = counts, sums, floor, rank
        self.hidden = {cell for cell, count in counts.items() if 0 < count < floor}
        self.of_cell: dict[Hashable, list[Sum]] = {}
        for whole, parts in sums:
            for cell in (whole, *parts):
                self.of_cell.setdefault(cell, []).append((whole, parts))

    def by_sums(self) -> bool:
        """Withholds what single sums ask for; whether anything."""
        before = len(self.hidden)
        for whole, parts in self.sums:
            unknown = [part for part in parts if part in self.hidden]
            alone = len(unknown) == 1 or sum(self.counts[part] for part in unknown) < self.floor
            if (unknown and alone and whole not in self.hidden) or (whole in self.hidden and not unknown and self.counts[whole]):
                self.hide_one(whole, parts)
        return len(self.hidden) > before

    def hide_one(self, whole: Hashable, parts: Sequence[Hashable]) -> bool:
        """Withholds the cell of a sum that costs least; whether there was one left."""
        shown = [cell for cell in (*parts, whole) if cell not in self.hidden and self.counts[cell]]
        if shown:
            self.hidden.add(min(shown, key=lambda cell: (*self._cost(cell), cell == whole, self.counts[cell], str(cell))))
        return bool(shown)

    def _cost(self, cell: Hashable) -> tuple[int, int]:
        """The highest rank that goes with a cell, and how many cells do: of a sum that is made of it alone the whole must go too."""
        alone = [
            whole for whole, parts in self.of_cell.get(cell, ())
            if cell != whole and whole not in self.hidden and all(part == cell or not self.counts[part] for part in parts)
        ]
        return max(map(self.rank, (cell, *alone))), len(alone)

    def by_algebra(self) -> bool:
        """Withholds what the sums taken together ask for: a cell that they fix is loosened by one more of a sum it stands in."""
        before = len(self.hidden)
        for tangle, cells in _tangles(self.sums, self.hidden):
            if len(cells) > _MOST_UNKNOWN:
                for _, parts in tangle:
                    self.hidden |= {part for part in parts if self.counts[part]}
                continue
            for cell in _fixed(tangle, cells):
                if self.counts[cell] < self.floor and any(self.hide_one(*one) for one in self.of_cell[cell]):
                    break
        return len(self.hidden) > before


def _fixed(sums: Sequence[Sum], cells: Sequence[Hashable]) -> list[Hashable]:
    """The unknown cells on which every solution of the sums agrees."""
    places = {cell: place for place, cell in enumerate(cells)}
    matrix = np.zeros((len(sums), len(cells)))
    for row, (whole, parts) in enumerate(sums):
        for cell, sign in ((whole, -1.0), *((part, 1.0) for part in parts)):
            if cell in places:
                matrix[row, places[cell]] += sign
    _, values, rows = np.linalg.svd(matrix, full_matrices=True)
    rank = int((values > values.max(initial=0) * 1e-10).sum())
    moves = np.abs(rows[rank:]).max(axis=0, initial=0)
    return [cell for cell, move in zip(cells, moves, strict=True) if move < _FLAT]


def _tangles(sums: Sequence[Sum], hidden: set[Hashable]) -> Iterator[tuple[list[Sum], list[Hashable]]]:
    """Sums that share unknown cells, with those cells: each lot can be looked at by itself."""
    parent: dict[Hashable, Hashable] = {cell: cell for cell in hidden}

    def root(cell: Hashable) -> Hashable:
        while parent[cell] != cell:
            parent[cell] = cell = parent[parent[cell]]
        return cell

    unknown = [[cell for cell in (whole, *parts) if cell in hidden] for whole, parts in sums]
    for cells in unknown:
        for cell in cells[1:]:
            parent[root(cell)] = root(cells[0])
    lots: dict[Hashable, tuple[list[Sum], list[Hashable]]] = {}
    for cell in sorted(hidden, key=str):
        lots.setdefault(root(cell), ([], []))[1].append(cell)
    for one, cells in zip(sums, unknown, strict=True):
        if cells:
            lots[root(cells[0])][0].append(one)
    yield from (lot for lot in lots.values() if lot[0])
