"""Was it validated on diverse people, by subgroup: the number that counts, group by group, elsewhere, and what was never judged."""

from __future__ import annotations

import math
from typing import Any

from retfound_jax.core.demographics import NOT_A_GROUP
from retfound_jax.report import card_means, fails, forest, remedies
from retfound_jax.report.blocks import Cell, Section, Table, Text
from retfound_jax.report.card import Card
from retfound_jax.report.card_people import COLUMNS, NAMES, unrecorded
from retfound_jax.report.card_read import Evaluation
from retfound_jax.report.group_tables import Failing, Gap, Power
from retfound_jax.report.results import positives, value_cell
from retfound_jax.report.tables import LOWER_IS_BETTER, MACRO, Row, Tables
from retfound_jax.report.words import by_name, clean, count, interval, joined, metric_name, nice, number, plural, value_and_bounds

ID, TITLE = 'validation', '3. Was it validated on diverse people, by subgroup?'
_BESIDE = ('sensitivity', 'specificity')
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
    if card.main.tables.by:
        blocks += [Text(f'Missing: {words[0].lower()}{words[1:]}', 'absent') for words in fails.unknown(card.main.tables)]
        blocks += [forest.table(card.main.tables, [one.tables for one in card.external]), *_gap_table(card.main)]
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
    return (
        f'No group is shown to do worse than the rest (p < {fails.ALPHA:g} after Holm in none); where groups are small that proves little.',
    )


def failing(one: Evaluation) -> tuple[Failing, ...]:
    """Groups that are shown to do worse than the rest, by the test that was corrected for all of them."""
    return fails.found_failing(one.tables)


def blind_spots(one: Evaluation) -> tuple[Power, ...]:
    """In which groups what could not have been seen, in the metric that speaks for the whole; the blindest first."""
    tables = one.tables
    found = [power for power in one.power or () if (power.target, power.metric) == (tables.overall, tables.metric)]
    return tuple(sorted(found, key=lambda power: -(power.detectable if power.detectable is not None else math.inf)))


def of_target(tables: Tables, target: str) -> str:
    """` for “target”` where there are several."""
    return '' if len(tables.targets) == 1 or target in (MACRO, '') else f' for “{nice(target)}”'


def real_gaps(one: Evaluation) -> tuple[Gap, ...]:
    """Gaps that chance alone does not explain."""
    return tuple(gap for gap in one.gaps or () if gap.p_holm is not None and gap.p_holm < fails.ALPHA)


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
    value, rest = (number(one, metric=found.metric) for one in (found.value, found.rest))
    return (
        f'It does worse for {by_name(found.by).lower()} {nice(found.group)}: {fails.spoken(found.metric)}{target} {value} against {rest} '
        f'in all others, {short} apart ({fails.p_words(found.p_holm)} after Holm).'
    )


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
