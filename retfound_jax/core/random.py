"""Randomness on the host as a pure function of (seed, step, example index)."""

from __future__ import annotations

import numpy as np


def example_rng(seed: int, step: int, index: int) -> np.random.Generator:
    """A generator that depends on its three arguments and nothing else (Philox, a counter-based generator: Salmon et al. 2011)."""
    key = np.array([np.uint64(seed & 0xFFFFFFFFFFFFFFFF), np.uint64(0x5EED)], dtype=np.uint64)
    counter = np.array([0, 0, step & 0xFFFFFFFFFFFFFFFF, index & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
