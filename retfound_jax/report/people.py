"""Who is in the data: splits, demographics with what is missing, what was rejected, and which pictures were found twice."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from retfound_jax.report.blocks import Cell, Grid, Section, Table, Text
from retfound_jax.report.tables import MISSING
from retfound_jax.report.words import clean, count, joined, nice, percent, plural

_COLUMNS = ('sex', 'age', 'ethnicity', 'country', 'site', 'camera', 'laterality')
_OF_IMAGES = ('laterality', 'camera')
_SPLITS = ('train', 'val', 'test')
_LABELS = 3  # shown where none is asked for
_SHOWN = 10  # values of a column; the rest is summed up in one row


def section(manifest: Mapping[str, Any] | None, *, wanted: Sequence[str] = ()) -> Section:
    """The people behind the images, from a dataset's manifest; class counts of the labels `wanted`, or of the first few."""
    if manifest is None:
        blocks: tuple[Any, ...] = (
            Text('No dataset was given to this report, so it cannot say who is in the data. Add --dataset.', 'quiet'),
        )
    else:
        blocks = (Grid(tables=(_splits(manifest), *_labels(manifest, wanted))),)
        summaries = _summaries(manifest)
        people = tuple(_demographic(name, values, unit) for name, unit, values in summaries if _known(values))
        blocks += (Grid(tables=people),) if people else ()
        blocks += _unknown([name for name, _, values in summaries if not _known(values)])
        blocks += tuple(Text(words) for words in (_duplicates(manifest), _rejected(manifest)) if words)
        blocks += (Grid(tables=_reasons(manifest)),) if _reasons(manifest) else ()
    return Section(id='people', title='Who is in the data', blocks=blocks)


def _ordered(splits: Mapping[str, Any]) -> list[str]:
    return sorted(splits, key=lambda name: (_SPLITS.index(name) if name in _SPLITS else len(_SPLITS), name))


def _splits(manifest: Mapping[str, Any]) -> Table:
    splits = manifest['splits']
    rows = []
    for name in _ordered(splits):
        rows.append((Cell(name), Cell(count(splits[name].get('patients'))), Cell(count(splits[name].get('images')))))
    totals = [sum(split.get(what) or 0 for split in splits.values()) for what in ('patients', 'images')]
    rows.append((Cell('all'), *(Cell(count(total)) for total in totals)))
    return Table(
        caption='Patients and images in each split',
        head=('Split', 'Patients', 'Images'),
        rows=tuple(rows),
        note='Splits are made by patient: nobody is in two of them. Patients joined by a shared picture stay together.',
    )


def _labels(manifest: Mapping[str, Any], wanted: Sequence[str]) -> tuple[Table, ...]:
    """For each class label asked for, how many images of each class there are in each split."""
    splits = manifest['splits']
    names = _ordered(splits)
    tables = []
    known = manifest.get('labels') or {}
    for label in [label for label in known if label in wanted] or list(known)[:_LABELS]:
        kind = known[label]
        counted = {name: (splits[name].get('labels') or {}).get(label) for name in names}
        if kind.get('kind') != 'class' or not all(isinstance(one, Mapping) for one in counted.values()):
            continue
        classes = list(dict.fromkeys([*(kind.get('classes') or ()), *(value for one in counted.values() for value in one)]))
        rows = []
        for value in classes:
            cells = [Cell(count(one.get(value, 0)), small=percent(one.get(value, 0), sum(one.values()))) for one in counted.values()]
            rows.append((Cell(value, quiet=value == MISSING), *cells))
        tables.append(Table(caption=f'Images by “{label}”', head=(label, *names), rows=tuple(rows)))
    return tuple(tables)


def _summaries(manifest: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Column, what is counted, and counts: patients where the manifest counted them, but images for what differs within a patient."""
    images, patients = manifest.get('summary') or {}, manifest.get('summary_patients') or {}
    found = []
    for name in (*_COLUMNS, *sorted(set(images) - set(_COLUMNS))):
        unit = 'Patients' if name in patients and name not in _OF_IMAGES else 'Images'
        values = (patients if unit == 'Patients' else images).get(name)
        if isinstance(values, Mapping):
            found.append((name, unit, values))
    return found


def _known(values: Mapping[str, Any]) -> int:
    """Of how many something is known."""
    return sum(n for name, n in values.get('bands', values).items() if name != MISSING)


def _unknown(names: list[str]) -> tuple[Text, ...]:
    return (Text(f'Not recorded for anybody: {joined(names)}.', 'quiet'),) if names else ()


def _demographic(name: str, values: Mapping[str, Any], unit: str) -> Table:
    note, order_kept = '', False
    if 'bands' in values:
        note = _age_note(values)
        values, order_kept = {**dict(sorted(values['bands'].items(), key=_age_order)), MISSING: values.get('missing') or 0}, True
    counts = {str(value): int(n) for value, n in values.items()}
    missing = counts.pop(MISSING, 0)
    shown = list(counts.items()) if order_kept else sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    if len(shown) > _SHOWN:
        rest = shown[_SHOWN - 1 :]
        shown = [*shown[: _SHOWN - 1], (f'{len(rest)} others', sum(n for _, n in rest))]
    total = sum(counts.values()) + missing
    highest = max([n for _, n in shown] + [missing, 1])
    rows = [(Cell(nice(value)), Cell(count(n), bar=100 * n / highest), Cell(percent(n, total))) for value, n in shown]
    rows.append(
        (
            Cell(MISSING, quiet=True),
            Cell(count(missing), bar=100 * missing / highest, quiet=True),
            Cell(percent(missing, total), quiet=True),
        )
    )
    heading = {'laterality': 'Eye', 'age': 'Age [years]'}.get(name, name.replace('_', ' ').capitalize())
    return Table(caption=heading, head=(heading, unit, 'Share'), rows=tuple(rows), note=note)


def _age_order(item: tuple[str, Any]) -> float:
    """Bands by age: JSON keeps its keys by the alphabet, which puts `under 18` last."""
    digits = re.search(r'\d+', item[0])
    below = item[0].startswith(('under', '<'))
    return float(digits.group()) - below if digits else math.inf


def _age_note(age: Mapping[str, Any]) -> str:
    if age.get('min') is None:
        return ''
    return f'From {age["min"]:.0f} to {age["max"]:.0f}, mean {age["mean"]:.1f}.'


def _rejected(manifest: Mapping[str, Any]) -> str:
    rejects = manifest.get('rejects') or {}
    if 'count' not in rejects:
        return ''
    return (
        f'{plural(rejects["count"], "file was", "files were")} rejected; rejects.csv names each.'
        if rejects['count']
        else 'No file was rejected.'
    )


def _reasons(manifest: Mapping[str, Any]) -> tuple[Table, ...]:
    reasons = (manifest.get('rejects') or {}).get('reasons') or {}
    if not isinstance(reasons, Mapping) or not reasons:
        return ()
    rows = tuple((Cell(reason), Cell(count(n))) for reason, n in sorted(reasons.items(), key=lambda item: (-item[1], item[0])))
    return (Table(caption='Why files were rejected', head=('Reason', 'Files'), rows=rows),)


def _duplicates(manifest: Mapping[str, Any]) -> str:
    found = manifest.get('duplicates') or {}
    if not any(found.get(name) for name in ('exact_groups', 'near_groups', 'joined_patients')):
        return 'No picture was found twice.' if found else ''
    parts = [
        plural(found.get('exact_groups') or 0, 'group') + ' of identical pictures',
        plural(found.get('near_groups') or 0, 'group') + ' of near ones',
    ]
    sharing = found.get('joined_patients') or 0
    tail = f'; {plural(sharing, "patient")} sharing a picture with another stay in one split with them' if sharing else ''
    return clean(f'{parts[0]} and {parts[1]} were found{tail}.')
