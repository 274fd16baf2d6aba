"""How far groups lie apart and whether that is more than chance; equalised odds; operating points; calibration in numbers."""

from __future__ import annotations

from collections.abc import Sequence

from retfound_jax.report.blocks import Cell, Table
from retfound_jax.report.fails import group_words, p_words, target_of
from retfound_jax.report.group_tables import Gap
from retfound_jax.report.results import value_cell
from retfound_jax.report.tables import MACRO, Row, Tables
from retfound_jax.report.words import by_name, interval, metric_name, nice, number, plural, value_and_bounds

FIRST = ('AUROC', 'sensitivity', 'specificity')  # what does not move with the share of diseased people
REST = ('AUPRC', 'ECE', 'Brier', 'slope')
_ROWS = 15
_LINES = ('slope', 'intercept', 'ECE', 'Brier')
_HEAD = ('Measure', 'Gap', 'By chance', 'p', 'p (Holm)', 'Seen from')
_BIASED = (
    'The best minus the worst group is above zero by chance alone, the more so the more and the smaller the groups: it is biased upward. '
    'So it stands beside what is expected where no group differs (patients given to groups by lot), with its 95 % point. '
    'Seen from: the smallest true gap that 4 of 5 such studies would notice. The interval is of the true gap.'
)
_OTHER = (
    'AUPRC and the Brier score move with the share of diseased people, which may differ between the groups; the calibration error is '
    'larger in smaller groups, which the column By chance allows for.'
)


def gaps(tables: Tables, *, metrics: tuple[str, ...] = FIRST) -> Table | None:
    """Each column's widest gap in each metric; None where none could be taken."""
    rows = [gap for gap in tables.between.gaps or () if gap.level == tables.level and gap.gap is not None]
    several = len(tables.targets) > 1
    rows = sorted((gap for gap in rows if gap.metric in metrics), key=lambda gap: (tables.by.index(gap.by), metrics.index(gap.metric)))
    more, note = len(rows) - _ROWS, _BIASED if metrics == FIRST else _OTHER
    if more > 0:  # of many the surest, in their old order
        surest = sorted(rows, key=lambda gap: (1.0 if gap.p is None else gap.p))[:_ROWS]
        rows = [gap for gap in rows if gap in surest]
    if not rows:
        return None
    return Table(
        caption=f'The widest gap in each column{"" if metrics == FIRST else ", other measures"}, beside what chance alone gives',
        head=('Groups by', *(('Finding',) if several else ()), *_HEAD),
        rows=tuple(_gap(gap, several=several) for gap in rows),
        words=frozenset({1, 2} if several else {1}),
        note=f'{note} {plural(more, "more gap")} with less evidence in the tables of the run.' if more > 0 else note,
    )


def _gap(gap: Gap, *, several: bool) -> tuple[Cell, ...]:
    shown, bounds = value_and_bounds(gap.gap, gap.low, gap.high, metric=gap.metric)
    chance = number(gap.by_chance, metric=gap.metric)
    most = f'95 %: {number(gap.by_chance_high, metric=gap.metric)}' if gap.by_chance_high is not None else ''
    target = [Cell(nice(gap.target))] if several else []
    return (
        *(Cell(by_name(gap.by)), *target, Cell(metric_name(gap.metric), small=f'best {nice(gap.best)}, worst {nice(gap.worst)}')),
        *(Cell(shown, small=bounds), Cell(chance, small=most)),
        *(Cell(_p(gap.p)), Cell(_p(gap.p_holm)), Cell(number(gap.detectable, metric=gap.metric))),
    )


def odds(tables: Tables) -> Table | None:
    """Equalised odds of each column; None where there is no threshold or nothing to compare."""
    rows = [one for one in tables.between.odds or () if one.level == tables.level and one.difference is not None]
    if not rows:
        return None
    several = len(tables.targets) > 1
    made = []
    for one in rows[:_ROWS]:
        shares = (one.difference, one.tpr_gap, one.fpr_gap)
        first, found, called = (number(value, metric='sensitivity') for value in shares)
        bounds = interval(one.difference, one.low, one.high, metric='sensitivity').removeprefix(first).strip()
        target = [Cell(nice(one.target))] if several else []
        made.append((Cell(by_name(one.by)), *target, Cell(first, small=bounds), Cell(found), Cell(called), Cell(_p(one.p))))
    return Table(
        caption='Equalised odds: are the ill found, and the well called ill, equally often in all groups?',
        head=('Groups by', *(('Finding',) if several else ()), 'Difference', 'In those found', 'In false alarms', 'p'),
        rows=tuple(made),
        words=frozenset({1}) if several else frozenset(),
        note='Difference: the larger of the two gaps, at the one threshold; 0: equal. It is above zero by chance alone; p allows for that.',
    )


def operating_points(tables: Tables) -> Table | None:
    """Sensitivity and specificity of each group at the one threshold, and at a threshold of its own; None where there is neither."""
    target = target_of(tables)
    if target == MACRO or tables.find(metric='sensitivity', target=target) is None:
        return None
    rows = []
    for by, group in _shown(tables, target, 'sensitivity'):
        own = [tables.find(metric=f'{name}@group', target=target, by=by, group=group) for name in ('sensitivity', 'specificity')]
        at_one = [tables.find(metric=name, target=target, by=by, group=group) for name in ('sensitivity', 'specificity')]
        rows.append((Cell(group_words(by, group)), *map(value_cell, at_one), _own(tables, by, group, target), *map(_own_value, own)))
    if not rows:
        return None
    head = ('Group', 'Sensitivity', 'Specificity', 'Own threshold', 'Sensitivity there', 'Specificity there')
    entry = tables.thresholds.get(target, {})
    one = number(entry.get('patient_value' if tables.level == 'patient' else 'value'), metric='AUROC')
    return Table(
        caption=f'At the one threshold ({one}), and at a threshold for each group{_of(tables, target)}',
        head=head,
        rows=tuple(rows),
        note='All thresholds were chosen on validation patients. A group with too few of them there has no threshold of its own.',
    )


def _own(tables: Tables, by: str, group: str, target: str) -> Cell:
    value, why = (tables.between.thresholds or {}).get((by, group, target), (None, 'not measured'))
    if value is None or why:
        return Cell('none', small='' if value is not None else why, quiet=True)
    return Cell(number(value, metric='AUROC'))


def _own_value(row: Row | None) -> Cell:
    if row is None:
        return Cell('not measured', absent=True)
    return Cell('–', quiet=True) if row.note.startswith('at the global') else value_cell(row)


def calibration(tables: Tables) -> Table | None:
    """Slope, intercept and errors of each group's probabilities; None where no group has any."""
    target = target_of(tables)
    names = [name for name in _LINES if tables.find(metric=name, target=target) is not None]
    groups = _shown(tables, target, 'ECE')
    if target == MACRO or not names or not groups:
        return None
    rows = []
    for by, group in [('', ''), *groups]:
        found = [tables.find(metric=name, target=target, by=by, group=group) for name in names]
        rows.append((Cell(group_words(by, group) if by else 'Everybody'), *map(value_cell, found)))
    return Table(
        caption=f'Calibration in numbers{_of(tables, target)}',
        head=('Group', *map(metric_name, names)),
        rows=tuple(rows),
        note='Slope 1 and intercept 0 are right. A slope under 1: too sure of itself. An intercept below 0: it states too much. '
        'The calibration error is larger in small groups even where the model is as well calibrated.',
    )


def _shown(tables: Tables, target: str, metric: str) -> Sequence[tuple[str, str]]:
    """The groups with a number."""
    every = [(by, group) for by in tables.by for group in tables.groups(by)]
    found = [tables.find(metric=metric, target=target, by=by, group=group) for by, group in every]
    return [name for name, row in zip(every, found, strict=True) if row is not None and row.value is not None]


def _of(tables: Tables, target: str) -> str:
    return f', “{nice(target)}”' if len(tables.targets) > 1 else ''


def _p(p: float | None) -> str:
    return p_words(p).removeprefix('p = ').removeprefix('p ')
