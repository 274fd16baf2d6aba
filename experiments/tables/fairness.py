"""What can be done about a group that a model fails? Each means is measured on the gap and on everybody.

    retfound table fairness_phantom --workdir STUDY --run

On drawn photographs of three sites the camera leaves a bluish mark on most photographs with referable retinopathy at two of them, and
at the third, South, on those without: a model that learns the mark fails at South. The table says whom an evaluation by site names
first, and what each means does: sites drawn equally often (data.balance), weights by inverse frequency and group-DRO (task.robust), and
after training thresholds and recalibration by site (evals/mitigation.py).

Measured 2026-11-26 on two shared CPU cores (AMD EPYC), five seeds, 95 % intervals over seeds and patients. South is named first in 5 of 5
runs of the plain training (p by Holm .018 in each). Gap of AUROC .559 without means; drawn equally often -.478 (-.902 to -.053) with
AUROC of everybody +.040 (-.010 to .090); temperature 0.5 -.440 (-.814 to -.067) with +.040 (.001 to .080); group-DRO -.479 (-.971 to .014)
with +.007 (-.101 to .116); weights by inverse frequency +.100 (-.391 to .590) with -.043 (-.088 to .002). Gap of the odds: a threshold of
each site +.064 (-.055 to .183), recalibration -.053 (-.200 to .094): what was not learned is not mended afterwards.
"""

from __future__ import annotations

import dataclasses

from retfound_jax.data.balance import BalanceConfig
from retfound_jax.data.config import DataConfig
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.data.phantom.planted import Shortcut
from retfound_jax.data.phantom.sites import EthnicGroup, SiteStyle
from retfound_jax.models.vit import vit_config
from retfound_jax.optim import OptimConfig
from retfound_jax.studies.grid import GroupQuestion, Method, Study, StudyData
from retfound_jax.studies.rows import Judged
from retfound_jax.tasks.classify import ClassifyTask
from retfound_jax.tasks.robust import GroupDRO, Reweight
from retfound_jax.train.config import TrainConfig

_SIDE = 32  # [px]
PLAIN = 'none'
FAILS_AT = 'South'


def fairness_phantom() -> Study:
    """Drawn photographs with a camera's mark that stands for disease at two sites and against it at the third: who fails, what helps."""
    recipe = _recipe()
    site = dataclasses.replace(recipe.data, groups='site')
    balanced = dataclasses.replace(recipe.data, balance=BalanceConfig(by='site', temperature=0.0))
    half = dataclasses.replace(recipe.data, balance=BalanceConfig(by='site', temperature=0.5))

    def robust(how: Reweight | GroupDRO, data: DataConfig) -> TrainConfig:
        return dataclasses.replace(recipe, data=data, task=dataclasses.replace(recipe.task, robust=how))

    drawn_evenly = dataclasses.replace(balanced, groups='site')  # as algorithm 1 of Sagawa et al. draws
    return Study(
        name='fairness_phantom',
        title='A mark of the camera that fails at one site, and the means against it (drawn)',
        data=(StudyData(name='drawn', labels=('referable_dr',), phantom=_drawn()),),
        methods=(
            Method(name=PLAIN, words='nothing'),
            Method(name='balanced_half', words='sites by temperature 0.5', recipe=dataclasses.replace(recipe, data=half)),
            Method(name='balanced', words='sites equally often', recipe=dataclasses.replace(recipe, data=balanced)),
            Method(name='reweighted', words='weights by inverse frequency', recipe=robust(Reweight(), site)),
            Method(name='group_dro', words='group-DRO, sites equally often', recipe=robust(GroupDRO(), drawn_evenly)),
        ),
        recipe=recipe,
        judged=Judged(reference=PLAIN, replicates=500),
        groups=GroupQuestion(by='site', plain=PLAIN),
    )


def _recipe() -> TrainConfig:
    """An encoder of two blocks at 32 px from random weights."""
    model = vit_config('Ti', width=48, depth=2, heads=4, patch_size=8, image_size=_SIDE, scan=False)
    return TrainConfig(
        name='fairness_phantom',
        task=ClassifyTask(model=model, labels=('label',)),
        data=DataConfig(path='DATASET', image_size=_SIDE, batch_size=64, crop_scale=(0.8, 1.0)),
        optim=OptimConfig(lr=1e-3, weight_decay=0.05, b2=0.999, warmup_steps=20),
        steps=800,
        log_every=100,
        eval_every=-1,
    )


def _drawn() -> PhantomConfig:
    """Three sites with one camera, an eighth of the patients at the one where the mark misleads; nothing else differs between them."""
    bench = SiteStyle(name='North', country='Nowhere', camera='ideal', ethnicity=(1.0,), noise=1.0, flare=0.0, share=4.0)
    sites = (bench, dataclasses.replace(bench, name='East'), dataclasses.replace(bench, name=FAILS_AT, share=1.2))
    return PhantomConfig(
        patients=2000,
        image_size=_SIDE,
        sites=sites,
        ethnicities=(EthnicGroup(name='All', pigment=0.4),),
        links=(),
        dr_grades=(0.6, 0.0, 0.0, 0.2, 0.2),
        glaucoma=0.0,
        amd=0.0,
        age_odds=(1.0, 1.0, 1.0),
        lens_ageing=0.0,
        missing_fraction=0.0,
        shortcut=Shortcut(label='referable_dr', fails_at=FAILS_AT, agreement=0.95, there=0.05),
    )
