"""A reporting guideline as a table: what each item asks, in our words, and where the card answers it, or that nothing does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retfound_jax.report.blocks import Cell, Section, Table, Text

ANSWERED, IN_PART, NOT_ANSWERED = 'answered', 'in part', 'not answered'


@dataclass(frozen=True)
class Item:
    """One item of a guideline."""

    number: str
    part: str  # of a paper: methods, results, ...
    asks: str  # in our words
    answers: tuple[str, ...]  # keys of the card's answers that together answer it, in the order in which they are printed


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a card has to say to a question, and in which section it stands; '' where it has nothing to say."""

    text: str
    section: str  # its id


@dataclass(frozen=True, kw_only=True)
class Guideline:
    """A guideline and its source."""

    id: str
    title: str
    source: str
    items: tuple[Item, ...]


def answered(item: Item, *, answers: Mapping[str, Answer]) -> tuple[Answer, ...]:
    """The answers that an item gets, none where nobody answers it. An answer key that the card lacks is a KeyError."""
    return tuple(answers[key] for key in item.answers if answers[key].text)


def state(item: Item, *, answers: Mapping[str, Answer]) -> str:
    """`ANSWERED`, `IN_PART` where a part of what it asks has no answer, or `NOT_ANSWERED`."""
    found = len(answered(item, answers=answers))
    return ANSWERED if found == len(item.answers) else IN_PART if found else NOT_ANSWERED


def section(guideline: Guideline, *, answers: Mapping[str, Answer], titles: Mapping[str, str]) -> Section:
    """The table of a guideline; `titles` names the sections by their ids."""
    rows = tuple(_row(item, answers=answers, titles=titles) for item in guideline.items)
    states = [state(item, answers=answers) for item in guideline.items]
    counted = ', '.join(f'{states.count(name)} {name}' for name in (ANSWERED, IN_PART, NOT_ANSWERED))
    blocks: list[Any] = [
        Text(f'{guideline.source} What each item asks is put in our words; the published wording decides.', 'quiet'),
        Text(f'{len(guideline.items)} items: {counted}. Answers are from the run’s own files or from its owner.'),
        Table(
            caption=f'{guideline.title}: item by item',
            head=('Item', 'Asks', 'Answer', 'Section'),
            rows=rows,
            words=frozenset({1, 2, 3}),
        ),
    ]
    return Section(id=guideline.id, title=guideline.title, blocks=tuple(blocks))


def _row(item: Item, *, answers: Mapping[str, Answer], titles: Mapping[str, str]) -> tuple[Cell, ...]:
    found, how = answered(item, answers=answers), state(item, answers=answers)
    where = ', '.join(dict.fromkeys(titles[one.section] for one in found))
    text = ' '.join(one.text for one in found)
    answer = Cell(NOT_ANSWERED, absent=True) if not found else Cell(text if how == ANSWERED else f'In part: {text}')
    return Cell(item.number, small=item.part), Cell(item.asks), answer, Cell(where)
