"""A training set of a given composition: so many photographs, these shares of women and men, always the same ones.

It is what a study of who is in the training data holds fixed and varies: the number of photographs stays, the shares change.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math

import numpy as np

from retfound_jax.core.errors import UsageError, nearest
from retfound_jax.data.strata import Strata


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComposeConfig:
    """How many photographs, and which share of them has which value. Values that are not named are left out, and so is a share of 0."""

    by: str  # a column, `age_band`, a label with classes, or several joined with '+', such as 'sex+age_band'
    # (value, share), the shares sum to 1; those of several columns are written 'F, <40'; 'missing' and 'declined' can be named too.
    shares: tuple[tuple[str, float], ...]
    images: int  # of all values together

    def __post_init__(self) -> None:
        """Raises UsageError where the shares are none."""
        names, shares = [name for name, _ in self.shares], [share for _, share in self.shares]
        if not self.by:
            raise UsageError("data.compose.by is '' and must name a column, such as sex")
        if self.images < 1:
            raise UsageError(f'data.compose.images is {self.images} and must be at least 1')
        if len(set(names)) != len(names):
            raise UsageError(f'data.compose.shares names a value twice ({", ".join(names)}); name each value once')
        if not all(0 <= share <= 1 for share in shares) or not math.isclose(sum(shares), 1, abs_tol=1e-6):
            raise UsageError(f'data.compose.shares are {", ".join(f"{share:g}" for share in shares)} and must be 0 to 1 and sum to 1')


def quotas(config: ComposeConfig) -> dict[str, int]:
    """[images] of each value: its share rounded down, and one more where the most is left, until they sum to `images`."""
    exact = {name: share * config.images / sum(one for _, one in config.shares) for name, share in config.shares}
    whole = {name: math.floor(value + 1e-6) for name, value in exact.items()}
    left = {name: value - whole[name] for name, value in exact.items()}
    for name in sorted(left, key=left.__getitem__, reverse=True)[: config.images - sum(whole.values())]:
        whole[name] += 1
    return whole


def composed(config: ComposeConfig, *, strata: Strata, people: np.ndarray, draw: int) -> np.ndarray:
    """Which rows are chosen: bool [rows].

    The rows of a value stand in the order of a hash of their person, those of one person side by side, and the first ones are taken. So a
    person is taken whole but for the last one of each value, who is cut where that makes the number exact; a smaller set lies inside a
    larger one; and where the share of a value grows, those who were in it stay.

    Args:
      people: [rows], who a row is of; rows of one person never part but as above.
      draw: another number, another choice.

    Raises:
      UsageError: a value has too few rows, or none has it.
    """
    _, place = np.unique(people, return_inverse=True)
    rank = _hash_ranks(np.unique(people), prefix=f'compose {draw}:')[place.reshape(-1)]
    chosen = np.zeros(len(people), bool)
    for name, count in quotas(config).items():
        if count == 0:
            continue
        if name not in strata.names:
            known = ', '.join(strata.names[:20])
            raise UsageError(f'data.compose names the value "{name}" of {config.by}{nearest(name, strata.names) or f"; there are {known}"}')
        rows = np.flatnonzero(strata.index == strata.names.index(name))
        if len(rows) < count:
            told = f'data.compose takes {count:,} images with {config.by} "{name}" and there are {len(rows):,} to train on'
            raise UsageError(f'{told}; set data.compose.images or the share lower')
        chosen[rows[np.argsort(rank[rows], kind='stable')[:count]]] = True
    return chosen


def _hash_ranks(names: np.ndarray, *, prefix: str) -> np.ndarray:
    """The place of each name in the order of the names' hashes: int64."""
    hashes = [hashlib.sha256(f'{prefix}{name}'.encode()).digest() for name in names]
    ranks = np.empty(len(hashes), np.int64)
    ranks[sorted(range(len(hashes)), key=hashes.__getitem__)] = np.arange(len(hashes))
    return ranks
