"""Which column of the labels plays which role, and what its cells mean."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence

from retfound_jax.core.demographics import DECLINED
from retfound_jax.core.errors import UsageError, UserError, nearest
from retfound_jax.ingest import demographics
from retfound_jax.ingest.demographics import Account, Options, normalise
from retfound_jax.ingest.labels import Table, is_missing, refuse
from retfound_jax.ingest.vocabulary import CONTRADICTED, NOT_UNDERSTOOD, Read

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
    contradicted: str = ''  # fields of the patient that other rows contradict, separated by blanks; no header fills them


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class People:
    """Who is in a table."""

    of_rows: Sequence[Person] = ()
    odd: Mapping[str, int] = dataclasses.field(default_factory=dict)  # role to cells that were filled and not understood
    account: Account = Account()


def people(table: Table, columns: Columns, *, rows: Collection[int] | None = None, options: Options | None = None) -> People:
    """A `Person` for each row.

    rows: those that are used, all of them unless told; the others are nobody and are not counted.

    Raises:
      UsageError: a demographic column needs to be explained.
    """
    used = range(len(table.rows)) if rows is None else sorted(rows)
    cells = {role: _cells(table, column, used) for role, column in columns.roles.items() if role != 'key'}
    patients = [_text(cell) for cell in cells.get('patient', [''] * len(used))]
    told = {role: column for role, column in cells.items() if role in demographics.NAMES}
    reads, account = normalise(told, patients=patients, number=table.number, columns=columns.roles, options=options or Options())
    sides = [_LATERALITY.get(cell.casefold(), '') for cell in cells.get('laterality', ())]
    odd = {
        'age': account.fields['age'][NOT_UNDERSTOOD] if 'age' in account.fields else 0,
        'laterality': sum(not side and not is_missing(cell) for side, cell in zip(sides, cells.get('laterality', ()), strict=True)),
    }
    found = [Person()] * len(table.rows)
    for place, row in enumerate(used):
        words = {name: column[place].value for name, column in reads.items()}
        words |= {'laterality': sides[place]} if sides else {}
        words |= {'modality': _text(cells['modality'][place])} if 'modality' in cells else {}
        found[row] = Person(patient=patients[place], **words, **_beside(reads, place))
    return People(of_rows=found, odd=odd, account=account)


def _cells(table: Table, column: str, used: Sequence[int]) -> list[str]:
    cells = table.column(column)
    return [cells[row] for row in used]


def _beside(reads: Mapping[str, Sequence[Read]], place: int) -> dict[str, str]:
    """What a row says beside the values themselves."""
    torn = ' '.join(name for name, column in reads.items() if column[place].kind == CONTRADICTED)
    declined = 'age' in reads and reads['age'][place].kind == DECLINED
    return {'contradicted': torn, 'age_word': DECLINED if declined else ''}


def _text(cell: str) -> str:
    # 'NA' are initials, too: only a number, a label or a demographic can be missing by that word.
    return '' if is_missing(cell) and cell.casefold() != 'na' else cell


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
