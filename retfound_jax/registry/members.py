"""Images that are no files of their own: `ARCHIVE.npz#ARRAY/INDEX`, read one after the other and never as a whole array."""

from __future__ import annotations

import os
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from retfound_jax.core.errors import UserError
from retfound_jax.registry import folders
from retfound_jax.registry.base import Example
from retfound_jax.registry.draw import write_image

_MEMBER = re.compile(r'(?P<archive>[^#]+\.npz)#(?P<array>[A-Za-z0-9_]+)/(?P<index>\d{1,9})')
_MOST_PIXELS = 1 << 26  # of one image


def split_member(file: str) -> tuple[str, str, int] | None:
    """Archive, array and index of an example's file; None where it is a file of its own."""
    match = _MEMBER.fullmatch(file)
    return (match['archive'], match['array'], int(match['index'])) if match else None


def images(path: Path, array: str) -> Iterator[np.ndarray]:
    """The images of an array of an archive, uint8 [H, W] or [H, W, 3], in their order.

    Raises:
      UserError: the archive is damaged, or the array holds no such images.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f'{array}.npy') as file:
            version = np.lib.format.read_magic(file)
            read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, by_column, kind = read_header(file)
            each = int(np.prod(shape[1:], dtype=np.int64))
            if kind != np.uint8 or by_column or len(shape) not in (3, 4) or shape[3:] not in ((), (3,)) or not 0 < each <= _MOST_PIXELS:
                raise UserError(f'{path}: the array {array} holds {kind} {list(shape)} and no images; download the archive again')
            for _ in range(shape[0]):
                data = file.read(each)
                if len(data) != each:
                    raise UserError(f'{path}: the array {array} ends too early; download the archive again')
                yield np.frombuffer(data, np.uint8).reshape(shape[1:])
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        raise UserError(f'{path}: the array {array} cannot be read ({error}); download the archive again') from error


def walk(root: Path, examples: Iterable[Example]) -> Iterator[tuple[Example, np.ndarray]]:
    """Examples that lie in archives, each with its image; those of one array in its order.

    Raises:
      UserError: an archive is damaged, or has fewer images than it should.
    """
    wanted: dict[tuple[str, str], dict[int, Example]] = defaultdict(dict)
    for example in examples:
        place = split_member(example.file)
        if place:
            wanted[place[:2]][place[2]] = example
    for (archive, array), by_index in wanted.items():
        path, last = folders.below(root, archive), max(by_index)
        for index, pixels in enumerate(images(path, array)):
            if index in by_index:
                yield by_index.pop(index), pixels
        if by_index:
            raise UserError(f'{path}: the array {array} has no image {last}; download the archive again')


def as_files(root: Path, examples: Iterable[Example], *, into: Path) -> tuple[Path, Mapping[str, str]]:
    """A folder in which every image is a file, and the file of each key where it is not the example's own.

    That is the dataset's folder, unless its images lie in archives: those are written as PNG into `into`, as old as their archive.
    """
    examples = list(examples)
    if not any(split_member(example.file) for example in examples):
        return root, {}
    files = {}
    for example, pixels in walk(root, examples):
        archive = folders.below(root, example.file.partition('#')[0])
        file = f'{example.key}.png'
        write_image(into / file, pixels)
        os.utime(into / file, ns=(0, archive.stat().st_mtime_ns))  # so that a stopped ingest knows it again
        files[example.key] = file
    return into, files
