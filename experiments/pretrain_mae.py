"""Masked-autoencoder pretraining (He et al., arXiv 2111.06377) and the published recipes of retinal models made with it.

All of them: 75 % of the patches masked unless said otherwise, decoder of 8 blocks of width 512, targets normalised by patch, AdamW (0.9,
0.95), weight decay 0.05 on kernels, base rate 1.5e-4 for 256 images, linear warm-up and cosine to 0 by step, random resized crop of
20-100 % of the area by bicubic interpolation, horizontal flip, ImageNet mean and deviation.

    retfound train --experiment experiments.pretrain_mae:retfound_cfp --set data.path=DATASET --set init_from=WEIGHTS --workdir RUN

WEIGHTS is a run directory, converted weights, or a published .pth: encoder and, where the file has it, decoder. Left out, a run starts
from random weights.

Facts are of the authors' public code unless marked: reported, by third parties who checked the paper's text, which we could not read;
unconfirmed, found in no source that we could read and never to be quoted as published. Ours computes in bfloat16 and keeps parameters,
norms and softmax in float32.
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
    """ViT-Ti/16, 224 px, by MAE's recipe. Not yet measured."""
    return _mae('Ti', patch_size=16)


def vit_s16() -> TrainConfig:
    """ViT-S/16, 224 px, by MAE's recipe. Not yet measured."""
    return _mae('S', patch_size=16)


def vit_b16() -> TrainConfig:
    """ViT-B/16, 224 px, by MAE's recipe; its smaller model. Not yet measured."""
    return _mae('B', patch_size=16)


def vit_l16() -> TrainConfig:
    """ViT-L/16, 224 px, by MAE's recipe; RETFound's size, whose own schedule is `retfound_cfp`. Not yet measured."""
    return _mae('L', patch_size=16)


def vit_h14() -> TrainConfig:
    """ViT-H/14, 224 px, by MAE's recipe. Not yet measured."""
    return _mae('H', patch_size=14)


def imagenet_vit_l() -> TrainConfig:
    """MAE's ViT-L/16 on the photographs of ImageNet-1k without labels: where every retinal recipe below starts from.

    Source: He et al., arXiv 2111.06377, table 1d; recipe and cost from PRETRAIN.md of github.com/facebookresearch/mae.
    Published: 85.5 % top-1 after fine-tuning (that code; 85.4 % in the paper); about 42 h on 64 V100.
    Unsure: nothing. norm_pix_loss is on as in PRETRAIN.md; the parser's own default is off.
    Here: not yet measured. Data: `--set data.path= --set data.tfds_name=imagenet2012`, once TFDS has prepared them.
    """
    return dataclasses.replace(vit_l16(), name='pretrain_mae_imagenet_vit_l')


def retfound_cfp() -> TrainConfig:
    """RETFound on colour fundus photographs, from MAE on ImageNet.

    Source: Zhou et al., Nature 2023, s41586-023-06555-x; code github.com/rmaphoh/RETFound_MAE at f5ab012, which is MAE's.
    Published: the mask of 75 % (an author's talk in Computer Vision News, October 2023); for what the model gives see
    experiments.finetune:retfound_v1. Reported: 904,170 photographs, 90 % of MEH-MIDAS (37,401 patients, all diabetic), 10 % of Kaggle
    EyePACS; 800 epochs, batch 1,792, 224 on each of 8 A100, about 14 days.
    norm_pix_loss was on, says an author in issue 9 of that repository, though the parser's default is off.
    Unsure: the warm-up of 15 epochs and a peak rate of 1e-3 are unconfirmed; MAE's base rate gives 1.05e-3 at this batch. Defaults of
    the repository's script: 400 epochs, warm-up 40, base rate 1e-3.
    Photographs were first cropped to the disc (AutoMorph's step 1): `retfound ingest` crops too. EyePACS is in the pretraining, so what is
    measured on it is not clean.
    Here: not yet measured. Start: `--set init_from=WEIGHTS`, MAE's ViT-L on ImageNet (the file named `full` has the decoder too).
    """
    config = vit_l16()
    data = dataclasses.replace(config.data, batch_size=1792)
    return dataclasses.replace(config, name='pretrain_mae_retfound_cfp', data=data, warmup_epochs=15)


def retfound_oct() -> TrainConfig:
    """RETFound on OCT, the middle B-scan of each volume: 85 % of the patches masked, else as `retfound_cfp`.

    Source: as `retfound_cfp`. Published: the mask of 85 %, in the same talk; the repository's default is 75 %. Reported: 736,442 scans,
    85 % of MEH-MIDAS, 15 % of the public set of Kermany et al.; epochs, batch and hardware as there.
    Unsure: warm-up and peak rate, unconfirmed as there.
    OCTMNIST is cut from the same public set: what is measured on it is not clean.
    Here: not yet measured. Start: `--set init_from=WEIGHTS`, MAE's ViT-L on ImageNet.
    """
    config = retfound_cfp()
    model = dataclasses.replace(config.task.model, mask_ratio=0.85)
    return dataclasses.replace(config, name='pretrain_mae_retfound_oct', task=dataclasses.replace(config.task, model=model))


def deretfound_synthetic() -> TrainConfig:
    """DERETFound's first stage: about a million (reported) photographs drawn by a diffusion model, from MAE on ImageNet.

    Source: Nature Biomedical Engineering 2025, s41551-025-01365-0; code github.com/Jonlysun/DERETFound, README.md.
    Published: 200 epochs, 20 of warm-up, 8 GPUs of 224 images, base rate 1.5e-4, norm_pix_loss, mask 75 %; about $14,000 for both stages,
    as RETFound-Green's authors estimate. Result: see `deretfound_real`.
    Unsure: the repository gives one command and does not say which stage it is of; here both have it.
    Here: not yet measured. Start: `--set init_from=WEIGHTS`, MAE's ViT-L on ImageNet.
    """
    return dataclasses.replace(retfound_cfp(), name='pretrain_mae_deretfound_synthetic', epochs=200, warmup_epochs=20)


def deretfound_real() -> TrainConfig:
    """DERETFound's second stage: about 150,000 real photographs, 16.7 % of RETFound's, from its first stage.

    Source: as `deretfound_synthetic`. Published: nothing that we could read; reported: AUPR above RETFound's on 6 of 9 sets, level on 3.
    Unsure: whether this stage had the same schedule as the first, as it has here.
    Here: not yet measured. Start: `--set init_from=RUN` of `deretfound_synthetic`.
    """
    return dataclasses.replace(deretfound_synthetic(), name='pretrain_mae_deretfound_real')


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
