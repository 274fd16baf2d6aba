"""What simple means against a gap would do, to the gap and to everybody: a threshold or a recalibration for each group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retfound_jax.core.files import read_json
from retfound_jax.report.blocks import Cell, Table
from retfound_jax.report.fails import target_of
from retfound_jax.report.reading import real
from retfound_jax.report.tables import Tables, checked
from retfound_jax.report.words import by_name, metric_name, nice, number, value_and_bounds

# what each is for: the gap it should close, and what it may cost
_MEANS = {
    'threshold_per_group': ('own threshold', 'equalised_odds', 'balanced_accuracy'),
    'recalibration_per_group': ('own recalibration', 'ECE', 'ECE'),
}
_NAMES = {'equalised_odds': 'Equalised odds'}


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """A gap and an overall value before and after."""

    by: str
    target: str
    approach: str
    metric: str
    overall: tuple[float | None, ...]  # before, after, change, and the bounds of the change
    gap: tuple[float | None, ...]


def read_remedies(path: Path) -> tuple[Remedy, ...] | None:
    """Reads `tables/mitigation_SPLIT.json`; None where there is none.

    Raises:
      UserError: it is damaged or of another shape.
    """
    if not path.exists():
        return None
    found = read_json(path)
    return checked(path, lambda: tuple(_remedy(row) for row in found['rows']), hint='run `retfound evaluate` again')


def table(tables: Tables, remedies: tuple[Remedy, ...]) -> Table | None:
    """Before and after, of the target that groups are shown for; None where nothing was tried."""
    target = target_of(tables)
    of = {(one.by, one.approach, one.metric): one for one in remedies if one.target == target}
    rows = []
    for by in tables.by:
        for approach, (words, gap, cost) in _MEANS.items():
            closed, paid = of.get((by, approach, gap)), of.get((by, approach, cost))
            if closed is not None and paid is not None and closed.gap[0] is not None:
                closes, costs = _NAMES.get(gap, metric_name(gap)), metric_name(cost)
                rows.append((Cell(by_name(by), small=words), *_change(closed.gap, gap, closes), *_change(paid.overall, cost, costs)))
    if not rows:
        return None
    what = f', “{nice(target)}”' if len(tables.targets) > 1 else ''
    return Table(
        caption=f'What simple means would change{what}: the gap, and the performance for everybody',
        head=('Each group its', 'Gap', 'Change', 'For everybody', 'Change'),
        rows=tuple(rows),
        note='Fitted on validation patients of each group, judged on this split. Where too few were there, the group keeps what all have.',
    )


def _change(values: tuple[float | None, ...], metric: str, words: str) -> tuple[Cell, Cell]:
    before, after, change, low, high = values
    name = 'sensitivity' if metric == 'equalised_odds' else metric
    shown, bounds = value_and_bounds(change, low, high, metric=name)
    return Cell(f'{number(before, metric=name)} → {number(after, metric=name)}', small=words), Cell(shown, small=bounds)


def _remedy(row: Mapping[str, Any]) -> Remedy:
    ends = ('before', 'after', 'change', 'change_low', 'change_high')
    numbers = {what: tuple(real(row.get(f'{what}_{end}')) for end in ends) for what in ('overall', 'gap')}
    return Remedy(**{name: str(row[name]) for name in ('by', 'target', 'approach', 'metric')}, **numbers)
