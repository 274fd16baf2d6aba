"""The manifest: what a dataset holds, who is in it, where it comes from, and the sums by which its shards are checked."""

from __future__ import annotations

import collections
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from retfound_jax.core.errors import UserError
from retfound_jax.core.files import read_json, sha256_file
from retfound_jax.ingest.records import SCHEMA_VERSION, Record
from retfound_jax.ingest.splits import class_balance
from retfound_jax.ingest.writer import Shard

FILE = 'manifest.json'
_BANDS = (18, 30, 40, 50, 60, 70, 80)  # [years]
_WORDS = ('sex', 'ethnicity', 'country', 'site', 'camera', 'laterality')
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
    if version != SCHEMA_VERSION:
        raise UserError(f'{folder / FILE} has schema version {version} and this program reads {SCHEMA_VERSION}; ingest again')
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


def describe_splits(by_split: Mapping[str, Sequence[Record]], labels: Mapping[str, tuple[str, ...] | None]) -> dict[str, Any]:
    """Images, patients, groups and class balance of each split."""
    return {
        split: {
            'images': len(rows),
            'patients': len({row.patient for row in rows}),
            'groups': len({row.group for row in rows}),
            'labels': class_balance(labels, {name: [row.labels[name] for row in rows] for name in labels}),
        }
        for split, rows in by_split.items()
    }


def summary(rows: Sequence[Record], *, of_patients: bool = False) -> dict[str, Any]:
    """Who is in it: counts and missing of each demographic column. Rows are images, or one a patient (`one_a_patient`)."""
    names = [name for name in _WORDS if not (of_patients and name == 'laterality')]
    return {**{name: _counts(getattr(row, name) for row in rows) for name in names}, 'age': _ages([row.age for row in rows])}


def one_a_patient(rows: Iterable[Record]) -> list[Record]:
    """The first record of each patient."""
    first: dict[str, Record] = {}
    for row in rows:
        first.setdefault(row.patient, row)
    return list(first.values())


def reasons(rejects: Mapping[str, str]) -> dict[str, int]:
    """How often each reason occurs, the most frequent first; rare ones beyond fifty are summed."""
    counted = sorted(collections.Counter(rejects.values()).items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in counted[_MOST_REASONS:])
    return dict(counted[:_MOST_REASONS]) | ({'other reasons, see rejects.csv': rest} if rest else {})


def _counts(values: Iterable[str]) -> dict[str, int]:
    counted = collections.Counter(values)
    missing = counted.pop('', 0)
    return dict(sorted(counted.items())) | {'missing': missing}


def _ages(values: Sequence[float]) -> dict[str, Any]:
    known = [value for value in values if not math.isnan(value)]
    bands = {f'0-{_BANDS[0] - 1}': sum(age < _BANDS[0] for age in known)}
    bands |= {f'{low}-{high - 1}': sum(low <= age < high for age in known) for low, high in zip(_BANDS[:-1], _BANDS[1:], strict=True)}
    bands |= {f'{_BANDS[-1]}+': sum(age >= _BANDS[-1] for age in known)}
    mean = round(math.fsum(known) / len(known), 3) if known else None
    ends = {'min': min(known, default=None), 'max': max(known, default=None), 'mean': mean}
    return {**ends, 'missing': len(values) - len(known), 'bands': bands}
