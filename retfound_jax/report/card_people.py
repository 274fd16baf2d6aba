"""Who was it trained on: every column of who people are in one line, its small groups withheld, what nobody recorded in red."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retfound_jax.core.demographics import NOT_A_GROUP
from retfound_jax.core.suppression import note
from retfound_jax.report.blocks import Cell, Section, Table, Text
from retfound_jax.report.card import Card, Data
from retfound_jax.report.words import clean, count, joined, nice, percent, plural

ID, TITLE = 'people', '2. Who was it trained on?'
COLUMNS = ('sex', 'age', 'ethnicity', 'country', 'site', 'camera')  # what the four questions ask of every dataset
_OTHERS = ('diabetes_type', 'source')  # told where they are recorded
NAMES = {'sex': 'Sex', 'age': 'Age', 'ethnicity': 'Ethnicity', 'country': 'Country', 'site': 'Site', 'camera': 'Camera',
         'diabetes_type': 'Diabetes type', 'source': 'Source'}  # fmt: skip
_STUDIES = 2  # sentences of a study
_SHOWN = 8  # groups of a column; the rest is summed up


@dataclass(frozen=True, kw_only=True)
class Column:
    """Who is in a dataset by one column, as far as it may be printed."""

    name: str
    unit: str  # 'patients' or 'images'
    recorded: bool  # for anybody
    total: int | None
    shown: Mapping[str, int]  # groups that may be printed with their counts
    withheld: tuple[str, ...]  # groups that may not, and those that would give them away
    missing: int | None  # None where it is withheld; `missing` and `declined` together


def column(data: Data, name: str) -> Column:
    """One column of a dataset, with the counts that its data sheet shows: of patients where they are known, else of images."""
    found = data.composition
    counts = {value: found.count(value, fields=(name,)) for value in found.values(name)}
    everybody = found.count()
    unit = 'patients' if all(one.patients is not None or one.hidden for one in counts.values()) else 'images'
    known = {value: getattr(one, unit) for value, one in counts.items() if not one.hidden}
    absent = [value for value in counts if value in NOT_A_GROUP]
    return Column(
        name=name,
        unit=unit,
        recorded=found.recorded(name) and any(value not in NOT_A_GROUP for value in counts),
        total=getattr(everybody, unit),
        shown={value: n for value, n in known.items() if value not in NOT_A_GROUP},
        withheld=tuple(value for value in counts if value not in known and value not in NOT_A_GROUP),
        missing=sum(known[value] for value in absent) if all(value in known for value in absent) else None,
    )


def section(card: Card) -> Section:
    """The answer to the second question."""
    blocks: list[Any] = []
    both = ((card.data, card.run), (card.pretrain_data, card.pretrain if card.run else None))
    for data, run in both:
        if data is not None and not (data is card.pretrain_data and _same(card)):
            blocks += [Text(words, 'lead') for words in _lead(card, data)] + [_table(data)]
        elif data is None and run is not None:
            what = 'the task' if run is card.run else 'pretraining'
            blocks.append(Text(f'Missing: the dataset of {what}. It was not given, so nobody can say who is in it.', 'absent'))
    if card.data is None and card.run is None:
        blocks.append(Text('Missing: the dataset. It was not given, so nobody can say who is in it.', 'absent'))
    if _same(card):
        blocks.append(Text('It was pretrained on the same dataset, without labels.'))
    if card.run is not None and card.pretrain is None:
        blocks.append(_start(card))
    blocks += _composition_studies(card)
    return Section(id=ID, title=TITLE, blocks=tuple(blocks))


def _composition_studies(card: Card) -> list[Text]:
    """What other studies say of who is in the pretraining, for these labels."""
    targets = frozenset({*card.labels, *(card.tables.targets if card.tables else ())})
    said = []
    for one in card.by_group:
        drawn = 'drawn photographs, not patients; ' if one.drawn else ''
        said += [
            Text(f'A study ({drawn}{one.title}): {clean(words)}') for words in one.sentences(on='composition', targets=targets)[:_STUDIES]
        ]
    return said


def unrecorded(data: Data) -> tuple[str, ...]:
    """Columns of the four questions that nobody recorded."""
    return tuple(name for name in COLUMNS if not column(data, name).recorded)


def _start(card: Card) -> Text:
    begun = str(card.subject.config.get('init_from') or '')
    if not begun:
        return Text('It was not pretrained: the weights were drawn at random.')
    if card.start is not None:
        part = '' if card.start.whole else ', and on more that is not told'
        seen = joined(map(nice, card.start.seen)) or 'images that nobody names'
        return Text(f'It started from the public weights {nice(card.start.name)}, pretrained on {seen}{part} ({nice(card.start.source)}).')
    named = begun.rstrip('/').rpartition('/')[2]  # a place on somebody's machine is nobody's business
    return Text(
        f'Missing: who is in the data of its pretraining. It started from the weights “{nice(named)}”, whose run is not at hand.', 'absent'
    )


def _same(card: Card) -> bool:
    both = card.data, card.pretrain_data
    return None not in both and both[0].fingerprint == both[1].fingerprint != ''


def _lead(card: Card, data: Data) -> list[str]:
    patients, images = data.total('patients'), data.total('images')
    whole = (
        f'{plural(images, "image")} of {plural(patients, "patient")}' if None not in (patients, images) else 'an unknown number of images'
    )
    words = [f'“{nice(data.name)}” ({data.role}): {whole}.']
    train = data.total('patients', split='train'), data.total('images', split='train')
    if None not in train and card.run is not None and data is card.data:
        words[0] = f'{words[0][:-1]}; it learned from {plural(train[1] or 0, "image")} of {plural(train[0] or 0, "patient")} of them.'
    unknown = [NAMES[name].lower() for name in unrecorded(data)]
    known = [NAMES[name].lower() for name in COLUMNS if column(data, name).recorded]
    if known:
        words.append(f'Recorded: {joined(known)}.{f" Not recorded for anybody: {joined(unknown)}." if unknown else ""}')
    else:
        words.append('Nothing is recorded of who the people are.')
    return words


def _table(data: Data) -> Table:
    extra = [name for name in _OTHERS if column(data, name).recorded]
    scheme = (data.manifest.get('demographics') or {}).get('ethnicity_scheme')
    return Table(
        caption=f'Who is in “{nice(data.name)}”, all splits',
        head=('', 'Recorded for', 'Groups', 'Withheld'),
        rows=tuple(_row(column(data, name)) for name in (*COLUMNS, *extra)),
        words=frozenset({2, 3}),
        note=' '.join(filter(None, (f'Ethnicity after: {nice(scheme)}.' if scheme else '', f'Withheld: {note().partition(": ")[2]}.'))),
    )


def _row(found: Column) -> tuple[Cell, ...]:
    if not found.recorded:
        return Cell(NAMES[found.name]), Cell('nobody', absent=True), Cell('missing', absent=True), Cell('')
    withheld = found.missing is None or found.total is None
    known = 'withheld' if withheld else percent(found.total - found.missing, found.total)
    small = joined(map(nice, found.withheld[:_SHOWN])) + (
        f' and {len(found.withheld) - _SHOWN} more' if len(found.withheld) > _SHOWN else ''
    )
    return (
        Cell(NAMES[found.name], small='' if found.unit == 'patients' else 'images'),
        Cell(known, quiet=withheld),
        Cell(_groups(found)),
        Cell(small),
    )


def _groups(found: Column) -> str:
    items = list(found.shown.items())
    if found.name != 'age':
        items.sort(key=lambda item: (-item[1], item[0]))
    rest = items[_SHOWN:]
    parts = [f'{nice(group)} {count(n)} ({percent(n, found.total or 0)})' for group, n in items[:_SHOWN] if n]
    none = [nice(group) for group, n in items if not n]
    parts += [f'{len(rest)} more groups'] if rest else []
    parts += [f'nobody: {joined(none[:_SHOWN])}'] if none else []
    return ', '.join(parts)
