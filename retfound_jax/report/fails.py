"""Whom it fails: the group that is most surely served worse than everybody else, named first; or how much may go unseen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from retfound_jax.report.blocks import Cell, Table, Text
from retfound_jax.report.group_tables import Failing
from retfound_jax.report.tables import Tables
from retfound_jax.report.words import by_name, count, interval, joined, metric_name, nice, number, plural

ALPHA = 0.05
_ROWS = 10  # groups that fail, in the table
_LISTED = 12  # groups of a column named in a sentence


def blocks(tables: Tables) -> list[Any]:
    """The sentence, the table of the groups that fail, and the groups of which nothing is known."""
    made: list[Any] = [Text(*told(tables))]
    failing = found_failing(tables)
    if failing:
        made.append(table(tables, failing[:_ROWS], caption='Groups served worse than everybody else', more=len(failing) - _ROWS))
    return made + [Text(words, 'absent') for words in unknown(tables)]


def told(tables: Tables) -> tuple[str, str]:
    """Whom it fails as a sentence, with its tone; what was not looked for is said in the tone of missing evidence."""
    if not tables.by:
        return 'Not measured: whom it fails. Run `retfound evaluate` with --by, for example --by sex,age_band.', 'absent'
    if tables.kind == 'regress':
        return 'Not measured: whether a group is served worse beyond chance. The errors below have intervals, but no test.', 'absent'
    rows = tables.between.failing
    if rows is None:
        return 'Not measured: whom it fails. The evaluation is of an earlier version; run `retfound evaluate` again.', 'absent'
    rows = tuple(row for row in rows if row.level == tables.level)
    if not rows:
        why = f'fewer than two have {tables.min_n} patients and enough of them with and without the finding'
        return f'Not known: whom it fails. No two groups could be compared, as {why}.', 'absent'
    failing = found_failing(tables)
    return (_first(tables, failing), 'lead') if failing else (_nobody(tables, len(rows)), 'lead')


def found_failing(tables: Tables) -> tuple[Failing, ...]:
    """What is worse beyond chance at the level the page is about, the strongest evidence first."""
    rows = tables.between.failing or ()
    return tuple(row for row in rows if row.level == tables.level and row.p_holm is not None and row.p_holm < ALPHA)


def unknown(tables: Tables) -> list[str]:
    """The groups that are withheld, column by column: the data cannot tell whether it works for them."""
    told = []
    for by in tables.by:
        rows = [tables.find(metric=tables.metric, by=by, group=group, target=target_of(tables)) for group in tables.groups(by)]
        hidden = [row for row in rows if row is not None and row.withheld]
        if not hidden:
            continue
        names = 'all groups' if len(hidden) == len([row for row in rows if row is not None and row.n_patients != 0]) else ''
        names = names or ('; '.join(nice(row.group) for row in hidden) if len(hidden) <= _LISTED else f'{len(hidden)} groups')
        told.append(f'{by_name(by).lower()} ({names})')
    if not told:
        return []
    why = f'fewer than {tables.min_n} patients, or too few with or without the finding, or a group that would give such a one away'
    return [f'Not known whether it works for {joined(told)}. Withheld: {why}.']


def target_of(tables: Tables) -> str:
    """The target that groups are shown for in detail: the only one, else the one in which a group fails most surely."""
    if len(tables.targets) == 1:
        return tables.targets[0]
    rows = [row for row in tables.between.failing or () if row.level == tables.level]
    return rows[0].target if rows else tables.overall


def spoken(metric: str) -> str:
    """A metric inside a sentence."""
    name = metric_name(metric)
    return name if name.isupper() or name[:2].isupper() else name[:1].lower() + name[1:]


def group_words(by: str, group: str) -> str:
    """`Sex: F`."""
    return f'{by_name(by)}: {nice(group)}'


def p_words(p: float | None) -> str:
    """`p = .048`, with no more certainty than there is."""
    if p is None:
        return 'p unknown'
    return 'p < .001' if p < 0.0005 else f'p = {number(p, metric="AUROC")}'


def _first(tables: Tables, failing: tuple[Failing, ...]) -> str:
    first = failing[0]
    target = f' for “{nice(first.target)}”' if len(tables.targets) > 1 else ''
    value, rest = (number(one, metric=first.metric) for one in (first.value, first.rest))
    worse = interval(first.shortfall, first.low, first.high, metric=first.metric)
    unit = 'patient' if tables.level == 'patient' else 'image'
    people = '' if first.n_patients is None else f' ({plural(first.n_patients, unit)}, {count(first.n_positive)} of them positive)'
    compared = len([row for row in tables.between.failing or () if row.level == tables.level])
    others = len({(row.by, row.group) for row in failing}) - 1
    more = f' {plural(others, "more group")} below.' if others else ''
    return (
        f'It fails {by_name(first.by).lower()} {nice(first.group)}{target}: {spoken(first.metric)} {value}{people}, {rest} for everybody '
        f'else. That is {worse} worse, {p_words(first.p_holm)} after correction for {plural(compared, "comparison")}.{more}'
    )


def _nobody(tables: Tables, compared: int) -> str:
    unseen = [
        (gap.by, gap.detectable)
        for gap in tables.between.gaps or ()
        if gap.level == tables.level and gap.metric == 'AUROC' and gap.target == target_of(tables) and gap.detectable is not None
    ]
    size = joined(f'{number(value, metric="AUROC")} by {by_name(by).lower()}' for by, value in unseen)
    told = f'No group does worse than everybody else beyond chance ({plural(compared, "comparison")}). '
    if not size:
        return f'{told}How large a gap could have been missed is not known.'
    return f'{told}That does not prove that it serves all alike: with so many people a true gap in AUROC below {size} is likely missed.'


def table(tables: Tables, failing: Sequence[Failing], *, caption: str, more: int) -> Table:
    """Groups against everybody else; `more` of them are left out."""
    several = len(tables.targets) > 1
    rows = []
    for row in failing:
        value, rest = (number(one, metric=row.metric) for one in (row.value, row.rest))
        worse = interval(row.shortfall, row.low, row.high, metric=row.metric)
        cells = [Cell(group_words(row.by, row.group)), *([Cell(nice(row.target))] if several else []), Cell(metric_name(row.metric))]
        cells += [Cell(value), Cell(rest), Cell(worse), Cell(p_words(row.p_holm).removeprefix('p = ').removeprefix('p '))]
        rows.append((*cells, Cell(count(row.n_patients)), Cell(count(row.n_positive))))
    head = ('Group', *(('Finding',) if several else ()), 'Measure', 'Its value', 'All others', 'Worse by', 'p (Holm)')
    chance = 'p: how often groups drawn by lot do as badly, corrected for the number of comparisons.'
    left = f' {plural(more, "more row")} in the tables of the run.' if more > 0 else ''
    return Table(
        caption=caption,
        head=(*head, 'Patients', 'Positive'),
        rows=tuple(rows),
        words=frozenset({1, 2} if several else {1}),
        note=f'All others: the other groups that are shown, together. {chance}{left}',
    )
