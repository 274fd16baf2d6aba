"""Who is in the data: splits, who the people are and what is missing, what was rejected, and which pictures were found twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retfound_jax.core.demographics import DECLINED, FLOOR, MISSING, NOT_A_GROUP
from retfound_jax.report import census, coverage, known
from retfound_jax.report.blocks import Block, Cell, Grid, Pictures, Section, Table, Text
from retfound_jax.report.census import AGE, LABEL
from retfound_jax.report.composition import WITHHELD, Composition, Count, of_censuses
from retfound_jax.report.words import NONE, clean, count, joined, nice, percent, plural

TITLE = 'Who is in the data'
_LABELS = 3  # shown where none is asked for
_SHOWN = 12  # values of a field; the rest is summed up in words
_IN_A_ROW = 5  # columns of datasets in a table


def section(manifest: Mapping[str, Any] | None, *, wanted: Sequence[str] = (), dataset: Path | str | None = None) -> Section:
    """The people behind the images, for the report of a run.

    Args:
      manifest: of the dataset; None where none was given.
      wanted: labels whose classes are counted; else the first few.
      dataset: its directory, whose index also gives the splits and intersections.
    """
    if manifest is None:
        absent = Text('No dataset was given to this report, so it cannot say who is in the data. Add --dataset.', 'absent')
        return Section(id='people', title=TITLE, blocks=(absent,))
    index = Path(dataset) / 'index.parquet' if dataset else None
    found = of_censuses([census.of_dataset(manifest, index=index, name=clean(manifest.get('name', 'dataset')))])
    made = [Text(withheld_note(), 'quiet'), *blocks(found, wanted=wanted)]
    made += [Text(words) for words in (known.duplicates(manifest), known.rejected(manifest), known.changed(manifest)) if words]
    made += changes(manifest)
    made += [Grid(tables=reasons(manifest))] if reasons(manifest) else []
    return Section(id='people', title=TITLE, blocks=tuple(made))


def changes(manifest: Mapping[str, Any]) -> list[Block]:
    """What ingest changed in the words about people, and whose rows contradict each other."""
    rows, more = known.change_rows(manifest)
    cells = tuple(tuple(map(Cell, row)) for row in rows)
    note = f'{plural(more, "more change")} in manifest.json.' if more else ''
    table = Table(caption='Words that were changed', head=known.CHANGES_HEAD, rows=cells, words=frozenset({1, 2, 5}), note=note)
    return [*([table] if rows else []), *(Text(sentence) for sentence in known.contradictions(manifest))]


def blocks(found: Composition, *, wanted: Sequence[str] = ()) -> list[Block]:
    """Composition and coverage."""
    made: list[Block] = [Grid(tables=(splits_table(found), *label_tables(found, wanted)))]
    tables = [field_table(found, field) for field in found.fields() if found.recorded(field)]
    if tables:
        made.append(Grid(tables=tuple(tables)) if len(found.names) == 1 else tables[0])
        made += tables[1:] if len(found.names) > 1 else []
    unknown = unknown_fields(found)
    if unknown:
        made.append(Text(f'Not recorded for anybody: {joined(known.name_of(field).lower() for field in unknown)}.', 'absent'))
    return [*made, *coverage_blocks(found)]


def coverage_blocks(found: Composition) -> list[Block]:
    """The map, what is absent, and heat tables."""
    made: list[Block] = []
    picture = coverage.world(found)
    if picture:
        made.append(Pictures(items=(picture,), size='wide'))
    elif not found.recorded('country'):
        made.append(Text('There is no map: the country of nobody is recorded, so who is absent cannot be shown.', 'absent'))
    made.append(coverage.gap_table(found))
    odd = coverage.unnamed_countries(found)
    if odd:
        made.append(Text(f'Written as a country, and none that is known: {joined(map(nice, odd[:_SHOWN]))}.', 'absent'))
    tables, left = coverage.heat_tables(found)
    made += tables
    if left:
        named = '; '.join(' and '.join(known.name_of(field).lower() for field in pair) for pair in left)
        made.append(Text(f'Not shown, since most of their cells hold too few patients: {named}.', 'quiet'))
    return made


def unknown_fields(found: Composition) -> list[str]:
    """Fields that no dataset records for anybody."""
    return [field for field in census.FIELDS if not found.recorded(field)]


def splits_table(found: Composition) -> Table:
    """Patients and images in each split, or in each dataset where there are several."""
    note = 'Splits are made by patient: nobody is in two of them. Patients joined by a shared picture stay together.'
    if len(found.names) == 1:
        each = [(split, found.count(place=0, split=split)) for split in found.splits[0]]
        head, caption = ('Split', 'Patients', 'Images'), 'Patients and images in each split'
    else:
        each = [(name, found.count(place=place)) for place, name in enumerate(found.names)]
        head, caption = ('Dataset', 'Patients', 'Images', 'Share of draws'), 'Patients and images in each dataset'
        note = _weights_note(found)
    rows = []
    for place, (name, one) in enumerate([*each, ('all', found.count())]):
        share = () if len(head) == 3 else (Cell(percent(found.weights[place], 1) if place < len(found.names) else '100\u202f%'),)
        rows.append((Cell(nice(name)), number(one.patients, one), number(one.images, one), *share))
    return Table(caption=caption, head=head, rows=tuple(rows), note=note)


def _weights_note(found: Composition) -> str:
    how = 'as given with --weights' if found.weighted else 'by the number of images, as no --weights were given'
    return f'Share of draws: how often an image of the dataset is drawn, {how}. A person in two datasets is counted twice.'


def by_split_table(found: Composition) -> Table | None:
    """Patients of every value in each split of a single dataset, so that a split without some group is seen; None without an index."""
    if len(found.names) > 1 or not found.from_index[0] or len(found.splits[0]) < 2:
        return None
    rows = []
    for field in (one for one in found.fields() if found.recorded(one) and one != 'laterality'):
        for value in _bounded(found.values(field))[0]:
            each = [found.count(value, fields=(field,), place=0, split=split) for split in found.splits[0]]
            quiet = value in NOT_A_GROUP
            name = Cell(f'{known.name_of(field)}: {nice(value)}', quiet=quiet)
            rows.append((name, *(number(one.patients, one, quiet=quiet) for one in each)))
    return Table(caption='Patients by split', head=('', *map(nice, found.splits[0])), rows=tuple(rows)) if rows else None


def label_tables(found: Composition, wanted: Sequence[str] = ()) -> tuple[Table, ...]:
    """Classes of the labels asked for, or of the first few."""
    every = found.fields(labels=True)
    asked = [label for label in every if label.removeprefix(LABEL) in wanted] or every[:_LABELS]
    tables = [field_table(found, label) for label in asked]
    return tuple(tables) if len(found.names) == 1 else ()


def field_table(found: Composition, field: str) -> Table:
    """A field's values: of a single dataset by split, of several by dataset, with the share of draws."""
    values = found.values(field)
    shown, rest = _bounded(values)
    rows = [_row(found, field, value) for value in shown]
    names = known.name_of(field)
    heading = 'Age [years]' if field == AGE else names
    schemes = joined(_schemes(found)) if field == 'ethnicity' else ''
    notes = (
        f'{rest} more in composition.csv' if rest else '',
        'a patient with images of two values counts in both' if _twice(found, field) else '',
        f'classified by {schemes}' if schemes else '',
    )
    note = '; '.join(filter(None, notes))
    head = ('Class' if field.startswith(LABEL) else heading, *_columns(found))
    return Table(caption=heading, head=head, rows=tuple(rows), note=f'{note[:1].upper() + note[1:]}.' if note else '')


def _twice(found: Composition, field: str) -> bool:
    """Whether the patients of the values are more than there are."""
    return sum(found.count(value, fields=(field,)).patients or 0 for value in found.values(field)) > (found.count().patients or 0)


def _schemes(found: Composition) -> list[str]:
    return list(dict.fromkeys(filter(None, map(known.scheme, found.manifests))))


def _bounded(values: Sequence[str]) -> tuple[list[str], int]:
    """The values that are shown, what is no group always among them, and how many more there are."""
    groups = [value for value in values if value not in NOT_A_GROUP]
    kept = groups if len(groups) <= _SHOWN else groups[:_SHOWN]
    return [*kept, *(value for value in values if value in NOT_A_GROUP)], len(groups) - len(kept)


def _columns(found: Composition) -> tuple[str, ...]:
    if len(found.names) == 1:
        return ('Patients', 'Images', 'Share')
    return (*(nice(name) for name in found.names[:_IN_A_ROW]), 'All patients', 'Share of draws')


def _row(found: Composition, field: str, value: str) -> tuple[Cell, ...]:
    one, everybody = found.count(value, fields=(field,)), found.count()
    quiet = value in NOT_A_GROUP
    name = Cell({MISSING: 'missing', DECLINED: 'declined to say'}.get(value, nice(value)), quiet=quiet)
    if len(found.names) == 1:
        share = percent(one.images, everybody.images) if one.images is not None and everybody.images else NONE
        return name, number(one.patients, one, quiet=quiet), number(one.images, one, quiet=quiet), Cell(share, quiet=quiet)
    each = [found.count(value, fields=(field,), place=place) for place in range(min(len(found.names), _IN_A_ROW))]
    share = percent(one.share, 1) if one.share is not None else NONE
    silent = [not quiet and field in found.unknown[place] for place in range(len(each))]
    shown = [number(cell.patients, cell, quiet=quiet) for cell in each]
    cells = (Cell('not recorded', quiet=True) if skip else cell for cell, skip in zip(shown, silent, strict=True))
    return name, *cells, number(one.patients, one, quiet=quiet), Cell(share, quiet=quiet)


def number(value: int | None, one: Count, *, quiet: bool = False) -> Cell:
    """A count, `nobody`, `withheld`, or a dash where it was not counted."""
    if one.hidden:
        return Cell('withheld', quiet=True)
    if one.nobody:
        return Cell('0' if quiet else 'nobody', quiet=True)
    return Cell(count(value), quiet=quiet)


def withheld_note() -> str:
    """What `withheld` means."""
    return f'{WITHHELD[:1].upper() + WITHHELD[1:]}. Fewer than {FLOOR} people in a group could be recognised.'


def reasons(manifest: Mapping[str, Any]) -> tuple[Table, ...]:
    reasons = (manifest.get('rejects') or {}).get('reasons') or {}
    if not isinstance(reasons, Mapping) or not reasons:
        return ()
    rows = tuple((Cell(reason), Cell(count(n))) for reason, n in sorted(reasons.items(), key=lambda item: (-item[1], item[0])))
    return (Table(caption='Why files were rejected', head=('Reason', 'Files'), rows=rows),)


