"""Masked-autoencoder pretraining on retinal photographs.

Recipe: He et al., arXiv 2111.06377, and RETFound (Zhou et al., Nature 2023): ViT, 75 % of the patches masked, decoder of 8
blocks of width 512, targets normalised by patch, AdamW (0.9, 0.95), weight decay 0.05, base rate 1.5e-4 for 256 images,
cosine schedule, random resized crop of 20-100 % of the area, horizontal flip.

    retfound train --experiment experiments.pretrain_mae:vit_l16 --set data.path=DATASET --workdir RUN

Cost and result of the large ones: not yet measured.
"""

from __future__ import annotations

import dataclasses

from retfound_jax.data.config import DataConfig
from retfound_jax.models.mae import MAEConfig
from retfound_jax.models.vit import vit_config
from retfound_jax.optim import OptimConfig
from retfound_jax.tasks.mae import MAETask
from retfound_jax.train.config import TrainConfig


def _mae(size: str, *, patch_size: int) -> TrainConfig:
    encoder = vit_config(size, patch_size=patch_size, image_size=224, compute_dtype='bfloat16', remat='dots')
    return TrainConfig(
        name=f'pretrain_mae_{size}{patch_size}',
        task=MAETask(model=MAEConfig(encoder=encoder)),
        data=DataConfig(path='DATASET', image_size=224, batch_size=4096, workers=8),
        optim=OptimConfig(base_lr=1.5e-4, weight_decay=0.05, b2=0.95),
        epochs=800,
        warmup_epochs=40,
        log_every=50,
        checkpoint_every=2000,
        eval_every=-1,
    )


def vit_ti16() -> TrainConfig:
    """ViT-Ti/16, 224 px. Not yet measured."""
    return _mae('Ti', patch_size=16)


def vit_s16() -> TrainConfig:
    """ViT-S/16, 224 px. Not yet measured."""
    return _mae('S', patch_size=16)


def vit_b16() -> TrainConfig:
    """ViT-B/16, 224 px; MAE's smaller model. Not yet measured."""
    return _mae('B', patch_size=16)


def vit_l16() -> TrainConfig:
    """ViT-L/16, 224 px, the size of RETFound: 904,170 photographs, 800 epochs, batch 1,792 on 8 A100 for about 14 days as published.

    Not yet measured here.
    """
    config = _mae('L', patch_size=16)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=1792), warmup_epochs=15)


def vit_h14() -> TrainConfig:
    """ViT-H/14, 224 px. Not yet measured."""
    return _mae('H', patch_size=14)


def small_cpu(*, image_size: int = 96) -> TrainConfig:
    """A ViT of 6 blocks of width 192 at 96 px with a decoder of one block: two cores make something of it within the hour.

    Measured as part of experiments.odir5k: 183 images/s on two shared CPU cores (AMD EPYC), 2026-11-22.
    """
    encoder = vit_config('Ti', patch_size=16, image_size=image_size, depth=6, scan=False)
    return TrainConfig(
        name='pretrain_mae_small_cpu',
        task=MAETask(model=MAEConfig(encoder=encoder, decoder_width=128, decoder_depth=1, decoder_heads=4)),
        data=DataConfig(path='DATASET', image_size=image_size, batch_size=128),
        optim=OptimConfig(lr=6e-4, weight_decay=0.05, b2=0.95),
        epochs=100,
        warmup_epochs=5,
        log_every=20,
        checkpoint_every=500,
        eval_every=-1,
    )
