"""Was it validated on diverse people, by subgroup: the number that counts, group by group, elsewhere, and what was never judged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from retfound_jax.core.demographics import NOT_A_GROUP
from retfound_jax.report import card_means, remedies
from retfound_jax.report.blocks import Axis, Cell, Section, Span, Table, Text
from retfound_jax.report.card import Card
from retfound_jax.report.card_people import COLUMNS, NAMES, unrecorded
from retfound_jax.report.card_read import Evaluation
from retfound_jax.report.group_tables import Failing, Gap, Power
from retfound_jax.report.results import positives, value_cell
from retfound_jax.report.tables import LOWER_IS_BETTER, MACRO, Row, Tables
from retfound_jax.report.words import by_name, clean, count, interval, joined, metric_name, nice, number, plural, value_and_bounds

ID, TITLE = 'validation', '3. Was it validated on diverse people, by subgroup?'
ALPHA = 0.05
_BESIDE = ('sensitivity', 'specificity')
_BESIDE_NUMBER = ('RMSE',)
_GROUPS = 60  # rows of the table; report.html holds all
_SENTENCES = 3


def section(card: Card) -> Section:
    """The answer to the third question."""
    if card.main is None:
        why = (
            'Missing: any evaluation. Run `retfound evaluate`.'
            if card.run
            else 'Missing: any evaluation. This is an encoder without a task: there is nothing to judge yet.'
        )
        return Section(id=ID, title=TITLE, blocks=(Text(why, 'absent'),))
    blocks: list[Any] = [Text(words, 'lead') for words in (overall(card.main), *worst(card.main))]
    blocks += [Text(words, 'absent') for words in never_judged(card)]
    blocks += [_forest(card.main), *_gap_table(card.main)] if card.main.tables.by else []
    blocks += _means(card)
    blocks += _elsewhere(card)
    return Section(id=ID, title=TITLE, blocks=tuple(blocks))


def overall(one: Evaluation) -> str:
    """The number that speaks for the whole, with its interval and on how many."""
    tables = one.tables
    row = tables.find(metric=tables.metric)
    if row is None or row.value is None:
        return f'On the split “{clean(one.name)}” no {metric_name(tables.metric)} can be given.'
    mean = ', mean over the classes,' if row.target == MACRO else ''
    where = f'another dataset (“{clean(one.name)}”)' if one.external else f'the split “{clean(one.name)}”'
    flattered = {'train': ', on which it was trained', 'val': ', on which it was tuned'}.get('' if one.external else tables.split, '')
    shown = interval(row.value, row.low, row.high, metric=row.metric)
    people = f'{plural(row.n_patients or 0, "patient")} ({plural(row.n_images or 0, "image")})'
    told = f'in brackets the {100 * tables.interval:.0f} % interval over patients'
    return f'{metric_name(row.metric)}{mean} {shown} on {people} of {where}{flattered}; {told}.'


def worst(one: Evaluation) -> tuple[str, ...]:
    """The groups it fails, those first that are surest; else the widest gap, and what chance alone would give."""
    tables = one.tables
    if not tables.by:
        return ()
    if one.failing is None:
        return (_weakest(tables),) if _weakest(tables) else ()
    sure = failing(one)
    if sure:
        words = [_failing_words(tables, found) for found in sure[:_SENTENCES]]
        more = len(sure) - _SENTENCES
        return (*words, *([f'{plural(more, "more group")} below; all in report.html.'] if more > 0 else []))
    return (f'No group is shown to do worse than the rest (p < {ALPHA:g} after Holm in none); that proves nothing where groups are small.',)


def failing(one: Evaluation) -> tuple[Failing, ...]:
    """Groups that are shown to do worse than the rest, by the test that was corrected for all of them."""
    return tuple(found for found in one.failing or () if found.p_holm is not None and found.p_holm < ALPHA)


def blind_spots(one: Evaluation) -> tuple[Power, ...]:
    """In which groups what could not have been seen, in the metric that speaks for the whole; the blindest first."""
    tables = one.tables
    found = [power for power in one.power or () if (power.target, power.metric) == (tables.overall, tables.metric)]
    return tuple(sorted(found, key=lambda power: -(power.detectable if power.detectable is not None else math.inf)))


def spoken(metric: str) -> str:
    """A metric's name inside a sentence."""
    name = metric_name(metric)
    return name if name[1:2].isupper() or name[1:2].isdigit() else name[:1].lower() + name[1:]


def of_target(tables: Tables, target: str) -> str:
    """` for “target”` where there are several."""
    return '' if len(tables.targets) == 1 or target in (MACRO, '') else f' for “{nice(target)}”'


def real_gaps(one: Evaluation) -> tuple[Gap, ...]:
    """Gaps that chance alone does not explain."""
    return tuple(gap for gap in one.gaps or () if gap.p_holm is not None and gap.p_holm < ALPHA)


def never_judged(card: Card) -> tuple[str, ...]:
    """Columns that nobody recorded, and those that were recorded and not judged; no judgement elsewhere is said by `_elsewhere`."""
    assert card.main is not None
    judged = {part.replace('age_band', 'age') for by in card.main.tables.by for part in by.split('+')}
    absent = [name for name in COLUMNS if name not in judged]
    unknown = set(unrecorded(card.data)) if card.data else set()
    nobody, left = [name for name in absent if name in unknown], [name for name in absent if name not in unknown]
    words = []
    for names, why in ((nobody, 'The dataset does not record {}.'), (left, 'Nobody asked for {}.')):
        if names:
            named = joined(NAMES[name].lower() for name in names)
            words.append(f'Missing: judgement by {named}. {why.format("it" if len(names) == 1 else "them")}')
    return tuple(words)


def group_rows(tables: Tables, by: str) -> list[Row]:
    """The rows of a column's groups in the metric that speaks for the whole."""
    found = [tables.find(metric=tables.metric, by=by, group=group) for group in tables.groups(by)]
    return [row for row in found if row is not None]


def _weakest(tables: Tables) -> str:
    rows = [row for by in tables.by for row in group_rows(tables, by) if row.group not in NOT_A_GROUP and row.value is not None]
    if len(rows) < 2:
        return ''
    row = (max if tables.metric in LOWER_IS_BETTER else min)(rows, key=lambda row: row.value)
    shown = interval(row.value, row.low, row.high, metric=row.metric)
    return (
        f'Worst of {plural(len(rows), "group")}: {by_name(row.by).lower()} {nice(row.group)}, {metric_name(row.metric)} {shown}. '
        'Some group always is; whether it is more than chance was not tested.'
    )


def _failing_words(tables: Tables, found: Failing) -> str:
    target = of_target(tables, found.target)
    short = interval(found.shortfall, found.low, found.high, metric=found.metric)
    p = 'p < .001' if (found.p_holm or 0) < 0.001 else f'p = {number(found.p_holm, metric="AUROC")}'
    value, rest = (number(one, metric=found.metric) for one in (found.value, found.rest))
    return (
        f'It does worse for {by_name(found.by).lower()} {nice(found.group)}: {spoken(found.metric)}{target} {value} against {rest} '
        f'in all others, {short} apart ({p} after Holm).'
    )


def _forest(one: Evaluation) -> Table:
    tables = one.tables
    overall_row = tables.find(metric=tables.metric)
    groups = [row for by in tables.by for row in group_rows(tables, by)]
    hidden = [row for row in groups if row.value is None and '+' in row.by]  # a page has no room for rows of intersections without a number
    rows = [row for row in (overall_row, *groups) if row is not None and row not in hidden]
    axis = _axis(rows, tables.metric)
    beside = [name for name in (_BESIDE_NUMBER if tables.kind == 'regress' else _BESIDE) if tables.find(metric=name) is not None]
    alone = tables.kind != 'regress' and tables.overall != MACRO
    head = ('Group', 'Patients', *(('Positive',) if alone else ()), metric_name(tables.metric), metric_name(tables.metric))
    low, high = (f'{end:.2g}'.replace('0.', '.') for end in axis)
    reference = overall_row.value if overall_row else None
    return Table(
        caption=f'{metric_name(tables.metric)} by group, split “{clean(one.name)}”',
        head=(*head, *map(metric_name, beside)),
        rows=tuple(_line(tables, row, beside=beside, alone=alone, axis=axis, reference=reference) for row in rows[:_GROUPS]),
        axis=Axis(column=len(head) - 1, low=low, high=high),
        note=_note(one, more=len(rows) - _GROUPS, hidden=len(hidden)),
    )


def _note(one: Evaluation, *, more: int, hidden: int) -> str:
    tables = one.tables
    words = [f'Dot: value; line: {100 * tables.interval:.0f} % interval; thin line: everybody.']
    words += ['Every group is judged at one threshold.'] if tables.kind != 'regress' else []
    words += [f'Fewer than {tables.min_n} patients: withheld.']
    words += [f'{plural(hidden, "intersection")} without a number, most of them too small, left out.'] if hidden else []
    words += [f'{plural(more, "more row")} in report.html.'] if more > 0 else []
    return ' '.join(words)


def _main_gaps(one: Evaluation) -> tuple[Gap, ...]:
    tables = one.tables
    return tuple(gap for gap in one.gaps or () if (gap.target, gap.metric) == (tables.overall, tables.metric) and gap.gap is not None)


def _gap_table(one: Evaluation) -> list[Table]:
    """Best minus worst group of each column, beside what chance alone gives."""
    rows = []
    for gap in _main_gaps(one):
        shown, bounds = value_and_bounds(gap.gap, gap.low, gap.high, metric=gap.metric)
        others = [number(value, metric=gap.metric) for value in (gap.by_chance, gap.p_holm, gap.detectable)]
        first = Cell(by_name(gap.by), small=f'{nice(gap.best)} over {nice(gap.worst)}')
        rows.append((first, Cell(str(gap.groups)), Cell(shown, small=bounds), *map(Cell, others)))
    if not rows:
        return []
    note = 'The two lie furthest apart of all, so chance alone gives a gap too. p: how often it gives one as wide, after Holm.'
    return [
        Table(
            caption=f'Widest gap in {metric_name(one.tables.metric)}',
            head=('Between groups of', 'Groups', 'Gap', 'By chance alone', 'p', 'Not seen below'),
            rows=tuple(rows),
            note=note,
        )
    ]


def _line(
    tables: Tables, row: Row, *, beside: Sequence[str], alone: bool, axis: tuple[float, float], reference: float | None
) -> tuple[Cell, ...]:
    name = f'{by_name(row.by)}: {nice(row.group)}' if row.by else 'Everybody'
    cells = [Cell(name, quiet=row.group in NOT_A_GROUP), Cell(count(row.n_patients), quiet=row.n_patients is None)]
    cells += [positives(row)] if alone else []
    others = [_cell(tables.find(metric=metric, by=row.by, group=row.group)) for metric in beside]
    return (*cells, _cell(row), Cell('', span=_span(row, axis, reference)), *others)


def _cell(row: Row | None) -> Cell:
    """A value with its interval, or in a word why there is none; the note below the table says more."""
    if row is None or row.value is not None:
        return value_cell(row)
    return Cell('withheld' if row.withheld else 'nobody' if row.n_patients == 0 else 'none', quiet=True)


def _axis(rows: Sequence[Row], metric: str) -> tuple[float, float]:
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


def _means(card: Card) -> list[Any]:
    """What was done about gaps, in training and after it."""
    assert card.main is not None
    said = card_means.in_training(card.subject.config)
    found = remedies.table(card.main.tables, card.main.remedies) if card.main.remedies else None
    return [*([Text(said)] if said else []), *([found] if found else [])]


def _elsewhere(card: Card) -> list[Any]:
    """The same model on other datasets, beside its own."""
    if not card.external:
        return [Text('Missing: external validation. It was not judged on another dataset than its own.', 'absent')]
    rows = [_beside(one) for one in (card.main, *card.external) if one is not None]
    tables = card.external[0].tables
    return [
        Table(
            caption='On other datasets',
            head=('Dataset and split', 'Patients', 'Positive', metric_name(tables.metric), *map(metric_name, _BESIDE)),
            rows=tuple(rows),
        )
    ]


def _beside(one: Evaluation) -> tuple[Cell, ...]:
    tables = one.tables
    row = tables.find(metric=tables.metric)
    others = [value_cell(tables.find(metric=name)) for name in _BESIDE]
    name = f'{one.dataset}, {tables.split}' if one.external else f'its own, {one.name}'
    return Cell(nice(name)), Cell(count(row.n_patients) if row else ''), positives(row), value_cell(row), *others
