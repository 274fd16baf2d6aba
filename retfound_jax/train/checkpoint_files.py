"""What makes a saved step whole, and what happens to one that is not: the files under `checkpoints/`, without Orbax or JAX.

`files.json` in a step's directory lists every other file with its length and SHA-256, since the arrays' own format has no checksum.
It is written before Orbax commits the step, so that a committed step has it. What is not whole is renamed into `set_aside/`, which
nobody reads and nobody deletes.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import errno
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from retfound_jax.core.errors import UserError
from retfound_jax.core.files import read_json, sha256_file, write_json

FILES, ORIGIN = 'files.json', 'origin.json'
COMMIT, METADATA = 'commit_success.txt', '_CHECKPOINT_METADATA'  # Orbax writes both last of all, after `files.json`
UNFINISHED = '.orbax-checkpoint-tmp'  # Orbax's mark in the name of a step, or an item, that is being written
SET_ASIDE, DELETING = 'set_aside', '.deleting'
_DAMAGED, _INCOMPLETE = 'damaged', 'incomplete'
_READERS = 4  # threads; one SHA-256 keeps up with a disk, not with a parallel file system


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settled:
    """What was found at the start."""

    step: int | None  # the newest whole step
    said: tuple[str, ...]  # a sentence for each directory that was set aside


def settle(root: Path, *, reads: Callable[[Path], str]) -> Settled:
    """Sets aside what is not whole, and names the newest step that is. Of saves that were never finished the last one stays.

    Steps are read in full, newest first, until one is whole; of the older ones it is asked what is there and how long it is.

    Args:
      reads: why the arrays of a step without a list cannot be read, or ''.

    Raises:
      UserError: there were whole steps and none is left.
    """
    remove(root / DELETING)
    unfinished = [name for name in names(root) if UNFINISHED in name]
    if unfinished:  # what earlier saves left by half was named then; a piece for each interruption would fill the disk
        for name in names(root / SET_ASIDE):
            if f'-{_INCOMPLETE}' in name:
                remove(root / SET_ASIDE / name)
    said = [_aside(root, name, _INCOMPLETE, 'its save was never finished') for name in unfinished]
    newest = None
    for step in reversed(steps(root)):
        folder = root / str(step)
        why = fault(folder, thorough=newest is None) or ('' if newest is not None or has_list(folder) else reads(folder))
        if why:
            said.append(_aside(root, str(step), _DAMAGED, why))
        elif newest is None:
            newest = step
    lost = [name for name in names(root / SET_ASIDE) if f'-{_DAMAGED}' in name]
    if newest is None and lost:
        told = '; '.join(said) or f'{", ".join(lost)} was set aside before'
        raise UserError(f'{root} has no whole checkpoint left ({told}): put a copy of one there, or start again with --overwrite')
    used = 'nothing was saved before it' if newest is None else f'checkpoint {newest} is used'
    return Settled(step=newest, said=tuple(f'{text}; {used}' for text in said))


def steps(root: Path) -> list[int]:
    """The steps that have a directory of their own, committed or not, oldest first."""
    return sorted(int(name) for name in names(root) if name.isdecimal() and (root / name).is_dir())


def fault(folder: Path, *, thorough: bool) -> str:
    """Why a step is not whole, in a few words; '' where it is, as far as was looked.

    Args:
      thorough: every byte is read; else files are only there or not, and as long as they were.
    """
    if not (folder / COMMIT).is_file():
        return 'it was never committed'
    try:
        read_json(folder / METADATA)
        listed = read_json(folder / FILES)['files'] if (folder / FILES).exists() else {}
        wanted = {_inside(name): (int(item['bytes']), str(item['sha256'])) for name, item in listed.items()}
    except UserError as error:
        return str(error)
    except (KeyError, TypeError, ValueError, AttributeError):
        return f'{FILES} does not read as a list of files'
    why = next((text for name, (size, _) in wanted.items() if (text := _shape(folder, name, size))), '')
    return why or (_content(folder, {name: digest for name, (_, digest) in wanted.items()}) if thorough else '')


def has_list(folder: Path) -> bool:
    """Whether a step says what it consists of; those written by early versions do not."""
    return (folder / FILES).is_file()


def seal(folder: Path, *, origin: Mapping[str, Any] | None) -> None:
    """Writes what a step came from and the list of its files into its directory, as the last thing before it is committed.

    Raises:
      OSError: the directory is gone, or the system refuses.
      UserError: the disk is full.
    """
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    if origin is not None:
        write_json(folder / ORIGIN, dict(origin))
    found = [name for name in _files(folder) if name not in (COMMIT, METADATA, FILES)]
    with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
        digests = list(pool.map(lambda name: sha256_file(folder / name), found))
    sizes = [(folder / name).stat().st_size for name in found]
    listed = {name: {'bytes': size, 'sha256': digest} for name, size, digest in zip(found, sizes, digests, strict=True)}
    write_json(folder / FILES, {'files': listed})


def read_origin(folder: Path) -> dict[str, Any] | None:
    """What a step came from, as `seal` was given it; None where it was given nothing."""
    return read_json(folder / ORIGIN) if (folder / ORIGIN).exists() else None


def read_metrics_of(folder: Path) -> dict[str, float]:
    """The validation metrics that a step was saved with; empty where there were none."""
    path = folder / 'metrics' / 'metrics'
    return read_json(path) if path.exists() else {}


def names(folder: Path) -> list[str]:
    """What lies in a directory, sorted; nothing where there is none."""
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def remove(folder: Path) -> None:
    """Removes a directory that is garbage already; what cannot be removed stays garbage."""
    shutil.rmtree(folder, ignore_errors=True)


def _aside(root: Path, name: str, reason: str, why: str) -> str:
    step = name.split('.')[0]
    taken = set(names(root / SET_ASIDE))
    target = next(text for n in range(1, len(taken) + 2) if (text := f'{step}-{reason}' + (f'-{n}' if n > 1 else '')) not in taken)
    (root / SET_ASIDE).mkdir(parents=True, exist_ok=True)
    (root / name).rename(root / SET_ASIDE / target)
    return f'checkpoint {step} is {reason} ({why}) and was set aside as {root / SET_ASIDE / target}'


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or '..' in path.parts:
        raise ValueError(name)
    return name


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file())


def _shape(folder: Path, name: str, size: int) -> str:
    try:
        found = (folder / name).stat().st_size
    except OSError as error:
        return f'{name} cannot be found ({error.strerror})'
    return '' if found == size else f'{name} has {found} of {size} bytes'


def _content(folder: Path, digests: Mapping[str, str]) -> str:
    def differs(name: str) -> str:
        try:
            return '' if sha256_file(folder / name) == digests[name] else f'{name} is not what was written'
        except OSError as error:
            return f'{name} cannot be read ({error.strerror})'

    with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
        return next((text for text in pool.map(differs, digests) if text), '')
