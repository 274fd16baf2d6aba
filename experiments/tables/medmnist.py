"""MedMNIST's table of its two retinal sets: RetinaMNIST (grades of retinopathy) and OCTMNIST.

    retfound table medmnist --data DATA --weights RETFound=CFP --weights RETFound_OCT=OCT --weights mae_imagenet=MAE --workdir STUDY --run

DATA/retinamnist/retinamnist.npz and DATA/octmnist/octmnist.npz, 28 px, made larger for the encoder; official splits.

Source: Yang et al., MedMNIST v2, Sci Data 2023: AUROC, one class against the rest, mean over the classes, and accuracy, of ResNets and of
searched models, none a vision transformer (retfound_jax/studies/published_others.py). The same images at 224 px, `retinamnist_224`, are
others than its rows "(224)".
RETFound's OCT weights have seen the images of OCTMNIST, without labels: the table marks it. RetinaMNIST has 400 test images, so intervals
are wide.
"""

from __future__ import annotations

import dataclasses

from experiments import finetune
from experiments.tables import _common
from retfound_jax.registry.labels import DR_GRADE
from retfound_jax.registry.sets_oct2017 import OCT_DISEASE
from retfound_jax.studies.grid import Study, StudyData
from retfound_jax.studies.rows import Judged


def medmnist() -> Study:
    """MedMNIST's AUROC and accuracy of RetinaMNIST and OCTMNIST, fine-tuned and probed from RETFound's weights and others.

    Cost: OCTMNIST has 97,477 images to train on, 50 epochs of ViT-L/16 for each of fifteen runs. Here: not yet measured.
    """
    return Study(
        name='medmnist',
        title='RetinaMNIST and OCTMNIST',
        paper='Yang et al., MedMNIST v2, Sci Data 2023',
        data=(StudyData(name='retinamnist', labels=(DR_GRADE.name,)), StudyData(name='octmnist', labels=(OCT_DISEASE.name,))),
        methods=(
            dataclasses.replace(_common.RETFOUND, only=('retinamnist',)),
            dataclasses.replace(_common.RETFOUND_OCT, only=('octmnist',)),
            _common.IMAGENET,
            _common.RANDOM,
        ),
        adaptations=('finetune', 'probe'),
        recipe=finetune.retfound_v1(),
        which='best',
        judged=Judged(reference='random', metrics=('AUROC', 'accuracy')),
    )


def medmnist_phantom() -> Study:
    """The twin of medmnist on drawn photographs."""
    return _common.twin(medmnist())
