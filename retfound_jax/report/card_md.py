"""`card.md`: the model card as the Hugging Face Hub shows it. The same sections as the page, in Markdown that no name can break out of."""

from __future__ import annotations

import re
from collections.abc import Sequence

from retfound_jax.report.blocks import Block, Cell, Section, Table
from retfound_jax.report.card import Card
from retfound_jax.report.hub import front_matter
from retfound_jax.report.words import clean

RED = '\N{LARGE RED CIRCLE}'  # Markdown has no colour of its own
_SPECIAL = re.compile(r'([\\`*_\[\]#|~$])')
_ENTITIES = {'&': '&amp;', '<': '&lt;', '>': '&gt;'}
_LINKS = (('://', '&#58;//'), ('www.', 'www&#46;'))  # what a reader of Markdown turns into a link by itself
_LEADING = re.compile(r'^([-+=])|^(\d+)([.)])')


def build(card: Card, *, heading: str, sections: Sequence[Section], folded: Sequence[Section]) -> str:
    """The whole file as text.

    Args:
      heading: of the card.
      sections: shown one after the other.
      folded: shown at the end, each behind a line to be opened.
    """
    parts = [front_matter(card), f'# {escaped(heading)}', *(markdown(section) for section in sections)]
    parts += [f'<details>\n<summary>{entities(one.title)}</summary>\n\n{_blocks(one.blocks)}\n\n</details>' for one in folded]
    return '\n\n'.join([*parts, 'Made by retfound. Research use only; not a medical device.', ''])


def markdown(section: Section) -> str:
    """A section with its heading."""
    return f'## {escaped(section.title)}\n\n{_blocks(section.blocks)}'


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    text = _SPECIAL.sub(r'\\\1', ' '.join(clean(text).split()))
    return _LEADING.sub(lambda found: f'\\{found[1]}' if found[1] else f'{found[2]}\\{found[3]}', entities(text))


def entities(text: str) -> str:
    """Text without anything that HTML or a reader of links could take for its own."""
    text = ''.join(_ENTITIES.get(char, char) for char in ' '.join(clean(text).split()))
    for found, instead in _LINKS:
        text = re.sub(re.escape(found), instead, text, flags=re.IGNORECASE)
    return text


def _blocks(blocks: Sequence[Block]) -> str:
    return '\n\n'.join(text for text in map(_block, blocks) if text)


def _block(block: Block) -> str:
    if block.kind == 'text':
        text = escaped(block.words)
        return {'absent': f'{RED} **{text}**', 'warning': f'> {text}'}.get(block.tone, text)
    if block.kind == 'heading':
        return f'### {escaped(block.words)}'
    if block.kind == 'table':
        return _table(block)
    if block.kind == 'grid':
        return '\n\n'.join(map(_table, block.tables))
    if block.kind == 'pictures':  # a picture inside a card would weigh more than all its words; what it shows is said
        return '\n\n'.join(f'*Figure (card.html): {escaped(one.alt)}*' for one in block.items)
    if block.kind == 'facts':
        return '\n'.join(f'- {escaped(one.name)}: **{escaped(one.value)}** {escaped(one.note)}'.rstrip() for one in block.items)
    if block.kind == 'terms':
        return '\n'.join(f'- **{escaped(name)}**: {escaped(meaning)}' for name, meaning in block.items)
    return f'{escaped(block.label)}: {escaped(block.text)}'


def _table(table: Table) -> str:
    shown = [i for i in range(len(table.head)) if table.axis is None or i != table.axis.column]
    align = ['---' if i == 0 or i in table.words else '--:' for i in shown]
    lines = [f'**{escaped(table.caption)}**', '', _line([escaped(table.head[i]) for i in shown]), _line(align)]
    lines += [_line([_cell(row[i]) for i in shown]) for row in table.rows]
    return '\n'.join([*lines, *(['', escaped(table.note)] if table.note else [])])


def _line(cells: Sequence[str]) -> str:
    return f'| {" | ".join(cells)} |'


def _cell(cell: Cell) -> str:
    text = ' '.join(escaped(part) for part in (cell.text, cell.small) if part)
    return f'{RED} **{text}**' if cell.absent else text
