"""A tiny model of drawn photographs, and what it says of people it has never seen."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from retfound_jax.data.config import DataConfig
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.data.phantom.sites import SITES
from retfound_jax.evals.predict import predict
from retfound_jax.evals.predictions import Predictions
from retfound_jax.evals.validation import validation_for
from retfound_jax.models.vit import ViTConfig
from retfound_jax.optim import OptimConfig
from retfound_jax.tasks.classify import ClassifyTask
from retfound_jax.train.checkpoint import Run, load_run
from retfound_jax.train.config import TrainConfig
from retfound_jax.train.loop import train

UNSEEN = 'HH-40'  # the camera of the one site that training does not have
UNSEEN_SITES = tuple(site for site in SITES if site.camera == UNSEEN)
SEEN = tuple(site for site in SITES if site.camera != UNSEEN)
# 252 patients to learn from, 504 photographs: as many as are kept once drawn
PEOPLE = PhantomConfig(seed=0, patients=360, image_size=64, sites=SEEN, amd=0.0)
DATA = DataConfig(phantom=PEOPLE, image_size=64, batch_size=32, labels=('referable_dr', 'glaucoma'), crop_scale=(0.6, 1.0))


def trained(workdir: Path) -> Run:
    """400 steps on photographs of five sites, in nobody of whom the macula is degenerated."""
    task = ClassifyTask(
        model=ViTConfig(image_size=64, patch_size=8, width=64, depth=4, heads=4), labels=DATA.labels, mode='multi', label_smoothing=0.0
    )
    config = TrainConfig(name='tiny', task=task, data=DATA, optim=OptimConfig(lr=1e-3, warmup_steps=40), steps=400, eval_every=400)
    train(config, workdir=workdir, validation=validation_for('multi'))
    return load_run(workdir, which='latest')


def people(**changes: object) -> DataConfig:
    """The photographs of another phantom; its largest split is taken, as nobody of it was trained on."""
    return dataclasses.replace(DATA, phantom=dataclasses.replace(PEOPLE, **changes))


def said_of(run: Run, data: DataConfig) -> Predictions:
    """What the model says of them."""
    return predict(run, split='train', data=data)
