"""Run directories without a training: tiny models of random weights, saved as training saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from retfound_jax.data.config import DataConfig
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.models.mae import MAEConfig
from retfound_jax.models.vit import ViTConfig
from retfound_jax.optim import OptimConfig
from retfound_jax.tasks.base import Task
from retfound_jax.tasks.classify import ClassifyTask
from retfound_jax.tasks.mae import MAETask
from retfound_jax.tasks.regress import RegressTask
from retfound_jax.train import spikes
from retfound_jax.train.checkpoint import Better, Checkpoints, prepare_workdir
from retfound_jax.train.config import TrainConfig, align
from retfound_jax.train.state import TrainState

ENCODER = ViTConfig(image_size=32, patch_size=8, width=16, depth=2, heads=2)
ROOT = Path(__file__).resolve().parent.parent
STEP = 7
TASKS: dict[str, Task] = {
    'single': ClassifyTask(model=ENCODER, labels=('grade',), classes=('none', 'mild', 'severe')),
    'ordinal': ClassifyTask(model=ENCODER, labels=('icdr',), classes=('0', '1', '2', '3'), mode='ordinal'),
    'multi': ClassifyTask(model=ENCODER, labels=('glaucoma', 'amd'), mode='multi'),
    'regress': RegressTask(model=ENCODER, labels=('age',), target_mean=50.0, target_std=10.0),
    'mae': MAETask(model=MAEConfig(encoder=ENCODER, decoder_width=16, decoder_depth=1, decoder_heads=2)),
}


def save_run(workdir: Path, task: Task, *, seed: int = 0, **data: Any) -> Path:
    """A run directory of `task`; the weights are far from even, so that every photograph gets scores of its own."""
    config = DataConfig(**{'phantom': PhantomConfig(patients=6), 'image_size': task.image_size, 'batch_size': 4} | data)
    run = align(TrainConfig(name='tiny', task=task, data=config, optim=OptimConfig(), steps=STEP))
    prepare_workdir(run, workdir=workdir, resume=False, overwrite=False, better=Better())
    shapes = nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: task.init(rngs=nnx.Rngs(0)))))
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32), shapes)
    rest = {'halted': jnp.asarray(False), 'recent': spikes.no_steps(), 'skipped': jnp.zeros((), jnp.int32)}
    state = TrainState(step=jnp.asarray(STEP), params=params, opt_state={}, ema={}, **rest)
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(state, data={}, metrics=None)
    return workdir


def photographs(count: int = 5, *, side: int = 40, seed: int = 0) -> np.ndarray:
    """uint8 [count, side, side, 3], no two alike."""
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)
