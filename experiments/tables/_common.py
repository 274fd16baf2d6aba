"""What the tables share: public weights, the datasets of the papers, and the twin of a study that is drawn and tiny.

Weights are not part of this project, and those of RETFound are given out one by one, to people who accept their licence (CC BY-NC 4.0):
whoever makes a table names them, `--weights RETFound=FILE`. FILE is RETFound_mae_natureCFP.pth, or mae_pretrain_vit_large.pth for
`mae_imagenet` (He et al., github.com/facebookresearch/mae).
"""

from __future__ import annotations

import dataclasses

from experiments import finetune
from retfound_jax.data.config import DataConfig
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.models.mae import MAEConfig
from retfound_jax.models.vit import vit_config
from retfound_jax.optim import OptimConfig
from retfound_jax.registry.checkpoints_known import EIGHT
from retfound_jax.registry.labels import DR_GRADE, DR_GRADES
from retfound_jax.studies.grid import Method, Study, StudyData
from retfound_jax.studies.labels import LabelMap, binary, same
from retfound_jax.studies.run import GIVEN
from retfound_jax.tasks.classify import ClassifyTask
from retfound_jax.tasks.mae import MAETask
from retfound_jax.train.config import TrainConfig

LABELS = {  # of the registry
    'aptos2019': DR_GRADE.name,
    'idrid': DR_GRADE.name,
    'messidor2': DR_GRADE.name,
    'papila': 'glaucoma',
    'glaucoma_fundus': 'glaucoma_stage',
    'jsiec': 'disease',
    'retina': 'disease',
    'octid': 'disease',
}
OCT = ('octid',)
CFP = tuple(name for name in EIGHT if name not in OCT)

RANDOM = Method(name='random')
IMAGENET = Method(name='mae_imagenet', weights=GIVEN, checkpoint='mae_imagenet')
RETFOUND = Method(name='RETFound', weights=GIVEN, checkpoint='RETFound_mae_natureCFP')
RETFOUND_OCT = Method(name='RETFound_OCT', weights=GIVEN, checkpoint='RETFound_mae_natureOCT')

_SIDE = 32  # [px]
_DRAWN = PhantomConfig(patients=16, image_size=_SIDE, glaucoma=0.5, amd=0.5)


def of_papers(*names: str, common: LabelMap | None = None) -> tuple[StudyData, ...]:
    """Datasets of RETFound's papers with the label that these learn."""
    return tuple(StudyData(name=name, labels=(LABELS[name],), common=common) for name in names)


def same_grades() -> LabelMap:
    """The five grades of diabetic retinopathy, by which the registry calls those of every dataset."""
    return same(DR_GRADE.name, DR_GRADES)


def retfound(*, on: tuple[str, ...]) -> tuple[Method, ...]:
    """RETFound's weights for each modality that `on` has, ImageNet's masked autoencoder, and random weights."""
    cfp, oct_ = (tuple(name for name in on if name in these) for these in (tuple(set(on) - set(OCT)), OCT))
    given = [(RETFOUND, cfp), (RETFOUND_OCT, oct_)]
    return (*(dataclasses.replace(method, only=() if only == on else only) for method, only in given if only), IMAGENET, RANDOM)


def tiny() -> TrainConfig:
    """Fine-tuning of a vision transformer of one block at 32 px, four steps: for the twins, whose numbers mean nothing."""
    return TrainConfig(
        name='finetune_tiny',
        task=ClassifyTask(model=_tiny_vit(), labels=('label',), label_smoothing=0.1),
        data=DataConfig(path='DATASET', image_size=_SIDE, batch_size=8, crop_scale=(0.5, 1.0)),
        optim=OptimConfig(lr=1e-3, weight_decay=0.05, b2=0.999, layer_decay=0.75),
        steps=4,
        log_every=4,
        eval_every=-1,
    )


def tiny_mae() -> TrainConfig:
    """Pretraining of weights for the twins on drawn photographs: `retfound train --experiment experiments.tables._common:tiny_mae`."""
    encoder = _tiny_vit()
    return TrainConfig(
        name='pretrain_tiny_mae',
        task=MAETask(model=MAEConfig(encoder=encoder, decoder_width=16, decoder_depth=1, decoder_heads=2)),
        data=DataConfig(phantom=_DRAWN, image_size=_SIDE, batch_size=8),
        optim=OptimConfig(lr=1e-3, weight_decay=0.05, b2=0.95),
        steps=4,
        log_every=4,
        eval_every=-1,
    )


def twin(study: Study, *, seeds: tuple[int, ...] = (0, 1), fractions: tuple[float, ...] = ()) -> Study:
    """The same study so small that it runs in seconds: two datasets that the phantom draws, a tiny model, two seeds.

    The names of the datasets stay, and its table says that they are drawn. The weights of every method are to be given, made by `tiny_mae`.
    """
    data = tuple(_drawn(one, place) for place, one in enumerate(study.data[:2]))
    names = tuple(one.name for one in data)
    methods = [dataclasses.replace(one, checkpoint='', only=()) for one in study.methods if not one.only or set(one.only) & set(names)]
    return dataclasses.replace(
        study,
        title=f'{study.title} (drawn)',
        data=data,
        train_on=tuple(name for name in study.train_on if name in names),
        methods=tuple(methods),
        seeds=seeds,
        fractions=fractions or study.fractions,
        recipe=tiny(),
        which='latest',
        judged=dataclasses.replace(study.judged, targets=(), replicates=20),
    )


def vit_s16() -> TrainConfig:
    """Fine-tuning of ViT-S/16 at 224 px: RETFound's recipe of 2023 with less drop path for the smaller model. Not yet measured."""
    config = finetune.retfound_v1()
    model = vit_config('S', patch_size=16, image_size=224, drop_path=0.1, compute_dtype='bfloat16')
    return dataclasses.replace(config, name='finetune_vit_s16', task=dataclasses.replace(config.task, model=model))


def _tiny_vit() -> object:
    return vit_config('Ti', width=16, depth=1, heads=2, patch_size=16, image_size=_SIDE, scan=False)


def _drawn(one: StudyData, place: int) -> StudyData:
    """Another population for each place, with labels that the phantom has, and in common where the study has such."""
    labels = ('glaucoma', 'amd') if one.kind == 'multi' else ('dr_grade',)
    common = binary('referable_dr', tuple('01234'), positive=tuple('234')) if one.common else None
    phantom = dataclasses.replace(_DRAWN, seed=place)
    return dataclasses.replace(one, labels=labels, common=common, stratify='', min_age=0.0, phantom=phantom)
