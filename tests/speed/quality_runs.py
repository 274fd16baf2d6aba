"""A study for the quality gate, found by name as users' own are."""

from __future__ import annotations

from retfound_jax.data.config import DataConfig
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.models.mae import MAEConfig
from retfound_jax.models.vit import ViTConfig
from retfound_jax.optim import OptimConfig
from retfound_jax.tasks.mae import MAETask
from retfound_jax.train.config import TrainConfig


def tiny() -> TrainConfig:
    """A masked autoencoder that trains in a second."""
    encoder = ViTConfig(image_size=32, patch_size=8, width=16, depth=2, heads=2)
    task = MAETask(model=MAEConfig(encoder=encoder, decoder_width=16, decoder_depth=1, decoder_heads=2))
    data = DataConfig(phantom=PhantomConfig(patients=6, image_size=48), image_size=32, batch_size=8)
    optim = OptimConfig(lr=1e-3, warmup_steps=2)
    return TrainConfig(name='tiny', task=task, data=data, optim=optim, steps=10, log_every=1, eval_every=-1)
