"""Who is in a set of records, as counts that add up: those of shards to those of a split, whoever counted them."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from retfound_jax.core.demographics import DECLINED
from retfound_jax.ingest.records import Record
from retfound_jax.ingest.splits import balance, count_values

_BANDS = (18, 30, 40, 50, 60, 70, 80)  # [years]
_WORDS = ('sex', 'ethnicity', 'country', 'site', 'camera', 'diabetes_type', 'source', 'laterality')
_COUNTED = (*_WORDS, 'age_word', 'modality')
Classes = Mapping[str, tuple[str, ...] | None]  # label to its classes, None for a number


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tally:
    """Counts of records. Empty text is a value like any other; an age that is not known is in no count."""

    rows: int = 0
    words: Mapping[str, Counter[str]] = dataclasses.field(default_factory=lambda: {name: Counter() for name in _COUNTED})
    ages: Counter[float] = dataclasses.field(default_factory=Counter)  # [years]
    labels: Mapping[str, Counter[str]] = dataclasses.field(default_factory=dict)  # as `splits.count_values` counts
    notes: Counter[str] = dataclasses.field(default_factory=Counter)

    @classmethod
    def of(cls, rows: Iterable[Record], *, classes: Classes | None = None, notes: Iterable[str] = ()) -> Tally:
        """Counts records, and what was noted of them."""
        rows = list(rows)
        return cls(
            rows=len(rows), words={name: Counter(getattr(row, name) for row in rows) for name in _COUNTED},
            ages=Counter(float(row.age) for row in rows if not math.isnan(row.age)), notes=Counter(notes),
            labels={name: count_values([row.labels[name] for row in rows], classes=words) for name, words in (classes or {}).items()},
        )

    def __add__(self, other: Tally) -> Tally:
        """The counts of both."""
        return Tally(
            rows=self.rows + other.rows, ages=self.ages + other.ages, notes=self.notes + other.notes,
            words={name: self.words[name] + other.words[name] for name in _COUNTED},
            labels={name: self.labels.get(name, Counter()) + other.labels.get(name, Counter()) for name in {**self.labels, **other.labels}},
        )

    def summary(self, *, of_patients: bool = False) -> dict[str, Any]:
        """Counts and missing of each demographic column; an eye is none of a patient's."""
        names = [name for name in _WORDS if not (of_patients and name == 'laterality')]
        declined = self.words['age_word'][DECLINED]
        missing = self.rows - self.ages.total() - declined
        return {**{name: _counts(self.words[name]) for name in names}, 'age': _ages(self.ages, missing=missing, declined=declined)}

    def balance(self, classes: Classes) -> dict[str, dict[str, int]]:
        """How often each class occurs."""
        return {name: balance(self.labels[name], classes=words) for name, words in classes.items()}

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {'rows': self.rows, 'words': self.words, 'ages': list(self.ages.items()), 'labels': self.labels, 'notes': self.notes}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Tally:
        """The inverse of `to_json`."""
        return cls(
            rows=found['rows'], words={name: Counter(found['words'][name]) for name in _COUNTED},
            ages=Counter({age: count for age, count in found['ages']}), notes=Counter(found['notes']),
            labels={name: Counter(counts) for name, counts in found['labels'].items()},
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Census:
    """A split: its images, its patients (each by the first of their images), and its groups of patients."""

    images: Tally = Tally()
    patients: Tally = Tally()
    groups: int = 0

    def __add__(self, other: Census) -> Census:
        """The counts of both."""
        return Census(images=self.images + other.images, patients=self.patients + other.patients, groups=self.groups + other.groups)


def one_a_patient(rows: Iterable[Record]) -> list[Record]:
    """The first record of each patient."""
    first: dict[str, Record] = {}
    for row in rows:
        first.setdefault(row.patient, row)
    return list(first.values())


def count_groups(patients: Iterable[Record]) -> int:
    """How many groups there are, of one record a patient: a group has the name of one of its patients."""
    return sum(row.patient == row.group for row in patients)


def _counts(counted: Counter[str]) -> dict[str, int]:
    rest = collections.Counter(counted)
    missing = rest.pop('', 0)
    return dict(sorted(rest.items())) | {'missing': missing}


def _ages(known: Counter[float], *, missing: int, declined: int) -> dict[str, Any]:
    bands = {f'0-{_BANDS[0] - 1}': _between(known, -math.inf, _BANDS[0])}
    bands |= {f'{low}-{high - 1}': _between(known, low, high) for low, high in zip(_BANDS[:-1], _BANDS[1:], strict=True)}
    bands |= {f'{_BANDS[-1]}+': _between(known, _BANDS[-1], math.inf)}
    # Fractions add exactly, so the mean is the same in whatever order and on however many machines it was counted.
    total = float(sum(Fraction(age) * count for age, count in known.items()))
    mean = round(total / known.total(), 3) if known else None
    ends = {'min': min(known, default=None), 'max': max(known, default=None)}
    return {**ends, 'mean': mean, 'missing': missing, 'declined': declined, 'bands': bands}


def _between(known: Counter[float], low: float, high: float) -> int:
    return sum(count for age, count in known.items() if low <= age < high)
