"""Where `predict` and `embed` take photographs from: a folder, a CSV of paths, or a dataset; read in order by threads, never all at once.

A folder is its own limit: links that leave it are refused, as in ingest. A CSV is the user's own list and may name any file that the
user can read, also outside its folder.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from retfound_jax.api.images import read_pictures
from retfound_jax.api.model import Model
from retfound_jax.core.errors import UsageError, UserError, nearest
from retfound_jax.data.dataset_source import open_dataset
from retfound_jax.data.decode import DecodeFailure
from retfound_jax.data.store import LABEL, Contents
from retfound_jax.ingest import manifest
from retfound_jax.ingest.columns import ROLES
from retfound_jax.ingest.frame import ReadError
from retfound_jax.ingest.labels import Table, read_table
from retfound_jax.ingest.source import scan
from retfound_jax.ingest.work import WorkOptions, outcome

PATIENT, SPLIT = 'patient', 'split'
_TABLES = ('.csv', '.tsv', '.txt')
_CHUNK = 16  # [images] of a dataset, read at once


@dataclass(frozen=True, kw_only=True)
class Row:
    """One picture, ready for the model, and what its source knows of it."""

    key: str
    square: np.ndarray  # uint8 [S, S, 3]
    known: tuple[str, ...]  # by the source's columns


@dataclass(frozen=True, kw_only=True)
class Reject:
    """A photograph that could not be read."""

    key: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one task read: of how many photographs, and what became of them."""

    count: int
    items: list[Row | Reject]


Task = Callable[[], Part]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Photographs that are known and not yet read."""

    kind: str  # folder, csv, dataset
    total: int  # photographs, as far as their files tell
    columns: tuple[str, ...]  # what is known of each, beside its key
    tasks: Callable[[Model], Iterator[Task]]
    refused: tuple[Reject, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)  # for the header of the result


def open_source(path: Path, *, image_column: str = '', keep: Sequence[str] = (), split: str = '', crop: str = 'fov') -> Source:
    """Finds the photographs, and settles what can be wrong with the call before any is read.

    Raises:
      UsageError: an option does not belong to this kind of source, or names what is not there.
      UserError: the source cannot be listed, or holds nothing.
    """
    kind = _kind(path)
    for flag, value, owners in (
        ('--image_column', image_column, ('a CSV',)),
        ('--split', split, ('a dataset',)),
        ('--keep', keep, ('a CSV', 'a dataset')),
        ('--crop none', crop == 'none', ('a folder', 'a CSV')),
    ):
        if value and kind not in owners:
            raise UsageError(f'{flag} is for {" or ".join(owners)}, and --source {path} is {kind}; leave it out')
    if kind == 'a CSV':
        return _open_csv(path, image_column=image_column, keep=keep)
    if kind == 'a dataset':
        return _open_dataset(path, split=split, keep=keep)
    return _open_folder(path)


def _kind(path: Path) -> str:
    if path.is_file():
        if path.suffix.lower() not in _TABLES:
            raise UsageError(f'--source {path} is a single file; give the folder it lies in, or a CSV that lists its path')
        return 'a CSV'
    unfinished = path.name.endswith('.partial') or (not path.exists() and path.with_name(f'{path.name}.partial').exists())
    if unfinished or (path / manifest.FILE).is_file():
        return 'a dataset'
    if not path.is_dir():
        raise UsageError(f'--source {path} does not exist; give a folder of photographs, a CSV of their paths, or a dataset')
    return 'a folder'


def _open_folder(path: Path) -> Source:
    listing = scan(path)
    files = [file.path for file in listing.files]
    refused = tuple(Reject(key=key, reason=reason) for key, reason in listing.refused.items())
    if not files and not refused:
        raise UserError(f'no photograph was found in {path} ({listing.ignored} other files); give the folder that holds them')

    def tasks(model: Model) -> Iterator[Task]:
        for file in files:
            yield functools.partial(_read_file, path, file, key=file, known=(), model=model)

    return Source(kind='folder', total=len(files), columns=(PATIENT,), tasks=tasks, refused=refused)


def _open_csv(path: Path, *, image_column: str, keep: Sequence[str]) -> Source:
    table = read_table(path)
    column = image_column or _role(table, 'key')
    if not column:
        known = _list(table.columns)
        raise UsageError(f'no column of {path.name} is known to name the photographs; pass --image_column with one of {known}')
    for name, flag in ((column, '--image_column'), *((name, '--keep') for name in keep)):
        if name not in table.columns:
            raise UsageError(f'{flag} "{name}" is not in {path.name}{nearest(name, table.columns) or "; it has " + _list(table.columns)}')
    patient = _role(table, 'patient')
    patients = table.column(patient) if patient else [''] * len(table.rows)
    kept = list(zip(*(table.column(name) for name in keep), strict=True)) if keep else [()] * len(table.rows)

    def tasks(model: Model) -> Iterator[Task]:
        for line, cell, person, cells in zip(table.lines, table.column(column), patients, kept, strict=True):
            known = (person, *cells)
            if cell:
                yield functools.partial(_read_file, path.parent, cell, key=cell, known=known, model=model)
            else:
                yield functools.partial(Part, count=1, items=[Reject(key=f'line {line}', reason='names no photograph')])

    return Source(kind='csv', total=len(table.rows), columns=(PATIENT, *keep), tasks=tasks, about={'image_column': column})


def _open_dataset(path: Path, *, split: str, keep: Sequence[str]) -> Source:
    first = open_dataset(path, split=split or 'train')  # tells what is wrong with a dataset
    names = [split] if split else list(manifest.read(path)['splits'])
    contents = {name: open_dataset(path, split=name) for name in names}
    columns = {name: {**found.columns, SPLIT: np.full(len(found.columns['key']), name)} for name, found in contents.items()}
    known = next(iter(columns.values()))
    for name in keep:
        if name not in known:
            raise UsageError(f'--keep "{name}" is not in the dataset{nearest(name, known) or "; it has " + _list(known)}')
    total = sum(len(found['key']) for found in columns.values())
    if not total:
        raise UserError(f'the dataset {path} has no photograph{f" in the split {split}" if split else ""}; choose another --split')

    def tasks(model: Model) -> Iterator[Task]:
        for name, found in contents.items():
            texts = {column: _texts(columns[name][column], found, column) for column in (PATIENT, SPLIT, *keep)}
            for start in range(0, len(found.columns['key']), _CHUNK):
                yield functools.partial(_read_records, found, start, texts=texts, model=model)

    about = {'dataset_fingerprint': first.fingerprint}
    return Source(kind='dataset', total=total, columns=(PATIENT, SPLIT, *keep), tasks=tasks, about=about)


def _read_file(root: Path, file: str, *, key: str, known: tuple[str, ...], model: Model) -> Part:
    """One file of a folder or CSV; `known` are the values of its columns, patient first, or nothing where only the file may tell."""

    def process(path: Path, *, shorter_side: int, jpeg_quality: int) -> list[Any]:
        pictures = read_pictures(_regular(path), crop=model.crop, size=shorter_side)
        return [(picture.frame, picture.patient, model.square(picture.data)) for picture in pictures]

    _, pictures, reason = outcome(str(root), file, WorkOptions(shorter_side=model.size), process)
    if reason is not None:
        return Part(count=1, items=[Reject(key=key, reason=reason)])
    several = len(pictures) > 1
    return Part(
        count=1,
        items=[
            Row(key=f'{key}#{frame}' if several else key, square=square, known=((known and known[0]) or patient, *known[1:]))
            for frame, patient, square in pictures
        ],
    )


def _regular(path: Path) -> Path:
    """The path, where there is a file to be read to its end: not a pipe, a device or a folder."""
    if not path.is_file() and '\\' in str(path):
        path = Path(str(path).replace('\\', '/'))  # a table written on Windows
    if not path.is_file():
        raise ReadError('is not a regular file' if path.exists() else 'does not exist', name=path.name)
    return path


def _read_records(contents: Contents, start: int, *, texts: Mapping[str, Sequence[str]], model: Model) -> Part:
    keys = contents.columns['key'][start : start + _CHUNK]
    images = contents.store.read(range(start, start + len(keys)))
    items: list[Row | Reject] = []
    for place, (key, image) in enumerate(zip(keys, images, strict=True), start=start):
        try:
            items.append(Row(key=str(key), square=model.square(image), known=tuple(column[place] for column in texts.values())))
        except DecodeFailure as error:
            items.append(Reject(key=str(key), reason=f'cannot be decoded ({error})'))
    return Part(count=len(items), items=items)


def _texts(values: np.ndarray, contents: Contents, name: str) -> list[str]:
    """A column as text: a label's class by its name, a number as it is, '' where nothing is known."""
    if values.dtype.kind in 'US':
        return [str(value) for value in values]
    classes = contents.classes.get(name.removeprefix(LABEL)) if name.startswith(LABEL) else None
    return ['' if value != value else classes[int(value)] if classes else f'{value:g}' for value in values.tolist()]


def _role(table: Table, role: str) -> str:
    """The first column that by its name plays a role, as ingest recognises it."""
    by_name = {''.join(letter for letter in name.casefold() if letter not in ' -_'): name for name in reversed(table.columns)}
    return next((by_name[name] for name in ROLES[role] if name in by_name), '')


def _list(names: Any) -> str:
    return ', '.join(names)
