"""Who was pretrained on, and whom does that serve? The same pipeline and number of images, the share of one group varied.

    retfound table bias_phantom --workdir STUDY --run                 # drawn photographs with a planted effect: is it found?
    retfound table bias_none_phantom --workdir STUDY2 --run           # the same without the effect: is nothing found?
    retfound table bias_odir_sex --data DATA --workdir STUDY3 --run --set 'seeds=[0,1]'  # DATA/odir5k as experiments/tables/real.py has it
    retfound table bias_odir_age --data DATA --workdir STUDY4 --run --set 'seeds=[0,1]'

For each seed five encoders are pretrained, each on as many images, 0, 25, 50, 75 or 100 % of them of one group. Each is then adapted to
the same balanced data, frozen with a linear probe and by fine-tuning, and each group's AUROC is laid over the share: its slope, the
slope of the gap, and the gap over the share of labels. Stratified learning curves: Queiroz et al., arXiv 2408.16154, say that gaps of a
foundation model of the retina grow where labels are few.

Measured 2026-11-26 on two shared CPU cores (AMD EPYC), linear probe, all labels, slopes from none to all with 95 % intervals over seeds and
patients. Drawn, five seeds: AUROC of women +.306 (.071 to .541), of men +.016 (-.129 to .161), the lead of women +.290 (.152 to .429);
nothing planted, three seeds: +.021 (-.443 to .486), +.022 (-.316 to .360) and -.001 (-.159 to .158). ODIR-5K, seeds 0 and 1, 24,064 images
seen by each encoder: no slope of cataract, myopia or diabetes is shown to differ from 0, by sex or by age, with 25 or 100 % of the labels;
with seeds as blocks every interval of a lead lies within -.120 and .090. Nor is a gap shown to move with the labels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from experiments import odir5k, pretrain_mae
from experiments.tables import real
from retfound_jax.data.compose import ComposeConfig
from retfound_jax.data.config import DataConfig
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.data.phantom.planted import Visibility
from retfound_jax.data.phantom.sites import EthnicGroup, SiteStyle
from retfound_jax.models.vit import vit_config
from retfound_jax.optim import OptimConfig
from retfound_jax.studies.grid import GroupQuestion, Method, Pretraining, Study, StudyData
from retfound_jax.studies.rows import Judged
from retfound_jax.tasks.classify import ClassifyTask
from retfound_jax.train.config import TrainConfig

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
_SIDE = 32  # [px]


def compositions(recipe: TrainConfig, *, on: str, by: str, groups: Mapping[str, Mapping[str, float]], images: int) -> tuple[Method, ...]:
    """A method for each share of the first of two groups; every pretraining has as many images.

    Args:
      groups: name to the values of the column that make it up, with the proportions in which they share it.
    """
    (varied, these), (_, others) = groups.items()
    methods = []
    for share in SHARES:
        compose = ComposeConfig(by=by, shares=(*_parts(these, share), *_parts(others, 1 - share)), images=images)
        composed = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, compose=compose))
        methods.append(Method(
            name=f'{100 * share:g}',
            pretraining=Pretraining(recipe=composed, on=on),
            pretrained_on=(f'{on}:train',),
            words=f'{100 * share:g} % {varied}',
        ))
    return tuple(methods)


def _parts(side: Mapping[str, float], share: float) -> tuple[tuple[str, float], ...]:
    return tuple((value, share * size / sum(side.values())) for value, size in side.items())


def bias_odir_sex() -> Study:
    """ODIR-5K: 0 to 100 % women among 1,600 photographs of the pretraining, then cataract, myopia and diabetes learned on half women."""
    groups = {'F': {'F': 1.0}, 'M': {'M': 1.0}}
    even = _even('F', 'M', images=3200)
    return _odir('bias_odir_sex', 'The share of women in the pretraining, ODIR-5K', by='sex', groups=groups, even=even)


def bias_odir_age() -> Study:
    """ODIR-5K: 0 to 100 % people of 60 and over among 1,600 photographs of the pretraining, then the same learned on half of them."""
    even = ComposeConfig(by='age_band', shares=tuple(part for side in _AGES.values() for part in _parts(side, 0.5)), images=3200)
    return _odir('bias_odir_age', 'The share of people of 60 and over in the pretraining, ODIR-5K', by='age_band', groups=_AGES, even=even)


_AGES = {  # [images] of each band among the training images of ODIR-5K
    '60 and over': {'60-69': 1182, '>=70': 487},
    'under 60': {'<40': 197, '40-49': 582, '50-59': 1160},
}


def _odir(name: str, title: str, *, by: str, groups: Mapping[str, Mapping[str, float]], even: ComposeConfig) -> Study:
    """A masked autoencoder of six blocks at 96 px, as in experiments/odir5k.py but 15 passes over 1,600 images."""
    recipe = pretrain_mae.small_cpu(image_size=odir5k.IMAGE_SIZE)
    data = dataclasses.replace(recipe.data, repeat=4)
    recipe = dataclasses.replace(recipe, name=name, data=data, steps=188, epochs=0.0, warmup_epochs=0.0)
    recipe = dataclasses.replace(recipe, optim=dataclasses.replace(recipe.optim, warmup_steps=10))
    merged = tuple((group, tuple(values)) for group, values in groups.items() if tuple(values) != (group,))
    return Study(
        name=name,
        title=title,
        data=(StudyData(name='odir5k', labels=real.EYE_LABELS, kind='multi', compose=even),),
        methods=compositions(recipe, on='odir5k', by=by, groups=groups, images=1600),
        adaptations=('probe', 'finetune'),
        fractions=(0.25, 1.0),
        recipe=real.short(steps=150),
        judged=Judged(by_patient=('diabetes',), targets=real.EYE_LABELS),
        groups=GroupQuestion(by=by, group=next(iter(groups)), merged=merged),
    )


def bias_phantom() -> Study:
    """Drawn photographs on which drusen are blue in women: pretraining without women fails them, by an effect that is known to be there."""
    return _phantom('bias_phantom', title='The share of women in the pretraining, drusen blue in women (drawn)', planted=True)


def bias_none_phantom() -> Study:
    """The same without the planted effect: women's eyes are drawn as men's are, so that their share can make no difference."""
    return _phantom('bias_none_phantom', title='The share of women in the pretraining, nothing planted (drawn)', planted=False)


def _phantom(name: str, *, title: str, planted: bool) -> Study:
    """An encoder of two blocks at 32 px, pretrained to tell macular degeneration, which is what the groups show otherwise."""
    model = vit_config('Ti', width=48, depth=2, heads=4, patch_size=8, image_size=_SIDE, scan=False)
    recipe = TrainConfig(
        name=name,
        task=ClassifyTask(model=model, labels=('amd',)),
        data=DataConfig(path='DATASET', image_size=_SIDE, batch_size=64, crop_scale=(0.8, 1.0)),
        optim=OptimConfig(lr=2e-3, weight_decay=0.05, b2=0.999, warmup_steps=20),
        steps=1000,
        log_every=100,
        eval_every=-1,
    )
    return Study(
        name=name,
        title=title,
        data=(StudyData(name='drawn', labels=('amd',), phantom=_drawn(planted=planted), compose=_even('F', 'M', images=200)),),
        methods=compositions(recipe, on='drawn', by='sex', groups={'F': {'F': 1.0}, 'M': {'M': 1.0}}, images=400),
        adaptations=('probe', 'finetune'),
        fractions=(0.25, 1.0),
        recipe=dataclasses.replace(recipe, steps=60, optim=dataclasses.replace(recipe.optim, lr=2e-4, warmup_steps=6, layer_decay=0.75)),
        judged=Judged(replicates=500),
        groups=GroupQuestion(by='sex', group='F'),
    )


def _drawn(*, planted: bool) -> PhantomConfig:
    """One camera that looks at the macula, one ethnic group, half of all eyes with macular degeneration: nothing differs but the sexes."""
    site = SiteStyle(name='Bench', country='Nowhere', camera='ideal', ethnicity=(1.0,), noise=1.0, flare=0.0, centre=1.0, field=0.65)
    blue = Visibility(attribute='sex', value='F', disease='amd', colour='blue')
    return PhantomConfig(
        patients=700,
        image_size=_SIDE,
        sites=(site,),
        ethnicities=(EthnicGroup(name='All', pigment=0.4),),
        links=(),
        amd=0.5,
        glaucoma=0.0,
        dr_grades=(1.0, 0.0, 0.0, 0.0, 0.0),
        age_odds=(1.0, 1.0, 1.0),
        lens_ageing=0.0,
        male_fraction=0.5,
        missing_fraction=0.0,
        visibility=(blue,) if planted else (),
    )


def _even(*values: str, images: int, by: str = 'sex') -> ComposeConfig:
    """As many of each."""
    return ComposeConfig(by=by, shares=tuple((value, 1 / len(values)) for value in values), images=images)
