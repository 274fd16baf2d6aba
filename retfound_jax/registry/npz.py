"""Archives of arrays as MedMNIST has them: `ARCHIVE.npz#ARRAY/INDEX`. Read image by image, and never unpickled.

An archive comes from outside: what its directory and its headers say of sizes is checked before memory is taken, and no more is unpacked
than a header says, so neither a ZIP bomb nor a header that promises a terabyte does anything.
"""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from retfound_jax.core.errors import UserError

_MEMBER = re.compile(r'(?P<archive>[^#]+\.npz)#(?P<array>[A-Za-z0-9_]+)/(?P<index>\d{1,9})', re.ASCII)
_HEADER = re.compile(
    r"\{'descr': '(?P<kind>[<>|=][a-zA-Z]\d{0,3})', 'fortran_order': (?P<by_column>True|False), "
    r"'shape': \((?P<shape>(\d{1,9},|\d{1,9}(, \d{1,9})+)?)\),? *\} *\n", re.ASCII,
)
_LENGTH = {b'\x01\x00': 2, b'\x02\x00': 4}  # version to bytes that tell the header's length
_MOST_PIXELS = 1 << 26  # [bytes] of one image
_MOST_IMAGES = 1 << 24
_MOST_LABELS = 1 << 24  # [values]
_MOST_HEADER = 4096  # [bytes]; numpy writes 128
# What reading a damaged archive raises, by the part that is damaged: directory, checksum, deflate stream, header, password, method.
_DAMAGE = (OSError, zipfile.BadZipFile, KeyError, ValueError, EOFError, zlib.error, TypeError, RuntimeError, NotImplementedError)


def member(archive: str, array: str, index: int) -> str:
    """An image of an archive as an example's file."""
    return f'{archive}#{array}/{index}'


def split_member(file: str) -> tuple[str, str, int] | None:
    """Archive, array and index of an example's file; None where it is a file of its own."""
    match = _MEMBER.fullmatch(file)
    return (match['archive'], match['array'], int(match['index'])) if match else None


def arrays(path: Path) -> list[str]:
    """Names of the arrays of an archive, sorted.

    Raises:
      UserError: it is no archive of arrays.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return sorted(name.removesuffix('.npy') for name in archive.namelist() if name.endswith('.npy'))
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def count(path: Path, array: str) -> int:
    """How many images an array holds, from its header alone.

    Raises:
      UserError: the archive is damaged, or the array holds no images.
    """
    with _opened(path, array) as (_, shape, kind):
        _check_images(path, array, shape, kind)
        return shape[0]


def images(path: Path, array: str) -> Iterator[np.ndarray]:
    """The images of an array of an archive, uint8 [H, W] or [H, W, 3], one after the other.

    Raises:
      UserError: the archive is damaged, or the array holds no images.
    """
    with _opened(path, array) as (file, shape, kind):
        _check_images(path, array, shape, kind)
        for _ in range(shape[0]):
            yield np.frombuffer(_read(file, math.prod(shape[1:])), np.uint8).reshape(shape[1:])


def labels(path: Path, array: str) -> np.ndarray:
    """An array of whole numbers, int64 [n] of [n] or [n, 1].

    Raises:
      UserError: the archive is damaged, or the array holds something else.
    """
    with _opened(path, array) as (file, shape, kind):
        if kind.kind not in 'ui' or shape[1:] not in ((), (1,)) or not 0 < math.prod(shape) <= _MOST_LABELS:
            raise UserError(f'{path}: the array {array} holds {kind} {list(shape)} and no labels; download the archive again')
        return np.frombuffer(_read(file, shape[0] * kind.itemsize), kind).astype(np.int64)


@contextmanager
def _opened(path: Path, array: str) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype]]:
    """An array that is about to be read, with its shape and type; what goes wrong within becomes one sentence."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f'{array}.npy') as file:
            shape, by_column, kind = _header(file)
            # A type of objects would be pickled: what it announces is never loaded.
            if kind.hasobject or by_column and len(shape) > 1:
                raise ValueError(f'it is {kind} {list(shape)}{" by column" if by_column else ""}')
            yield file, shape, kind
    except KeyError as error:
        raise UserError(f'{path} has no array {array}; download the archive again') from error
    except _DAMAGE as error:
        raise _damaged(path, error, array=array) from error


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether it lies by column, and type of an array, by the words that numpy writes and no others."""
    start = _read(file, 8)
    if start[:6] != b'\x93NUMPY' or start[6:] not in _LENGTH:
        raise ValueError('it is no array of a version that is known')
    size = int.from_bytes(_read(file, _LENGTH[start[6:]]), 'little')
    match = _HEADER.fullmatch(_read(file, size).decode('latin-1')) if size <= _MOST_HEADER else None
    if not match:
        raise ValueError('its header is none that numpy writes')
    return tuple(map(int, re.findall(r'\d+', match['shape']))), match['by_column'] == 'True', np.dtype(match['kind'])


def _read(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise EOFError('it ends too early')
    return data


def _check_images(path: Path, array: str, shape: tuple[int, ...], kind: np.dtype) -> None:
    fits = kind == np.uint8 and len(shape) in (3, 4) and shape[3:] in ((), (3,)) and 0 < math.prod(shape[1:]) <= _MOST_PIXELS
    if not (fits and 0 < shape[0] <= _MOST_IMAGES):
        raise UserError(f'{path}: the array {array} holds {kind} {list(shape)} and no images; download the archive again')


def _damaged(path: Path, error: Exception, *, array: str = '') -> UserError:
    reason = str(error).partition('\n')[0] or type(error).__name__
    what = f'{path}: the array {array} cannot be read' if array else f'{path} cannot be read as an archive of arrays'
    return UserError(f'{what} ({reason}); download the archive again')
