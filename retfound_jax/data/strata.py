"""Who is in which stratum: the value of a column, an age band, the class of a label, or several of these together (`sex+age_band`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from retfound_jax.core.age_bands import AGE_BANDS, age_band
from retfound_jax.core.demographics import DECLINED, MISSING, NOT_A_GROUP, NOT_IN_SCHEME
from retfound_jax.core.errors import UsageError, nearest
from retfound_jax.data.store import DEMOGRAPHICS, LABEL

_MOST = 10_000  # strata; more are names or numbers of people, not groups of them
_BLANKS = (NOT_IN_SCHEME, DECLINED, MISSING)  # the later counts for more
_RANK = {**{band: f'{place}' for place, band in enumerate(AGE_BANDS)}}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Strata:
    """The strata that rows are in: ages by age, the rest by name, then those that are no group, and none that is empty."""

    names: tuple[str, ...]
    index: np.ndarray  # int32 [rows], into `names`

    @property
    def sizes(self) -> np.ndarray:
        """[rows] of each stratum: int64."""
        return np.bincount(self.index, minlength=len(self.names)).astype(np.int64)

    @property
    def known(self) -> np.ndarray:
        """Which strata are groups of people: bool, False for `missing`, `declined` and `not in scheme`."""
        return np.array([name not in NOT_A_GROUP for name in self.names], bool)


def find_strata(by: str, *, columns: Mapping[str, np.ndarray], classes: Mapping[str, list[str] | None], field: str) -> Strata:
    """The strata of the rows of a table by the columns that `by` names, joined with '+'; `age` means `age_band`.

    A stratum of several columns is `missing` where one of them is, else `declined` or `not in scheme` where one of them is.

    Args:
      columns: of a `data.store.Contents` or a `Source`.
      field: of the configuration, for errors, such as 'data.balance.by'.

    Raises:
      UsageError: there is no such column, it is a number, or it has more than 10,000 values.
    """
    parts = [_part(name.strip(), columns, classes, field) for name in by.split('+')]
    joined = parts[0]
    for part in parts[1:]:
        both = np.char.add(np.char.add(joined, ', '), part)
        for blank in _BLANKS:
            both = np.where((joined == blank) | (part == blank), blank, both)
        joined = both
    names, index = np.unique(joined, return_inverse=True)
    if len(names) > _MOST:
        raise UsageError(f'{field} is "{by}", which has {len(names):,} different values; name a column that has {_MOST:,} or fewer')
    order = sorted(range(len(names)), key=lambda place: _rank(str(names[place])))
    place = np.empty(len(names), np.int32)
    place[order] = np.arange(len(names), dtype=np.int32)
    return Strata(names=tuple(str(names[i]) for i in order), index=place[index.reshape(-1)])


def _rank(name: str) -> tuple[int, list[str]]:
    return 1 + _BLANKS.index(name) if name in _BLANKS else 0, [_RANK.get(part, part) for part in name.split(', ')]


def _part(name: str, columns: Mapping[str, np.ndarray], classes: Mapping[str, list[str] | None], field: str) -> np.ndarray:
    """One column as words, MISSING where there is none."""
    if name in ('age', 'age_band') and LABEL + name not in columns:
        words = age_band(columns['age'])
        declined = columns.get('age_word', words) == DECLINED
        words = np.where((words == '') & declined, DECLINED, words)
    elif LABEL + name in columns:
        words = _classes(columns[LABEL + name], classes[name], told=f'{field} names "{name}"')
    elif name in DEMOGRAPHICS:
        words = columns[name]
    else:
        known = [*sorted(column.removeprefix(LABEL) for column in columns if column.startswith(LABEL)), 'age_band', *DEMOGRAPHICS]
        listed = f'; the data have {", ".join(known)}'
        raise UsageError(f'{field} names "{name}", which is no column of the data{nearest(name, known) or listed}')
    return np.where(words == '', MISSING, words).astype(np.str_)


def _classes(column: np.ndarray, names: list[str] | None, *, told: str) -> np.ndarray:
    if names is None:
        raise UsageError(f'{told}, which is a number: name a column that has classes')
    return np.array([*names, ''])[np.where(np.isnan(column), len(names), np.nan_to_num(column)).astype(np.int64)]
