"""Intervals by resampling patients: a patient is drawn with all of their images, so two eyes never count as two patients.

Percentile bootstrap (Efron 1979) over clusters (Field and Welsh 2007), a little wider where cases are few (Hesterberg 2015). A replicate is
a column of how often each patient was drawn; a metric takes these counts as weights. A replicate in which the metric is undefined (a class
vanished) is dropped and counted.

Letters: N rows, P patients, R replicates.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
from scipy.special import ndtr, stdtrit
from threadpoolctl import ThreadpoolController

BLOCK = 1 << 18  # weights held at once, in float64 values: 2 MiB stays near the cache, and memory does not grow with the replicates
LEAST = 8  # columns of a block: narrower ones are slow to walk through
Found = TypeVar('Found')


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value with its percentile interval; `dropped` of the replicates had no value."""

    value: float
    low: float
    high: float
    dropped: int = 0


def patient_counts(patients: int, *, replicates: int = 1000, seed: int = 0) -> np.ndarray:
    """How often each patient is drawn in each replicate: uint16 [P, R], every column sums to P. Pure in (patients, replicates, seed)."""
    rng = np.random.Generator(np.random.Philox(seed))
    counts_RP = np.zeros((replicates, patients), np.uint16)
    if patients:
        for row_P in counts_RP:
            row_P[:] = np.bincount(rng.integers(patients, size=patients), minlength=patients)
    return np.ascontiguousarray(counts_RP.T)


def patient_index(patient_N: np.ndarray, *, key: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the patients 0..P-1 in name order; a row without a patient name is its own patient, known by its key."""
    patient_N, key_N = np.asarray(patient_N, str), np.asarray(key, str)
    # the prefix keeps a nameless image apart from a patient who happens to be called like it
    names_N = np.where(patient_N == '', np.char.add('k:', key_N), np.char.add('p:', patient_N))
    names, index_N = np.unique(names_N, return_inverse=True)
    return index_N.astype(np.int64), len(names)


def distinct(patient_M: np.ndarray) -> int:
    """How many patients there are among rows whose patients are numbered."""
    return int(np.count_nonzero(np.bincount(patient_M))) if len(patient_M) else 0


def map_blocks(function: Callable[[np.ndarray], Found], *, counts: np.ndarray, patient: np.ndarray) -> list[Found]:
    """`function` of the rows' weights [N, r] in blocks of replicates, in order; `patient` [N] are rows of `counts` [P, R]."""
    return in_slices(
        lambda part: function(counts[:, part][patient].astype(np.float64)), columns=counts.shape[1], rows=len(patient)
    )


def in_slices(function: Callable[[slice], Found], *, columns: int, rows: int) -> list[Found]:
    """`function` of slices of the columns of a table of so many rows, in order, a thread a core.

    NumPy lets go of the interpreter while it computes. BLAS is held to one thread: its own would wait for each other by spinning, which
    costs more than these thin products do.
    """
    step = max(LEAST, BLOCK // max(1, rows))
    parts = [slice(start, start + step) for start in range(0, columns, step)]
    with _blas().limit(limits=1, user_api='blas'):
        if len(parts) < 3:
            return [function(part) for part in parts]
        with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
            return list(pool.map(function, parts))


@cache
def _blas() -> ThreadpoolController:
    """The linear algebra libraries of this process, looked up once."""
    return ThreadpoolController()


def percentile_interval(replicates_R: np.ndarray, *, value: float, level: float = 0.95, cases: int | None = None) -> Interval:
    """Percentile interval over the replicates that have a value; NaN bounds when none has.

    A resample varies as if the cases at hand were all there are, which makes the interval too narrow where they are few. With `cases`, the
    patients that decide (of a sensitivity the diseased ones), its tails are those that Student's interval of a mean of so many would need:
    the expanded percentile interval of Hesterberg 2015 (The American Statistician 69:371, section 5.3). For 20 cases at 95 % the tails are
    the 1.6 % ones instead of the 2.5 % ones; for hundreds nothing changes.
    """
    finite = np.asarray(replicates_R)[np.isfinite(replicates_R)]
    dropped = len(replicates_R) - len(finite)
    if not len(finite):
        return Interval(value=float(value), low=np.nan, high=np.nan, dropped=dropped)
    tail = (1 - level) / 2 if cases is None else expanded_tail(level, cases=cases)
    low, high = np.quantile(finite, [tail, 1 - tail])
    return Interval(value=float(value), low=float(low), high=float(high), dropped=dropped)


def expanded_tail(level: float, *, cases: int) -> float:
    """The share to cut off at each end: below (1 - level) / 2, the more so the fewer cases; one case counts as two."""
    cases = max(2, cases)
    return float(ndtr(-np.sqrt(cases / (cases - 1)) * stdtrit(cases - 1, (1 + level) / 2)))


def bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray], *, patient: np.ndarray, replicates: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Interval of any statistic of weighted rows: `statistic(weights [N, R]) -> [R]`, rows clustered by `patient` [N]."""
    names, index_N = np.unique(np.asarray(patient), return_inverse=True)
    counts_PR = patient_counts(len(names), replicates=replicates, seed=seed)
    blocks = map_blocks(statistic, counts=counts_PR, patient=index_N)
    value = statistic(np.ones((len(index_N), 1)))[0]
    return percentile_interval(np.concatenate(blocks), value=value, level=level)
