"""When should it stay silent: what referring the least sure cases buys, whom it falls on, and photographs unlike those of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from retfound_jax.core.demographics import FLOOR, NOT_A_GROUP
from retfound_jax.report.blocks import Axis, Cell, Heading, Pictures, Section, Span, Table, Text
from retfound_jax.report.collect import Collected
from retfound_jax.report.tables import MACRO
from retfound_jax.report.uncertainty_figures import referral_charts
from retfound_jax.report.uncertainty_sets import sets, target_name, temperatures
from retfound_jax.report.uncertainty_tables import Bounded, Kept, Share, Uncertainty, read_uncertainty
from retfound_jax.report.words import NONE, by_name, count, interval, nice, number, percent, value_and_bounds

TITLE = 'When should it stay silent?'
_CHARTS = 6  # targets drawn
_ROUND = 0.2  # share referred that is told in words
_SIGNIFICANT = 0.05
_ORDERS = {
    'margin': 'nearness to the decision',
    'entropy': 'evenness of the probabilities',
    'disagreement': 'disagreement of several models',
    'conformal': 'a set that is not one outcome',
}
_FLAGS = {'mahalanobis': 'Far from the middle', 'nearest': 'Far from the nearest'}


def section(found: Collected) -> Section:
    """The uncertainty of the split the page is about; what was not measured is said, in red."""
    if found.tables is None or found.run is None:
        return _section([Text('There is no evaluation, so nothing is known of when the model should stay silent.', 'quiet')])
    table = read_uncertainty(found.run.path / 'tables' / f'uncertainty_{found.tables.name}.json')
    if table is None:
        why = f'no validation patients beside “{found.tables.name}” were evaluated to learn it from'
        return _section([Text(f'Missing: it is not known when this model should stay silent, as {why}.', 'absent')])
    return _section([*_referral(table), *_who(table), *sets(table), *temperatures(table), *_strange(table)])


def _section(blocks: Sequence[Any]) -> Section:
    return Section(id='uncertainty', title=TITLE, blocks=tuple(blocks))


def _referral(table: Uncertainty) -> list[Any]:
    if not table.referral:
        told = 'A single model that states a number says nothing of how sure it is, so no case can be referred for doubt. '
        return [Text(f'{told}Several runs can: `retfound evaluate --ensemble`.', 'absent')]
    curves = {target: rows for target, rows in table.referral.items() if rows}
    if not curves:
        return [Text(f'Whether doubt tells mistakes from right answers is not measured: fewer than {FLOOR} patients.', 'absent')]
    told = [sentence for target, rows in curves.items() if (sentence := _bought(target, rows, alone=len(curves) == 1))]
    blocks: list[Any] = [
        Text(
            'A person looks at the cases the model is least sure of; the model answers for the others. Judged by patient, with thresholds '
            'from validation. If the curves do not rise, the doubt is worth nothing. Found or referred: of all who have the finding, those '
            'called positive and those referred; the others are missed.'
        )
    ]
    blocks += [Text(sentence, 'lead' if len(told) == 1 else 'plain') for sentence in told[:_CHARTS]]
    charts = [chart for target in list(curves)[:_CHARTS] for chart in _charts(table, target)]
    return [*blocks, Heading('Performance of those who are kept, by the share referred'), Pictures(items=tuple(charts)), _orders(table)]


def _charts(table: Uncertainty, target: str) -> list[Any]:
    return referral_charts(table.referral[target], title=target_name(target), level=table.level, both=len(table.referral) == 1)


def _bought(target: str, rows: Sequence[Kept], *, alone: bool) -> str:
    """What referring a fifth does to the share put right."""
    before = rows[0]
    after = next((row for row in rows if row.referred >= _ROUND - 0.02), None)
    if after is not None and 'MAE' in after.metrics:
        one, other = (_shown(row.metrics['MAE'], 'MAE') for row in (before, after))
        return f'With {percent(after.referred, 1)} of the patients referred, the mean absolute error is {other}; without referral {one}.'
    if after is None or 'accuracy' not in after.metrics or after.metrics['accuracy'].value is None:
        return ''
    one, other = (_shown(row.metrics['accuracy'], 'accuracy') for row in (before, after))
    where = '' if alone else f' ({"all classes together" if target == MACRO else nice(target)})'
    told = (
        f'With {percent(after.referred, 1)} of the patients referred, {other} of the decisions about the other {count(after.n)} are right; '
        f'without referral {one}{where}.'
    )
    if 'caught' not in after.metrics or after.metrics['caught'].value is None:
        return told
    one, other = (_shown(row.metrics['caught'], 'sensitivity') for row in (before, after))
    return f'{told} Of those who have the finding {other} are then found or referred; without referral {one} are found.'


def _orders(table: Uncertainty) -> Table:
    numbers = any('MAE' in row.metrics for rows in table.referral.values() for row in rows)
    what = 'Mean absolute error' if numbers else 'Mean share wrong'
    rows, metric = [], 'MAE' if numbers else 'ECE'
    for target, orders in table.orders.items():
        for name, order in orders.items():
            area = value_and_bounds(order.area.value, order.area.low, order.area.high, metric=metric)
            merit = NONE if order.merit is None else f'{100 * order.merit:.0f}\u202f%'.replace('-', '−')
            used = 'used for the curve' if table.ordered_by.get(target) == name else ''
            first = Cell(_ORDERS.get(name, name), small=used)
            ends = [Cell(number(end, metric=metric)) for end in (order.best, order.random)]
            whose = [Cell(target_name(target))] if len(table.orders) > 1 else []
            rows.append((first, *whose, Cell(area[0], small=area[1]), *ends, Cell(merit)))
    more = ('Finding',) if len(table.orders) > 1 else ()
    return Table(
        caption='What orders the cases, and how well it puts wrong decisions last',
        head=('Doubt measured by', *more, what, 'at best', 'at random', 'of what is possible'),
        rows=tuple(rows),
        words=frozenset({1}) if more else frozenset(),
        note='Mean over all shares referred of what is wrong among the kept (area under risk and coverage): lower is better. Below 0 % of '
        'what is possible the doubt points the wrong way.',
    )


def _who(table: Uncertainty) -> list[Any]:
    """Referral by group, for the first target; every finding about any target."""
    if not table.referral:
        return []
    if not any(table.referred_by.values()):
        return [Text('Missing: whom referral falls on; run `retfound evaluate` with --by.', 'absent')]
    target, rows = next((target, rows) for target, rows in table.referred_by.items() if rows)
    found = [
        f'{nice(row.group)} ({by_name(row.by).lower()}{"" if len(table.referred_by) == 1 else f", {target_name(name)}"}): '
        f'{percent(row.share.value, 1)} referred, {percent(row.rest, 1)} of everybody else'
        for name, every in table.referred_by.items()
        for row in every
        if row.p_holm is not None and row.p_holm < _SIGNIFICANT and row.share.value > (row.rest or 0)
    ]
    told = 'No group is referred more often than the others beyond chance.'
    if found:
        told = f'Referral falls on some more than on others: {"; ".join(found)}. The finding may be commoner in '
        told += 'them, or harder to see; this does not tell which.'
    blocks: list[Any] = [Heading('Who is referred'), Text(told, 'warning' if found else 'plain')]
    for by in dict.fromkeys(row.by for row in rows):
        what = '' if len(table.referred_by) == 1 else f', “{target_name(target)}”'
        caption = f'{by_name(by)}: share referred when a fifth of all are{what}'
        blocks.append(_shares_table([row for row in rows if row.by == by], caption=caption, name='Referred', reference=_ROUND))
    return blocks


def _shares_table(rows: Sequence[Share], *, caption: str, name: str, reference: float) -> Table:
    top = max([reference, *(row.share.high for row in rows if row.share.high is not None)]) * 1.05
    compared = any(row.rest is not None for row in rows)
    lines = []
    for row in rows:
        small = row.group in NOT_A_GROUP
        shown, span = _shown_cell(row.share, row.note), Cell('', span=_span(row.share, top, reference))
        cells = [Cell(nice(row.group) or 'everybody', quiet=small), Cell(count(row.n)), shown, span]
        if compared:
            cells += [Cell(percent(row.rest, 1) if row.rest is not None else NONE), Cell(_p(row.p_holm))]
        lines.append(tuple(cells))
    head = ('Group', 'Patients', name, name, *(('Everybody else', 'p (Holm)') if compared else ()))
    axis = Axis(column=3, low='0', high=percent(top, 1))
    return Table(caption=caption, head=head, rows=tuple(lines), axis=axis, note='Thin upright line: what is expected of everybody.')


def _strange(table: Uncertainty) -> list[Any]:
    heading = Heading('Photographs unlike those of training')
    if table.strange is None:
        why = 'nobody looked whether the photographs are like those of training; run `retfound evaluate` with --ood'
        return [heading, Text(f'Missing: {why}.', 'absent')]
    alarm = table.strange.false_alarm
    told = (
        f'Features of each photograph were held against those of {count(table.strange.n_train)} training photographs. The alarm is set so '
        f'that {percent(alarm, 1)} of ordinary photographs raise it; more than that says that something has changed, such as the camera.'
    )
    blocks: list[Any] = [heading, Text(told)]
    for method in dict.fromkeys(row.method for row in table.strange.rows):
        rows = [row for row in table.strange.rows if row.method == method]
        blocks.append(_shares_table(rows, caption=_FLAGS.get(method, method), name='Flagged', reference=alarm))
    return blocks


def _shown(value: Bounded, metric: str) -> str:
    return interval(value.value, value.low, value.high, metric=metric)


def _shown_cell(value: Bounded, note: str) -> Cell:
    if value.value is None:
        return Cell(NONE, small=note, quiet=True)
    low, high = (percent(bound, 1) if bound is not None else NONE for bound in (value.low, value.high))
    return Cell(percent(value.value, 1), small=f'({low} to {high})')


def _span(value: Bounded, top: float, reference: float) -> Span | None:
    if value.value is None:
        return None
    known = (value.value, value.low, value.high, reference)
    at, low, high, line = (None if one is None else round(100 * min(1.0, one / top), 2) for one in known)
    return Span(at=at, low=low, high=high, reference=line)


def _p(value: float | None) -> str:
    return NONE if value is None else '<.001' if value < 0.001 else number(value, metric='accuracy')
