"""How much fine-tuning data does my task need: what this run had, and the curve over the number of labels where a study drew one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from retfound_jax.report import card_curves, study_figures
from retfound_jax.report.blocks import Cell, Pictures, Section, Table, Text
from retfound_jax.report.card import Card
from retfound_jax.report.card_curves import ByGroup
from retfound_jax.report.study import ADAPTED, MACRO, Line, StudyTable, line_place
from retfound_jax.report.words import clean, count, interval, joined, metric_name, nice, percent, plural

ID, TITLE = 'labels', '4. How much fine-tuning data does my task need?'
_PICTURES = 2
_NEEDED = 2
_SLOPES = 3  # sentences on groups


def section(card: Card) -> Section:
    """The answer to the fourth question."""
    blocks: list[Any] = [Text(words, 'lead') for words in had(card)]
    curves = curves_of(card)
    if not curves:
        blocks.append(
            Text(
                'Missing: a curve over the number of labels. What fewer would give was not measured; `retfound table` measures '
                'it (--study).',
                'absent',
            )
        )
    for one in card.by_group:
        blocks += _grouped(one, frozenset({*card.labels, *(card.tables.targets if card.tables else ())}))
    for table, lines in curves:
        blocks += [Text(words, 'lead') for words in _saved(table, lines)]
        blocks += _drawn(table, lines)
        blocks.append(_table(lines))
    return Section(id=ID, title=TITLE, blocks=tuple(blocks))


def had(card: Card) -> tuple[str, ...]:
    """What this very run learned from."""
    if card.run is None or card.data is None:
        return ()
    config = card.run.config.get('data')
    share = config.get('fraction', 1.0) if isinstance(config, dict) else 1.0
    part = '' if share == 1.0 else f', of which it was given {percent(share, 1)}'
    words = []
    for label in card.labels:
        known = card.data.classes(label, split='train')
        if known:
            classes = joined(f'{"few" if n is None else count(n)} {class_words(name, known)}' for name, n in known.items())
            total = '' if None in known.values() else f'{plural(sum(filter(None, known.values())), "labelled image")}: '
            words.append(f'This model learned “{nice(label)}” from {total}{classes}{part}.')
    images = card.data.total('images', split='train')
    if not words and images is not None:
        words = [f'This model learned from {plural(images, "image")}{part}.']
    return tuple(words[:3])


def class_words(name: str, known: Iterable[str]) -> str:
    """A class as a sentence names it."""
    return {'0': 'without it', '1': 'with it'}.get(name, name) if set(known) <= {'0', '1'} else f'“{nice(name)}”'


def _grouped(found: ByGroup, targets: frozenset[str]) -> list[Any]:
    """Whether groups need other numbers of labels, as far as a study says it of these targets."""
    drawn = 'Drawn photographs, not patients: ' if found.drawn else ''
    said = [Text(f'{drawn}{clean(words)}') for words in found.sentences(on='labels', targets=targets)[:_SLOPES]]
    shown = card_curves.table(found, targets=targets) if said else None
    return [*said, *([shown] if shown else [])]


def curves_of(card: Card) -> list[tuple[StudyTable, tuple[Line, ...]]]:
    """The lines of the studies given that are of this card's labels, where more than one number of labels was tried."""
    found = []
    for table in card.studies:
        wanted = {*card.labels, *(card.tables.targets if card.tables else ())}
        lines = tuple(line for line in table.lines if line.target in wanted) or tuple(line for line in table.lines if line.target == MACRO)
        if len({line.fraction for line in lines}) > 1:
            found.append((table, lines))
    return found


def _saved(table: StudyTable, lines: tuple[Line, ...]) -> list[str]:
    targets = {line.target for line in lines}
    words = []
    for one in [one for one in table.needed if one.target in targets][:_NEEDED]:
        place = ', '.join(
            filter(None, (nice(one.test_on), '' if one.target == MACRO else nice(one.target), ADAPTED.get(one.adaptation, '')))
        )
        ratio = one.words(one.ratio.value)
        words.append(f'{place}: {ratio} of the labels give with “{nice(one.method)}” what all of them give with “{nice(one.reference)}”.')
    return words


def _drawn(table: StudyTable, lines: tuple[Line, ...]) -> list[Any]:
    kept = dataclasses.replace(
        table, lines=lines, needed=tuple(one for one in table.needed if one.target in {line.target for line in lines})
    )
    drawn = study_figures.label_curves(kept)[:_PICTURES]
    return [Pictures(items=tuple(one.picture for one in drawn), size='wide')] if drawn else []


def _table(lines: tuple[Line, ...]) -> Table:
    fractions = sorted({line.fraction for line in lines})
    rows: dict[tuple[str, str], dict[float, Line]] = {}
    for line in lines:
        rows.setdefault((line_place(line), line.method), {})[line.fraction] = line
    metric = metric_name(lines[0].metric)
    return Table(
        caption=f'{metric} by share of the labels',
        head=('', 'Started from', *(f'{100 * fraction:g}\u202f%' for fraction in fractions)),
        rows=tuple(
            (Cell(clean(place)), Cell(nice(method)), *(_cell(by_fraction.get(fraction)) for fraction in fractions))
            for (place, method), by_fraction in rows.items()
        ),
        words=frozenset({1}),
        note='Mean over seeds; in brackets the interval over patients.',
    )


def _cell(line: Line | None) -> Cell:
    if line is None:
        return Cell('not run', quiet=True)
    shown = interval(line.patients.value, line.patients.low, line.patients.high, metric=line.metric)
    value, _, bounds = shown.partition(' ')
    return Cell(value, small=bounds)
