"""Randomness on the host as a pure function of (seed, step, example index)."""

from __future__ import annotations

import numpy as np


def example_rng(seed: int, step: int, index: int) -> np.random.Generator:
    """A generator that depends on its three arguments and nothing else (Philox, a counter-based generator: Salmon et al. 2011)."""
    key = np.array([np.uint64(seed & 0xFFFFFFFFFFFFFFFF), np.uint64(0x5EED)], dtype=np.uint64)
    counter = np.array([0, 0, step & 0xFFFFFFFFFFFFFFFF, index & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


class ExampleRng:
    """`example_rng` for very many examples: one generator, set anew for each at a tenth of the cost. Not for threads to share."""

    def __init__(self, seed: int) -> None:
        """A generator for examples of this seed."""
        self._bits = np.random.Philox(key=np.array([np.uint64(seed & 0xFFFFFFFFFFFFFFFF), np.uint64(0x5EED)], dtype=np.uint64))
        self._rng = np.random.Generator(self._bits)
        self._state = self._bits.state  # counter 0 and nothing drawn; the counter is the array that `at` writes
        self._counter = self._state['state']['counter']

    def at(self, step: int, index: int) -> np.random.Generator:
        """What `example_rng(seed, step, index)` gives, valid until the next call."""
        self._counter[2], self._counter[3] = step & 0xFFFFFFFFFFFFFFFF, index & 0xFFFFFFFFFFFFFFFF
        self._bits.state = self._state
        return self._rng
