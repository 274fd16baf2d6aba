"""The main job in small: pretrain, adapt, evaluate, report, on two CPU cores within ten minutes.

    launch/quickstart
    launch/quickstart --source DIR --labels labels.csv --label COLUMN --patient COLUMN --by age,sex

The budget is a number of steps, whatever the number of photographs: this is the whole way walked once, not a model to use.
Measured cost and result: see the table in README.md.
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
    optim = dataclasses.replace(config.optim, warmup_steps=30)
    return dataclasses.replace(config, name='quickstart_pretrain', epochs=0.0, warmup_epochs=0.0, steps=300, optim=optim)


def adapt() -> TrainConfig:
    """Its encoder adapted to one class label; all layers learn fast, as three minutes of pretraining leave much to learn."""
    config = finetune.small_cpu(image_size=96)
    return dataclasses.replace(
        config,
        name='quickstart_finetune',
        task=dataclasses.replace(config.task, model=dataclasses.replace(config.task.model, drop_path=0.0)),
        data=dataclasses.replace(config.data, batch_size=32, crop_scale=(0.8, 1.0)),
        optim=dataclasses.replace(config.optim, lr=1e-3, layer_decay=0.9, warmup_steps=50),
        epochs=0.0,
        warmup_epochs=0.0,
        steps=480,
        eval_every=120,
    )


def adapt_number() -> TrainConfig:
    """Its encoder adapted to one number, such as age."""
    config = adapt()
    return dataclasses.replace(config, task=RegressTask(model=config.task.model, labels=config.task.labels))
