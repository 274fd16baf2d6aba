"""The manifest: what a dataset holds, who is in it, where it comes from, and the sums by which its shards are checked."""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from retfound_jax.core.errors import UserError
from retfound_jax.core.files import read_json, sha256_file
from retfound_jax.ingest.records import READABLE
from retfound_jax.ingest.tally import Census, Classes
from retfound_jax.ingest.writer import Shard

FILE = 'manifest.json'
_MOST_REASONS = 50


def read(folder: Path | str) -> dict[str, Any]:
    """The manifest of a dataset directory.

    Raises:
      UserError: the folder is no dataset of this schema.
    """
    folder = Path(folder)
    if not (folder / FILE).is_file():
        raise UserError(f'{folder} holds no {FILE}, so it is not a dataset; make one with `retfound ingest`')
    content = read_json(folder / FILE)
    version = content.get('schema_version') if isinstance(content, dict) else None
    if version not in READABLE:
        known = ' and '.join(map(str, READABLE))
        raise UserError(f'{folder / FILE} has schema version {version} and this program reads {known}; ingest again')
    return content


def verify(folder: Path | str) -> None:
    """Checks that each shard is there and holds the bytes that were written.

    Raises:
      UserError: naming the first shard that is missing or changed.
    """
    folder = Path(folder)
    for shard in read(folder)['shards']:
        path = folder / shard['file']
        if not path.is_file():
            raise UserError(f'the shard {shard["file"]} is missing from {folder}; copy it again, or ingest again')
        if sha256_file(path) != shard['sha256']:
            raise UserError(f'the shard {path} is damaged: its SHA-256 is not the one in {FILE}; copy it again, or ingest again')


def fingerprint(shards: Iterable[Shard]) -> str:
    """One hash for all records of a dataset."""
    return hashlib.sha256(''.join(f'{shard.file} {shard.sha256}\n' for shard in shards).encode()).hexdigest()


def describe_shards(shards: Sequence[Shard]) -> list[dict[str, Any]]:
    """The shards as the manifest lists them."""
    return [{'file': s.file, 'split': s.split, 'count': s.count, 'bytes': s.bytes, 'sha256': s.sha256} for s in shards]


def describe_splits(splits: Mapping[str, Census], classes: Classes) -> dict[str, Any]:
    """Images, patients, groups and class balance of each split."""
    return {
        split: {
            'images': census.images.rows,
            'patients': census.patients.rows,
            'groups': census.groups,
            'labels': census.images.balance(classes),
        }
        for split, census in splits.items()
    }


def reasons(rejects: Mapping[str, str]) -> dict[str, int]:
    """How often each reason occurs, the most frequent first; rare ones beyond fifty are summed."""
    counted = sorted(collections.Counter(rejects.values()).items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in counted[_MOST_REASONS:])
    return dict(counted[:_MOST_REASONS]) | ({'other reasons, see rejects.csv': rest} if rest else {})
