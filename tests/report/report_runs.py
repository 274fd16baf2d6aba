"""Run directories as training and evaluation leave them, made by code."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from retfound_jax.core.files import write_json
from retfound_jax.evals.predictions import Predictions, write_predictions
from retfound_jax.evals.tables import EvalConfig, evaluate

FINGERPRINT = '5f' * 32
CLASSES = {
    'single': ('healthy', 'referable'),
    'many': ('normal', 'cataract', 'glaucoma', 'myopia'),
    'ordinal': ('0', '1', '2', '3', '4'),
    'multi': (),
    'regress': (),
}
LABELS = {'multi': ('cataract', 'myopia', 'diabetes'), 'regress': ('age_years',), 'ordinal': ('ICDR',)}


def jpeg(key: str) -> bytes:
    """A small drawn fundus, different for each key."""
    rng = np.random.default_rng(sum(key.encode()))
    image = Image.new('RGB', (128, 128))
    draw = ImageDraw.Draw(image)
    draw.ellipse((2, 2, 126, 126), fill=(150 + int(rng.integers(50)), 70 + int(rng.integers(30)), 30))
    x, y = rng.integers(30, 98, size=2)
    draw.ellipse((x - 9, y - 9, x + 9, y + 9), fill=(250, 220, 150))
    for angle in rng.uniform(0, 6.3, size=8):
        draw.line((x, y, 64 + 60 * np.cos(angle), 64 + 60 * np.sin(angle)), fill=(110, 20, 15), width=2)
    buffer = io.BytesIO()
    image.save(buffer, 'JPEG', quality=80)
    return buffer.getvalue()


def make_predictions(kind: str, *, split: str = 'test', patients: int = 120, seed: int = 0, **names: Any) -> Predictions:
    """Two images a patient; `kind` may be `many` for four classes without an order. `names` overrides classes, labels or key."""
    rng = np.random.default_rng(seed)
    classes = tuple(names.get('classes', CLASSES[kind]))
    labels = tuple(names.get('labels', LABELS.get(kind, ('disease',))))
    n = 2 * patients
    strength = np.repeat(rng.normal(size=patients), 2)
    label_NY, score_NS = _answers(kind, rng, strength, classes, labels)
    missing_N = rng.random(n) < 0.03
    label_NY[missing_N, 0] = np.nan
    prefix = names.get('key', 'secret')
    return Predictions(
        kind='single' if kind == 'many' else kind,
        labels=labels,
        classes=classes,
        split=split,
        step=240,
        fingerprint=FINGERPRINT,
        columns={
            'key': np.array([f'{prefix}_{split}_{i:04d}.jpg' for i in range(n)]),
            'patient': np.repeat([f'p{split}{i}' for i in range(patients)], 2),
            'laterality': np.tile(['L', 'R'], patients),
            'sex': np.repeat(rng.choice(['F', 'M', ''], p=[0.5, 0.42, 0.08], size=patients), 2),
            'age': np.repeat(np.where(rng.random(patients) < 0.05, np.nan, rng.normal(58, 13, patients).round()), 2),
            'ethnicity': np.repeat(rng.choice(names.get('ethnicity', ['Asian', 'Black', 'White']), size=patients), 2),
            'country': np.full(n, ''),
            'site': np.full(n, 'A'),
            'camera': np.full(n, 'Topcon'),
        },
        label_NY=label_NY,
        score_NS=score_NS,
    )


def _answers(
    kind: str, rng: np.random.Generator, strength_N: np.ndarray, classes: tuple[str, ...], labels: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    n = len(strength_N)
    if kind == 'regress':
        true_N = 58 + 12 * strength_N
        return true_N[:, None].round(), (true_N + rng.normal(1, 6, n))[:, None]
    if kind == 'multi':
        latent_NY = np.stack([strength_N * (0.5 + y) + rng.normal(size=n) for y in range(len(labels))], axis=1)
        return (latent_NY > 1.0).astype(float), 1 / (1 + np.exp(1.5 - latent_NY - rng.normal(size=latent_NY.shape)))
    edges = np.quantile(strength_N, np.linspace(0, 1, len(classes) + 1)[1:-1] ** 0.6)
    true_N = np.digitize(strength_N, edges)
    logits_NY = -0.7 * (np.arange(len(classes)) - true_N[:, None]) ** 2 + rng.normal(size=(n, len(classes)))
    weights_NY = np.exp(logits_NY)
    return true_N[:, None].astype(float), weights_NY / weights_NY.sum(axis=1, keepdims=True)


def evaluated_run(
    root: Path, kind: str, *, by: tuple[str, ...] = ('sex', 'age_band', 'ethnicity'), replicates: int = 40, **names: Any
) -> Path:
    """A finished run of a task with predictions and tables."""
    run = root / f'{kind}_run'
    test, val = (make_predictions(kind, split=split, seed=seed, **names) for split, seed in (('test', 1), ('val', 2)))
    for one in (test, val):
        write_predictions(one, path=run / 'predictions' / f'{one.split}.parquet')
    config = EvalConfig(by=by, replicates=replicates, permutations=40)
    write_json(run / 'tables' / 'metrics_test.json', evaluate(test, validation=val, config=config))
    adapt = 'retfound_jax.tasks.regress:RegressTask' if kind == 'regress' else 'retfound_jax.tasks.classify:ClassifyTask'
    model = {'type': 'retfound_jax.models.vit:ViTConfig', 'depth': 8, 'width': 192, 'patch_size': 16, 'image_size': 96}
    task = {'type': adapt, 'model': model, 'labels': list(test.labels), 'adapt': 'full'}
    _write_run(run, name='quickstart_finetune', task=task, steps=240, init_from='pretrain')
    rng = np.random.default_rng(3)
    rows = [(s, 'loss', 0.35 + 0.4 * np.exp(-s / 70) + 0.02 * rng.normal()) for s in range(10, 241, 10)]
    rows += [(s, 'learning_rate', 1e-3 * min(s / 30, 1 - s / 260)) for s in range(10, 241, 10)]
    rows += [(s, 'val/AUROC', 0.8 + s / 2000) for s in (60, 120, 180, 240)] + [(s, 'val/loss', 0.6 - s / 1200) for s in (60, 120, 180, 240)]
    _write_metrics(run, rows)
    return run


def pretrain_run(root: Path, *, triples: int = 3) -> Path:
    """A finished pretraining run with its reconstruction pictures."""
    run = root / 'pretrain'
    encoder = {'type': 'retfound_jax.models.vit:ViTConfig', 'depth': 8, 'width': 192, 'patch_size': 16, 'image_size': 96}
    model = {'type': 'retfound_jax.models.mae:MAEConfig', 'encoder': encoder, 'mask_ratio': 0.75}
    _write_run(run, name='quickstart_pretrain', task={'type': 'retfound_jax.tasks.mae:MAETask', 'model': model}, steps=450)
    rng = np.random.default_rng(4)
    rows = [(s, 'loss', 0.4 + 0.6 * np.exp(-s / 120) + 0.01 * rng.normal()) for s in range(10, 451, 10)]
    _write_metrics(run, rows + [(s, 'learning_rate', 6e-4 * min(s / 40, 1 - s / 460)) for s in range(10, 451, 10)])
    for i in range(triples):
        photograph = Image.open(io.BytesIO(jpeg(f'{i}'))).resize((96, 96))
        patches = np.asarray(photograph).reshape(6, 16, 6, 16, 3).copy()
        patches.transpose(0, 2, 1, 3, 4)[rng.random((6, 6)) < 0.75] = 128
        masked = Image.fromarray(patches.reshape(96, 96, 3))
        for name, image in (
            ('photograph', photograph),
            ('masked', masked),
            ('reconstruction', photograph.resize((12, 12)).resize((96, 96))),
        ):
            path = run / 'figures' / f'triple_{i:02d}_{name}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
    return run


def dataset_dir(root: Path, **changes: Any) -> Path:
    """A dataset directory as far as the report reads one: its manifest."""
    labels = {'disease': {'kind': 'class', 'classes': ['healthy', 'referable']}, 'age_years': {'kind': 'number', 'classes': None}}
    splits = {
        'train': {'images': 672, 'patients': 336, 'groups': 330, 'labels': {'disease': {'healthy': 480, 'referable': 180, 'missing': 12}}},
        'val': {'images': 96, 'patients': 48, 'groups': 48, 'labels': {'disease': {'healthy': 70, 'referable': 26}}},
        'test': {'images': 192, 'patients': 96, 'groups': 95, 'labels': {'disease': {'healthy': 140, 'referable': 50, 'missing': 2}}},
    }
    bands = {'<40': 70, '40-49': 160, '50-59': 280, '60-69': 270, '>=70': 140}
    summary = {
        'sex': {'F': 480, 'M': 400, 'missing': 80},
        'age': {'min': 21.0, 'max': 91.0, 'mean': 57.8, 'missing': 40, 'bands': bands},
        'ethnicity': {'Asian': 700, 'Black': 100, 'White': 120, 'missing': 40},
        'country': {'missing': 960},
        'site': {f'Hospital {i}': 96 - 2 * i for i in range(14)},
        'camera': {'Topcon TRC-NW400': 500, 'Canon CR-2': 460, 'missing': 0},
        'laterality': {'L': 480, 'R': 480, 'missing': 0},
    }
    manifest = {
        'schema_version': 1,
        'name': 'retina',
        'splits': splits,
        'labels': labels,
        'summary': summary,
        'rejects': {'count': 7, 'reasons': {'the file is empty': 2, 'the image is 1x1 px, smaller than 64 px': 5}},
        'duplicates': {'exact_groups': 3, 'near_groups': 2, 'joined_patients': 5},
        'fingerprint': FINGERPRINT,
    }
    write_json(root / 'dataset' / 'manifest.json', manifest | changes)
    return root / 'dataset'


def _write_run(run: Path, *, name: str, task: dict, steps: int, init_from: str = '') -> None:
    config = {'type': 'retfound_jax.train.config:TrainConfig', 'name': name, 'task': task, 'data': {'batch_size': 32, 'path': 'dataset'}}
    write_json(run / 'config.json', config | {'steps': steps, 'seed': 0, 'init_from': init_from})


def _write_metrics(run: Path, rows: list[tuple[int, str, float]]) -> None:
    lines = [
        json.dumps({'step': step, 'wall_time': 1000.0 + 0.8 * step, 'name': name, 'value': float(value)}) for step, name, value in rows
    ]
    (run / 'metrics.jsonl').write_text('\n'.join(lines) + '\n', encoding='utf-8')
