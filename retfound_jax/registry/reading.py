"""A dataset's folder, read and held against itself: images that labels name and that are not there, and images that no label names."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Literal

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.registry import folders, rfsplit
from retfound_jax.registry.base import Dataset, Example
from retfound_jax.registry.npz import split_member

Split = Literal['', 'official', 'retfound', 'hash']


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """What a folder holds."""

    dataset: Dataset
    root: Path
    examples: tuple[Example, ...]  # whose image is there
    missing: tuple[str, ...]  # files that the labels name and that are not there
    unlabelled: tuple[str, ...]  # pictures beside the others that no label names
    retfound_layout: bool  # {train,val,test}/CLASS

    def split(self, asked: Split = '') -> Split:
        """Which split there is: the one asked for, or RETFound's in its layout, the official one where there is one, or by hash.

        Raises:
          UsageError: the one asked for is not in this folder.
        """
        stated = {example.split for example in self.examples}
        official = not self.retfound_layout and '' not in stated and 'test' in stated
        if asked == 'retfound' and not self.retfound_layout:
            raise UsageError(f'{self.root} has not RETFound\'s split, which is train, val and test with a folder for each class; '
                             f'{folders.get_it(self.dataset.name)}')
        if asked == 'official' and not official:
            what = 'is in RETFound\'s layout' if self.retfound_layout else 'has no official split'
            raise UsageError(f'{self.root} {what}; pass --split {"retfound" if self.retfound_layout else "hash"}')
        return asked or ('retfound' if self.retfound_layout else 'official' if official else 'hash')

    def told(self) -> list[str]:
        """What a person should hear of the folder, a sentence each."""
        lines = [f'{self.root}: {len(self.examples)} images of {self.dataset.title}, which has {self.published}']
        if self.missing:
            lines.append(f'{len(self.missing)} images that the labels name are not there, the first {self.missing[0]}')
        if self.unlabelled:
            lines.append(f'{len(self.unlabelled)} pictures have no label and are passed over, the first {self.unlabelled[0]}')
        without = sum(not any(example.labels.values()) for example in self.examples) if self.dataset.labels else 0
        if without:
            lines.append(f'{without} images are in the table and have an empty label')
        if not any(example.patient for example in self.examples):
            lines.append('patients are not named: each image counts as one, unless pictures are alike')
        return lines

    @property
    def published(self) -> int:
        """How many images the dataset has in this layout, as printed."""
        sizes = self.dataset.retfound_split
        return sizes.train + sizes.val + sizes.test if self.retfound_layout and sizes else self.dataset.images


def read(dataset: Dataset, root: Path | str, *, allow_missing: bool = False) -> Reading:
    """Reads the folder of a dataset.

    allow_missing: images that the labels name and that are not there are counted and passed over.

    Raises:
      UserError: the folder is not whole, or not as the dataset's is; one sentence with the path and the way out.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f'{root}, the folder of {dataset.name}, is not there; {folders.get_it(dataset.name)}')
    found = dataset.read(root)
    there, missing, disk = [], [], _Disk(root)
    for example in found:
        (there if disk.has(example.file) else missing).append(example)
    if missing and not (allow_missing and there):
        raise UserError(
            f'{root}: {len(missing)} of {len(found)} images that the labels of {dataset.name} name are not there, the first '
            f'{missing[0].file}; download or unpack them again, or pass --allow_missing'
        )
    if not found:
        raise UserError(f'{root} holds no image of {dataset.name}; {folders.get_it(dataset.name)}')
    _check_keys(there, root)
    return Reading(
        dataset=dataset, root=root, examples=tuple(there), missing=tuple(example.file for example in missing),
        unlabelled=_unlabelled(root, found), retfound_layout=dataset.name in rfsplit.FOLDERS and rfsplit.split_base(root) is not None,
    )


class _Disk:
    """Which files are there, each folder looked through once: a dataset may have a hundred thousand images."""

    def __init__(self, root: Path) -> None:
        self._root, self._folders = root, dict[str, dict[str, os.DirEntry[str]]]()

    def has(self, file: str) -> bool:
        """Whether the file of an example is there. Raises UserError where it leads out of the dataset's folder."""
        place = split_member(file)
        path = folders.plain(self._root, place[0] if place else file)
        folder = path.parent.as_posix()
        if folder not in self._folders:
            whole = self._root if folder == '.' else folders.below(self._root, folder)
            self._folders[folder] = folders.listed(whole) if whole.is_dir() else {}
        entry = self._folders[folder].get(path.name)
        if entry is not None and entry.is_symlink():
            folders.below(self._root, path.as_posix())
        return entry is not None and entry.is_file()


def _check_keys(examples: list[Example], root: Path) -> None:
    twice = next((key for key, count in Counter(example.key for example in examples).items() if count > 1), '')
    if twice:
        first, second = [example.file for example in examples if example.key == twice][:2]
        raise UserError(f'{root}: the images {first} and {second} have one name, {twice}; remove the one that is too many')


def _unlabelled(root: Path, examples: list[Example]) -> tuple[str, ...]:
    """Pictures in the folders of the examples that are neither one of them nor a mask."""
    known = {file for example in examples for file in (example.file, *example.masks.values())}
    inside = {PurePosixPath(example.file).parent.as_posix() for example in examples if not split_member(example.file)}
    found = []
    for folder in sorted(inside):
        names = folders.pictures(root / folder) if (root / folder).is_dir() else []
        found += [file for name in names if (file := name if folder == '.' else f'{folder}/{name}') not in known]
    return tuple(found)
