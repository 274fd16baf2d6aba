"""The means against a planted shortcut in whole runs: photographs, ingest, training, predictions of people whom the shortcut fails.

A finding is a pale spot somewhere in the picture. In training, 95 % of the photographs with it come from one camera and 95 % of those
without it from another, whose colours tell them apart at a glance; in the test split cameras say nothing.

Measured 2026-11-26 on 2 shared CPU cores (AMD EPYC): the gap, the share that is right of [A well, A ill, B well, B ill], and their mean:
nothing .73 [1.00 .27 .56 .99] .71; balance .27 [.99 .72 .96 .87] .89; reweight .31 [.97 .66 .90 .79] .83;
group-DRO .25 [.95 .70 .90 .77] .83.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retfound_jax.data.balance import BalanceConfig
from retfound_jax.data.config import DataConfig
from retfound_jax.evals.predict import predict
from retfound_jax.models.vit import ViTConfig
from retfound_jax.optim import OptimConfig
from retfound_jax.tasks.classify import ClassifyTask
from retfound_jax.tasks.robust import GroupDRO, Reweight
from retfound_jax.train.checkpoint import load_run
from retfound_jax.train.config import TrainConfig
from retfound_jax.train.loop import train

SIDE, TRAIN, TEST, STEPS = 32, 1600, 400, 600
SPOT = 14  # [grey levels] over noise of 12: harder to see than the camera
TINTS = {'A': (1.15, 1.0, 0.8), 'B': (0.85, 1.0, 1.25)}


def photograph(rng: np.random.Generator, *, ill: int, camera: str) -> np.ndarray:
    """uint8 [32, 32, 3]: grey noise in the camera's colours, with a spot where there is the finding."""
    pixels = 100 + 12 * rng.normal(size=(SIDE, SIDE))
    y, x = rng.uniform(6, SIDE - 6, 2)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    pixels += ill * SPOT * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * 2.5**2))
    return np.clip(pixels[..., None] * TINTS[camera], 0, 255).astype(np.uint8)


@pytest.fixture(scope='module')
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from retfound_jax.cli.main import run_verb

    folder, rng, rows = tmp_path_factory.mktemp('shortcut'), np.random.default_rng(0), []
    (folder / 'photographs').mkdir()
    for number in range(TRAIN + TEST):
        split, ill = 'train' if number < TRAIN else 'test', int(rng.integers(0, 2))
        camera = 'AB'[ill if rng.random() < (0.95 if split == 'train' else 0.5) else 1 - ill]
        name = f'{number:05d}.png'
        Image.fromarray(photograph(rng, ill=ill, camera=camera)).save(folder / 'photographs' / name)
        rows.append({'image': name, 'patient': f'P{number}', 'camera': camera, 'ill': ill, 'split': split})
    with (folder / 'labels.csv').open('w') as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    words = ['--source', str(folder / 'photographs'), '--labels', str(folder / 'labels.csv'), '--out', str(folder / 'eyes')]
    run_verb('ingest', [*words, '--split_column', 'split', '--size', str(SIDE), '--near_threshold', '0', '--workers', '0'])
    return folder / 'eyes'


MEANS = {
    'nothing': {},
    'balance': {'balance': BalanceConfig(by='camera+ill', temperature=0)},
    'reweight': {'robust': Reweight(by_label=True), 'groups': 'camera'},
    'group-DRO': {'robust': GroupDRO(step_size=0.05), 'groups': 'camera+ill'},
}


def accuracy_by_group(dataset: Path, workdir: Path, *, robust: object = None, **data: object) -> np.ndarray:
    """Of the test split: [camera A well, A ill, B well, B ill]."""
    model = ViTConfig(image_size=SIDE, patch_size=8, width=48, depth=2, heads=3)
    config = TrainConfig(
        name='shortcut',
        task=ClassifyTask(model=model, labels=('ill',), robust=robust, label_smoothing=0.0),
        data=DataConfig(path=str(dataset), image_size=SIDE, eval_crop=1.0, batch_size=64, crop_scale=(0.7, 1.0), **data),
        optim=OptimConfig(lr=2e-3, warmup_steps=30), steps=STEPS, eval_every=-1, log_every=100,
    )
    train(config, workdir=workdir)
    found = predict(load_run(workdir), split='test')
    label, camera = found.label_NY[:, 0], found.columns['camera']
    right = found.score_NS.argmax(1) == label
    return np.array([right[(camera == one) & (label == ill)].mean() for one in 'AB' for ill in (0, 1)])


@pytest.mark.slow
def test_each_means_shrinks_the_gap_that_a_shortcut_makes(dataset: Path, tmp_path: Path) -> None:
    found = {name: accuracy_by_group(dataset, tmp_path / name, **options) for name, options in MEANS.items()}
    assert np.ptp(found['nothing']) > 0.2  # or there is nothing to mend
    gap = {name: np.ptp(accuracy) for name, accuracy in found.items()}
    assert all(gap[name] < gap['nothing'] / 2 for name in gap if name != 'nothing')
