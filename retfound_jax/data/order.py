"""The order of the rows: a shuffle of any size that is computed, not stored, so that any position can be asked for at once."""

from __future__ import annotations

import numpy as np

_ROUNDS = 8


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


def permute(ranks: np.ndarray, *, rows: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of 0 to `rows` - 1, evaluated at `ranks`: a Feistel network that walks its cycle until it lands inside.

    Black and Rogaway, "Ciphers with arbitrary finite domains" (CT-RSA 2002), method of section 3; rounds by the finaliser of splitmix64.
    """
    half = np.uint64(max(2, (rows - 1).bit_length() + 1) // 2)
    keys = _keys(seed, epoch)
    value = ranks.astype(np.uint64)
    outside = np.ones(value.shape, bool)
    while outside.any():
        value[outside] = _feistel(value[outside], keys=keys, half=half)
        outside = value >= np.uint64(rows)
    return value.astype(np.int64)


def _feistel(value: np.ndarray, *, keys: np.ndarray, half: np.uint64) -> np.ndarray:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = value >> half, value & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << half) | right


def _keys(seed: int, epoch: int) -> np.ndarray:
    start = _mix(np.array([seed & 0xFFFFFFFFFFFFFFFF], np.uint64))
    start = _mix(start ^ np.uint64(epoch))
    return _mix(start + np.arange(1, _ROUNDS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))


def _mix(value: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014): every bit of the result depends on every bit of `value`."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
