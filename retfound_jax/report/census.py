"""Counts of patients and images by what is known of them, from a dataset's index, or from its manifest where there is no index.

These are raw counts: `composition` withholds what may not be shown, and nothing else prints them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as member
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from retfound_jax.core.countries import find
from retfound_jax.core.demographics import DECLINED, MISSING
from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.core.files import read_json
from retfound_jax.report.tables import checked
from retfound_jax.report.words import clean

AGE = 'age'
FIELDS = ('age', 'sex', 'ethnicity', 'country', 'site', 'camera', 'diabetes_type', 'source', 'laterality')
OF_IMAGES = frozenset({'site', 'camera', 'laterality', 'source'})  # may differ within a patient, who then counts in each value
LABEL = 'label:'
PAIRS = (('age', 'sex'), ('ethnicity', 'country'), ('ethnicity', 'site'), ('age', 'ethnicity'), ('sex', 'ethnicity'), ('sex', 'site'))
BANDS = ('0-17', '18-29', '30-39', '40-49', '50-59', '60-69', '70-79', '80+')
_EDGES = (18, 30, 40, 50, 60, 70, 80)  # [years]
_MOST_VALUES = {'country': 260, AGE: len(BANDS)}
_VALUES = 24  # of any other field, the most frequent; the rest is one row
_AGE_WORD = 'age_word'  # the column that tells an age that was declined from one that is missing
_EYES = 2  # images of a patient, where only images are counted
_LONGEST = 60  # [characters] of a value
Values = tuple[str, ...]


@dataclass(kw_only=True)
class Census:
    """Raw counts of one dataset. A split is its name, or '' for all of them; fields are one, two, or none for everybody."""

    name: str
    manifest: Mapping[str, Any]
    from_index: bool
    images: dict[tuple[str, Values, Values], int] = member(default_factory=dict)  # (split, fields, values) to count
    patients: dict[tuple[str, Values, Values], int] = member(default_factory=dict)
    unknown: tuple[str, ...] = ()  # fields that the dataset does not record at all, or records for nobody
    guessed: frozenset[str] = frozenset()  # fields whose patients are not counted but taken as one for two images

    @property
    def splits(self) -> tuple[str, ...]:
        """In the order train, val, test, then the others."""
        known = ('train', 'val', 'test')
        return tuple(sorted(self.manifest['splits'], key=lambda name: (known.index(name) if name in known else len(known), name)))


def read(folder: Path | str, *, name: str = '') -> Census:
    """The census of a dataset directory.

    Raises:
      UsageError: it is no dataset.
      UserError: its manifest or its index is damaged.
    """
    folder = Path(folder)
    if not (folder / 'manifest.json').is_file():
        raise UsageError(f'{folder} is not a dataset (it has no manifest.json); give the --out of `retfound ingest`')
    manifest = checked_manifest(read_json(folder / 'manifest.json'), where=str(folder / 'manifest.json'))
    return of_dataset(manifest, index=folder / 'index.parquet', name=name or folder.resolve().name)


def checked_manifest(found: Any, *, where: str) -> Mapping[str, Any]:
    """The manifest, if it has what is read here.

    Raises:
      UserError: it has not.
    """
    splits = found.get('splits') if isinstance(found, dict) else None
    if not isinstance(splits, dict) or not all(isinstance(split, dict) for split in splits.values()):
        raise UserError(f'{where} is damaged or of another version (it names no splits); run `retfound ingest` again')
    return found


def of_dataset(manifest: Mapping[str, Any], *, index: Path | None, name: str) -> Census:
    """From the index where there is one; the manifest alone has no counts by split, no intersections, and no patients of a label.

    Raises:
      UserError: the index is damaged, or the manifest not of a shape that is known.
    """
    where = index.parent / 'manifest.json' if index is not None else Path('manifest.json')
    if index is not None and index.is_file():
        return checked(where, lambda: _from_index(manifest, index, name), hint='run `retfound ingest` again')
    return checked(where, lambda: _from_manifest(manifest, name), hint='run `retfound ingest` again')


def _from_index(manifest: Mapping[str, Any], path: Path, name: str) -> Census:
    try:
        present = pq.read_schema(path).names
        labels = [f'{LABEL}{label}' for label, about in (manifest.get('labels') or {}).items() if about.get('classes')]
        wanted = [column for column in ('split', 'patient', _AGE_WORD, *FIELDS, *labels) if column in present]
        if not {'split', 'patient'} <= set(wanted):
            raise UserError(f'{path} has no columns split and patient, so it counts nobody; run `retfound ingest` again')
        table = pq.read_table(path, columns=wanted)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f'{path} is not a readable parquet file ({error}); run `retfound ingest` again') from error
    census = Census(name=name, manifest=manifest, from_index=True)
    columns = {field: _words(table, field, manifest) for field in wanted if field not in ('split', 'patient', _AGE_WORD)}
    table = pa.table({'split': table['split'], 'patient': table['patient'], **columns})
    for split in table['split'].unique().to_pylist():
        _count_split(census, table.filter(pc.equal(table['split'], split)), split, [(field,) for field in columns])
    _count_split(census, table, '', [(field,) for field in columns])
    census.unknown = _unknown(census)
    _count_split(census, table, '', [pair for pair in PAIRS if not set(pair) & set(census.unknown)])
    return census


def _count_split(census: Census, table: pa.Table, split: str, of: Sequence[Values]) -> None:
    fields = sorted({name for names in of for name in names})
    ones = table.group_by(['patient'], use_threads=False).aggregate([(field, 'first') for field in fields])
    persons = pa.table({'patient': ones['patient'], **{field: ones[f'{field}_first'] for field in fields}})
    census.images[split, (), ()], census.patients[split, (), ()] = table.num_rows, persons.num_rows
    for names in of:
        several = any(name in OF_IMAGES or name.startswith(LABEL) for name in names)
        for values, images, patients in _groups(table, names):
            census.images[split, names, values] = images
            census.patients[split, names, values] = patients if several else 0
        if not several:
            for values, people, _ in _groups(persons, names):
                census.patients[split, names, values] = people


def _groups(table: pa.Table, names: Values) -> Iterable[tuple[Values, int, int]]:
    """Values, rows, and different patients of each group."""
    found = table.group_by(list(names)).aggregate([('patient', 'count'), ('patient', 'count_distinct')])
    values = zip(*(found[name].to_pylist() for name in names), strict=True)
    return zip(values, found['patient_count'].to_pylist(), found['patient_count_distinct'].to_pylist(), strict=True)


def _words(table: pa.Table, field: str, manifest: Mapping[str, Any]) -> pa.Array:
    """A column as words, the rare values of a long one in one."""
    if field == AGE:
        years = table[field].to_numpy().astype(float)
        bands = np.asarray(BANDS, dtype=object)[np.digitize(years, _EDGES)]
        said = table[_AGE_WORD].to_numpy(zero_copy_only=False) if _AGE_WORD in table.column_names else np.full(len(years), '')
        return pa.array(np.where(~np.isnan(years), bands, np.where(said == DECLINED, DECLINED, MISSING)).astype(str))
    if field.startswith(LABEL):
        classes = [*manifest['labels'][field[len(LABEL) :]]['classes'], MISSING]
        places = table[field].to_numpy().astype(float)
        return pa.array(np.asarray(list(map(clean, classes)))[np.where(np.isnan(places), len(classes) - 1, places).astype(int)])
    coded = pc.dictionary_encode(pc.fill_null(table[field].cast(pa.string()), '')).combine_chunks()
    names = [_named(field, value) for value in coded.dictionary.to_pylist()]
    codes = coded.indices.to_numpy()
    totals: Counter[str] = Counter()
    for code, images in zip(*np.unique(codes, return_counts=True), strict=True):
        totals[names[code]] += int(images)
    kept = _kept(totals, most=_MOST_VALUES.get(field, _VALUES))
    return pa.array(np.asarray([kept[name] for name in names])[codes])


def _named(field: str, value: str) -> str:
    """A value as it is printed; a country by its name, whatever word stood for it."""
    if value in ('', MISSING, DECLINED):
        return value or MISSING
    country = find(value) if field == 'country' else None
    return country.name if country else clean(value)[:_LONGEST]


def _kept(totals: Mapping[str, int], *, most: int) -> dict[str, str]:
    """Value to the row it is counted in: its own, or that of the rare ones."""
    groups = sorted((name for name in totals if name not in (MISSING, DECLINED)), key=lambda name: (-totals[name], name))
    rest = groups[most - 1 :] if len(groups) > most else []
    return {name: name for name in totals} | dict.fromkeys(rest, f'{len(rest)} other values')


def _unknown(census: Census) -> tuple[str, ...]:
    said = {fields[0] for (_, fields, values), images in census.images.items() if len(fields) == 1 and images and values[0] != MISSING}
    return tuple(name for name in FIELDS if name not in said)


def _from_manifest(manifest: Mapping[str, Any], name: str) -> Census:
    census = Census(name=name, manifest=manifest, from_index=False)
    for split, about in manifest['splits'].items():
        census.images[split, (), ()], census.patients[split, (), ()] = int(about.get('images') or 0), int(about.get('patients') or 0)
    for counts in (census.images, census.patients):
        counts['', (), ()] = sum(counts[split, (), ()] for split in manifest['splits'])
    images, patients = manifest.get('summary') or {}, manifest.get('summary_patients') or {}
    for column in FIELDS:
        of_images = _summary(column, images.get(column))
        of_patients = _summary(column, patients.get(column)) if column not in OF_IMAGES else {}
        if of_images and not of_patients:
            of_patients = {value: _guess(count) for value, count in of_images.items()}
            census.guessed |= {column}
        for value in {**of_images, **of_patients}:
            census.images['', (column,), (value,)] = of_images.get(value, 0)
            census.patients['', (column,), (value,)] = of_patients.get(value, 0)
    _labels_of_manifest(census)
    census.unknown = _unknown(census)
    return census


def _labels_of_manifest(census: Census) -> None:
    for label, about in (census.manifest.get('labels') or {}).items():
        counted = {split: (one.get('labels') or {}).get(label) for split, one in census.manifest['splits'].items()}
        if not about.get('classes') or not all(isinstance(one, Mapping) for one in counted.values()):
            continue
        for split, one in counted.items():
            for value, images in one.items():
                for place in (split, ''):
                    key = (place, (LABEL + label,), (clean(value),))
                    census.images[key] = census.images.get(key, 0) + int(images)
                    census.patients[key] = _guess(census.images[key])
        census.guessed |= {LABEL + label}


def _summary(column: str, found: Any) -> dict[str, int]:
    """Value to count of one column of a summary."""
    if not isinstance(found, Mapping):
        return {}
    if 'bands' in found:
        found = {**found['bands'], MISSING: found.get('missing') or 0, DECLINED: found.get('declined') or 0}
    totals: Counter[str] = Counter()
    for value, count in found.items():
        totals[_named(column, str(value))] += int(count)
    kept = _kept(totals, most=_MOST_VALUES.get(column, _VALUES))
    counts: Counter[str] = Counter()
    for value, count in totals.items():
        if count or re.match(r'\d', value) or value == MISSING:  # an empty band is said to be empty
            counts[kept[value]] += count
    return dict(counts)


def _guess(images: int) -> int:
    return -(-images // _EYES)
