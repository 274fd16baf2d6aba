"""The way in: a card to `card.html` and `card.md`, of the same sections: four questions first, checklists last."""

from __future__ import annotations

from pathlib import Path

from retfound_jax.core.files import atomic_write
from retfound_jax.report import card_labels, card_limits, card_md, card_origin, card_people, card_scope, card_validation, checklist, html
from retfound_jax.report.blocks import Cell, Section, Table, Text
from retfound_jax.report.card import Card
from retfound_jax.report.card_answers import SUMMARY_ID, answers, title
from retfound_jax.report.claim import CLAIM
from retfound_jax.report.summary import LIMITS
from retfound_jax.report.tripod import TRIPOD
from retfound_jax.report.words import clean

PAGE, MARKDOWN = 'card.html', 'card.md'
KIND = 'Model card'
_SHORT = 'In short'


def write(card: Card, *, out: Path) -> tuple[Path, Path]:
    """Writes both files into `out`, each whole or not at all, and returns their paths."""
    page, text = out / PAGE, out / MARKDOWN
    atomic_write(page, build_page(card))
    atomic_write(text, build_markdown(card))
    return page, text


def build_page(card: Card) -> str:
    """`card.html` as text."""
    return html.render(title(card), subtitle=_subtitle(card), sections=(*_sections(card), *_checklists(card)), kind=KIND)


def build_markdown(card: Card) -> str:
    """`card.md` as text."""
    return card_md.build(card, heading=title(card), sections=_sections(card), folded=_checklists(card))


def _sections(card: Card) -> tuple[Section, ...]:
    questions = (card_scope.section(card), card_people.section(card), card_validation.section(card), card_labels.section(card))
    return (_short(card, questions), *questions, card_limits.section(card), card_origin.section(card), card_origin.owner_section(card))


def _checklists(card: Card) -> tuple[Section, ...]:
    found = answers(card)
    titles = {
        one.ID: one.TITLE.partition('. ')[2] or one.TITLE
        for one in (card_scope, card_people, card_validation, card_labels, card_limits, card_origin)
    } | {card_origin.OWNER_ID: card_origin.OWNER_TITLE, SUMMARY_ID: _SHORT}
    return tuple(checklist.section(one, answers=found, titles=titles) for one in (TRIPOD, CLAIM))


def _short(card: Card, questions: tuple[Section, ...]) -> Section:
    """The four questions with what answers each, or how much is missing, on the first screen."""
    rows = tuple((Cell(one.title), _lead(one), _gaps(one)) for one in questions)
    table = Table(caption='Four questions', head=('Question', 'Evidence', 'Missing'), rows=rows, words=frozenset({1, 2}))
    notice = [Text(clean(card.notice), 'warning')] if card.notice else []
    return Section(id=SUMMARY_ID, title=_SHORT, blocks=(*notice, table, Text(LIMITS, 'warning')))


def _lead(section: Section) -> Cell:
    words = [block.words for block in section.blocks if block.kind == 'text' and block.tone == 'lead']
    return Cell(' '.join(words[:2])) if words else Cell('none', absent=True)


def _gaps(section: Section) -> Cell:
    """What is missing by name: of a sentence `Missing: name. Why.` the name, of a table the rows that lack something."""
    texts = [block.words for block in section.blocks if block.kind == 'text' and block.tone == 'absent']
    named = [words.removeprefix('Missing: ').partition('. ')[0] for words in texts]
    rows = [
        row[0].text.lower() for block in section.blocks if block.kind == 'table' for row in block.rows if any(cell.absent for cell in row)
    ]
    found = list(dict.fromkeys([*named, *rows]))
    return Cell('; '.join(found), absent=True) if found else Cell('nothing')


def _subtitle(card: Card) -> str:
    owner = card.facts.get('owner')
    parts = [clean(card.name), clean(owner) if owner else 'owner not stated']
    return ' · '.join([*parts, f'licence {clean(card.facts.get("licence") or "not stated")}'])
