"""Small datasets for the tests of this room, written to the contract of `ingest.records` and the manifest, without the ingest itself."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image

from retfound_jax.core.files import sha256_file, write_json
from retfound_jax.ingest.records import NAN, SCHEMA_VERSION, Record, encode

TEXT = (
    'key', 'patient', 'group', 'laterality', 'sex', 'ethnicity', 'country', 'site', 'camera', 'diabetes_type', 'source', 'age_word'
)


def picture(number: int, *, height: int = 64, width: int = 64) -> np.ndarray:
    """A smooth picture with some detail: uint8 [H, W, 3]."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    fine = Image.fromarray(rng.integers(0, 60, (height // 3, width // 3, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(coarse).astype(int) * 3 // 4 + np.asarray(fine), 0, 255).astype(np.uint8)


def jpeg(pixels: np.ndarray, **options: object) -> bytes:
    """A JPEG of quality 92."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, 'JPEG', quality=92, **options)
    return buffer.getvalue()


def records(count: int, *, size: int = 64) -> list[Record]:
    """Two images a patient, alternating sexes, an age that is missing for the third patient, and three labels with gaps."""
    made = []
    for number in range(count):
        person = number // 2
        made.append(
            Record(
                image=jpeg(picture(number, height=size, width=size)),
                key=f'image{number}.jpg',
                patient=f'P{person}',
                group=f'P{person}',
                laterality='RL'[number % 2],
                modality='CFP',
                sex='FM'[person % 2] if person != 1 else '',
                site='north' if person % 3 else 'south',
                age=NAN if person == 2 else 40.0 + person,
                labels={'grade': float(number % 3), 'cataract': NAN if number % 4 == 1 else float(number % 2), 'thickness': number / 8},
            )
        )
    return made


def write_dataset(folder: Path, splits: Mapping[str, Sequence[Record]], *, shard: int = 5) -> Path:
    """Writes the splits as ingest would, `shard` records a file."""
    folder.mkdir(parents=True)
    shards, rows = [], []
    for split, items in splits.items():
        parts = [items[start : start + shard] for start in range(0, len(items), shard)]
        for number, part in enumerate(parts):
            path = folder / f'retina-{split}.array_record-{number:05d}-of-{len(parts):05d}'
            writer = ArrayRecordWriter(str(path), 'group_size:1')
            for record in part:
                writer.write(encode(record))
            writer.close()
            size, digest = path.stat().st_size, sha256_file(path)
            shards.append({'file': path.name, 'split': split, 'count': len(part), 'bytes': size, 'sha256': digest})
        rows += [_row(record, split=split, position=position) for position, record in enumerate(items)]
    pq.write_table(pa.Table.from_pylist(rows), folder / 'index.parquet')
    labels = {
        'grade': {'kind': 'class', 'classes': ['0', '1', '2']},
        'cataract': {'kind': 'class', 'classes': ['no', 'yes']},
        'thickness': {'kind': 'number', 'classes': None},
    }
    fingerprint = hashlib.sha256(''.join(item['sha256'] for item in shards).encode()).hexdigest()
    manifest = {'schema_version': SCHEMA_VERSION, 'splits': {split: {} for split in splits}, 'shards': shards, 'labels': labels}
    write_json(folder / 'manifest.json', {**manifest, 'fingerprint': fingerprint})
    return folder


def _row(record: Record, *, split: str, position: int) -> dict[str, object]:
    text = {name: getattr(record, name) for name in TEXT}
    return {'split': split, 'position': position, **text, 'age': record.age, **{f'label:{k}': v for k, v in record.labels.items()}}
