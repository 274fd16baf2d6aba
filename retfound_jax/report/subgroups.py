"""Does it work alike for everybody: whom it fails, then the evidence in order, from the forest of groups to curves over the labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retfound_jax.report import fails, forest, gap_tables, group_curves
from retfound_jax.report.blocks import Cell, Heading, Pictures, Section, Table, Text
from retfound_jax.report.group_figures import calibration_panels
from retfound_jax.report.remedies import Remedy
from retfound_jax.report.remedies import table as remedy_table
from retfound_jax.report.results import value_cell
from retfound_jax.report.tables import MACRO, Tables
from retfound_jax.report.words import by_name, clean, metric_name, nice

TITLE = 'Does it work alike for everybody?'
_PANELS = 12  # single columns before intersections
_CURVES = 3  # targets whose curves over the labels are drawn
_MATRIX = 9  # groups in the columns of a table


def section(
    tables: Tables | None,
    *,
    others: Sequence[Tables] = (),
    remedies: tuple[Remedy, ...] | None = None,
    studies: Sequence[Path] = (),
) -> Section:
    """The groups of the split the page is about, with other splits beside it, what would help, and curves over the labels from studies."""
    if tables is None:
        told = Text('Not measured: whom it fails. There is no evaluation to split into groups.', 'absent')
        return Section(id='subgroups', title=TITLE, blocks=(told,))
    blocks: list[Any] = [Heading('Whom it fails'), *fails.blocks(tables)]
    if tables.by:
        external = [one for one in others if one.external]
        blocks += [forest.table(tables, external or others), *_elsewhere(tables, external)]
        blocks += [*_between(tables), *_calibration(tables), *_remedies(tables, remedies)]
    return Section(id='subgroups', title=TITLE, blocks=(*blocks, *_learning(studies)))


def _elsewhere(tables: Tables, external: Sequence[Tables]) -> list[Text]:
    if not external:
        why = 'no other dataset was evaluated; run `retfound evaluate --dataset DIR` with the same --by'
        return [Text(f'Not measured: whether this holds elsewhere, as {why}.', 'absent')]
    bare = [one for one in external if not set(one.by) & set(tables.by)]
    names = ', '.join(clean(one.name) for one in bare)
    return [Text(f'Not measured by group: {names}. Evaluate it with --by {",".join(tables.by)}.', 'absent')] if bare else []


def _between(tables: Tables) -> list[Any]:
    """Gaps, equalised odds and operating points; what is not there is said."""
    if tables.kind == 'regress':
        return []
    gaps, odds, points = gap_tables.gaps(tables), gap_tables.odds(tables), gap_tables.operating_points(tables)
    blocks: list[Any] = [Heading('How far apart the groups are')]
    if tables.between.gaps is None:
        return [*blocks, Text('Not measured: gaps beside chance, and equalised odds. Run `retfound evaluate` again.', 'absent')]
    absent = 'no two groups of a column have enough patients with and without the finding'
    blocks += [gaps] if gaps else [Text(f'Not measured: gaps between groups, as {absent}.', 'absent')]
    blocks += [odds] if odds else [Text(f'Not measured: equalised odds, as there is no threshold, or {absent}.', 'absent')]
    blocks += [points] if points else []
    if len(tables.targets) > 1:
        blocks += [table for by in tables.by if (table := _matrix(tables, by)) is not None]
    return blocks


def _calibration(tables: Tables) -> list[Any]:
    """Small multiples and the numbers behind them."""
    if tables.kind == 'regress':
        return []
    heading, target = Heading('Do its probabilities hold in each group?'), fails.target_of(tables)
    found = tables.between.reliability
    columns = sorted(tables.by, key=lambda by: '+' in by)
    names = [(by, group) for by in columns for group in tables.groups(by) if (by, group, target) in (found or {})]
    if not names or target == MACRO:
        why = 'the evaluation is of an earlier version' if found is None else 'no group has enough patients with and without the finding'
        return [heading, Text(f'Not measured: calibration by group, as {why}.', 'absent')]
    errors = {name: tables.find(metric='ECE', target=target, by=name[0], group=name[1], level='patient') for name in names}
    panels = [
        (fails.group_words(*name), found[*name, target], errors[name].value if errors[name] is not None else None)
        for name in names[:_PANELS]
    ]
    what = f', {nice(target)}' if len(tables.targets) > 1 else ''
    blocks = [heading, Pictures(items=(calibration_panels(panels, what=what),), size='full')]
    numbers = gap_tables.calibration(tables)
    return [*blocks, numbers] if numbers else blocks


def _remedies(tables: Tables, remedies: tuple[Remedy, ...] | None) -> list[Any]:
    """What a threshold or a recalibration for each group would change."""
    if tables.kind == 'regress':
        return []
    heading, found = Heading('What could be done about it'), None if remedies is None else remedy_table(tables, remedies)
    why = 'there is no evaluation of it' if remedies is None else 'no group has enough patients in validation'
    return [heading, found or Text(f'Not measured: what a threshold or a recalibration for each group would change, as {why}.', 'absent')]


def _learning(studies: Sequence[Path]) -> list[Any]:
    """How many labels each group needs: the curves of the studies that asked."""
    heading = Heading('How many labels each group needs')
    paths = [path for folder in studies for path in [Path(folder) / 'tables' / 'learning_by_group.json'] if path.exists()]
    drawn = [one.picture for path in paths for one in group_curves.draw(group_curves.read(path))[:_CURVES]]
    if not drawn:
        why = 'no study with curves by group was given; see `retfound table` and --study'
        return [heading, Text(f'Not measured: how performance in each group grows with the number of labels, as {why}.', 'absent')]
    return [heading, Pictures(items=tuple(drawn), size='full')]


def _matrix(tables: Tables, by: str) -> Table | None:
    """One number for each target and group that is shown."""
    metric = 'AUROC'
    every = tables.groups(by)
    found = {name: [tables.find(metric=metric, target=target, by=by, group=name) for target in tables.targets] for name in every}
    groups = [group for group, of in found.items() if any(row is not None and row.value is not None for row in of)][:_MATRIX]
    if not groups:
        return None
    rows = []
    for at, target in enumerate(tables.targets):
        cells = [found[group][at] for group in groups]
        rows.append((Cell(nice(target)), value_cell(tables.find(metric=metric, target=target)), *map(value_cell, cells)))
    return Table(
        caption=f'{by_name(by)}: {metric_name(metric)} of each class',
        head=('Finding' if tables.kind == 'multi' else 'Class', 'Everybody', *map(nice, groups)),
        rows=tuple(rows),
    )
