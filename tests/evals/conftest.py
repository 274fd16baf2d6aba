"""Synthetic predictions with known structure, for the tests of this room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from retfound_jax.evals.predictions import Predictions


def _predictions(
    kind: str, *, n: int = 240, seed: int = 0, split: str = 'test', classes: tuple[str, ...] = (), **changes: Any
) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = ('glaucoma', 'amd') if kind == 'multi' else ('age',) if kind == 'regress' else ('grade',)
    if kind in ('single', 'ordinal'):
        classes = classes or ('0', '1', '2', '3')
        label = rng.integers(len(classes), size=n)
        score = rng.random((n, len(classes))) + 0.6 * (label[:, None] == np.arange(len(classes)))
        score /= score.sum(axis=1, keepdims=True)
        label = label[:, None].astype(float)
    elif kind == 'multi':
        label = (rng.random((n, 2)) < 0.4).astype(float)
        score = 0.6 * rng.random((n, 2)) + 0.4 * label * rng.random((n, 2))
        label[rng.random((n, 2)) < 0.1] = np.nan
    else:
        label = rng.normal(60, 10, (n, 1))
        score = label + rng.normal(1, 5, (n, 1))
    columns = {
        'key': np.array([f'{split}{i:05d}' for i in range(n)]),
        'patient': np.array([f'p{i // 2:05d}' for i in range(n)]),
        'laterality': np.array(['L', 'R'] * (n // 2) + ['L'] * (n % 2)),
        'sex': np.repeat(rng.choice(['F', 'M', ''], (n + 1) // 2, p=[0.5, 0.4, 0.1]), 2)[:n],
        'age': np.repeat(rng.normal(55, 14, (n + 1) // 2), 2)[:n],
        'site': np.full(n, ''),
    }
    parts = {'columns': columns, 'label_NY': label, 'score_NS': score} | changes
    return Predictions(kind=kind, labels=labels, classes=classes, split=split, step=7, fingerprint='abc', **parts)


@pytest.fixture
def make() -> Callable[..., Predictions]:
    """make(kind, n=, seed=, split=, classes=, columns=, label_NY=, score_NS=): two images a patient, scores that know something."""
    return _predictions
