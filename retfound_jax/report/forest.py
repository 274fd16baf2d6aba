"""The forest of groups: everybody, then each group and intersection on one axis, with other datasets beside the run's own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from retfound_jax.core.demographics import NOT_A_GROUP
from retfound_jax.report.blocks import Axis, Cell, Span, Table
from retfound_jax.report.fails import group_words, target_of
from retfound_jax.report.results import positives, value_cell
from retfound_jax.report.tables import GAP, JOINT, LOWER_IS_BETTER, MACRO, Row, Tables
from retfound_jax.report.words import clean, count, metric_name, nice, plural

_BESIDE = ('sensitivity', 'specificity')
_OTHERS = 2  # other datasets in the columns of one table
_ROWS = 48  # groups of one table; the tables of the run hold all
_FOLDED = re.compile(f'( or ({"|".join(sorted(NOT_A_GROUP))}))+$')


def table(tables: Tables, others: Sequence[Tables]) -> Table:
    """Every group that may be shown, in the target that speaks for the whole (or in which a group fails most surely).

    Other splits and datasets have a column each; the first of them is also drawn, below the run's own.
    """
    others = [one for one in others if _comparable(one, tables)][:_OTHERS]
    target, metric = target_of(tables), _metric(tables)
    alone = tables.kind != 'regress' and target != MACRO
    beside = [name for name in _BESIDE if tables.find(metric=name, target=target) is not None] if len(others) < _OTHERS else []
    rows = [row for row in _rows(tables, target, metric) if row is not None]
    lines = [(row, [_same(one, row, target) for one in others]) for row in rows]
    every = [row for own, outside in lines for row in (own, *outside) if row is not None]
    axis, reference = _axis(every, metric), rows[0].value if rows else None
    head = ('Group', 'Patients', *(('Positive',) if alone else ()), metric_name(metric), metric_name(metric))
    low, high = (f'{end:.2g}'.replace('0.', '.') for end in axis)
    made = []
    for row, outside in lines[: _ROWS + 1]:
        span = _span(row, axis, reference, outside[0] if outside else None)
        cells = [Cell(_name(row), quiet=_bare(row.group) in NOT_A_GROUP), Cell(count(row.n_patients))]
        cells += [positives(row)] if alone else []
        cells += [value_cell(row), Cell('', span=span), *map(_outside, outside)]
        made.append((*cells, *(value_cell(tables.find(metric=name, by=row.by, group=row.group, target=target)) for name in beside)))
    return Table(
        caption=f'{metric_name(metric)} by group{_what(tables, target, metric)}',
        head=(*head, *(f'{metric_name(metric)}, {_place(one)}' for one in others), *map(metric_name, beside)),
        aside=frozenset({2}) if alone else frozenset(),
        axis=Axis(column=len(head) - 1, low=low, high=high),
        rows=tuple(made),
        note=_note(tables, others, more=len(lines) - 1 - _ROWS),
    )


def _rows(tables: Tables, target: str, metric: str) -> Iterable[Row | None]:
    """Everybody, then the groups with a number; who is withheld is told in words, and nobody is not told."""
    yield tables.find(metric=metric, target=target)
    for by in tables.by:
        for group in tables.groups(by):
            row = tables.find(metric=metric, by=by, group=group, target=target)
            if row is not None and not row.withheld and row.n_patients:
                yield row


def _metric(tables: Tables) -> str:
    """The metric that speaks for the whole; that of one target where the detail is of one."""
    return tables.metric if target_of(tables) == tables.overall else 'AUROC'


def _comparable(other: Tables, tables: Tables) -> bool:
    return other.kind == tables.kind and target_of(tables) in (*other.targets, MACRO) and bool(set(other.by) & set(tables.by))


def _same(other: Tables, row: Row, target: str) -> Row | None:
    """The same group elsewhere, also where blanks were folded into it there or here."""
    if not row.by:
        return other.find(metric=row.metric, target=target)
    found = next((group for group in other.groups(row.by) if group != GAP and _bare(group) == _bare(row.group)), None)
    return other.find(metric=row.metric, target=target, by=row.by, group=found) if found is not None else None


def _bare(group: str) -> str:
    return _FOLDED.sub('', group)


def _name(row: Row) -> str:
    return group_words(row.by, row.group) if row.by else 'Everybody'


def _outside(row: Row | None) -> Cell:
    """A value of another dataset with how many patients are behind it."""
    if row is None:
        return Cell('–', small='no such group', quiet=True)
    cell = value_cell(row)
    people = f', {plural(row.n_patients, "patient")}' if row.n_patients and row.value is not None else ''
    return Cell(cell.text, small=f'{cell.small}{people}', quiet=cell.quiet)


def _place(tables: Tables) -> str:
    return clean(tables.name.removesuffix(f'-{tables.split}') if tables.external else f'split {tables.split}')


def _what(tables: Tables, target: str, metric: str) -> str:
    if target == MACRO:
        return '' if metric in JOINT else ', mean over the classes'
    return f', “{nice(target)}”' if len(tables.targets) > 1 else ''


def _note(tables: Tables, others: Sequence[Tables], *, more: int) -> str:
    words = [f'Dot: value; line: {100 * tables.interval:.0f} % interval; thin upright line: everybody.']
    words += [f'Below, in orange: {_place(others[0])}.'] if others else []
    words += ['Every group is judged at the one threshold.'] if tables.kind != 'regress' else []
    words += [f'{plural(more, "more group")} in the tables of the run.'] if more > 0 else []
    return ' '.join(words)


def _axis(rows: list[Row], metric: str) -> tuple[float, float]:
    """A common axis that holds every interval, in round ends."""
    known = [value for row in rows for value in (row.value, row.low, row.high) if value is not None]
    if metric in LOWER_IS_BETTER:
        return 0.0, max([*known, 1e-9]) * 1.05
    low = min([*known, 0.5]) if metric == 'AUROC' else min([*known, 0.0])
    return int(low * 10 - (low < 0)) / 10, 1.0


def _span(row: Row, axis: tuple[float, float], reference: float | None, other: Row | None) -> Span | None:
    if row.value is None:
        return None

    def place(value: float | None) -> float | None:
        return None if value is None else round(100 * min(1.0, max(0.0, (value - axis[0]) / (axis[1] - axis[0]))), 2)

    def marks(one: Row) -> dict[str, Any]:
        return {'at': place(one.value), 'low': place(one.low), 'high': place(one.high)}

    beside = Span(**marks(other)) if other is not None and other.value is not None else None
    return Span(**marks(row), reference=place(reference), beside=beside)
