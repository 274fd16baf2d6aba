"""Folders, tables and datasets of drawn photographs for the tests of `predict` and `embed`."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from retfound_jax.ingest import pipeline
from retfound_jax.ingest.plan import IngestConfig, make_plan

GRADES = ('none', 'mild', 'severe')
NAMES = tuple(f'{site}/{eye}{number}.png' for site in ('north', 'south') for number in range(3) for eye in ('left', 'right'))


def fundus(seed: int, *, height: int = 300, width: int = 380) -> np.ndarray:
    """uint8 BGR: a lit disc with structure of its own on black, wider than high, as a camera gives it."""
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[:height, :width]
    inside = np.hypot(xx - width / 2, yy - height / 2) < 0.46 * height
    texture = cv2.resize(rng.integers(60, 250, (9, 9, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.where(inside[..., None], texture, 0).astype(np.uint8)


def write_folder(root: Path) -> Path:
    """Twelve photographs in two folders, and beside them a table of patients and grades."""
    lines = ['image,patient_id,sex,grade']
    for place, name in enumerate(NAMES):
        path = root / 'images' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), fundus(place))
        lines.append(f'{name},p{place // 2},{"FM"[place // 2 % 2]},{GRADES[place % 3]}')
    (root / 'labels.csv').write_text('\n'.join(lines) + '\n')
    return root


def ingest(root: Path) -> Path:
    """The dataset of that folder."""
    config = IngestConfig(source=str(root / 'images'), labels=str(root / 'labels.csv'), label=('grade',), out=str(root / 'dataset'))
    pipeline.run(make_plan(config))
    return root / 'dataset'
