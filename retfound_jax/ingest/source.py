"""The folder of photographs: which files are candidates, and which row of the labels each belongs to."""

from __future__ import annotations

import dataclasses
import os
import stat
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from retfound_jax.core.errors import UserError, nearest
from retfound_jax.ingest.labels import refuse

# What lies beside photographs and is none. Anything else is opened, whatever its name says.
_NO_IMAGE = frozenset(
    '.csv .tsv .txt .md .rst .json .jsonl .xml .html .htm .pdf .xls .xlsx .ods .doc .docx .odt .ppt .pptx .rtf .log .ini .cfg '
    '.yaml .yml .toml .py .ipynb .m .r .sh .bat .zip .gz .tar .tgz .7z .rar .db .sqlite .parquet .mat .npy .npz .pkl .h5 .hdf5 '
    '.md5 .sha256'.split()
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """One candidate, with what tells whether it changed since."""

    path: str  # relative to the source folder, with forward slashes
    size: int  # [bytes]
    modified: int  # [ns]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listing:
    """All that was found, sorted by path."""

    files: tuple[SourceFile, ...]
    refused: Mapping[str, str]  # path to the reason: found, but not safe to open
    ignored: int  # hidden files, and files whose suffix is known to be no picture


def scan(root: Path, *, leave_out: Sequence[Path] = (), only: Collection[str] | None = None) -> Listing:
    """Walks the folder; links to folders are not followed, links to files that leave it are refused.

    only: paths below the folder; what is none of them is ignored.

    Raises:
      UserError: the folder does not exist or cannot be listed.
    """
    if not root.is_dir():
        raise UserError(f'the source {root} is not a folder')
    base = root.resolve()
    skipped = {str(path.resolve()) for path in leave_out}
    prefix = os.path.join(base, '')
    files, refused, ignored = [], {}, 0
    for entry in _walk(base, skipped):
        name = entry.path[len(prefix):].replace(os.sep, '/')
        if entry.name.startswith('.') or os.path.splitext(entry.name)[1].lower() in _NO_IMAGE or only is not None and name not in only:
            ignored += 1
            continue
        reason, status = _unsafe(entry, base)
        if reason or status is None:
            refused[name.encode('utf-8', 'backslashreplace').decode()] = reason
        else:
            files.append(SourceFile(path=name, size=status.st_size, modified=status.st_mtime_ns))
    files.sort(key=lambda file: file.path)
    return Listing(files=tuple(files), refused=dict(sorted(refused.items())), ignored=ignored)


def match(
    keys: Sequence[str], lines: Sequence[int], files: Sequence[SourceFile], *, name: str, allow_missing: bool = False
) -> dict[str, int]:
    """Finds each row's file: {path: row}. A key is a relative path or a file name, with or without its suffix.

    Raises:
      UserError: a key is empty, stands twice, has no file (unless `allow_missing`) or has several; the first ten are named.
    """
    found: dict[str, int] = {}
    problems = []
    index = _Index(files)
    for row, (key, line) in enumerate(zip(keys, lines, strict=True)):
        paths = index.find(key)
        if not key:
            problems.append(f'line {line} names no image')
        elif len(paths) > 1:
            problems.append(f'"{key}" (line {line}) fits two files, {paths[0]} and {paths[1]}; write the key as a path below the source')
        elif not paths and not allow_missing:
            near = nearest(Path(key).name, index.names) if len(problems) < 3 else ''
            problems.append(f'"{key}" (line {line}) has no file in the source{near}')
        elif paths and found.setdefault(paths[0], row) != row:
            problems.append(f'"{key}" (line {line}) is named twice, first in line {lines[found[paths[0]]]}')
    if not keys or not found and not problems:
        problems.append('no row has a file in the source')
    refuse(problems, what=f'the labels {name} do not fit the files')
    return found


class _Index:
    """Files by path and by name, each with and without suffix, in one Unicode form (macOS writes another one than tables do)."""

    def __init__(self, files: Sequence[SourceFile]) -> None:
        self._by: list[dict[str, list[str]]] = [{}, {}, {}, {}]
        for file in files:
            path = Path(_form(file.path))
            forms = (path.as_posix(), path.with_suffix('').as_posix(), path.name, path.stem)
            for table, form in zip(self._by, forms, strict=True):
                table.setdefault(form, []).append(file.path)
        self.names = list(self._by[2])[:5000]  # only to suggest a near one

    def find(self, key: str) -> list[str]:
        parts = [part for part in _form(key).replace('\\', '/').split('/') if part not in ('', '.')]
        # A key may begin above the source folder: its leading folders are dropped until the rest is a path in it.
        for begin in range(len(parts)):
            rest = '/'.join(parts[begin:])
            for table in self._by[:2]:
                if rest in table:
                    return table[rest]
        if len(parts) == 1:
            return self._by[2].get(parts[0]) or self._by[3].get(parts[0]) or []
        return []


def _form(text: str) -> str:
    return unicodedata.normalize('NFC', text)


def _walk(base: Path, skipped: set[str]) -> Iterator[os.DirEntry[str]]:
    """Everything below `base` but folders; what the system told with the listing is not asked again for each file."""
    left = [str(base)]
    while left:
        try:
            with os.scandir(left.pop()) as entries:
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False):
                        yield entry
                    elif not entry.name.startswith('.') and entry.path not in skipped:
                        left.append(entry.path)
        except OSError as error:
            raise UserError(f'the folder {error.filename} cannot be listed: {error.strerror}') from error


def _unsafe(entry: os.DirEntry[str], base: Path) -> tuple[str, os.stat_result | None]:
    try:
        entry.path.encode('utf-8')
        if not entry.is_symlink():  # its folders are none either, so it lies where it says
            status = entry.stat(follow_symlinks=False)
            return ('', status) if stat.S_ISREG(status.st_mode) else ('is not a regular file', None)
        target = Path(entry.path).resolve(strict=True)
        status = target.stat()
    except UnicodeEncodeError:
        return 'has a name that is not valid text', None
    except (OSError, RuntimeError):
        return 'is a link to nothing', None
    if not target.is_relative_to(base):
        return 'is a link that leaves the source folder', None
    if stat.S_ISDIR(status.st_mode):
        return 'is a link to a folder', None
    if not stat.S_ISREG(status.st_mode):
        return 'is not a regular file', None
    return '', status
