"""Who is in which group: one column, an age band, or an intersection such as `sex+age_band`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from retfound_jax.core.age_bands import AGE_BANDS, age_band
from retfound_jax.core.demographics import DECLINED, MISSING, NOT_A_GROUP, NOT_IN_SCHEME
from retfound_jax.core.errors import UsageError, nearest
from retfound_jax.evals.predictions import AGE_WORD, Predictions

MOST = 64  # groups of a column that are evaluated
_NOT_GROUPS = frozenset({'key', 'patient', 'age', AGE_WORD})


def parse_by(by: Sequence[str], *, columns: Iterable[str]) -> tuple[str, ...]:
    """Check the `--by` names; `age` means `age_band`. A UsageError names the nearest one that exists."""
    known = sorted({'age_band', *columns} - _NOT_GROUPS)
    parsed = []
    for name in by:
        parts = ['age_band' if part == 'age' else part for part in name.strip().split('+')]
        for part in parts:
            if part not in known:
                listed = f': choose from {", ".join(known)}'
                raise UsageError(f'the predictions have no column "{part}" to group --by{nearest(part, known) or listed}')
        parsed.append('+'.join(parts))
    return tuple(dict.fromkeys(parsed))


def group_names(by: str, *, predictions: Predictions) -> np.ndarray:
    """The group of each image for a checked `by`; `missing` where any part of it is, else `declined`, else `not in scheme`."""
    parts = [_part(name, predictions) for name in by.split('+')]
    out_N = parts[0]
    for part_N in parts[1:]:
        joined_N = np.char.add(np.char.add(out_N, ', '), part_N)
        for blank in (NOT_IN_SCHEME, DECLINED, MISSING):
            joined_N = np.where((out_N == blank) | (part_N == blank), blank, joined_N)
        out_N = joined_N
    return out_N


def group_masks(by: str, *, predictions: Predictions) -> dict[str, np.ndarray]:
    """Rows of each group: ages by age, the rest by name, then those that are no group; `missing` is last and always there.

    A UsageError where there are more than MOST groups: one in so many is small, and all pairs are compared.
    """
    names_N = group_names(by, predictions=predictions)
    present = set(names_N.tolist()) - {MISSING}
    if len(present) > MOST:
        raise UsageError(
            f'--by {by} makes {len(present)} groups of the {predictions.split} split, more than the {MOST} that can be compared: '
            'choose a coarser column, or fewer columns joined by +'
        )
    ranks = {band: f'{i}' for i, band in enumerate(AGE_BANDS)}
    ordered = sorted(present, key=lambda name: [name in NOT_A_GROUP, *(ranks.get(part, part) for part in name.split(', '))])
    return {name: names_N == name for name in [*ordered, MISSING]}


def _part(name: str, predictions: Predictions) -> np.ndarray:
    values_N = _ages(predictions) if name == 'age_band' else np.asarray(predictions.columns[name]).astype(str)
    return np.where(np.isin(values_N, ['', 'nan']), MISSING, values_N).astype(str)


def _ages(predictions: Predictions) -> np.ndarray:
    """The age band of each image, or the word that was said instead; predictions of older runs have no such words."""
    bands_N, said = age_band(predictions.columns['age']), predictions.columns.get(AGE_WORD)
    return bands_N if said is None else np.where(bands_N == '', np.asarray(said).astype(str), bands_N)
