"""Token reconstruction: pretraining of a small encoder from a general one, in hours of one GPU (RETFound-Green).

    retfound train --experiment experiments.pretrain_green:retfound_green --set data.path=DATASET --set init_from=WEIGHTS --workdir RUN

WEIGHTS is where the student starts and what its frozen teacher stays: DINOv2's ViT-S/14 with registers. Without it both start as the same
random network, which teaches nothing about eyes; that is for trying the machinery out.
"""

from __future__ import annotations

from retfound_jax.data.config import DataConfig
from retfound_jax.models.token_reconstruction import TokenReconstructionConfig
from retfound_jax.models.vit import vit_config
from retfound_jax.optim import OptimConfig
from retfound_jax.tasks.token_reconstruction import TokenReconstructionTask
from retfound_jax.train.config import TrainConfig

_HALF = (0.5, 0.5, 0.5)


def retfound_green() -> TrainConfig:
    """RETFound-Green: ViT-S/14 with 4 registers at 392 px, 75,000 public photographs, 120 epochs.

    Source: Engelmann and Bernabeu, Nature Communications 2025, s41467-025-62123-z; TokenReconstructionPretraining.ipynb and data.py of
    github.com/justinengelmann/RETFound_Green at bddfb9a, from which noise, blanking, projector and schedule are taken.
    Published: under $100 (abstract). Linear probes of its notebooks, AUC: BRSET DR .9624, AMD .9482, macular oedema .9751; IDRiD any DR
    .9017. DINOv2 itself, same size, without a retinal photograph: BRSET DR .9416, AMD .9332, macular oedema .9692.
    Differs from there: the rate falls over 120 epochs to 5e-9 by step; theirs over 100 by epoch, and stays there for 20 (nearer: `--set
    epochs=100`). Augmentation is one resized crop of 70-100 % and a flip; theirs picks among that crop, a central one and a plain
    resize, and adds vertical flips, side padding, rotation, brightness and contrast. Weight decay spares tokens and positions.
    Validation crops the middle square by bicubic; theirs squeezes the whole picture by bilinear.
    Unsure: nothing known.
    Here: not yet measured. Embeddings are the mean of the normed patch tokens.
    """
    encoder = vit_config(
        'S',
        patch_size=14,
        image_size=392,
        registers=4,
        positions='learned',
        cls_position=False,
        layer_scale=1e-5,
        pool='mean_normed',
        compute_dtype='bfloat16',
        remat='dots',
    )
    return TrainConfig(
        name='pretrain_green',
        task=TokenReconstructionTask(model=TokenReconstructionConfig(encoder=encoder)),
        data=DataConfig(path='DATASET', image_size=392, batch_size=128, crop_scale=(0.7, 1.0), mean=_HALF, std=_HALF, workers=8),
        optim=OptimConfig(lr=5e-5, weight_decay=1e-4, b2=0.99, min_lr=5e-9, clip_norm=0.1),
        epochs=120,
        warmup_epochs=10,
        log_every=50,
        checkpoint_every=2000,
        eval_every=-1,
    )


def small_cpu(*, image_size: int = 56) -> TrainConfig:
    """Two blocks of width 32 at 56 px, 40 steps, to see it run.

    Measured 2026-11-22: 26 s, compilation included, on two shared CPU cores (AMD EPYC, jax 0.10.2, commit 371cd7a), 80 drawn photographs.
    """
    encoder = vit_config(
        'Ti', width=32, depth=2, heads=2, patch_size=14, image_size=image_size, registers=4, layer_scale=0.1, pool='mean_normed', scan=False
    )
    return TrainConfig(
        name='pretrain_green_small_cpu',
        task=TokenReconstructionTask(model=TokenReconstructionConfig(encoder=encoder)),
        data=DataConfig(path='DATASET', image_size=image_size, batch_size=16, crop_scale=(0.7, 1.0), mean=_HALF, std=_HALF),
        optim=OptimConfig(lr=1e-3, weight_decay=1e-4, b2=0.99, warmup_steps=4, clip_norm=1.0),
        steps=40,
        log_every=5,
        checkpoint_every=1000,
        eval_every=-1,
    )
