"""Sets of outcomes that hold the truth, and stated probabilities mended with one number: the tables of both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from retfound_jax.core.demographics import NOT_A_GROUP
from retfound_jax.report.blocks import Cell, Heading, Table, Text
from retfound_jax.report.tables import MACRO
from retfound_jax.report.uncertainty_tables import Covered, Temperature, Uncertainty
from retfound_jax.report.words import NONE, by_name, count, interval, joined, nice, number, percent, value_and_bounds

_HEAD = ('Patients', 'Threshold of all', 'Own threshold')
_SIZES, _WIDTH = ('Outcomes named', 'Everything', 'Nothing'), ('Width of the interval',)
_SIGNIFICANT = 0.05
_SCORES = ('ECE', 'NLL', 'Brier')


def sets(table: Uncertainty) -> list[Any]:
    """Overall, by true outcome and by group."""
    nominal = 1 - table.alpha
    blocks: list[Any] = [
        Heading('Sets of outcomes that hold the truth'),
        Text(
            'In place of one answer the model can name all that it cannot rule out. Made to hold the truth for '
            f'{percent(nominal, 1)} of the patients (conformal prediction): this is kept for patients like those of validation, whatever '
            'the model is worth; a useless one names everything. Two eyes of a patient count as one. In brackets: the interval over '
            'patients.'
        ),
        _overall_sets(table),
    ]
    for by in dict.fromkeys(row.by for row in table.conformal if row.by and row.by != 'class'):
        blocks += [_group_sets(table, target, by) for target in table.targets] if len(table.targets) == 1 else [_set_matrix(table, by)]
    below = [row for row in _first(table) if too_low(row)]
    if below:
        alone = len(table.targets) == 1
        told = joined(dict.fromkeys(_whom(row) if alone else f'{_whom(row)} ({target_name(row.target)})' for row in below))
        blocks.append(Text(f'The promise is not kept, beyond chance, with the threshold of all patients for {told}.', 'warning'))
    return blocks


def too_low(row: Covered) -> bool:
    """Whether the sets hold the truth too rarely, beyond what chance does to the threshold and to the count."""
    return row.p_holm is not None and row.p_holm < _SIGNIFICANT


def _whom(row: Covered) -> str:
    if row.by == 'class':
        return f'those who are truly “{nice(row.group)}”'
    return nice(row.group) or 'everybody'


def _head(table: Uncertainty) -> tuple[str, ...]:
    """An interval of a number has a width; it names neither everything nor nothing."""
    return _HEAD + (_WIDTH if all(row.both is None for row in table.conformal) else _SIZES)


def _first(table: Uncertainty) -> list[Covered]:
    """By patient, at the first share, of the first score, with one threshold for all."""
    rows = [row for row in table.conformal if row.level == 'patient' and row.alpha == table.alpha and row.kind == 'overall']
    return [row for row in rows if row.method == table.method(row.target)]


def _overall_sets(table: Uncertainty) -> Table:
    rows, head = [], ('Who', *_head(table))
    for target in table.targets:
        alone = len(table.targets) == 1
        name = 'everybody' if alone else target_name(target)
        rows.append(_set_row(name, table.covered(target, kind='overall'), own=table.covered(target, kind='by_class')))
        if alone:
            rows.append(_set_row('by image', table.covered(target, kind='overall', level='image')))
        for group in table.groups('class'):
            row = table.covered(target, kind='overall', by='class', group=group)
            own = table.covered(target, kind='by_class', by='class', group=group)
            if row is not None:
                truly = f'truly “{nice(group)}”' if alone else f'{name}: truly “{nice(group)}”'
                rows.append(_set_row(truly, row, own=own))
    return Table(
        caption=f'How often the set holds the truth: {percent(1 - table.alpha, 1)} was asked for',
        head=head,
        rows=tuple(row[: len(head)] for row in rows),
        note='Own threshold: learned from validation patients of the same group, or for each outcome from those who truly have it, which '
        'is what a rare finding needs. Outcomes named: the mean size of the set. Everything, nothing: sets that name all outcomes, or '
        'none.',
    )


def _group_sets(table: Uncertainty, target: str, by: str) -> Table:
    rows, head = [], ('Group', *_head(table))
    for group in table.groups(by):
        row, own = (table.covered(target, kind=kind, by=by, group=group) for kind in ('overall', 'by_group'))
        if row is not None:
            rows.append(_set_row(nice(group), row, own=own, quiet=group in NOT_A_GROUP))
    return Table(
        caption=f'{by_name(by)}: how often the set holds the truth',
        head=head,
        rows=tuple(row[: len(head)] for row in rows),
    )


def _set_matrix(table: Uncertainty, by: str) -> Table:
    groups, rows = table.groups(by), []
    for target in table.targets:
        found = [table.covered(target, kind='overall', by=by, group=group) for group in groups]
        rows.append((Cell(target_name(target)), *(_covered_cell(row) for row in found)))
    return Table(
        caption=f'{by_name(by)}: how often the set holds the truth, with the threshold of all',
        head=('Finding', *map(nice, groups)),
        rows=tuple(rows),
    )


def _set_row(name: str, row: Covered | None, *, own: Covered | None = None, quiet: bool = False) -> tuple[Cell, ...]:
    if row is None:
        return (Cell(name), *(Cell(NONE, quiet=True),) * len(_HEAD + _SIZES))
    other = own if own is not None and own.coverage.value is not None else None
    both = [None if one is None else one.both for one in (row, other)]
    empty = [None if one is None else one.empty for one in (row, other)]
    shares = [_beside(*pair, show=_percent) for pair in (both, empty)]
    size = _beside(row.mean_size, None if other is None else other.mean_size, show=number)
    return (Cell(name, quiet=quiet), Cell(count(row.n)), _covered_cell(row), _covered_cell(own), size, *shares)


def _beside(value: float | None, own: float | None, *, show: Callable[[float | None], str]) -> Cell:
    return Cell(show(value), small='' if own is None else f'own: {show(own)}')


def _percent(value: float | None) -> str:
    return NONE if value is None else percent(value, 1)


def _covered_cell(row: Covered | None) -> Cell:
    if row is None:
        return Cell(NONE, quiet=True)
    if row.coverage.value is None:
        return Cell(NONE, small=row.note, quiet=True)
    shown, bounds = value_and_bounds(row.coverage.value, row.coverage.low, row.coverage.high, metric='accuracy')
    low = too_low(row)
    return Cell(shown, small=f'{bounds}{"; too low" if low else ""}{"; as all: few in validation" if row.note else ""}', absent=low)


def temperatures(table: Uncertainty) -> list[Any]:
    """One temperature for each target."""
    if not table.temperature:
        return []
    rows = []
    for target, found in table.temperature.items():
        if found.value is None:
            before = [Cell(number(found.before.get(name), metric='ECE')) for name in _SCORES]
            rows.append((Cell(target_name(target)), Cell(NONE, small=nice(found.note), quiet=True), *before))
            continue
        word = 'too sure' if found.value > 1 else 'too timid'
        changes = [_change(found, name) for name in _SCORES]
        rows.append((Cell(target_name(target)), Cell(number(found.value), small=word), *changes))
    return [
        Heading('Stated probabilities, with one number mended'),
        Table(
            caption='Temperature: the logits divided by it say what validation found (not applied to any number above)',
            head=('Finding', 'Temperature', 'Calibration error', 'Minus log-likelihood', 'Brier score'),
            rows=tuple(rows),
            note='Before → after, by image of the judged split; in brackets the interval of the change over patients. Above 1 the model is '
            'too sure of itself. The order of the cases, and so the AUROC, stays the same.',
        ),
    ]


def _change(found: Temperature, name: str) -> Cell:
    change = found.change.get(name)
    before, after = (number(value, metric='ECE') for value in (found.before.get(name), found.after.get(name)))
    shown = '' if change is None else f'change {interval(change.value, change.low, change.high, metric="ECE")}'
    return Cell(f'{before} → {after}', small=shown)


def target_name(target: str) -> str:
    """A target as it is read aloud."""
    return 'all classes' if target == MACRO else nice(target)
