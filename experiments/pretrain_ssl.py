"""Pretraining by comparing views of a photograph: SimCLR, MoCo v3 and SwAV, around the encoders of experiments.pretrain_mae.

    retfound train --experiment experiments.pretrain_ssl:mocov3 --set data.path=DATASET --workdir RUN

Then `--set init_from=RUN` starts a fine-tuning from its encoder. Masks, decoder and host augmentation of a masked autoencoder fall away;
the device makes the views (data/views.py). Every image is compared with all others of its step, over all devices, so a step is never made
in parts (optim.accumulate is 1), and more images a step are another task. The log has `embedding_spread` and `projection_spread`: near 0
they tell a collapse. The loss of a validation depends on how many images its last batch holds.

Optimiser: the papers of SimCLR and SwAV train ResNets, with LARS. For ViTs MoCo v3's paper trains all of its methods with AdamW, and so
does everything here: base rate 1.5e-4 for 256 images, weight decay 0.1, warm-up of 40 epochs, cosine to 0, 300 epochs of 4,096 images a
step, sine-cosine positions, as that paper's public code has it for MoCo v3 (github.com/facebookresearch/moco-v3, CONFIG.md). Its ViT-S has
12 heads; ours has the usual 6, as in the other experiments.

RETFound's paper compares its masked autoencoder with these methods on retinal photographs; its numbers are in figures that we could not
read.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from retfound_jax.data.config import DataConfig
from retfound_jax.data.views_config import ViewsConfig
from retfound_jax.models.contrastive import MoCoConfig, SimCLRConfig
from retfound_jax.models.swav import SwAVConfig
from retfound_jax.models.vit import ViTConfig, vit_config
from retfound_jax.optim import OptimConfig
from retfound_jax.tasks.base import Task
from retfound_jax.tasks.moco import MoCoTask
from retfound_jax.tasks.simclr import SimCLRTask
from retfound_jax.tasks.swav import SwAVTask
from retfound_jax.train.config import TrainConfig

_STRONG = (0.8, 0.8, 0.8, 0.2)  # colour jitter of SimCLR at strength 1, and of SwAV
_EPOCHS = 300


def _vit_s() -> ViTConfig:
    return vit_config('S', patch_size=16, image_size=224, pool='cls', compute_dtype='bfloat16', remat='dots')


def _config(name: str, task: Task, views: ViewsConfig) -> TrainConfig:
    return TrainConfig(
        name=f'pretrain_ssl_{name}',
        task=task,
        data=DataConfig(path='DATASET', image_size=224, batch_size=4096, workers=8, views=views),
        optim=OptimConfig(base_lr=1.5e-4, weight_decay=0.1, b2=0.999),
        epochs=_EPOCHS,
        warmup_epochs=40,
        log_every=50,
        checkpoint_every=2000,
        eval_every=-1,
    )


def simclr() -> TrainConfig:
    """SimCLR, ViT-S/16 at 224 px.

    Source: Chen et al., arXiv 2002.05709; temperature, batch and optimiser from the README of github.com/google-research/simclr.
    Views: 8-100 % of the area, colour jitter of strength 1 in 80 %, greyscale in 20 %, blur in 50 % of both views; temperature 0.1, a
    projector of two layers, 2,048 and 128 wide.
    Published: ResNet-50, 69.1 % top-1 on ImageNet by a linear probe (that README); with ViTs in MoCo v3's paper, in a table that we could
    not read.
    Unsure: rate, decay and epochs for ViTs; here MoCo v3's. That code normalises what the projector gives once more (a batch norm
    behind its last layer); the paper does not say so, and here it is not.
    Here: not yet measured.
    """
    views = ViewsConfig(global_scale=(0.08, 1.0), jitter=_STRONG, blur=(0.5,), solarize=(0.0,))
    return _config('simclr', SimCLRTask(model=SimCLRConfig(encoder=_vit_s())), views)


def mocov3() -> TrainConfig:
    """MoCo v3, ViT-S/16 at 224 px: momentum 0.99 to 1 by a cosine, temperature 0.2, the embedding of patches random and frozen.

    Source: Chen, Xie and He, arXiv 2104.02057; github.com/facebookresearch/moco-v3, CONFIG.md and main_moco.py.
    Views: 8-100 % of the area, jitter 0.4, 0.4, 0.2, 0.1 in 80 %, greyscale in 20 %, blur in all of the first and 10 % of the second view,
    solarisation in 20 % of the second. Projector of three and predictor of two layers, 4,096 wide inside and 256 outside.
    Published: 73.2 % top-1 on ImageNet by a linear probe of a ViT-S (that CONFIG.md).
    Unsure: nothing known.
    Here: not yet measured.
    """
    views = ViewsConfig(global_scale=(0.08, 1.0))
    return _config('mocov3', MoCoTask(model=MoCoConfig(encoder=_vit_s())), views)


def swav() -> TrainConfig:
    """SwAV with multi-crop (two views at 224 px, six at 96 px), ViT-S/16.

    Source: Caron et al., arXiv 2006.09882; github.com/facebookresearch/swav, scripts/swav_400ep_pretrain.sh, src/multicropdataset.py.
    Views: 14-100 % and 5-14 % of the area, jitter and greyscale as SimCLR's, blur in 50 %; 3,000 prototypes that stay as they start for an
    epoch, temperature 0.1, epsilon 0.05, three iterations, no queue (the source has one for 256 images a step, and none for 4,096).
    Published: ResNet-50, 74.6 % top-1 on ImageNet by a linear probe after 400 epochs (that README); with ViTs as in `simclr`.
    Unsure: rate, decay and epochs for ViTs; here MoCo v3's. That code divides by deviations of 0.228, 0.224, 0.225.
    Here: not yet measured.
    """
    views = ViewsConfig(
        global_scale=(0.14, 1.0), local_views=6, local_size=96, local_scale=(0.05, 0.14), jitter=_STRONG, blur=(0.5,), solarize=(0.0,)
    )
    return _config('swav', SwAVTask(model=SwAVConfig(encoder=_vit_s(), frozen_prototypes=1 / _EPOCHS)), views)


def simclr_small_cpu() -> TrainConfig:
    """SimCLR around the small encoder of experiments.pretrain_mae:small_cpu, as many images. Not yet measured."""
    views = _small(simclr(), canvas=128)
    return _small_cpu('simclr', SimCLRTask(model=SimCLRConfig(encoder=_small_vit(), hidden=512)), views)


def mocov3_small_cpu() -> TrainConfig:
    """MoCo v3 around the small encoder of experiments.pretrain_mae:small_cpu, as many images. Not yet measured."""
    views = _small(mocov3(), canvas=128)
    return _small_cpu('mocov3', MoCoTask(model=MoCoConfig(encoder=_small_vit(), hidden=512, out=128)), views)


def swav_small_cpu() -> TrainConfig:
    """SwAV around the small encoder of experiments.pretrain_mae:small_cpu, as many images: two views at 96 px and four at 48 px.

    64 prototypes: 128 images cannot be shared out equally among thousands. Not yet measured.
    """
    views = _small(swav(), canvas=128, local_views=4, local_size=48)
    model = SwAVConfig(encoder=_small_vit(), hidden=512, prototypes=64, frozen_prototypes=0.01)
    return _small_cpu('swav', SwAVTask(model=model), views)


def _small_vit() -> ViTConfig:
    return vit_config('Ti', patch_size=16, image_size=96, depth=6, scan=False)


def _small(config: TrainConfig, **changes: Any) -> ViewsConfig:
    """The recipe's views, of a small image: no crop below a fifth of it, and a blur as wide for its size."""
    given = config.data.views
    scale = (max(0.2, given.global_scale[0]), 1.0)
    return dataclasses.replace(given, global_scale=scale, blur_sigma=(0.1, 1.0), **changes)


def _small_cpu(name: str, task: Task, views: ViewsConfig) -> TrainConfig:
    return TrainConfig(
        name=f'pretrain_ssl_{name}_small_cpu',
        task=task,
        data=DataConfig(path='DATASET', image_size=96, batch_size=128, views=views),
        optim=OptimConfig(lr=6e-4, weight_decay=0.05, b2=0.999),
        epochs=100,
        warmup_epochs=5,
        log_every=20,
        checkpoint_every=500,
        eval_every=-1,
    )
