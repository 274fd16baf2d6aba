"""Temporal prediction: pretraining that predicts a later visit of an eye from an earlier one, where eyes were photographed more than once.

    retfound train --experiment experiments.pretrain_temporal:siam_mae_vit_s16 --set data.path=DATASET --workdir RUN

DATASET has patients, laterality and a label `visit_years`, the time of each visit [years] (for another name, or for `age`, set task.labels
and data.pairs alike). `retfound phantom --visits 3` draws one to try it on. What the method is and how it differs from the paper:
retfound_jax/models/temporal.py.
"""

from __future__ import annotations

from retfound_jax.data.config import DataConfig
from retfound_jax.models.temporal import TemporalConfig
from retfound_jax.models.vit import vit_config
from retfound_jax.optim import OptimConfig
from retfound_jax.tasks.temporal import TemporalTask
from retfound_jax.train.config import TrainConfig


def siam_mae_vit_s16() -> TrainConfig:
    """ViT-S/16, 224 px: SiamMAE's way with pairs of visits.

    Source: Gupta et al., "Siamese Masked Autoencoders", NeurIPS 2023, arXiv 2305.14344. Published: 95 % of the later frame masked,
    the earlier one whole, a decoder of cross-attention layers, no augmentation to rely on; video label propagation, nothing about eyes.
    Unsure: the size of the decoder and the schedule, which no source that we could read gives; here MAE's schedule, and a decoder of 4
    blocks of width 256. Crops of 50-100 % of the area, each visit its own: cameras never look at the same spot twice.
    Differs from there: the decoder is told the interval; visits in place of frames.
    Here: not yet measured.
    """
    encoder = vit_config('S', patch_size=16, image_size=224, compute_dtype='bfloat16', remat='dots', pool='mean_normed')
    return TrainConfig(
        name='pretrain_temporal_siam_mae_vit_s16',
        task=TemporalTask(model=TemporalConfig(encoder=encoder)),
        data=DataConfig(path='DATASET', image_size=224, batch_size=2048, crop_scale=(0.5, 1.0), pairs='visit_years', workers=8),
        optim=OptimConfig(base_lr=1.5e-4, weight_decay=0.05, b2=0.95),
        epochs=400,
        warmup_epochs=40,
        log_every=50,
        checkpoint_every=2000,
        eval_every=-1,
    )


def small_cpu(*, image_size: int = 96) -> TrainConfig:
    """The encoder of experiments.pretrain_mae:small_cpu, a ViT of 6 blocks of width 192 at 96 px, with a decoder of 2 blocks.

    Of the 36 patches of the later visit 3 are seen. Not yet measured.
    """
    encoder = vit_config('Ti', patch_size=16, image_size=image_size, depth=6, scan=False, pool='mean_normed')
    model = TemporalConfig(encoder=encoder, decoder_width=128, decoder_depth=2, decoder_heads=4, mask_ratio=0.9)
    return TrainConfig(
        name='pretrain_temporal_small_cpu',
        task=TemporalTask(model=model),
        data=DataConfig(path='DATASET', image_size=image_size, batch_size=128, crop_scale=(0.8, 1.0), pairs='visit_years'),
        optim=OptimConfig(lr=6e-4, weight_decay=0.05, b2=0.95),
        epochs=100,
        warmup_epochs=5,
        log_every=20,
        checkpoint_every=500,
        eval_every=-1,
    )
