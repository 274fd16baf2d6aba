"""Adaptation of a pretrained encoder to a labelled task: RETFound's recipes of 2023 and 2025, and a small one for two cores.

    retfound train --experiment experiments.finetune:retfound_v1 --set data.path=DATASET --set task.labels=dr_grade \\
      --set init_from=WEIGHTS --workdir RUN

WEIGHTS is a pretraining run, converted weights, or a published .pth. Labels and their classes are those of the dataset; nothing here
says how many there are.

All RETFound recipes: 224 px; 50 epochs, 10 of linear warm-up, then cosine to 1e-6 by step; base rate 5e-3 for 256 images; AdamW with
PyTorch's betas; layer decay 0.65, weight decay 0.05 on kernels, drop path 0.2, no clipping; random resized crop of 8-100 % of the area
(timm's default, which the code leaves), flip, RandAugment m9 (deviation 0.5, increasing), random erasing 0.25 by pixel, bicubic, ImageNet
mean and deviation; evaluation on 256 px resized, 224 px cropped from the middle. Positions are learned from the pretrained table on.

Facts are marked as in experiments.pretrain_mae. What differs here: bfloat16 instead of float16 with a scaler; validation every 100 steps
instead of every epoch (`--set eval_every=STEPS`).
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
    """RETFound's fine-tuning of ViT-L/16 as published in 2023: label smoothing 0.1, mean pooling, best checkpoint by macro AUROC.

    Source: Zhou et al., Nature 2023, s41586-023-06555-x; code and README command of github.com/rmaphoh/RETFound_MAE at f5ab012.
    Published, reported: AUROC APTOS-2019 .943 (.941-.944), IDRiD .822 (.815-.829), MESSIDOR-2 .884, five seeds each; about 70 minutes on
    one T4 for 1,000 images.
    Unsure: the README's command (base rate 5e-3, layer decay 0.65, drop path 0.2) is taken; the parser's defaults are 1e-3, 0.75, 0.1.
    Here: not yet measured. Start: RETFound_cfp_weights.pth (now RETFound_mae_natureCFP.pth) or the OCT one.
    """
    model = vit_config('L', patch_size=16, image_size=224, positions='learned', drop_path=0.2, compute_dtype='bfloat16')
    return TrainConfig(
        name='finetune_retfound_v1',
        task=ClassifyTask(model=model, labels=('label',), label_smoothing=0.1),
        data=DataConfig(
            path='DATASET', image_size=224, batch_size=16, crop_scale=(0.08, 1.0), randaugment=9.0, random_erasing=0.25, workers=4
        ),
        optim=OptimConfig(base_lr=5e-3, weight_decay=0.05, b2=0.999, layer_decay=0.65, min_lr=1e-6),
        epochs=50,
        warmup_epochs=10,
        eval_every=100,
        checkpoint_every=1000,
        best_by='AUROC',
    )


def retfound_v2() -> TrainConfig:
    """The code of 2025: batch 24, plain cross-entropy, the pooled norm applied twice, best checkpoint by (F1 + AUROC + kappa) / 3.

    Source: code of github.com/rmaphoh/RETFound at ae9a9ec, batch from its train.sh. `--smoothing 0.1` has no effect there unless mixup is
    on, and it is not; the double norm comes of how it calls timm 0.9 (`norm_twice`).
    Published: Zhou et al., arXiv 2502.06289, abstract: AUROC .823-.944 on three DR sets, .846 on Retina, .940 on glaucoma.
    Unsure: the image size. The parser's default is 256 px, the notebook of `retfound_dinov2` says 224, which is taken; the other is
    `--set task.model.image_size=256 --set data.image_size=256`. After a loss that is not finite that code goes on; here the run stops.
    Here: not yet measured. Start: RETFound_mae_natureCFP.pth, _natureOCT, _meh or _shanghai.
    """
    config = retfound_v1()
    model = dataclasses.replace(config.task.model, norm_twice=True)
    return dataclasses.replace(
        config,
        name='finetune_retfound_v2',
        task=dataclasses.replace(config.task, model=model, label_smoothing=0.0),
        data=dataclasses.replace(config.data, batch_size=24),
        best_by='retfound_v2_score',
    )


def retfound_dinov2() -> TrainConfig:
    """The code of 2025 with a DINOv2 encoder: ViT-L/14 with LayerScale and learned positions, cls token; else as `retfound_v2`.

    Source: as `retfound_v2`; the encoder is timm's vit_large_patch14_dinov2 at 224 px.
    Published: MESSIDOR-2 from RETFound_dinov2_meh: AUROC .9037, AUPRC .6863, F1 .6078, accuracy .7091 (its notebook of 2025-11-30,
    examples/RETFound_MESSIDOR2_demo.ipynb, batch 24, 50 epochs; 303.23 M parameters, one run).
    Unsure: nothing known. `--global_pool` of its command has no effect on this encoder.
    Here: not yet measured. Start: RETFound_dinov2_meh.pth or _shanghai.
    """
    config = retfound_v2()
    model = dataclasses.replace(config.task.model, patch_size=14, layer_scale=1e-5, pool='cls', norm_twice=False)
    return dataclasses.replace(config, name='finetune_retfound_dinov2', task=dataclasses.replace(config.task, model=model))


def small_cpu(*, image_size: int = 96) -> TrainConfig:
    """Fine-tuning of the small ViT of `experiments.pretrain_mae:small_cpu` on two cores. Measured as part of experiments.odir5k."""
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
