"""Adaptation of a pretrained encoder to a labelled task: RETFound's v1 recipe and a small one for two cores.

v1 (the paper's code of 2023): 224 px, batch 16, 50 epochs, 10 of warm-up, base rate 5e-3 for 256 images, layer decay 0.65, weight
decay 0.05, drop path 0.2, label smoothing 0.1 (really applied), random resized crop, flip, RandAugment m9, random erasing 0.25;
mean pooling of the patch tokens, then a norm, then a linear layer; the best checkpoint by validation AUROC.

    retfound train --experiment experiments.finetune:retfound_v1 --set data.path=DATASET --set task.labels=dr_grade \\
      --set init_from=PRETRAIN_RUN --workdir RUN
"""

from __future__ import annotations

import dataclasses

from retfound_jax.data.config import DataConfig
from retfound_jax.models.vit import vit_config
from retfound_jax.optim import OptimConfig
from retfound_jax.tasks.classify import ClassifyTask
from retfound_jax.tasks.regress import RegressTask
from retfound_jax.train.config import TrainConfig


def retfound_v1() -> TrainConfig:
    """RETFound's fine-tuning of ViT-L/16 as published in 2023. Not yet measured here."""
    model = vit_config('L', patch_size=16, image_size=224, drop_path=0.2, compute_dtype='bfloat16')
    return TrainConfig(
        name='finetune_retfound_v1',
        task=ClassifyTask(model=model, labels=('label',), label_smoothing=0.1),
        data=DataConfig(path='DATASET', image_size=224, batch_size=16, randaugment=9.0, random_erasing=0.25, workers=4),
        optim=OptimConfig(base_lr=5e-3, weight_decay=0.05, b2=0.999, layer_decay=0.65, min_lr=1e-6),
        epochs=50,
        warmup_epochs=10,
        eval_every=100,
        checkpoint_every=1000,
    )


def small_cpu(*, image_size: int = 96) -> TrainConfig:
    """Fine-tuning of the small ViT of `experiments.pretrain_mae:small_cpu` on two cores."""
    model = vit_config('Ti', patch_size=16, image_size=image_size, depth=6, drop_path=0.1, scan=False)
    return TrainConfig(
        name='finetune_small_cpu',
        task=ClassifyTask(model=model, labels=('label',), label_smoothing=0.1),
        data=DataConfig(path='DATASET', image_size=image_size, batch_size=64, crop_scale=(0.5, 1.0)),
        optim=OptimConfig(lr=5e-4, weight_decay=0.05, b2=0.999, layer_decay=0.75, min_lr=1e-6),
        epochs=15,
        warmup_epochs=2,
        log_every=10,
        eval_every=0,
        checkpoint_every=1000,
    )


def small_cpu_age(*, image_size: int = 96) -> TrainConfig:
    """The same for age in years, a regression. Measured as part of experiments.odir5k."""
    config = small_cpu(image_size=image_size)
    return dataclasses.replace(config, name='finetune_small_cpu_age', task=RegressTask(model=config.task.model, labels=('age',)))
