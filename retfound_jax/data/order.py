"""The order of the rows: a shuffle of any size that is computed, not stored, so that any position can be asked for at once."""

from __future__ import annotations

import dataclasses
import functools
from typing import Protocol

import numpy as np

_ROUNDS = 8
_MOST_KEPT = 1 << 16  # [rows] whose whole order is kept
_MOST_TABULATED = 16  # [bits] of half a number: with these, up to 2**32 rows
_STAND_INS = 16  # where half of all rows are bad, one in 65,536 is left without
_STAND_IN_STREAM = 0x5B57  # keeps their numbers apart from those of the order
_AMONG_STREAM = 0xA307


class Order(Protocol):
    """Which row stands at each position of the endless stream. It travels to worker processes."""

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Epochs and rows at positions from 0, int64; no row comes twice with one epoch."""
        ...

    def stand_ins(self, row: int, *, epoch: int) -> np.ndarray:
        """Rows to try, one after another, where `row` cannot be read: int64, a function of the arguments alone."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shuffled:
    """Every epoch holds every row once, in an order of its own."""

    rows: int
    seed: int

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `rows_at`."""
        return rows_at(positions, rows=self.rows, seed=self.seed)

    def stand_ins(self, row: int, *, epoch: int) -> np.ndarray:
        """As the function of that name."""
        return stand_ins(row, epoch=epoch, rows=self.rows, seed=self.seed)


def rows_at(positions: np.ndarray, *, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The epoch and the row that stand at each position of the endless stream; every epoch holds every row once.

    Args:
      positions: int64, from 0.
      rows: number of rows.

    Returns:
      epochs and rows, int64, of the shape of `positions`.
    """
    epochs, ranks = np.divmod(positions, rows)
    found = np.empty_like(positions)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        found[here] = permute(ranks[here], rows=rows, seed=seed, epoch=int(epoch))
    return epochs, found


def stand_ins(row: int, *, epoch: int, rows: int, seed: int) -> np.ndarray:
    """Rows to try, one after another, where `row` cannot be read: int64 [16], none of them `row`; empty where there is no other row.

    They are a function of the arguments alone, so every host and worker, now or after a restart, tries the same ones.
    """
    if rows == 1:
        return np.empty(0, np.int64)
    start = _mix(_keys(seed ^ _STAND_IN_STREAM, epoch)[:1] ^ np.uint64(row))
    drawn = _mix(start + np.arange(1, _STAND_INS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    return (row + 1 + (drawn % np.uint64(rows - 1)).astype(np.int64)) % rows


def draw_among(counts: np.ndarray, *, rows: np.ndarray, epoch: int, seed: int) -> np.ndarray:
    """For each row a number from 0 to its count - 1, a function of (seed, epoch, row) and the count: int64, of the shape of `rows`."""
    start = _mix(_keys(seed ^ _AMONG_STREAM, epoch)[0] ^ rows.astype(np.uint64))
    return (_mix(start + np.uint64(0x9E3779B97F4A7C15)) % counts.astype(np.uint64)).astype(np.int64)


def permute(ranks: np.ndarray, *, rows: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of 0 to `rows` - 1, evaluated at `ranks`: a Feistel network that walks its cycle until it lands inside.

    Black and Rogaway, "Ciphers with arbitrary finite domains" (CT-RSA 2002), method of section 3; rounds by the finaliser of splitmix64.
    """
    return _whole(rows, seed, epoch)[ranks] if rows <= _MOST_KEPT else _walk(ranks, rows=rows, seed=seed, epoch=epoch)


def permute_each(ranks: np.ndarray, *, rows: np.ndarray, seeds: np.ndarray, epochs: np.ndarray) -> np.ndarray:
    """What `permute` gives for each rank with rows, seed and epoch of its own: many small orders at the cost of one; all int64 [N]."""
    start = _mix(_mix(seeds.astype(np.uint64)) ^ epochs.astype(np.uint64))
    keys = _mix(start[:, None] + np.arange(1, _ROUNDS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    bits = np.frexp((rows - 1).astype(np.float64))[1].astype(np.int64)
    half = (np.maximum(2, bits + 1) // 2).astype(np.uint64)
    mask = (np.uint64(1) << half) - np.uint64(1)
    value, outside = ranks.astype(np.uint64), np.arange(len(ranks))
    while len(outside):
        left, right = value[outside] >> half[outside], value[outside] & mask[outside]
        for key in keys[outside].T:
            left, right = right, left ^ (_mix(right ^ key) & mask[outside])
        value[outside] = (left << half[outside]) | right
        outside = outside[value[outside] >= rows[outside].astype(np.uint64)]
    return value.astype(np.int64)


@functools.lru_cache(maxsize=4)
def _whole(rows: int, seed: int, epoch: int) -> np.ndarray:
    """The whole permutation. A chunk asks for few ranks at a time, and then a walk costs more than a tenth of decoding."""
    order = _walk(np.arange(rows, dtype=np.int64), rows=rows, seed=seed, epoch=epoch)
    order.flags.writeable = False
    return order


def _walk(ranks: np.ndarray, *, rows: int, seed: int, epoch: int) -> np.ndarray:
    half = max(2, (rows - 1).bit_length() + 1) // 2
    value = ranks.astype(np.uint64)
    outside = np.flatnonzero(np.ones(value.shape, bool))
    while len(outside):
        found = _feistel(value.ravel()[outside], seed=seed, epoch=epoch, half=half)
        value.ravel()[outside] = found
        outside = outside[found >= np.uint64(rows)]
    return value.astype(np.int64)


def _feistel(value: np.ndarray, *, seed: int, epoch: int, half: int) -> np.ndarray:
    bits, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = value >> bits, value & mask
    if half <= _MOST_TABULATED:
        for table in _tables(seed, epoch, half):
            left, right = right, left ^ table[right]
    else:
        for key in _keys(seed, epoch):
            left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << bits) | right


@functools.lru_cache(maxsize=4)
def _tables(seed: int, epoch: int, half: int) -> np.ndarray:
    """What each round makes of each half number: uint64 [rounds, 2**half]."""
    mask = np.uint64((1 << half) - 1)
    return _mix(np.arange(1 << half, dtype=np.uint64) ^ _keys(seed, epoch)[:, None]) & mask


@functools.lru_cache(maxsize=4)
def _keys(seed: int, epoch: int) -> np.ndarray:
    start = _mix(np.array([seed & 0xFFFFFFFFFFFFFFFF], np.uint64))
    start = _mix(start ^ np.uint64(epoch))
    return _mix(start + np.arange(1, _ROUNDS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))


def _mix(value: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014): every bit of the result depends on every bit of `value`."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
