"""The main job in small: pretrain, adapt, evaluate, report, on two CPU cores within ten minutes.

    launch/quickstart
    launch/quickstart --source DIR --labels labels.csv --label COLUMN --patient COLUMN --by age,sex

The budget is a number of steps, whatever the number of photographs: this is the whole way walked once, not a model to use.
Measured 2026-11-22: 9.2 min on two cores, one of them shared (AMD EPYC, jax 0.10.2, commit 101bc12), 1.4 GB; referable DR AUROC .55.
"""

from __future__ import annotations

import dataclasses

from experiments import finetune, pretrain_mae
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.tasks.regress import RegressTask
from retfound_jax.train.config import TrainConfig


def phantom() -> PhantomConfig:
    """The photographs drawn where the user brings none: 480 patients, both eyes."""
    return PhantomConfig(seed=0, patients=480, image_size=256)


def pretrain() -> TrainConfig:
    """A masked autoencoder of 6 blocks of width 192 at 96 px."""
    config = pretrain_mae.small_cpu(image_size=96)
    optim = dataclasses.replace(config.optim, warmup_steps=40)
    return dataclasses.replace(config, name='quickstart_pretrain', epochs=0.0, warmup_epochs=0.0, steps=450, optim=optim)


def adapt() -> TrainConfig:
    """Its encoder adapted to one class label."""
    config = finetune.small_cpu(image_size=96)
    return dataclasses.replace(
        config,
        name='quickstart_finetune',
        epochs=0.0,
        warmup_epochs=0.0,
        steps=240,
        eval_every=60,
        optim=dataclasses.replace(config.optim, warmup_steps=30),
    )


def adapt_number() -> TrainConfig:
    """Its encoder adapted to one number, such as age."""
    config = adapt()
    return dataclasses.replace(config, task=RegressTask(model=config.task.model, labels=config.task.labels))
