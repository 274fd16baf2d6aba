"""The same numbers group by group, with a forest chart in the table itself."""

from __future__ import annotations

from typing import Any

from retfound_jax.report.blocks import Axis, Cell, Section, Span, Table, Text
from retfound_jax.report.results import positives, value_cell
from retfound_jax.report.tables import GAP, JOINT, LOWER_IS_BETTER, MACRO, MISSING, Row, Tables
from retfound_jax.report.words import by_name, count, interval, metric_name, nice

_BESIDE = ('sensitivity', 'specificity')


def section(tables: Tables | None) -> Section:
    """A table and chart for each subgroup column that was evaluated."""
    blocks: list[Any] = []
    if tables is None:
        blocks.append(Text('There is no evaluation to split into subgroups.', 'quiet'))
    elif not tables.by:
        blocks.append(Text('No subgroups were evaluated; run `retfound evaluate` with --by, for example --by sex,age_band.', 'quiet'))
    else:
        blocks.append(Text(_intro(tables)))
        for by in tables.by:
            blocks.append(_forest(tables, by))
            if len(tables.targets) > 1:
                blocks.append(_matrix(tables, by))
    return Section(id='subgroups', title='Does it work alike for everybody?', blocks=tuple(blocks))


def _intro(tables: Tables) -> str:
    judged = '' if tables.kind == 'regress' else 'Every group is judged at the same threshold. '
    return (
        f'{judged}Dot: value; line: interval; thin upright line: everybody. '
        f'A number from fewer than {tables.min_n} patients is withheld. '
        'Groups differ by chance too: a gap narrower than the intervals proves nothing, and a small group proves nothing either way.'
    )


def _forest(tables: Tables, by: str) -> Table:
    metric, overall = tables.metric, tables.find(metric=tables.metric)
    rows = {group: tables.find(metric=metric, by=by, group=group) for group in tables.groups(by)}
    axis = _axis([row for row in (overall, *rows.values()) if row is not None], metric)
    beside = [name for name in _BESIDE if tables.find(metric=name) is not None]
    reference = overall.value if overall else None
    lines = [_line(tables, overall, '', 'everybody', beside, axis, reference)] if overall else []
    lines += [_line(tables, row, by, group, beside, axis, reference) for group, row in rows.items() if row is not None]
    low, high = (f'{end:.2g}'.replace('0.', '.') for end in axis)
    target = f', “{nice(tables.overall)}”' if tables.overall != MACRO else '' if metric in JOINT else ', mean over the classes'
    head = ('Group', 'Patients', 'Images', *(() if tables.kind == 'regress' or tables.overall == MACRO else ('Positive',)))
    return Table(
        caption=f'{by_name(by)}: {metric_name(metric)}{target}',
        head=(*head, metric_name(metric), metric_name(metric), *map(metric_name, beside)),
        aside=frozenset(range(2, len(head))),
        axis=Axis(column=len(head) + 1, low=low, high=high),
        rows=tuple(lines),
        note=_gap(tables, by),
    )


def _line(
    tables: Tables, row: Row, by: str, group: str, beside: list[str], axis: tuple[float, float], reference: float | None
) -> tuple[Cell, ...]:
    cells = [Cell(nice(group), quiet=group == MISSING), Cell(count(row.n_patients)), Cell(count(row.n_images))]
    if tables.kind != 'regress' and tables.overall != MACRO:
        cells.append(positives(row))
    others = [value_cell(tables.find(metric=name, by=by, group=row.group)) for name in beside]
    return (*cells, value_cell(row), Cell('', span=_span(row, axis, reference)), *others)


def _axis(rows: list[Row], metric: str) -> tuple[float, float]:
    """A common axis that holds every interval, in round ends."""
    known = [value for row in rows for value in (row.value, row.low, row.high) if value is not None]
    if metric in LOWER_IS_BETTER:
        return 0.0, max([*known, 1e-9]) * 1.05
    low = min([*known, 0.5]) if metric == 'AUROC' else min([*known, 0.0])
    return int(low * 10 - (low < 0)) / 10, 1.0


def _span(row: Row, axis: tuple[float, float], reference: float | None) -> Span | None:
    if row.value is None:
        return None

    def place(value: float | None) -> float | None:
        return None if value is None else round(100 * min(1.0, max(0.0, (value - axis[0]) / (axis[1] - axis[0]))), 2)

    return Span(at=place(row.value), low=place(row.low), high=place(row.high), reference=place(reference))


def _matrix(tables: Tables, by: str) -> Table:
    """One number for each target and group."""
    metric = tables.metric if tables.metric == 'AUROC' else 'AUROC'
    groups = tables.groups(by)
    rows = []
    for target in tables.targets:
        cells = [tables.find(metric=metric, target=target, by=by, group=group) for group in groups]
        rows.append((Cell(nice(target)), value_cell(tables.find(metric=metric, target=target)), *map(value_cell, cells)))
    return Table(
        caption=f'{by_name(by)}: {metric} of each class',
        head=('Finding' if tables.kind == 'multi' else 'Class', 'everybody', *map(nice, groups)),
        rows=tuple(rows),
    )


def _gap(tables: Tables, by: str) -> str:
    row = tables.find(metric=tables.metric, by=by, group=GAP)
    if row is None or row.value is None:
        return ''
    shown = interval(row.value, row.low, row.high, metric=row.metric)
    return f'Widest gap: {shown} ({nice(row.note)}). The two groups were picked for lying furthest apart, which makes the gap look wide.'
