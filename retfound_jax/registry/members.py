"""Images that lie in archives of arrays and are no files of their own: walked through in their order, and laid out as files."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from retfound_jax.core.errors import UserError
from retfound_jax.ingest.frame import MIN_SIDE
from retfound_jax.registry import folders, npz
from retfound_jax.registry.base import Example
from retfound_jax.registry.draw import write_image


def walk(root: Path, examples: Iterable[Example]) -> Iterator[tuple[Example, np.ndarray]]:
    """Examples that lie in archives, each with its image, uint8 [H, W] or RGB [H, W, 3]; those of one array in its order.

    Raises:
      UserError: an archive is damaged, or has fewer images than it should.
    """
    wanted: dict[tuple[str, str], dict[int, Example]] = defaultdict(dict)
    for example in examples:
        place = npz.split_member(example.file)
        if place:
            wanted[place[:2]][place[2]] = example
    for (archive, array), by_index in wanted.items():
        path, last = folders.below(root, archive), max(by_index)
        for index, pixels in enumerate(npz.images(path, array)):
            if index in by_index:
                yield by_index.pop(index), pixels
        if by_index:
            raise UserError(f'{path}: the array {array} has no image {last}; download the archive again')


def as_files(root: Path, examples: Iterable[Example], *, into: Path) -> tuple[Path, Mapping[str, str]]:
    """A folder in which every image is a file, and the file of each key where it is not the example's own.

    That is the dataset's folder, unless its images lie in archives: those are written as PNG into `into`, as old as their archive. What is
    too small for ingest, as the 28 px of MedMNIST, is enlarged by repeating whole pixels.
    """
    examples = list(examples)
    if not any(npz.split_member(example.file) for example in examples):
        return root, {}
    files = {}
    for example, pixels in walk(root, examples):
        archive = folders.below(root, example.file.partition('#')[0])
        file = f'{example.key}.png'
        write_image(into / file, _enlarged(pixels))
        os.utime(into / file, ns=(0, archive.stat().st_mtime_ns))  # so that a stopped ingest knows it again
        files[example.key] = file
    return into, files


def _enlarged(pixels: np.ndarray) -> np.ndarray:
    times = -(-MIN_SIDE // min(pixels.shape[:2]))
    return pixels.repeat(times, axis=0).repeat(times, axis=1) if times > 1 else pixels
