"""What is its scope: what goes in, what comes out, what it is meant for, and what the evidence does and does not cover."""

from __future__ import annotations

from typing import Any

from retfound_jax.core.demographics import FLOOR, MISSING, NOT_A_GROUP
from retfound_jax.report.blocks import Cell, Section, Table, Text
from retfound_jax.report.card import Card
from retfound_jax.report.card_people import NAMES, column
from retfound_jax.report.card_validation import group_rows
from retfound_jax.report.summary import aim, model_words
from retfound_jax.report.words import clean, joined, nice

ID, TITLE = 'scope', '1. What is its scope?'
_COVERED = ('sex', 'age', 'ethnicity', 'country', 'site', 'camera')
_OUTSIDE = {
    'sex': 'people of another sex than those judged',
    'age': 'people of other ages',
    'ethnicity': 'people of other ethnicities',
    'country': 'other countries',
    'site': 'other sites',
    'camera': 'other cameras',
}
_SHOWN = 10


def section(card: Card) -> Section:
    """The answer to the first question."""
    blocks: list[Any] = (
        [Text('The images were drawn by a program: nothing on this page says anything about patients.', 'warning')] if card.drawn else []
    )
    blocks += [
        Text(does(card), 'lead'),
        _meant(card, 'intended_use', 'its intended use'),
        _meant(card, 'intended_users', 'its intended users'),
    ]
    blocks += [Text(f'Not for: {clean(card.facts.get("out_of_scope"))}')] if card.facts.get('out_of_scope') else []
    blocks += [_covered(card)]
    return Section(id=ID, title=TITLE, blocks=tuple(blocks))


def does(card: Card) -> str:
    """What goes in and what comes out."""
    given = joined(card.data.modality()) if card.data else ''
    given = given or 'retinal images (of which kind was not recorded)'
    side = f', read at {card.image_side} × {card.image_side} px' if card.image_side else ''
    return f'In: {given}{side}. Out: {gives(card)}. Between them: {model_words(card.subject)}.'


def gives(card: Card) -> str:
    """What comes out."""
    tables = card.tables
    if tables is None:
        labels = joined(f'“{clean(label)}”' for label in card.labels)
        return (
            f'an answer to {labels or "its labels"}, never evaluated'
            if card.run
            else 'features for other models; no clinical question is answered'
        )
    if tables.kind == 'single' and len(tables.classes) == 2:
        label, (no, yes) = clean(tables.labels[0]), tables.classes
        return f'the probability of “{label}”' + ('' if (no, yes) == ('0', '1') else f': “{clean(yes)}” against “{clean(no)}”')
    return {'regress': 'a number, ', 'multi': 'a probability for each finding, '}.get(tables.kind, 'a probability for each class, ') + aim(
        tables
    )


def covered(card: Card, name: str) -> tuple[str, ...]:
    """Groups of a column with at least 20 patients in the data and, where the model was judged by the column, a number of their own."""
    if card.data is None:
        return ()
    counts = {group: n for group, n in column(card.data, name).shown.items() if n >= FLOOR}
    shown = list(counts) if name == 'age' else sorted(counts, key=lambda group: (-counts[group], group))
    by = {'age': 'age_band'}.get(name, name)
    if card.tables is None or by not in card.tables.by:
        return tuple(shown)
    found = [row.group for row in group_rows(card.tables, by) if row.value is not None and row.group not in NOT_A_GROUP]
    return tuple(group.removesuffix(f' or {MISSING}') for group in found)  # the two were judged as one, lest one of them be worked out


def _meant(card: Card, key: str, what: str) -> Text:
    said = card.facts.get(key)
    return (
        Text(f'{what.removeprefix("its ").capitalize()}: {clean(said)}')
        if said
        else Text(f'Missing: {what}. Only the owner can say it (--facts).', 'absent')
    )


def _covered(card: Card) -> Table:
    judged = {part for by in (card.tables.by if card.tables else ()) for part in by.split('+')}
    rows = [_row(card, name, judged={'age': 'age_band'}.get(name, name) in judged) for name in _COVERED]
    return Table(
        caption='What the evidence covers',
        head=('', 'Covered', 'How', 'Out of scope'),
        rows=(_images(card), *rows),
        words=frozenset({1, 2, 3}),
        note=f'Covered: at least {FLOOR} patients. Whatever is not listed as covered is out of scope until it is measured.',
    )


def _images(card: Card) -> tuple[Cell, ...]:
    kinds = card.data.modality() if card.data else ()
    small = f'; images of fewer than {card.image_side} px' if card.image_side else ''
    if not kinds:
        return (
            Cell('Images'),
            Cell('missing', absent=True),
            Cell('not recorded', absent=True),
            Cell(f'nothing shows for which kind it works{small}'),
        )
    return (
        Cell('Images'),
        Cell(joined(kinds)),
        Cell('learned and judged' if card.tables else 'learned, never judged', absent=card.tables is None),
        Cell(f'other kinds of images{small}'),
    )


def _row(card: Card, name: str, *, judged: bool) -> tuple[Cell, ...]:
    groups = covered(card, name)
    if not groups:
        return (
            Cell(NAMES[name]),
            Cell('missing', absent=True),
            Cell('not recorded', absent=True),
            Cell(f'nothing shows that it works for any {NAMES[name].lower()}'),
        )
    more = f' and {len(groups) - _SHOWN} more' if len(groups) > _SHOWN else ''
    how = Cell('judged group by group') if judged else Cell('in the data, never judged by it', absent=True)
    return Cell(NAMES[name]), Cell(', '.join(map(nice, groups[:_SHOWN])) + more), how, Cell(_OUTSIDE[name])
