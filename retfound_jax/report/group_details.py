"""By group in full, for those who check: every comparison, and the measures that make no headline."""

from __future__ import annotations

from typing import Any

from retfound_jax.report import fails, gap_tables
from retfound_jax.report.blocks import Cell, Section, Table, Text
from retfound_jax.report.results import value_cell
from retfound_jax.report.tables import Tables
from retfound_jax.report.words import metric_name, nice

TITLE = 'By group, in full'
_MEASURES = ('AUPRC', 'F1', 'accuracy', 'balanced_accuracy', 'kappa_quadratic', 'RMSE', 'R2', 'pearson')
_COMPARED, _ROWS = 40, 48


def section(tables: Tables | None) -> Section:
    """What the section on groups leaves out."""
    if tables is None or not tables.by:
        return Section(id='groups', title=TITLE, blocks=(Text('No groups were evaluated.', 'absent'),))
    blocks: list[Any] = []
    compared = [row for row in tables.between.failing or () if row.level == tables.level]
    if compared:
        more = len(compared) - _COMPARED
        blocks.append(fails.table(tables, compared[:_COMPARED], caption='Every group against everybody else', more=more))
    other = gap_tables.gaps(tables, metrics=gap_tables.REST)
    blocks += [other] if other else []
    measures = _measures(tables)
    blocks += [measures] if measures else []
    if not blocks:
        blocks.append(Text('No group has enough patients to be shown.', 'absent'))
    return Section(id='groups', title=TITLE, blocks=tuple(blocks))


def _measures(tables: Tables) -> Table | None:
    """The other metrics of each group that is shown."""
    target = fails.target_of(tables)
    names = [name for name in _MEASURES if tables.find(metric=name, target=target) is not None]
    found = {}
    for by, group in [('', ''), *((column, name) for column in tables.by for name in tables.groups(column))]:
        rows = [tables.find(metric=name, target=target, by=by, group=group) for name in names]
        if any(row is not None and row.value is not None for row in rows):
            found[by, group] = rows
    if not names or len(found) < 2:
        return None
    rows = [
        (Cell(fails.group_words(by, group) if by else 'Everybody'), *map(value_cell, of)) for (by, group), of in list(found.items())[:_ROWS]
    ]
    what = f', “{nice(target)}”' if len(tables.targets) > 1 else ''
    return Table(caption=f'Other measures of each group{what}', head=('Group', *map(metric_name, names)), rows=tuple(rows))
