"""Files written whole or not at all, and the few readers everybody needs."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from retfound_jax.core.errors import UserError

_ELSEWHERE = 'change that, or give another directory'
_WORDS = {
    errno.ENOSPC: ('the disk is full', 'free some space and run again'),
    errno.EDQUOT: ('the quota of the disk is used up', 'free some space and run again'),
    errno.EFBIG: ('a file would be larger than the system allows', 'raise the limit (ulimit -f) and run again'),
    errno.EACCES: ('there is no permission to write', _ELSEWHERE),
    errno.EPERM: ('there is no permission to write', _ELSEWHERE),
    errno.EROFS: ('the disk can only be read', _ELSEWHERE),
    errno.EISDIR: ('a directory stands in the place of a file', _ELSEWHERE),
    errno.ENOTDIR: ('a file stands in the place of a directory', _ELSEWHERE),
    errno.EEXIST: ('a file stands in the place of a directory', _ELSEWHERE),
    errno.ENOENT: ('a directory is gone', 'leave it in place and run again'),
}


def unwritable(path: Path | str, error: OSError) -> UserError:
    """What is said of a file that could not be written."""
    path = Path(path)
    what, advice = _WORDS.get(error.errno or 0, (error.strerror or str(error), 'see to the disk and run again'))
    return UserError(f'{what}: {path.name} could not be written in {path.parent}; {advice}')


def atomic_write(path: Path | str, data: bytes | str) -> None:
    """Writes beside the target, syncs, then renames: a reader sees the old file or the new one, never half of either.

    Raises:
      UserError: the disk is full, or there is no writing there; the target is untouched.
    """
    path = Path(path)
    raw = data.encode('utf-8') if isinstance(data, str) else data
    try:
        _write_beside(path, raw)
    except OSError as error:
        if error.errno not in _WORDS:
            raise
        raise unwritable(path, error) from error


def _write_beside(path: Path, raw: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    try:
        with os.fdopen(handle, 'wb') as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:  # an interruption too leaves no litter
        Path(name).unlink(missing_ok=True)
        raise


def append_line(path: Path | str, value: Mapping[str, Any]) -> None:
    """Adds a line of JSON to a file, whose last line may have been cut.

    Raises:
      UserError: it cannot be written.
    """
    try:
        with open(path, 'a+b') as file:
            cut_half_line(file)
            file.write((json.dumps(value, ensure_ascii=False) + '\n').encode())
    except OSError as error:
        raise unwritable(path, error) from error


def cut_half_line(file: IO[bytes]) -> None:
    """Removes a last line without its end, as a crash or a full disk leaves one: what is added next would be joined to it."""
    size = end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - (1 << 16))
        file.seek(start)
        found = file.read(end - start).rfind(b'\n')
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end != size:
        file.truncate(end)


def xdg_cache_home() -> Path:
    """By the XDG base directory specification, where a relative path counts as none."""
    named = Path(os.environ.get('XDG_CACHE_HOME', ''))
    return named if named.is_absolute() else Path.home() / '.cache'


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Rows as CSV, a line each; cells are quoted where they must be.

    The csv module of Python 3.11 leaves a lone carriage return unquoted, and readers end the line there.
    """
    return ''.join(','.join(_cell(str(cell)) for cell in row) + '\n' for row in rows)


def _cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in '",\r\n') else text


def write_json(path: Path | str, value: Any) -> None:
    """Writes JSON with sorted keys (equal values give equal bytes); NaN is refused, since it is not JSON."""
    atomic_write(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + '\n')


def read_json(path: Path | str) -> Any:
    """Reads JSON.

    Raises:
      UserError: the file is missing or is not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError as error:
        raise UserError(f'{path} does not exist') from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f'{path} is not valid JSON ({error}); it may be damaged') from error


def sha256_file(path: Path | str) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
