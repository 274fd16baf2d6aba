"""Pairs of visits: which photographs of a source show the same eye at a later time, and which pair stands where in the stream.

An eye is a patient and a laterality. A pair is two photographs of one eye, the second strictly later by the column that `data.pairs`
names, the label of a number or of numbered classes, or `age`. Rows without patient, laterality or time are in no pair.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from retfound_jax.core.errors import UsageError, UserError, nearest
from retfound_jax.data.config import DataConfig
from retfound_jax.data.order import draw_among, rows_at, stand_ins
from retfound_jax.data.sources import Source
from retfound_jax.data.store import LABEL


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pairs:
    """The pairs of a source, without the list of all of them: each row that has a later visit, and where its later visits are listed."""

    earlier: np.ndarray  # int64 [P], rows that have a later visit of their eye, rising
    start: np.ndarray  # int64 [P], in `by_time`, of the first later one
    stop: np.ndarray  # int64 [P], in `by_time`, behind the last
    by_time: np.ndarray  # int64, the rows that have eye and time, by eye and then by time

    def __len__(self) -> int:
        return len(self.earlier)

    def at(self, numbers: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What stands at places of the endless stream of pairs: every epoch holds each row that has a later visit once, as the earlier one.

        Args:
          numbers: int64 [N], from 0.

        Returns:
          epochs [N], which of the pairs [N] (an index into `earlier`), and rows [N, 2], earlier and later.
        """
        epochs, which = rows_at(numbers, rows=len(self), seed=seed)
        rows = np.empty((*numbers.shape, 2), np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            rows[here] = self.drawn(which[here], epoch=int(epoch), seed=seed)
        return epochs, which, rows

    def drawn(self, which: np.ndarray, *, epoch: int, seed: int) -> np.ndarray:
        """The rows [N, 2] of those pairs in an epoch: the later one is drawn among the later visits, by seed, epoch and earlier row."""
        start, stop = self.start[which], self.stop[which]
        chosen = draw_among(stop - start, rows=self.earlier[which], epoch=epoch, seed=seed)
        return np.stack([self.earlier[which], self.by_time[start + chosen]], axis=-1)

    def stand_ins(self, which: int, *, epoch: int, seed: int) -> np.ndarray:
        """Pairs to try, one after another, where a member of that one cannot be read; as `order.stand_ins`."""
        return stand_ins(which, epoch=epoch, rows=len(self), seed=seed)


def find_pairs(source: Source, *, by: str) -> Pairs:
    """The pairs of a source in the order of column `by`; there may be none.

    Raises:
      UsageError: there is no such label, or its classes are words, which have no order in time.
    """
    time = _times(source, by)
    patient, side = source.table['patient'], source.table['laterality']
    known = np.flatnonzero((patient != '') & (side != '') & ~np.isnan(time))
    _, person = np.unique(patient[known], return_inverse=True)
    _, eye = np.unique(np.stack([person, np.unique(side[known], return_inverse=True)[1]]), axis=1, return_inverse=True)
    eye = eye.reshape(-1)
    order = np.lexsort((known, time[known], eye))
    eye, value, rows = eye[order], time[known][order], known[order]
    new_eye, new_time = np.diff(eye, prepend=-1) != 0, np.diff(value, prepend=np.nan) != 0
    stop = _next(new_eye)
    start = np.minimum(_next(new_eye | new_time), stop)
    paired = np.flatnonzero(start < stop)
    paired = paired[np.argsort(rows[paired])]
    return Pairs(earlier=rows[paired], start=start[paired], stop=stop[paired], by_time=rows)


def training_pairs(config: DataConfig, source: Source) -> Pairs:
    """The pairs to train on.

    Raises:
      UserError: there is none.
    """
    pairs = find_pairs(source, by=config.pairs)
    if not len(pairs):
        told = f'no patient of the split "{config.split}" has two photographs of one eye at different "{config.pairs}"'
        raise UserError(f'{told}; give a dataset with later visits, or leave data.pairs empty')
    return pairs


def epoch_rows(config: DataConfig, source: Source) -> int:
    """[images] that an epoch of training goes over: with pairs, two for each row that has a later visit."""
    return 2 * len(training_pairs(config, source)) if config.pairs else len(source)


def in_pairs(source: Source, *, by: str) -> Source:
    """The rows that have a later visit, each followed by one, always the same: rows 2i and 2i+1 are a pair. For validation."""
    pairs = find_pairs(source, by=by)
    rows = pairs.drawn(np.arange(len(pairs)), epoch=0, seed=0).reshape(-1)
    return dataclasses.replace(
        source,
        table={name: column[rows] for name, column in source.table.items()},
        labels=source.labels[rows],
        fingerprint=f'{source.fingerprint}, pairs by {by}',
        reader=dataclasses.replace(source.reader, positions=source.reader.positions[rows]),
    )


def _times(source: Source, by: str) -> np.ndarray:
    """Where each row stands in time, float64; NaN where that is missing."""
    if by == 'age':
        return source.table['age'].astype(np.float64)
    if LABEL + by not in source.table:
        known = [*sorted(name.removeprefix(LABEL) for name in source.table if name.startswith(LABEL)), 'age']
        listed = f'; the data have {", ".join(known)}'
        raise UsageError(f'data.pairs is "{by}", which is no label of the data{nearest(by, known) or listed}')
    column, classes = source.table[LABEL + by].astype(np.float64), source.label_classes[by]
    if classes is None:
        return column
    try:
        values = np.array([float(name) for name in classes])
    except ValueError as error:
        raise UsageError(f'data.pairs is "{by}", whose classes are words and have no order in time; name a label of numbers') from error
    return np.where(np.isnan(column), np.nan, values[np.nan_to_num(column).astype(int)])


def _next(first: np.ndarray) -> np.ndarray:
    """For each place the next one after it that is a first, or the end: int64."""
    places = np.append(np.flatnonzero(first), len(first))
    return places[np.searchsorted(places, np.arange(len(first)), side='right')]
