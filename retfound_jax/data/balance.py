"""Sampling by temperature: how often each stratum of the training data is drawn, in exact proportions.

Stratum g of n_g rows is drawn with a share proportional to n_g ** T. T = 1 leaves the data as they are, T = 0 draws all strata equally
often, and T = 0.5 draws strata of 10,000, 1,000 and 100 rows with shares of .706, .223 and .071 (Conneau et al., arXiv 1911.02116, sample
languages so).

Which stratum stands at a position of the stream is computed from the position alone, so that a stream resumes anywhere and is the same for
any number of hosts and workers. The strata stand at the leaves of Huffman's tree of their shares; at each node those of the first k draws
that go to one side are k times its share of the node, rounded. A stratum's draws among the first k then differ from its quota by less
than 2: a rounding adds 1/2 at most, what came before is scaled by the shares below it, and in Huffman's tree a node has at most half of its
grandparent, so the sum is below 1/2 (1 + 1 + 1/2 + 1/2 + 1/4 + ...). It is 1/2 for two strata.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
from typing import Literal

import numpy as np

from retfound_jax.core.errors import UsageError, nearest
from retfound_jax.data.order import permute_each, stand_ins
from retfound_jax.data.strata import Strata

_WHOLE = 1 << 30  # shares are whole numbers of it, so that the arithmetic is exact in 64 bits: off by one draw in a billion
_Leaf = int
_Node = tuple['_Node | _Leaf', '_Node | _Leaf', int, int]  # two sides, the weight of the first, and that of both


@dataclasses.dataclass(frozen=True, kw_only=True)
class BalanceConfig:
    """How often each value of a column is drawn for training. An epoch stays as many samples as there are rows."""

    by: str  # a column, `age_band`, a label with classes, or several joined with '+', such as 'country+site'
    temperature: float = 0.5  # T: 1 as the data are, 0 all values equally often
    weights: tuple[tuple[str, float], ...] = ()  # (value, weight) of every value, in place of the temperature; 0 is never drawn
    # Rows whose value is missing, declined or not in scheme: 'as_is' leaves them the share that they have in the data, and the others share
    # the rest; 'stratum' takes each of the three for a value like any other. Where `weights` names one, that is what counts.
    unknown: Literal['as_is', 'stratum'] = 'as_is'

    def __post_init__(self) -> None:
        """Raises UsageError for numbers that mean nothing."""
        names = [name for name, _ in self.weights]
        if not self.by:
            raise UsageError("data.balance.by is '' and must name a column, such as site")
        if not 0 <= self.temperature <= 1:
            raise UsageError(f'data.balance.temperature is {self.temperature:g} and must be 0 (all equally often) to 1 (as the data are)')
        if len(set(names)) != len(names):
            raise UsageError(f'data.balance.weights names a value twice ({", ".join(names)}); name each value once')
        if self.weights and not (min(weight for _, weight in self.weights) >= 0 and 0 < sum(w for _, w in self.weights) < math.inf):
            raise UsageError('data.balance.weights must be 0 or more, and one of them above 0')


def shares(config: BalanceConfig, *, strata: Strata) -> np.ndarray:
    """With which share each stratum is drawn: float64 [strata], sum 1.

    Raises:
      UsageError: no row has a value, or the weights name other values than the data have.
    """
    sizes, given = strata.sizes.astype(np.float64), dict(config.weights)
    left = np.array([config.unknown == 'as_is' and not known for known in strata.known]) & ~np.isin(strata.names, list(given))
    if left.all():
        raise UsageError(f'data.balance.by is "{config.by}", which no image to train on has; name another column')
    found = np.where(left, sizes / sizes.sum(), 0.0)
    wanted = _weights(given, config.by, strata, left) if given else np.where(left, 0.0, (sizes / sizes.max()) ** config.temperature)
    return found + (1 - found.sum()) * wanted / wanted.sum()


def _weights(given: dict[str, float], by: str, strata: Strata, left: np.ndarray) -> np.ndarray:
    for name in given:
        if name not in strata.names:
            hint = nearest(name, strata.names) or f'; there are {", ".join(strata.names[:20])}'
            raise UsageError(f'data.balance.weights names the value "{name}" of {by}{hint}')
    absent = [name for name, apart in zip(strata.names, left, strict=True) if name not in given and not apart]
    if absent:
        told = f'data.balance.weights has no weight for the value "{absent[0]}" of {by}'
        raise UsageError(f'{told}; name every value, with 0 what is left out')
    found = np.array([given.get(name, 0.0) for name in strata.names])
    if not found.any():
        raise UsageError('data.balance.weights gives every value of the data 0; give one of them more')
    return found


def row_shares(config: BalanceConfig | None, *, strata: Strata | None, rows: int) -> np.ndarray:
    """The share of the stream that each row is drawn with: float64 [rows], sum 1. strata: by `config.by`, where there is a config."""
    if config is None:
        return np.full(rows, 1 / rows)
    return (shares(config, strata=strata) / strata.sizes)[strata.index]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Balanced:
    """The order of rows in which strata come in proportion; within a stratum each row comes once before any comes twice."""

    index: np.ndarray  # int32 [rows], the stratum of each row
    members: np.ndarray  # int64, the rows that are drawn, by stratum and rising
    ends: np.ndarray  # int64 [strata], in `members`, behind the last of each
    tree: _Node | _Leaf
    seed: int

    @classmethod
    def of(cls, config: BalanceConfig, *, strata: Strata, seed: int) -> Balanced:
        """The order for rows in these strata.

        Raises:
          UsageError: as `shares`.
        """
        wanted = shares(config, strata=strata)
        weights = np.maximum(np.rint(wanted * _WHOLE), wanted > 0).astype(np.int64)
        drawn = np.flatnonzero(weights[strata.index] > 0)
        members = drawn[np.argsort(strata.index[drawn], kind='stable')]
        ends = np.cumsum(np.where(weights > 0, strata.sizes, 0))
        return cls(index=strata.index, members=members, ends=ends, tree=_tree(weights.tolist()), seed=seed)

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How often the stratum was gone through before, and the row, for each position from 0: int64, of the shape of `positions`."""
        strata, ranks = schedule(self.tree, positions)
        sizes = np.diff(self.ends, prepend=0)[strata]
        epochs, ranks = np.divmod(ranks, sizes)
        places = permute_each(ranks, rows=sizes, seeds=self._seed(strata), epochs=epochs)
        return epochs, self.members[self.ends[strata] - sizes + places]

    def stand_ins(self, row: int, *, epoch: int) -> np.ndarray:
        """Rows to try, one after another, where `row` cannot be read: those of its stratum, so that proportions stay, then any."""
        stratum = int(self.index[row])
        own = self._of(stratum)
        place, before = int(np.searchsorted(own, row)), int(self.ends[stratum]) - len(own)
        near = stand_ins(place, epoch=epoch, rows=len(own), seed=int(self._seed(np.array(stratum))))
        far = stand_ins(before + place, epoch=epoch, rows=len(self.members), seed=self.seed)
        return np.concatenate([own[near], self.members[far]])

    def _of(self, stratum: int) -> np.ndarray:
        return self.members[self.ends[stratum - 1] if stratum else 0 : self.ends[stratum]]

    def _seed(self, strata: np.ndarray) -> np.ndarray:
        return self.seed ^ (strata + 1) << 40


def schedule(tree: _Node | _Leaf, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which stratum is drawn at each position from 0, and how often it was drawn before: int64, of the shape of `positions`."""
    strata, ranks = np.empty_like(positions), np.empty_like(positions)
    waiting = [(tree, np.arange(len(positions)), positions)]
    while waiting:
        node, where, count = waiting.pop()
        if isinstance(node, _Leaf):
            strata[where], ranks[where] = node, count
            continue
        one, other, weight, both = node
        before = _rounded(count, weight, both)
        first = _rounded(count + 1, weight, both) > before
        for side, these, counts in ((one, first, before), (other, ~first, count - before)):
            if these.any():
                waiting.append((side, where[these], counts[these]))
    return strata, ranks


def _rounded(count: np.ndarray, weight: int, both: int) -> np.ndarray:
    """count * weight / both to the nearest whole number, without leaving 64 bits."""
    times, rest = np.divmod(count, both)
    return times * weight + (rest * weight + both // 2) // both


def _tree(weights: list[int]) -> _Node | _Leaf:
    """Huffman's tree of what has a weight: the two lightest are joined until all are."""
    heap: list[tuple[int, int, _Node | _Leaf]] = [(weight, leaf, leaf) for leaf, weight in enumerate(weights) if weight]
    heapq.heapify(heap)
    for number in range(len(weights), len(weights) + len(heap) - 1):  # of the node, so that equal weights have an order
        weight, _, one = heapq.heappop(heap)
        rest, _, other = heapq.heappop(heap)
        heapq.heappush(heap, (weight + rest, number, (one, other, weight, weight + rest)))
    return heap[0][2]
