"""Which column of the labels plays which role, and what its cells mean."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence

from retfound_jax.core.errors import UsageError, UserError, nearest
from retfound_jax.ingest.labels import Table, is_missing, refuse

# Role to the names by which it is recognised, compared without case, blanks, dashes and underscores; the first one found wins.
ROLES: dict[str, tuple[str, ...]] = {
    'key': ('image', 'imageid', 'imagename', 'imagefile', 'filename', 'file', 'filepath', 'imagepath', 'path', 'key', 'idcode'),
    'patient': ('patientid', 'patient', 'subjectid', 'subject', 'participantid', 'participant'),
    'laterality': ('laterality', 'eye', 'eyeside', 'imagelaterality'),
    'sex': ('sex', 'gender', 'patientsex'),
    'age': ('age', 'patientage', 'ageyears'),
    'ethnicity': ('ethnicity', 'race', 'ethnicgroup'),
    'country': ('country',),
    'site': ('site', 'siteid', 'center', 'centre', 'hospital', 'clinic', 'institution'),
    'camera': ('camera', 'cameramodel', 'device', 'manufacturer'),
    'diabetes_type': ('diabetestype', 'typeofdiabetes', 'dmtype', 'diabetictype'),
    'source': ('source', 'datasource', 'imagesource', 'cohort'),
    'modality': ('modality',),
}
_LATERALITY = {'l': 'L', 'left': 'L', 'os': 'L', 'le': 'L', 'r': 'R', 'right': 'R', 'od': 'R', 're': 'R'}
_SEX = {'f': 'F', 'female': 'F', 'woman': 'F', 'm': 'M', 'male': 'M', 'man': 'M'}
# A DICOM age string (PS3.5, VR AS), which exports of headers write as it is.
_AGE = re.compile(r'(\d{3})([YMWD])', re.ASCII)
_YEARS = {'Y': 1.0, 'M': 1 / 12, 'W': 7 / 365.25, 'D': 1 / 365.25}
_MOST_CLASSES = 64  # integers with more distinct values are a number, not classes
_MOST_WORDS = 1000  # a column of more distinct texts is free text and no label, unless asked for by name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Label:
    """One label column. Classes are None for a number; a class is delivered as its index into them."""

    name: str
    kind: str  # class, number
    classes: tuple[str, ...] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
    """The table's columns by what they are used for."""

    roles: Mapping[str, str]  # role to column
    labels: tuple[Label, ...]
    passed_over: Mapping[str, str]  # column to the reason why it is no label


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """What a row says about the image and its patient; '' and NaN where it says nothing."""

    patient: str = ''
    laterality: str = ''
    sex: str = ''
    age: float = math.nan
    ethnicity: str = ''
    country: str = ''
    site: str = ''
    camera: str = ''
    diabetes_type: str = ''
    source: str = ''
    age_word: str = ''  # 'declined' where the person did not say
    modality: str = ''


def assign(
    table: Table, *, given: Mapping[str, str], labels: Sequence[str] = (), reserved: Sequence[str] = (),
    classes: Mapping[str, Sequence[str]] | None = None,
) -> Columns:
    """Maps columns to roles and labels.

    given: role to column, over what is recognised by name; an empty column name leaves the role empty. labels: columns to take
    as labels, or all that have no role. reserved: columns used elsewhere. classes: of a label, in the order of their numbers, none
    for a number; of one that is not named they are those that occur, sorted.

    Raises:
      UsageError: a role or a column does not exist, the key is not known, or a label holds nothing.
      UserError: a cell is none of the classes that were given.
    """
    for role, column in given.items():
        if role not in ROLES:
            raise UsageError(f'"{role}" is not a role of a column{nearest(role, ROLES) or "; the roles are " + ", ".join(ROLES)}')
        _require(table, column, what=f'the {role} column')
    roles = {**_recognised(table, without={*given.values(), *reserved}), **given}
    roles = {role: roles[role] for role in ROLES if roles.get(role)}
    if 'key' not in roles:
        raise UsageError(f'no column of {table.name} is known to name the image; pass --key with one of {", ".join(table.columns)}')
    for name in (*labels, *reserved):
        _require(table, name, what='the label column' if name in labels else 'the column')
    asked = labels or [name for name in table.columns if name not in {*roles.values(), *reserved}]
    found, passed_over = [], {}
    for name in dict.fromkeys(asked):
        label, reason = _label(table, name, given=(classes or {}).get(name))
        if reason and (not label or not labels):
            passed_over[name] = reason
        elif label:
            found.append(label)
    if labels and passed_over:
        raise UserError(f'the label column "{next(iter(passed_over))}" of {table.name} holds no value')
    return Columns(roles=roles, labels=tuple(found), passed_over=passed_over)


def label_values(table: Table, label: Label) -> list[float]:
    """The column as numbers: the class index or the number itself, NaN where missing."""
    places = {word: float(place) for place, word in enumerate(label.classes or ())}
    values = []
    for cell in table.column(label.name):
        number = table.number(cell)
        if is_missing(cell):
            values.append(math.nan)
        elif label.classes is None:
            values.append(math.nan if number is None else number)
        else:
            values.append(places[cell] if cell in places else places[str(int(number or 0))])
    return values


def people(table: Table, columns: Columns) -> tuple[list[Person], dict[str, int]]:
    """A `Person` for each row, and how many cells of a role were filled and not understood (age, laterality)."""
    cells = {role: table.column(column) for role, column in columns.roles.items() if role != 'key'}
    odd = {'age': 0, 'laterality': 0}
    found = []
    for place in range(len(table.rows)):
        words = {role: '' if _no_text(column[place]) else column[place] for role, column in cells.items()}
        values: dict[str, str | float] = {**words}
        if 'age' in words:
            age = _age(table, words['age'])
            odd['age'] += int(age is None and not is_missing(words['age']))
            values['age'] = math.nan if age is None else age
        if 'laterality' in words:
            values['laterality'] = _LATERALITY.get(words['laterality'].casefold(), '')
            odd['laterality'] += int(not values['laterality'] and not is_missing(words['laterality']))
        if 'sex' in words:
            values['sex'] = _SEX.get(words['sex'].casefold(), words['sex'])
        found.append(Person(**values))
    return found, odd


def _age(table: Table, cell: str) -> float | None:
    match = _AGE.fullmatch(cell)
    return int(match[1]) * _YEARS[match[2]] if match else table.number(cell)


def _no_text(cell: str) -> bool:
    # 'NA' is a country code and initials: only a number or a label can be missing by that word.
    return is_missing(cell) and cell.casefold() != 'na'


def _plain(name: str) -> str:
    return ''.join(letter for letter in name.casefold() if letter not in ' -_')


def _recognised(table: Table, *, without: set[str]) -> dict[str, str]:
    by_name: dict[str, str] = {}
    for column in table.columns:
        if column not in without:
            by_name.setdefault(_plain(column), column)
    return {role: next((by_name[name] for name in names if name in by_name), '') for role, names in ROLES.items()}


def _require(table: Table, column: str, *, what: str) -> None:
    if column and column not in table.columns:
        near = nearest(column, table.columns) or f'; it has {", ".join(table.columns)}'
        raise UsageError(f'{what} "{column}" is not in {table.name}{near}')


def _label(table: Table, name: str, *, given: Sequence[str] | None = None) -> tuple[Label | None, str]:
    cells = {cell for cell in table.column(name) if not is_missing(cell)}
    if not cells:
        return None, 'it is empty'
    if given is not None:
        return _given(table, name, classes=tuple(given)), ''
    numbers = [number for number in map(table.number, cells) if number is not None]
    if len(numbers) < len(cells):
        reason = f'it holds {len(cells)} different texts' if len(cells) > _MOST_WORDS else ''
        return Label(name=name, kind='class', classes=tuple(sorted(cells))), reason
    distinct = sorted(set(numbers))
    if all(number.is_integer() for number in distinct) and len(distinct) <= _MOST_CLASSES:
        return Label(name=name, kind='class', classes=tuple(str(int(number)) for number in distinct)), ''
    return Label(name=name, kind='number', classes=None), ''


def _given(table: Table, name: str, *, classes: tuple[str, ...]) -> Label:
    cells = zip(table.column(name), table.lines, strict=True)
    problems = [f'line {line} has "{cell}"' for cell, line in cells
                if not is_missing(cell) and (cell not in classes if classes else table.number(cell) is None)]
    refuse(problems, what=f'the column "{name}" of {table.name} must hold {", ".join(classes) or "a number"}')
    return Label(name=name, kind='class' if classes else 'number', classes=classes or None)
