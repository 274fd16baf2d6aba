"""Who is in a table: the demographic fields, what their cells may say, and what became of each cell.

FIELDS lists them with their meaning. In every text field '' is missing (nobody asked, or nobody wrote it down) and `declined` is declined
(the person was asked and did not say); the two are never mixed. An age is NaN in both cases, and `age_word` is `declined` in the second.

    age            years. Read as numbers, numbers with a unit (61 years, 61岁), DICOM age strings (061Y), ranges no wider than 10 years
                   (60-70, 60–70, 60 to 70: the middle), and 90+ or >89 (90, as ages above 89 are written where nobody is to be known by
                   them). Missing: below 0, above 120, wider or open ranges, words. 0 and 1 are placeholders, and missing, where the
                   table has an adult and nobody from 2 to 9; with --min_age the person who ingests decides instead, and 0 believes all.
    sex            F, M or another word as it was given. Words of some twenty languages; ISO/IEC 5218 (0 not known, 1 male, 2 female,
                   9 not applicable) where there is a 2. Codes of 0 and 1 alone, and H and M without F, are refused until --sex_codes says.
    ethnicity      with --ethnicity_scheme the categories of that classification (see `ingest.ethnicity`), and `not in scheme` for a word
                   that names none. Without one each word is kept in its most frequent spelling; more than 64 of them are refused.
    country        the English name of a country of ISO 3166-1, from its name or its code of two or three letters; other words are kept. NA
                   is Namibia where the column's other cells are codes of two letters, and missing where they are not.
    diabetes_type  `type 1`, `type 2`, `gestational`, `none`, `other`; other words are kept in their most frequent spelling.
    site, camera, source   as given.

Sex, ethnicity, country and type of diabetes belong to the patient: where rows of one patient differ, the field is missing in all of them,
and so is the age where it differs by more than 20 years. What is missing or declined contradicts nothing, nor does a broad group
contradict a category in it. Rows without a patient are persons of their own. Site, camera and source may differ between photographs.
What the headers of files say fills what the table leaves open, and nothing that it contradicts or that was declined; headers are not held
against each other.

The manifest's key `demographics`:

    schema            1
    ethnicity_scheme  the classification, '' where none was named
    sex_codes         as --sex_codes gave them
    rows              of the table that have a file
    fields            of each field that has a column: how many of its cells are `as_given`, `changed`, `kept` (a word of no list), `empty`,
                      `missing` (a word that says so), `declined`, `not_understood`, `contradicted`; they add up to `rows`
    changes           [{field, from, to, reason, cells, patients}], of each field the most frequent first: every cell whose text is not
                      what is stored of it, but for empty ones. Words that were not understood are named by their number alone, since free
                      text may name a person; `retfound ingest` shows them to who runs it
    contradictions    field to patients whose rows differ
    header_ages       pictures whose file's header had an age below 0 or above 120, which is missing
    header_sexes      pictures whose file's header had another word for F, M, other or missing

A dataset that was made without a table has no fields here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from retfound_jax.core import countries
from retfound_jax.core.demographics import DECLINED, MISSING, NOT_IN_SCHEME
from retfound_jax.ingest import ages, ethnicity, sexes
from retfound_jax.ingest.vocabulary import (
    CONTRADICTED,
    KINDS,
    TYPES_OF_DIABETES,
    Read,
    fold,
    nothing,
    one_spelling,
    stored,
    trimmed,
)

SCHEMA = 1
APART = 20  # [years] between ages of one patient beyond which they are of two people
LONGEST = 64  # [characters] of a word that are told
_MOST_CHANGES = 50  # of a field that are listed one by one


@dataclass(frozen=True, kw_only=True)
class Field:
    """One demographic field."""

    name: str
    meaning: str
    words: str  # its unit, or the words it may hold
    level: Literal['patient', 'image']  # whose it is


FIELDS = (
    Field(name='age', meaning='age when the photograph was taken', words='years, 0 to 120', level='patient'),
    Field(name='sex', meaning='sex as recorded, by the person or the clinic', words='F, M, other words as given', level='patient'),
    Field(name='ethnicity', meaning='ethnic group in the words of a classification', words='categories of the scheme', level='patient'),
    Field(name='country', meaning='country where the person was seen', words='English name, ISO 3166-1', level='patient'),
    Field(name='diabetes_type', meaning='type of diabetes', words='type 1, type 2, gestational, none, other', level='patient'),
    Field(name='site', meaning='hospital, clinic or centre', words='as given', level='image'),
    Field(name='camera', meaning='make and model of the camera', words='as given', level='image'),
    Field(name='source', meaning='collection or programme the photograph comes from', words='as given', level='image'),
)
NAMES = tuple(one.name for one in FIELDS)
_OF_PATIENT = tuple(one.name for one in FIELDS if one.level == 'patient')


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the person who ingests says of the table."""

    sex_codes: tuple[tuple[str, str], ...] = ()  # cell to F, M, another word, missing, declined
    ethnicity_scheme: str = ''
    placeholders: bool = True  # ages of 0 and 1 may stand for unknown


@dataclass(frozen=True, kw_only=True)
class Change:
    """Cells of one field that became the same in the same way."""

    field: str
    said: str
    to: str
    reason: str
    cells: int
    patients: int
    free: bool  # said is free text

    def to_json(self, *, said: str = '') -> dict[str, Any]:
        """As the manifest lists it."""
        ends = {'from': said or self.said[:LONGEST], 'to': self.to[:LONGEST]}
        return {'field': self.field, **ends, 'reason': self.reason, 'cells': self.cells, 'patients': self.patients}


@dataclass(frozen=True, kw_only=True)
class Account:
    """What became of every cell of the demographic columns."""

    options: Options = Options()
    rows: int = 0
    fields: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # field to kind to cells
    changes: tuple[Change, ...] = ()
    contradictions: Mapping[str, int] = field(default_factory=dict)  # field to patients

    def to_json(self) -> dict[str, Any]:
        """As the manifest has it, free text left out."""
        listed = [one for name in NAMES for one in _listed([change for change in self.changes if change.field == name])]
        return {
            'schema': SCHEMA, 'ethnicity_scheme': ethnicity.title(self.options.ethnicity_scheme), 'sex_codes': dict(self.options.sex_codes),
            'rows': self.rows, 'fields': {name: dict(counts) for name, counts in self.fields.items()}, 'changes': listed,
            'contradictions': dict(self.contradictions),
        }


def normalise(
    cells: Mapping[str, Sequence[str]], *, patients: Sequence[str], number: Callable[[str], float | None], columns: Mapping[str, str],
    options: Options,
) -> tuple[dict[str, list[Read]], Account]:
    """What each cell says, and the account of it.

    cells: of each field that has a column, one a row. patients: of each row, '' where nobody says. number: reads a cell as one.
    columns: the name of each field's column, for errors.

    Raises:
      UsageError: a column needs to be explained (`--sex_codes`, `--ethnicity_scheme`).
    """
    reads: dict[str, list[Read]] = {}
    contradictions = {}
    for name in (name for name in NAMES if name in cells):
        found = _column(name, Counter(cells[name]), number=number, column=columns.get(name, name), options=options)
        column = [found[cell] for cell in cells[name]]
        if name in _OF_PATIENT:
            torn = _torn(name, column, patients, scheme=options.ethnicity_scheme)
            column = _without(column, patients, torn)
            contradictions |= {name: len(torn)} if torn else {}
        reads[name] = column
    fields = {name: {kind: 0 for kind in KINDS} | Counter(one.kind for one in column) for name, column in reads.items()}
    changes = tuple(one for name, column in reads.items() for one in _changes(name, column, patients))
    account = Account(options=options, rows=len(patients), fields=fields, changes=changes, contradictions=contradictions)
    return reads, account


def _column(
    name: str, cells: Counter[str], *, number: Callable[[str], float | None], column: str, options: Options
) -> dict[str, Read]:
    """What each different cell of one column says."""
    if name == 'age':
        return ages.read(cells, number=number, placeholders=options.placeholders)
    if name == 'sex':
        return sexes.read(cells, codes=dict(options.sex_codes), column=column)
    if name == 'ethnicity':
        return ethnicity.read(cells, scheme=options.ethnicity_scheme, column=column)
    if name == 'country':
        return _countries(cells)
    if name == 'diabetes_type':
        return _diabetes(cells)
    return {cell: nothing(cell) or stored(cell, trimmed(cell)) for cell in cells}


def _countries(cells: Counter[str]) -> dict[str, Read]:
    na = frozenset({'na'} if _two_letters(cells) else ())
    found = {cell: nothing(cell, not_missing=na) for cell in cells}
    spelling = one_spelling(Counter({cell: count for cell, count in cells.items() if found[cell] is None}))
    return {cell: one or _country(cell, spelling[cell]) for cell, one in found.items()}


def _country(cell: str, spelling: str) -> Read:
    country = countries.find(cell)
    if country is None:
        return stored(cell, spelling, reason='one spelling', kept=True)
    return stored(cell, country.name, reason='as ISO 3166 names it')


def _two_letters(cells: Counter[str]) -> bool:
    """Whether the countries are written as codes of two letters, so that NA is one of them."""
    others = [cell for cell in cells if fold(cell) != 'na' and nothing(cell) is None]
    return bool(others) and all(len(cell) == 2 and countries.find(cell) is not None for cell in others)


def _diabetes(cells: Counter[str]) -> dict[str, Read]:
    found = {cell: nothing(cell, not_missing=('none',)) for cell in cells}
    spelling = one_spelling(Counter({cell: count for cell, count in cells.items() if found[cell] is None}))
    return {cell: one or _diabetes_type(cell, spelling[cell]) for cell, one in found.items()}


def _diabetes_type(cell: str, spelling: str) -> Read:
    code = cell.removesuffix('.0')
    known = TYPES_OF_DIABETES.get(fold(code))
    return stored(cell, known or spelling, reason='' if known else 'one spelling', kept=not known)


def _torn(name: str, column: Sequence[Read], patients: Sequence[str], *, scheme: str) -> frozenset[str]:
    """Patients whose rows contradict each other."""
    first: dict[str, str | float] = {}
    more: dict[str, set[str | float]] = {}  # of patients with more than one value
    for one, patient in zip(column, patients, strict=True):
        if patient and _says(one) and first.setdefault(patient, one.value) != one.value:
            more.setdefault(patient, {first[patient]}).add(one.value)
    if name == 'age':
        return frozenset(patient for patient, values in more.items() if max(values) - min(values) > APART)
    if name == 'ethnicity':
        return frozenset(patient for patient, values in more.items() if not ethnicity.agree(scheme, frozenset(values)))
    return frozenset(more)


def _says(one: Read) -> bool:
    return one.value == one.value and one.value not in ('', DECLINED, NOT_IN_SCHEME)


def _without(column: Sequence[Read], patients: Sequence[str], torn: Collection[str]) -> list[Read]:
    if not torn:
        return list(column)
    return [_contradicted(one) if patient in torn and _says(one) else one for one, patient in zip(column, patients, strict=True)]


def _contradicted(one: Read) -> Read:
    value = '' if isinstance(one.value, str) else math.nan
    return Read(value=value, kind=CONTRADICTED, said='rows that differ', to=MISSING, reason='rows of one patient contradict each other')


def _changes(name: str, column: Sequence[Read], patients: Sequence[str]) -> list[Change]:
    """The changes of one field, the most frequent first."""
    cells: Counter[tuple[str, str, str, bool]] = Counter()
    people: dict[tuple[str, str, str, bool], set[str]] = {}
    alone: Counter[tuple[str, str, str, bool]] = Counter()  # rows without a patient
    for one, patient in zip(column, patients, strict=True):
        if one.said:
            key = (one.said, one.to, one.reason, one.free)
            cells[key] += 1
            if patient:
                people.setdefault(key, set()).add(patient)
            else:
                alone[key] += 1
    found = [Change(field=name, said=said, to=to, reason=reason, cells=count, free=free,
                    patients=len(people.get((said, to, reason, free), ())) + alone[said, to, reason, free])
             for (said, to, reason, free), count in cells.items()]
    return sorted(found, key=lambda one: (-one.cells, one.said, one.to, one.reason))


def _listed(changes: Sequence[Change]) -> list[dict[str, Any]]:
    """The changes of one field as the manifest lists them: free text, and what is beyond fifty, is summed."""
    named = [one for one in changes if not one.free]
    listed = [one.to_json() for one in named[:_MOST_CHANGES]]
    for said, rest in (('other words', named[_MOST_CHANGES:]), ('words of no list', [one for one in changes if one.free])):
        by_end: dict[tuple[str, str], list[Change]] = {}
        for one in rest:
            by_end.setdefault((one.to, one.reason), []).append(one)
        listed += [_summed(group, said=said) for group in by_end.values()]
    return listed


def _summed(group: Sequence[Change], *, said: str) -> dict[str, Any]:
    # A patient with two such words is counted with each: the sets are gone, and the cells are exact.
    whole = replace(group[0], cells=sum(one.cells for one in group), patients=sum(one.patients for one in group))
    return whole.to_json(said=f'{len(group)} {said}' if len(group) > 1 else f'1 of the {said}')
