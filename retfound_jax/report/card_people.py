"""Who was it trained on: every column of who people are in one line, its small groups withheld, what nobody recorded in red."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retfound_jax.core.demographics import DECLINED, MISSING, NOT_A_GROUP
from retfound_jax.core.suppression import note, withhold_counts
from retfound_jax.report.blocks import Cell, Section, Table, Text
from retfound_jax.report.card import Card, Data
from retfound_jax.report.words import NONE, count, joined, nice, percent, plural

ID, TITLE = 'people', '2. Who was it trained on?'
COLUMNS = ('sex', 'age', 'ethnicity', 'country', 'site', 'camera')  # what the four questions ask of every dataset
_OTHERS = ('diabetes_type', 'source')  # told where they are recorded
NAMES = {'sex': 'Sex', 'age': 'Age', 'ethnicity': 'Ethnicity', 'country': 'Country', 'site': 'Site', 'camera': 'Camera',
         'diabetes_type': 'Diabetes type', 'source': 'Source'}  # fmt: skip
_SHOWN = 8  # groups of a column; the rest is summed up


@dataclass(frozen=True, kw_only=True)
class Column:
    """Who is in a dataset by one column, as far as it may be printed."""

    name: str
    unit: str  # 'patients' or 'images'
    recorded: bool  # for anybody
    total: int
    shown: Mapping[str, int]  # groups that may be printed with their counts
    withheld: tuple[str, ...]  # groups that may not, and those that would give them away
    missing: int | None  # None where it is withheld; `missing` and `declined` together


def column(data: Data, name: str) -> Column:
    """One column of a dataset's summary: of patients where the manifest counts them, else of images."""
    patients, images = (data.manifest.get(key) or {} for key in ('summary_patients', 'summary'))
    unit = 'patients' if name in patients else 'images'
    found = (patients if unit == 'patients' else images).get(name)
    counts = _counts(found) if isinstance(found, Mapping) else {}
    groups = {group: n for group, n in counts.items() if group not in NOT_A_GROUP}
    hidden = withhold_counts(counts).keys()
    absent = sum(counts.get(group, 0) for group in NOT_A_GROUP)
    return Column(
        name=name,
        unit=unit,
        recorded=any(groups.values()),
        total=sum(counts.values()),
        shown={group: n for group, n in groups.items() if group not in hidden},
        withheld=tuple(group for group in groups if group in hidden),
        missing=None if hidden & NOT_A_GROUP else absent,
    )


def section(card: Card) -> Section:
    """The answer to the second question."""
    blocks: list[Any] = []
    for data, run in ((card.data, card.run), (card.pretrain_data, card.pretrain)):
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
    return Section(id=ID, title=TITLE, blocks=tuple(blocks))


def unrecorded(data: Data) -> tuple[str, ...]:
    """Columns of the four questions that nobody recorded."""
    return tuple(name for name in COLUMNS if not column(data, name).recorded)


def _start(card: Card) -> Text:
    begun = str(card.subject.config.get('init_from') or '')
    if not begun:
        return Text('It was not pretrained: the weights were drawn at random.')
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
    train = data.manifest['splits'].get('train') or {}
    if train.get('patients') is not None and card.run is not None and data is card.data:
        words[0] = (
            words[0][:-1] + f'; it learned from {plural(train["images"], "image")} of {plural(train["patients"], "patient")} of them.'
        )
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
    known = percent(found.total - found.missing, found.total) if found.missing is not None else NONE
    small = joined(map(nice, found.withheld[:_SHOWN])) + (
        f' and {len(found.withheld) - _SHOWN} more' if len(found.withheld) > _SHOWN else ''
    )
    return Cell(NAMES[found.name], small='' if found.unit == 'patients' else 'images'), Cell(known), Cell(_groups(found)), Cell(small)


def _groups(found: Column) -> str:
    items = list(found.shown.items())
    if found.name != 'age':
        items.sort(key=lambda item: (-item[1], item[0]))
    rest = items[_SHOWN:]
    parts = [f'{nice(group)} {count(n)} ({percent(n, found.total)})' for group, n in items[:_SHOWN] if n]
    none = [nice(group) for group, n in items if not n]
    parts += [f'{len(rest)} more groups'] if rest else []
    parts += [f'nobody: {joined(none[:_SHOWN])}'] if none else []
    return ', '.join(parts)


def _counts(found: Mapping[str, Any]) -> dict[str, int]:
    """Counts by group; of age, by its bands in their order."""
    if 'bands' not in found:
        return {str(group): int(n) for group, n in found.items() if isinstance(n, int)}
    bands = sorted(found['bands'].items(), key=lambda item: _first_year(item[0]))
    absent = {name: int(found.get(name) or 0) for name in (MISSING, DECLINED) if found.get(name) is not None}
    return {str(band): int(n) for band, n in bands} | absent


def _first_year(band: str) -> float:
    digits = re.search(r'\d+', band)
    return (float(digits.group()) - band.startswith(('under', '<'))) if digits else float('inf')
