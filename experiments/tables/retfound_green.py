"""RETFound-Green's probe tables: frozen features of its model, of RETFound-MEH and of DERETFound on BRSET and IDRiD.

    retfound table retfound_green --data DATA --weights RETFound-Green=GREEN --weights dinov2_registers=DINOV2 --workdir STUDY --run
    retfound table retfound_green_vit_l --data DATA --weights RETFound-MEH=MEH --weights DERETFound=DE --weights mae_imagenet=MAE \\
      --workdir STUDY --run

A study has one encoder: the small ViT at 392 px has three studies (findings, grades of retinopathy, risk of oedema), and ViT-L at 224 px
the same three, `*_vit_l*`.

Source: Engelmann and Bernabeu, Nature Communications 2025, s41467-025-62123-z, whose notebooks print the numbers
(retfound_jax/studies/published_green.py). Protocol: retfound_jax/evals/green_probe.py, one probe by scikit-learn on standardised features,
the median over 100 bootstraps of the test rows.
Unsure: the notebooks' splits are not published in numbers, so no verdict compares until they are; ours are by patient. Their two yes/no
tasks of grades may have probes of their own: here the probabilities of the five grades are summed. Their third dataset, of retinopathy of
prematurity, is not in the registry. Cost: minutes on one GPU for the features. Here: not yet measured.
"""

from __future__ import annotations

import dataclasses

from experiments import finetune, pretrain_green
from experiments.tables import _common
from retfound_jax.registry.labels import DME_RISK, DR_GRADE, DR_GRADES
from retfound_jax.studies.grid import Method, Study, StudyData
from retfound_jax.studies.labels import binary
from retfound_jax.studies.rows import GREEN, Judged
from retfound_jax.studies.run import GIVEN
from retfound_jax.tasks.classify import ClassifyTask
from retfound_jax.train.config import TrainConfig

FINDINGS = ('macula', 'optic_disc', 'vessels', 'diabetic_retinopathy', 'amd', 'macular_edema', 'quality', 'insulin', 'diabetes')
_PAPER = 'Engelmann and Bernabeu, Nature Communications 2025'


def retfound_green() -> Study:
    """RETFound-Green's nine yes/no tasks on BRSET: appearance of the parts, findings, quality, diabetes and insulin."""
    brset = StudyData(name='brset', labels=FINDINGS, kind='multi')
    return _green('', title='Probes of nine findings on BRSET', data=(brset,))


def retfound_green_grades() -> Study:
    """RETFound-Green's grades of diabetic retinopathy on BRSET and IDRiD, and from each to the other."""
    data = tuple(StudyData(name=name, labels=(DR_GRADE.name,), common=_common.same_grades()) for name in ('brset', 'idrid'))
    return _green('_grades', title='Probes of grades of retinopathy', data=data, external=True, targets=DR_GRADES)


def retfound_green_moderate() -> Study:
    """RETFound-Green's moderate retinopathy or worse on BRSET and IDRiD, and from each to the other."""
    return _above('moderate', title='Probes of moderate retinopathy or worse')


def retfound_green_any_dr() -> Study:
    """RETFound-Green's retinopathy of any grade on BRSET and IDRiD, and from each to the other."""
    return _above('mild', title='Probes of retinopathy of any grade')


def retfound_green_dme() -> Study:
    """RETFound-Green's risk of macular oedema on IDRiD, three grades."""
    data = (StudyData(name='idrid', labels=(DME_RISK.name,)),)
    return _green('_dme', title='Probes of the risk of macular oedema', data=data, targets=DME_RISK.classes)


def retfound_green_vit_l() -> Study:
    """The nine tasks of retfound_green from RETFound-MEH, DERETFound and ImageNet's masked autoencoder."""
    return _vit_l(retfound_green())


def retfound_green_vit_l_grades() -> Study:
    """The grades of retfound_green_grades from the same larger models."""
    return _vit_l(retfound_green_grades())


def retfound_green_vit_l_dme() -> Study:
    """The risk of retfound_green_dme from the same larger models."""
    return _vit_l(retfound_green_dme())


def retfound_green_phantom() -> Study:
    """The twin of retfound_green on drawn photographs."""
    return _common.twin(retfound_green())


def retfound_green_grades_phantom() -> Study:
    """The twin of retfound_green_grades on drawn photographs."""
    return _common.twin(retfound_green_grades())


def _green(name: str, *, title: str, data: tuple[StudyData, ...], external: bool = False, targets: tuple[str, ...] = ()) -> Study:
    return Study(
        name=f'green_probe{name}',
        title=title,
        paper=_PAPER,
        data=data,
        external=external,
        methods=(
            Method(name='RETFound-Green', weights=GIVEN, checkpoint='RETFound-Green'),
            Method(name='dinov2_registers', weights=GIVEN, checkpoint='dinov2_lvd142m'),
            _common.RANDOM,
        ),
        adaptations=('green_probe',),
        recipe=_encoder_alone(),
        judged=Judged(reference='random', metrics=(GREEN,), targets=targets),
    )


def _above(grade: str, *, title: str) -> Study:
    """The grades from this one on against the rest, under the name that evaluations give it."""
    positive = DR_GRADES[DR_GRADES.index(grade) :]
    common = binary(DR_GRADE.name, DR_GRADES, positive=positive, names=('below', f'>={grade}'))
    data = tuple(StudyData(name=name, labels=(DR_GRADE.name,), common=common) for name in ('brset', 'idrid'))
    return _green(f'_{grade}', title=title, data=data, external=True, targets=(f'>={grade}',))


def _encoder_alone() -> TrainConfig:
    """RETFound-Green's encoder and image form; nothing is trained."""
    pretraining = pretrain_green.retfound_green()
    model = dataclasses.replace(pretraining.task.model.encoder, remat=finetune.small_cpu().task.model.remat)
    return dataclasses.replace(pretraining, name='green_probe', task=ClassifyTask(model=model, labels=('label',)))


def _vit_l(study: Study) -> Study:
    methods = (
        Method(name='RETFound-MEH', weights=GIVEN, checkpoint='RETFound_mae_meh'),
        Method(name='DERETFound', weights=GIVEN, checkpoint='DERETFound'),
        _common.IMAGENET,
        _common.RANDOM,
    )
    told = {'name': f'{study.name}_vit_l', 'title': f'{study.title}, ViT-L'}
    return dataclasses.replace(study, methods=methods, recipe=finetune.retfound_v1(), **told)
