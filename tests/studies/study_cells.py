"""A study directory as the engine leaves one, made of drawn predictions: for tests of what is made from results alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retfound_jax.core.files import write_json
from retfound_jax.evals.predictions import Predictions, write_predictions

VIT_L = {'width': 1024, 'depth': 24, 'patch': 16, 'image_size': 224, 'parameters': 303_300_000}
SMALL = {'width': 192, 'depth': 6, 'patch': 16, 'image_size': 96, 'parameters': 2_700_000}
APTOS = {'train': 2048, 'val': 514, 'test': 1100}


def predictions(*, seed: int, skill: float, images: int = 120, classes: int = 3, dataset: str = 'd') -> Predictions:
    """Two images a patient; the labels depend on the dataset alone, so that seeds and methods can be compared."""
    truth = np.random.default_rng(sum(map(ord, dataset)))
    label = truth.integers(classes, size=images)
    noise = np.random.default_rng(seed + 1000)
    score = noise.random((images, classes)) + skill * (label[:, None] == np.arange(classes))
    columns = {
        'key': np.array([f'{dataset}{i:04d}' for i in range(images)]),
        'patient': np.array([f'p{i // 2:04d}' for i in range(images)]),
    }
    return Predictions(
        kind='single',
        labels=('dr_grade',),
        classes=tuple(f'c{i}' for i in range(classes)),
        split='test',
        step=1,
        fingerprint=dataset,
        columns=columns,
        label_NY=label[:, None].astype(float),
        score_NS=score / score.sum(axis=1, keepdims=True),
    )


def write_cell(
    study: Path,
    *,
    train_on: str = 'aptos2019',
    test_on: Sequence[str] = ('aptos2019',),
    method: str = 'mae',
    adaptation: str = 'finetune',
    fraction: float = 1.0,
    seed: int = 0,
    skill: float = 0.5,
    **more: Any,
) -> Path:
    """One finished cell; `more` overrides parts of its result."""
    folder = study / 'cells' / f'{train_on}-{method}-{adaptation}-{fraction:g}-{seed}'
    metrics = {'train': {'AUROC': 0.99}}
    for name in test_on:
        made = predictions(seed=seed, skill=skill, dataset=name)
        write_predictions(made, path=folder / 'predictions' / f'{name}.parquet')
        metrics[name] = {'AUROC': 0.5, 'F1': 0.4 + seed / 100}
    names = {'train_on': train_on, 'test_on': list(test_on), 'method': method, 'adaptation': adaptation}
    result = {
        'cell': {'study': 'internal', 'fraction': fraction, 'seed': seed, **names},
        'fingerprint': f'{seed}',
        'datasets': {name: {'fingerprint': name, 'images': dict(APTOS), 'patients': dict(APTOS)} for name in {train_on, *test_on}},
        'weights': {'name': '' if method == 'random' else method, 'pretrained_on': []},
        'model': dict(SMALL),
        'metrics': metrics,
        'seconds': 1.0,
    }
    write_json(folder / 'result.json', result | more)
    return folder
