"""A study directory: the tables that `retfound table` wrote as JSON, read strictly."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retfound_jax.core.errors import UserError
from retfound_jax.core.files import read_json
from retfound_jax.report.reading import real
from retfound_jax.report.tables import checked
from retfound_jax.report.words import nice

FORMAT = 'retfound study table 1'
MACRO = 'macro'
ADAPTED = {
    'finetune': 'fine-tuned',
    'probe': 'linear probe',
    'knn': 'nearest neighbours',
    'green_probe': "RETFound-Green's probe",
    '': 'not described',
}
_AGAIN = 'run `retfound table` again'


@dataclass(frozen=True, kw_only=True)
class Number:
    """A value with an interval; None where there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Printed:
    """A published number and who printed it."""

    method: str
    number: Number
    source: str
    certainty: str


@dataclass(frozen=True, kw_only=True)
class Against:
    """A method minus the reference."""

    reference: str
    difference: Number
    p: float | None  # after Holm


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row of the table."""

    train_on: str
    test_on: str
    target: str
    method: str
    adaptation: str
    fraction: float
    metric: str
    seeds: Number  # mean -/+ 1.96 SE over seeds
    patients: Number  # the same mean, interval over patients
    n_seeds: int
    n_images: int
    n_patients: int
    drawn: bool  # the images are no photographs
    verdict: str
    why: tuple[str, ...]
    contamination: str
    mark: str  # † where the checkpoint has seen the test set, ‡ where that is not known
    printed: Printed | None
    against: Against | None
    gap: Number | None


@dataclass(frozen=True, kw_only=True)
class Needed:
    """Labels a method needs for what the reference reaches with all: infinity where it never does."""

    train_on: str
    test_on: str
    target: str
    metric: str
    adaptation: str
    method: str
    reference: str
    ratio: Number
    smallest: float
    largest: float
    level_reached: float

    def words(self, value: float | None) -> str:
        """A ratio as far as it was tried."""
        if value is None:
            return 'unknown'
        if math.isinf(value):
            return f'more than {100 * self.largest:g}\u202f%'
        return f'{100 * self.smallest:g}\u202f% or less' if value <= self.smallest else f'{100 * value:.0f}\u202f%'


@dataclass(frozen=True, kw_only=True)
class StudyTable:
    """One table."""

    name: str
    title: str
    reference: str
    level: str
    replicates: int
    lines: tuple[Line, ...]
    needed: tuple[Needed, ...]
    missing: int
    cells: int

    def groups(self, *names: str) -> dict[tuple[Any, ...], list[Line]]:
        """The lines by the values of these fields, in the order of the table."""
        found: dict[tuple[Any, ...], list[Line]] = {}
        for line in self.lines:
            found.setdefault(tuple(getattr(line, name) for name in names), []).append(line)
        return found


def line_place(line: Line, *, adaptation: bool = True) -> str:
    """What a line is of, in words: `aptos2019 → idrid, cataract, fine-tuned`."""
    sets = nice(line.test_on) if line.train_on in (line.test_on, '') else f'{nice(line.train_on)} → {nice(line.test_on)}'
    adapted = ADAPTED.get(line.adaptation, nice(line.adaptation)) if adaptation else ''
    return ', '.join(filter(None, (sets, '' if line.target == MACRO else nice(line.target), adapted)))


def is_study(folder: Path) -> bool:
    """Whether a directory is one of a study and not of a run."""
    return (folder / 'cells').is_dir() and not (folder / 'config.json').exists()


def read_study(folder: Path) -> tuple[StudyTable, ...]:
    """Every table of a study directory.

    Raises:
      UserError: there is none, or one is damaged.
    """
    found = [(path, read_json(path)) for path in sorted((folder / 'tables').glob('*.json'))]
    wanted = [(path, value) for path, value in found if isinstance(value, dict) and value.get('format') == FORMAT]
    if not wanted:
        raise UserError(f'{folder} holds no table of a study yet: run `retfound table NAME --workdir {folder}` first')
    return tuple(read_table(value, path=path) for path, value in wanted)


def read_table(value: Mapping[str, Any], *, path: Path) -> StudyTable:
    """One table from its JSON; `path` is named where it is damaged."""
    return checked(path, lambda: _table(value), hint=_AGAIN)


def _table(found: Mapping[str, Any]) -> StudyTable:
    judged = found['judged']
    return StudyTable(
        name=str(found['name']),
        title=str(found['title']),
        reference=str(judged['reference']),
        level=str(judged['level']),
        replicates=int(judged['replicates']),
        lines=tuple(_line(line) for line in found['lines']),
        needed=tuple(_needed(one) for one in found['needed']),
        missing=int(found['missing']),
        cells=int(found['cells']),
    )


def _line(line: Mapping[str, Any]) -> Line:
    row, verdict = line['row'], line['verdict']
    mean = real(row['mean'])
    names = ('train_on', 'test_on', 'target', 'method', 'adaptation', 'metric')
    return Line(
        **{name: str(row[name]) for name in names},
        fraction=float(row['fraction']),
        seeds=Number(value=mean, low=real(row['se_low']), high=real(row['se_high'])),
        patients=Number(value=mean, low=real(row['boot_low']), high=real(row['boot_high'])),
        **{name: int(row[name]) for name in ('n_seeds', 'n_images', 'n_patients')},
        drawn=bool(row['origin']['drawn']),
        verdict=str(verdict['kind']),
        why=_texts(verdict['why']),
        contamination=str(verdict['contamination']),
        mark=str(verdict['mark']),
        printed=_printed(verdict['published']),
        against=_against(line['comparison']),
        gap=None if line['gap'] is None else _interval(line['gap'], 'mean'),
    )


def _printed(one: Mapping[str, Any] | None) -> Printed | None:
    if one is None:
        return None
    return Printed(number=_interval(one, 'value'), **{name: str(one[name]) for name in ('method', 'source', 'certainty')})


def _against(one: Mapping[str, Any] | None) -> Against | None:
    if one is None:
        return None
    return Against(reference=str(one['reference']), difference=_interval(one, 'difference'), p=real(one['holm']))


def _needed(one: Mapping[str, Any]) -> Needed:
    found = one['found']
    names = ('train_on', 'test_on', 'target', 'metric', 'adaptation', 'method', 'reference')
    numbers = {name: float(found[name]) for name in ('smallest', 'largest', 'level_reached')}
    return Needed(ratio=_interval(found, 'ratio'), **{name: str(one[name]) for name in names}, **numbers)


def _interval(one: Mapping[str, Any], name: str) -> Number:
    return Number(value=real(one[name]), low=real(one['low']), high=real(one['high']))


def _texts(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(map(str, values))
