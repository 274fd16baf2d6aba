"""What a study says of groups: `bias.json` (the composition of the pretraining) and `learning_by_group.json` (the share of labels)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retfound_jax.core.files import read_json
from retfound_jax.report.blocks import Cell, Table
from retfound_jax.report.study import ADAPTED
from retfound_jax.report.study import FORMAT as STUDY_FORMAT
from retfound_jax.report.tables import checked
from retfound_jax.report.words import by_name, clean, metric_name, nice, value_and_bounds

FORMAT = 'retfound by group 1'
GAP = 'gap'
_FILES = ('learning_by_group', 'bias')
_ROWS = 24


@dataclass(frozen=True, kw_only=True)
class Point:
    """The number of a group, or the gap between groups, with a share of the labels."""

    adaptation: str
    method: str
    words: str  # of the method
    fraction: float
    target: str
    group: str
    value: float | None  # mean over the seeds
    low: float | None  # over patients, the trained models as they are: what few seeds say of other seeds is next to nothing
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Slope:
    """How a number moves, in a sentence of the study's own."""

    on: str  # 'composition' or 'labels'
    target: str
    group: str
    sentence: str


@dataclass(frozen=True, kw_only=True)
class ByGroup:
    """One file."""

    title: str
    by: str
    metric: str
    drawn: bool
    points: tuple[Point, ...]
    slopes: tuple[Slope, ...]

    def sentences(self, *, on: str, targets: frozenset[str]) -> tuple[str, ...]:
        """What is said of these targets, the gap first."""
        found = [slope for slope in self.slopes if slope.on == on and slope.target in targets]
        return tuple(slope.sentence for slope in sorted(found, key=lambda slope: slope.group != GAP))


def read_by_group(folder: Path) -> tuple[ByGroup, ...]:
    """Every such file of a study directory.

    Raises:
      UserError: one is damaged or of another shape.
    """
    paths = [folder / 'tables' / f'{name}.json' for name in _FILES]
    return tuple(_read(path) for path in paths if path.exists())


def has_table(folder: Path) -> bool:
    """Whether a study directory holds a table of results too."""
    found = (read_json(path) for path in sorted((folder / 'tables').glob('*.json')))
    return any(isinstance(value, dict) and value.get('format') == STUDY_FORMAT for value in found)


def table(found: ByGroup, *, targets: frozenset[str]) -> Table | None:
    """Each group's number by the share of the labels; None where fewer than two shares were tried."""
    points = [point for point in found.points if point.target in targets and point.group != GAP]
    fractions = sorted({point.fraction for point in points})
    if len(fractions) < 2:
        return None
    rows: dict[tuple[str, str, str, str], dict[float, Point]] = {}
    for point in points:
        rows.setdefault((point.target, point.adaptation, point.words, point.group), {})[point.fraction] = point
    lines = [
        (
            Cell(nice(group), small=f'{nice(target)}, {ADAPTED.get(how, nice(how))}'),
            Cell(nice(words)),
            *(_cell(one.get(f), found) for f in fractions),
        )
        for (target, how, words, group), one in rows.items()
    ]
    more = len(lines) - _ROWS
    return Table(
        caption=f'{metric_name(found.metric)} of each group by share of the labels, by {by_name(found.by).lower()}',
        head=('Group', 'Started from', *(f'{100 * fraction:g}\u202f%' for fraction in fractions)),
        rows=tuple(lines[:_ROWS]),
        words=frozenset({1}),
        note='Means over seeds, intervals over patients.' + (f' {more} more rows in the study.' if more > 0 else ''),
    )


def _cell(point: Point | None, found: ByGroup) -> Cell:
    if point is None or point.value is None:
        return Cell('none', quiet=True)
    shown, bounds = value_and_bounds(point.value, point.low, point.high, metric=found.metric)
    return Cell(shown, small=bounds)


def _read(path: Path) -> ByGroup:
    value = read_json(path)
    return checked(path, lambda: _by_group(value), hint='run `retfound table` again')


def _by_group(found: Mapping[str, Any]) -> ByGroup:
    if found['format'] != FORMAT:
        raise ValueError(f'its format is {found["format"]!r}, not {FORMAT!r}')
    return ByGroup(
        **{name: clean(found[name]) for name in ('title', 'by', 'metric')},
        drawn=bool(found['drawn']),
        points=tuple(_point(row) for row in found['points']),
        slopes=tuple(Slope(**{name: str(row[name]) for name in ('on', 'target', 'group', 'sentence')}) for row in found['slopes']),
    )


def _point(row: Mapping[str, Any]) -> Point:
    words = {name: str(row[name]) for name in ('adaptation', 'method', 'words', 'target', 'group')}
    read = {'value': row['value'], 'low': row['patients_low'], 'high': row['patients_high']}
    numbers = {name: None if value is None else float(value) for name, value in read.items()}
    return Point(fraction=float(row['fraction']), **words, **numbers)
