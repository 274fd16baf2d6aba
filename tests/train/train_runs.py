"""Small runs that the training tests share."""

from __future__ import annotations

from typing import Any

from retfound_jax.data.config import DataConfig
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.models.mae import MAEConfig
from retfound_jax.models.vit import ViTConfig
from retfound_jax.optim import OptimConfig
from retfound_jax.tasks.classify import ClassifyTask
from retfound_jax.tasks.mae import MAETask
from retfound_jax.train.config import TrainConfig

ENCODER = ViTConfig(image_size=32, patch_size=8, width=16, depth=2, heads=2)


def data(**changes: Any) -> DataConfig:
    return DataConfig(**{'phantom': PhantomConfig(patients=6, image_size=48), 'image_size': 32, 'batch_size': 8} | changes)


def mae(**changes: Any) -> TrainConfig:
    task = MAETask(model=MAEConfig(encoder=ENCODER, decoder_width=16, decoder_depth=1, decoder_heads=2))
    base = {'name': 'tiny_mae', 'task': task, 'data': data(), 'optim': OptimConfig(lr=1e-3), 'steps': 4, 'log_every': 1, 'eval_every': -1}
    return TrainConfig(**base | changes)


def classify(**changes: Any) -> TrainConfig:
    labels = ('glaucoma',)
    task = ClassifyTask(model=ENCODER, labels=labels)
    base = {'name': 'tiny_classify', 'task': task, 'data': data(), 'optim': OptimConfig(lr=1e-3), 'steps': 4, 'log_every': 1}
    return TrainConfig(**base | changes)
