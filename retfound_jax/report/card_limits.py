"""What speaks against the model, found in its own evidence: each limit is computed, none is typed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from retfound_jax.core.demographics import NOT_A_GROUP
from retfound_jax.report import card_validation, fails
from retfound_jax.report.blocks import Cell as TableCell
from retfound_jax.report.blocks import Section, Table, Text
from retfound_jax.report.card import Card
from retfound_jax.report.card_people import NAMES, unrecorded
from retfound_jax.report.card_read import Evaluation
from retfound_jax.report.card_validation import failing, real_gaps
from retfound_jax.report.tables import Row
from retfound_jax.report.words import by_name, clean, count, interval, joined, metric_name, nice, percent, plural

ID, TITLE = 'limits', 'Limitations'
FEW_EVENTS = (
    100  # of the rarer class: what an external validation needs at least (Vergouwe et al., J Clin Epidemiol 2005; Collins et al., 2016)
)
SLOPE = (0.8, 1.25)  # a calibration slope outside is called far from 1
_SHOWN = 6


@dataclass(frozen=True)
class Limit:
    """One limit of the evidence or of the model."""

    what: str
    evidence: str


def section(card: Card) -> Section:
    """Every limit that the files show; where none is found, that is said to prove nothing."""
    found = limits(card)
    if not found:
        text = Text('None was found by what is computed here; that does not mean that there is none.', 'quiet')
        return Section(id=ID, title=TITLE, blocks=(text,))
    rows = tuple((TableCell(limit.what), TableCell(limit.evidence)) for limit in found)
    table = Table(caption='Found in the evidence', head=('Limitation', 'Evidence'), rows=rows, words=frozenset({1}))
    return Section(id=ID, title=TITLE, blocks=(table,))


def limits(card: Card) -> tuple[Limit, ...]:
    """Every limit, what harms people first."""
    return (*_of_evaluation(card), *_of_data(card), *_of_training(card))


def _of_evaluation(card: Card) -> Iterator[Limit]:
    one = card.main
    if one is None:
        yield Limit('Not evaluated', 'no table of metrics in the run directory')
        return
    yield from _fails(one)
    if not one.tables.by:
        yield Limit('Not evaluated by subgroup', 'no column was asked for')
    yield from _withheld(one)
    yield from _calibration(one)
    if not card.external:
        yield Limit('Not evaluated on another dataset', 'every number is from patients of the dataset it was trained on')
    if one.tables.split in ('train', 'val') and not one.external:
        yield Limit('Judged on data it was made with', f'the numbers are from the split “{clean(one.tables.split)}”')
    yield from _small(one)
    blind = card_validation.blind_spots(one)
    if blind:
        where = f'{by_name(blind[0].by)} {nice(blind[0].group)}: ' if blind[0].group else ''
        yield Limit('Gaps that could not have been seen', where + clean(blind[0].sentence))
    yield from _uncertainty(one)


def _fails(one: Evaluation) -> Iterator[Limit]:
    for found in failing(one)[:_SHOWN]:
        short = interval(found.shortfall, found.low, found.high, metric=found.metric)
        yield Limit(
            f'Fails {by_name(found.by).lower()} {nice(found.group)}',
            f'{fails.spoken(found.metric)}{card_validation.of_target(one.tables, found.target)} worse than all others by {short}',
        )
    for gap in real_gaps(one)[:_SHOWN]:
        shown = interval(gap.gap, gap.low, gap.high, metric=gap.metric)
        yield Limit(
            f'Unequal by {by_name(gap.by).lower()}',
            f'{fails.spoken(gap.metric)}: {nice(gap.best)} over {nice(gap.worst)} by {shown}',
        )


def _withheld(one: Evaluation) -> Iterator[Limit]:
    tables = one.tables
    for by in tables.by:
        rows = [tables.find(metric=tables.metric, by=by, group=group) for group in tables.groups(by) if group not in NOT_A_GROUP]
        small = [row for row in rows if row is not None and row.value is None and row.withheld]
        other = [row for row in rows if row is not None and row.value is None and not row.withheld]
        if small:
            yield Limit(f'No number for small groups, {by_name(by).lower()}', f'withheld: {_named(small)}')
        if other:
            yield Limit(
                f'No {metric_name(tables.metric)} for some groups, {by_name(by).lower()}', f'{_named(other)}: {nice(other[0].note)}'
            )


def _named(rows: list[Row]) -> str:
    more = len(rows) - _SHOWN
    return '; '.join(nice(row.group) for row in rows[:_SHOWN]) + (f'; and {more} more' if more > 0 else '')


def _calibration(one: Evaluation) -> Iterator[Limit]:
    tables = one.tables
    off = []
    for target in tables.targets:
        row = tables.find(metric='slope', target=target)
        far = row is not None and row.value is not None and not SLOPE[0] <= row.value <= SLOPE[1]
        # an interval that holds 1 does not show it: few cases are then the limitation, which has a line of its own
        if far and not (row.low is not None and row.low <= 1 <= row.high):
            off.append(f'slope{card_validation.of_target(tables, target)} {interval(row.value, row.low, row.high)}')
    if off:
        yield Limit(
            'Probabilities cannot be taken at their word', f'{", ".join(off[:_SHOWN])}; 1 is right, less: too sure, more: too timid'
        )


def _uncertainty(one: Evaluation) -> Iterator[Limit]:
    """Classes and groups whose sets hold the truth less often than promised, beyond chance."""
    if one.uncertainty is None:
        yield Limit('When it should stay silent is not known', 'nothing was measured of how sure it is of single cases')
        return
    found = one.uncertainty
    for row in found.conformal:
        shown = (
            row.level == one.tables.level and row.kind == 'overall' and (row.method, row.alpha) == (found.method(row.target), found.alpha)
        )
        if shown and row.by and row.p_holm is not None and row.p_holm < fails.ALPHA and row.coverage.value is not None:
            whose = f'{by_name(row.by).lower()} {nice(row.group)}{card_validation.of_target(one.tables, row.target)}'
            held = f'a set made to hold the truth for {percent(1 - row.alpha, 1)} holds it for {percent(row.coverage.value, 1)} of them'
            yield Limit(f'Not as sure as it says: {whose}', held)


def _small(one: Evaluation) -> Iterator[Limit]:
    tables = one.tables
    few = []
    for target in tables.targets if tables.kind != 'regress' else ():
        row = tables.find(metric=tables.metric, target=target)
        total = (row.n_patients if row.level == 'patient' else row.n_images) if row else None
        if (
            row is not None
            and row.n_positive is not None
            and total is not None
            and min(row.n_positive, total - row.n_positive) < FEW_EVENTS
        ):
            few.append(f'{count(row.n_positive)} of {count(total)}{card_validation.of_target(tables, target)}')
    if few:
        yield Limit(f'Fewer than {FEW_EVENTS} cases of the rarer class', joined(few[:_SHOWN]))
    row = tables.find(metric=tables.metric)
    if tables.kind == 'regress' and row is not None and row.n_patients is not None and row.n_patients < FEW_EVENTS:
        yield Limit(f'Fewer than {FEW_EVENTS} patients', plural(row.n_patients, 'patient'))


def _of_data(card: Card) -> Iterator[Limit]:
    if card.drawn:
        yield Limit('No photographs', 'the images were drawn by a program')
    for data in (card.data, card.pretrain_data):
        if data is None or (data is card.pretrain_data and card.data is not None and data.fingerprint == card.data.fingerprint):
            continue
        unknown = unrecorded(data)
        if unknown:
            yield Limit(
                f'Who is in the data of {data.role} is not fully known', f'not recorded: {joined(NAMES[name].lower() for name in unknown)}'
            )
        changed = (data.manifest.get('demographics') or {}).get('contradictions') or {}
        if isinstance(changed, dict) and any(changed.values()):
            yield Limit(
                f'Rows of one patient contradict each other, data of {data.role}',
                f'in {joined(nice(name) for name, n in changed.items() if n)}',
            )
    if card.start is not None and card.start.doubt:
        yield Limit('The weights it started from may have seen the images it is judged on', clean(card.start.doubt))
    if card.data is None and card.run is not None:
        yield Limit('Who is in the data is not known', 'the dataset was not given')


def _of_training(card: Card) -> Iterator[Limit]:
    run = card.subject
    planned, curve = run.config.get('steps'), run.curves.get('loss')
    if isinstance(planned, int) and curve is not None and len(curve.steps) and planned > int(curve.steps[-1]) + 1:
        done = int(curve.steps[-1])
        if card.weights is None or card.weights.step < planned:
            yield Limit('Training was not finished', f'{percent(done, planned)} of the planned steps')
    code = run.environment.get('code')
    if not isinstance(code, dict) or not code.get('commit'):
        yield Limit('The code that made it is not pinned', 'the run recorded no commit')
    elif code.get('dirty'):
        yield Limit('The code that made it is not pinned', f'it differed from the recorded commit {number_of(code["commit"])}')
    if card.facts.get('ethics') == '':
        yield Limit('No ethics approval is stated', 'the owner’s file does not say')


def number_of(commit: object) -> str:
    """A commit in its short form."""
    return clean(commit)[:12]
