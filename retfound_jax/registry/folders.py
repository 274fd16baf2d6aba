"""Folders as people unpack them: where a dataset begins, which pictures lie in it, and one sentence where something is not as it should be.

A name that comes from a table, an archive or a disk is not trusted: it may not lead out of the dataset's folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from retfound_jax.core.errors import UserError, nearest
from retfound_jax.ingest.labels import Table, read_table
from retfound_jax.registry.base import Example

PICTURES = frozenset('.jpg .jpeg .png .tif .tiff .bmp .gif .ppm'.split())
_UNSAFE = re.compile(r'[^A-Za-z0-9._-]+')
_DEPTH = 2  # folders that an archive may put around a dataset
_MOST = 64  # entries of a folder that are looked into for that


def get_it(name: str) -> str:
    """The way out of most errors here."""
    return f'`retfound datasets --name {name}` tells how to get it'


def plain(root: Path, file: str) -> PurePosixPath:
    """A path as a table names it, which by its text lies below the dataset's folder.

    Raises:
      UserError: it does not.
    """
    path = PurePosixPath(file)
    if not path.parts or path.is_absolute() or '..' in path.parts or '\\' in file or '\x00' in file or re.match(r'[A-Za-z]:', file):
        raise UserError(f'{root}: the path {file!r} is none below the dataset\'s folder; see to the table or archive it comes from')
    return path


def below(root: Path, file: str) -> Path:
    """The path of a file named by a table.

    Raises:
      UserError: it leads out of the folder, by its name or by a link.
    """
    path = root / plain(root, file)
    if not path.resolve().is_relative_to(root.resolve()):
        raise UserError(f'{path} is a link that leaves the dataset\'s folder; put the file itself there')
    return path


def base_of(root: Path, needed: Sequence[str], *, name: str) -> Path:
    """The folder that holds all of `needed` (paths): `root`, or one that an archive put around it.

    Raises:
      UserError: there is none; what is missing is said for the folder that has most of it.
    """
    if not root.is_dir():
        raise UserError(f'{root}, the folder of {name}, is not there; {get_it(name)}')
    if all((root / path).exists() for path in needed):
        return root
    candidates = list(_around(root, depth=_DEPTH))
    best = max(candidates, key=lambda folder: sum((folder / path).exists() for path in needed))
    for path in needed:
        if not (best / path).exists():
            raise UserError(f'{best / path} is missing, so {name} is not whole{_renamed(best / path)}; {get_it(name)}')
    return best


def _around(folder: Path, *, depth: int) -> Iterable[Path]:
    yield folder
    for name in subfolders(folder)[:_MOST] if depth else []:
        yield from _around(folder / name, depth=depth - 1)


def _renamed(path: Path) -> str:
    """A near name that is there instead, as in a folder somebody renamed."""
    present = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = nearest(path.name, present)
    return f'{near.replace("did you mean", "was it renamed to")}' if near else ''


def listed(folder: Path) -> dict[str, os.DirEntry[str]]:
    """The entries of a folder by name, but hidden ones; what the system tells with the listing is not asked again for each.

    Raises:
      UserError: the folder is not there.
    """
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry for entry in entries if not entry.name.startswith('.')}
    except OSError as error:
        raise UserError(f'{folder} cannot be listed ({error.strerror}); unpack the dataset again') from error


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; those that archives of other systems leave behind are none."""
    return sorted(name for name, entry in listed(folder).items() if entry.is_dir() and not name.startswith('__'))


def pictures(folder: Path) -> list[str]:
    """Names of the pictures of a folder, sorted.

    Raises:
      UserError: the folder is not there.
    """
    return sorted(name for name, entry in listed(folder).items() if os.path.splitext(name)[1].lower() in PICTURES and entry.is_file())


def by_stem(folder: Path) -> dict[str, str]:
    """Picture names by their stem in lower case: tables disagree with disks about suffixes and their case."""
    return {Path(name).stem.lower(): name for name in pictures(folder)}


def safe_key(*parts: str) -> str:
    """A key that can be a file name."""
    return _UNSAFE.sub('_', '_'.join(part for part in parts if part))


def table(path: Path, columns: Mapping[str, Sequence[str]], *, name: str) -> list[dict[str, str]]:
    """Rows of a CSV by our names of the columns, and under 'where' the table and line for errors.

    columns: our name to the names in the file, of which the first one found counts.

    Raises:
      UserError: the file cannot be read, or has not one of the columns.
    """
    if not path.is_file():
        raise UserError(f'{path}, the labels of {name}, is missing{_renamed(path)}; {get_it(name)}')
    found = read_table(path)
    places = {ours: _place(found, theirs, path) for ours, theirs in columns.items()}
    return [
        {'where': f'{path}, line {line},'} | {ours: row[place] for ours, place in places.items()}
        for row, line in zip(found.rows, found.lines, strict=True)
    ]


def _place(found: Table, theirs: Sequence[str], path: Path) -> int:
    plain = [column.casefold() for column in found.columns]
    for column in theirs:
        if column.casefold() in plain:
            return plain.index(column.casefold())
    raise UserError(f'{path} has no column "{theirs[0]}"{nearest(theirs[0], found.columns)}; it has {", ".join(found.columns)}')


def class_folders(
    root: Path, base: Path, *, name: str, label: str, classes: Mapping[str, str], split: str = '',
    patient: Callable[[str], str] | None = None,
) -> list[Example]:
    """The images of folders that are named like classes.

    base: the folder of these folders, below `root`. classes: folder to class; a class may have several spellings, one of which is there.
    patient: of a file's stem.

    Raises:
      UserError: a folder is no class, or a class has no folder or no image.
    """
    examples = []
    for folder in subfolders(base):
        if folder not in classes:
            spellings = ', '.join(classes)
            raise UserError(f'{base / folder} is no class of {name}{nearest(folder, classes)}; rename or remove it: the classes are '
                            f'{spellings}')
        below(root, (base / folder).relative_to(root).as_posix())
        examples += [_example(root, base / folder / file, label=label, word=classes[folder], split=split, patient=patient)
                     for file in pictures(base / folder)]
    for folder, word in classes.items():
        if not any(example.labels[label] == word for example in examples):
            raise UserError(f'{base / folder} holds no image, so the class "{word}" of {name} is empty{f" in {split}" if split else ""}; '
                            f'unpack it again; {get_it(name)}')
    return examples


def _example(root: Path, path: Path, *, label: str, word: str, split: str, patient: Callable[[str], str] | None) -> Example:
    return Example(
        key=safe_key(split, path.parent.name, path.stem), file=path.relative_to(root).as_posix(), labels={label: word}, split=split,
        patient=patient(path.stem) if patient else '',
    )
