"""What of the registry's datasets is on this disk: each in a folder of its name below one data folder."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Literal

from retfound_jax.core.errors import UserError
from retfound_jax.registry import reading
from retfound_jax.registry.base import Dataset, File

State = Literal['present', 'partly', 'absent']
# An archive need not stay when it is unpacked; where it does, its checksum tells whether the download was whole.
_ARCHIVES = ('.zip', '.rar', '.7z', '.tar', '.tgz', '.gz')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Status:
    """What is there of one dataset."""

    dataset: Dataset
    folder: Path
    state: State
    images: int  # that are there
    reason: str = ''  # what is missing or wrong, and the way out


def is_archive(file: File) -> bool:
    """Whether the file is needed only until it is unpacked."""
    return file.name.lower().endswith(_ARCHIVES)


def status(dataset: Dataset, root: Path | str, *, check: bool = False) -> Status:
    """Looks for a dataset in ROOT/NAME.

    check: also reads every file that has a checksum, and tells one that has another.
    """
    folder = Path(root) / dataset.name
    if not folder.is_dir() or not any(folder.iterdir()):
        return Status(dataset=dataset, folder=folder, state='absent', images=0)
    try:
        if check:
            checksums(dataset, folder)
        found = reading.read(dataset, folder)
    except UserError as error:
        return Status(dataset=dataset, folder=folder, state='partly', images=0, reason=str(error))
    count = len(found.examples)
    if count < found.published:
        reason = f'{folder} has {count} of {found.published} images; unpack it again if there should be more'
        return Status(dataset=dataset, folder=folder, state='partly', images=count, reason=reason)
    return Status(dataset=dataset, folder=folder, state='present', images=count)


def checksums(dataset: Dataset, folder: Path | str) -> list[str]:
    """Compares the files whose checksum is known; returns the names of those that were there.

    Raises:
      UserError: one has another checksum.
    """
    seen = []
    for file in dataset.files:
        path, kind, wanted = Path(folder) / file.name, 'sha256' if file.sha256 else 'md5', file.sha256 or file.md5
        if not wanted or not path.is_file():
            continue
        with open(path, 'rb') as opened:
            found = hashlib.file_digest(opened, kind).hexdigest()
        if found != wanted.lower():
            whence = f'download it again from {file.url}' if file.url else 'download it again'
            name = 'SHA-256' if file.sha256 else 'MD5'
            raise UserError(f'{path} has the {name} {found} and not {wanted}, so it is damaged or another version; {whence}')
        seen.append(file.name)
    return seen
