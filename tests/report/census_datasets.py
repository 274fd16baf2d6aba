"""Dataset directories with a manifest and an index, of people made up by a seed: what counts people needs no pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

COUNTRIES = ('UK', 'India', 'China', 'Hong Kong', 'Taiwan', 'Fiji', '')


def people(n: int, *, seed: int = 0, sites: int = 4) -> dict[str, np.ndarray]:
    """Columns of an index: two images of each of n patients."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, len(COUNTRIES) + 1) ** 1.6
    one = {
        'split': rng.choice(['train', 'val', 'test'], p=[0.7, 0.1, 0.2], size=n),
        'patient': np.array([f'patient-{seed}-{i}' for i in range(n)]),
        'country': rng.choice(COUNTRIES, p=share / share.sum(), size=n),
        'ethnicity': rng.choice(['Asian', 'Black', 'White', 'Mixed', 'declined', ''], p=[0.4, 0.1, 0.36, 0.02, 0.05, 0.07], size=n),
        'sex': rng.choice(['F', 'M', '', 'declined'], p=[0.5, 0.45, 0.04, 0.01], size=n),
        'age': np.where(rng.random(n) < 0.03, np.nan, rng.normal(60, 13, n).clip(2, 95).round()).astype(np.float32),
        'site': np.array([f'site {i}' for i in rng.integers(0, sites, n)]),
    }
    columns = {name: np.repeat(values, 2) for name, values in one.items()}
    columns['camera'] = rng.choice(['Topcon', 'Zeiss'], size=2 * n)
    columns['laterality'] = np.tile(['L', 'R'], n)
    columns['label:dr'] = rng.choice([0, 1, 2, np.nan], p=[0.7, 0.24, 0.01, 0.05], size=2 * n).astype(np.float32)
    return columns


def write(folder: Path, columns: dict[str, np.ndarray], *, index: bool = True, **manifest: Any) -> Path:
    """The directory; `manifest` is put over its manifest."""
    folder.mkdir(parents=True)
    if index:
        pq.write_table(pa.table(columns), folder / 'index.parquet')
    (folder / 'train.array_record').write_bytes(b'records')
    splits = columns['split']
    content = {
        'schema_version': 2, 'name': 'retina', 'images': len(splits), 'modality': {'CFP': len(splits)}, 'fingerprint': 'f' * 64,
        'splits': {
            name: {'images': int((splits == name).sum()), 'patients': len(set(columns['patient'][splits == name])), 'labels': {}}
            for name in ('train', 'val', 'test')
        },
        'labels': {'dr': {'kind': 'class', 'classes': ['none', 'mild', 'severe']}},
        'summary': {}, 'summary_patients': {}, 'rejects': {'count': 2, 'reasons': {'too dark': 2}},
        'duplicates': {'exact_groups': 1, 'near_groups': 0, 'joined_patients': 2}, 'files': {'found': len(splits) + 2},
        'provenance': {'source': 'images', 'options': {'shorter_side': 256, 'jpeg_quality': 90}},
        'shards': [{'file': 'train.array_record', 'split': 'train', 'count': len(splits), 'bytes': 7, 'sha256': 'a' * 64}],
        'demographics': {
            'schema': 1, 'ethnicity_scheme': 'ONS 2021',
            'changes': [
                {'field': 'sex', 'from': 'woman', 'to': 'F', 'reason': '', 'cells': 80, 'patients': 40},
                {'field': 'sex', 'from': 'Jane Doe', 'to': '', 'reason': '', 'cells': 2, 'patients': 1},
            ],
            'contradictions': {'sex': 3},
        },
    }
    (folder / 'manifest.json').write_text(json.dumps({**content, **manifest}))
    return folder


def dataset(folder: Path, *, n: int = 1000, seed: int = 0, sites: int = 4, **manifest: Any) -> Path:
    """A directory of n patients."""
    return write(folder, people(n, seed=seed, sites=sites), **manifest)
