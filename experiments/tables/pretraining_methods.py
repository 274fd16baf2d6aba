"""Which way of pretraining? The ways that the papers compare, around one encoder, with equal images seen, adapted alike.

    python -m experiments.tables.pretraining_methods --data DATA/odir5k --out RUNS --size vit_s16 --images 1000000
    retfound table pretraining_methods --data DATA --workdir STUDY --run --weights mae=RUNS/mae --weights simclr=RUNS/simclr ...

The first command trains one method after another, RUNS/METHOD each; started again it goes on where it was stopped. An image counts each
time that it is drawn, however many views are made of it: equal images, and not equal cost, which each run's log has. Batch, images and
encoder are the same for all, so DINOv2 goes without its LayerScale; frozen features are the mean of the patch tokens. Rates, schedules,
losses and views are each method's own, rates scaled to the batch as its source scales them, warm-up the same share of the run.
DATA/odir5k and DATA/eyepacs_1098 are made by experiments/tables/real.py; the pretraining sees the
training patients of ODIR-5K alone.

Source: Zhou et al., Nature 2023, compare a masked autoencoder with SimCLR, SwAV, DINO and MoCo v3; their numbers are in figures and a
supplement that we could not read (SwAV there has a ResNet-50). DINOv2 and the prediction of a later visit are not in that comparison.
Here: measured 2026-11-26 on one H200 for 120,064 images at 128 px (`--size vit_s16 --images 120000 --image_size 128`), frozen features:
BUILD.md, "Ways to pretrain". At full length not yet measured.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from experiments import finetune, odir5k, pretrain_dino, pretrain_mae, pretrain_ssl, pretrain_temporal
from experiments.tables import _common
from experiments.tables.real import EYE_LABELS
from retfound_jax.core.errors import UsageError, nearest
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.studies.grid import Method, Study, StudyData
from retfound_jax.studies.rows import Judged
from retfound_jax.studies.run import GIVEN
from retfound_jax.train.config import TrainConfig

METHODS = ('mae', 'simclr', 'mocov3', 'swav', 'dino', 'dinov2')
VISITS = ('mae', 'temporal')  # for data in which eyes come again
_SHIPPED: dict[str, dict[str, Callable[[], TrainConfig]]] = {
    'vit_s16': {
        'mae': pretrain_mae.vit_s16,
        'simclr': pretrain_ssl.simclr,
        'mocov3': pretrain_ssl.mocov3,
        'swav': pretrain_ssl.swav,
        'dino': pretrain_dino.dino_vit_s16,
        'dinov2': pretrain_dino.dinov2_vit_s16,
        'temporal': pretrain_temporal.siam_mae_vit_s16,
    },
    'small_cpu': {
        'mae': pretrain_mae.small_cpu,
        'simclr': pretrain_ssl.simclr_small_cpu,
        'mocov3': pretrain_ssl.mocov3_small_cpu,
        'swav': pretrain_ssl.swav_small_cpu,
        'dino': pretrain_dino.dino_small_cpu,
        'dinov2': pretrain_dino.dinov2_small_cpu,
        'temporal': pretrain_temporal.small_cpu,
    },
}
SIZES = tuple(_SHIPPED)
_BATCH = {'vit_s16': 256, 'small_cpu': 128}  # [images] of a step
_SQUARE_ROOT = ('dinov2',)  # whose source scales the rate by the root of the batch


def pretraining_methods() -> Study:
    """Six ways of pretraining at ViT-S/16, 224 px, and random weights: fine-tuned, probed and by neighbours. Not yet measured."""
    return _study(METHODS, recipe=_common.vit_s16())


def pretraining_methods_small_cpu() -> Study:
    """The same with six blocks of width 192 at 96 px, which two cores can train. Not yet measured."""
    return _study(METHODS, recipe=finetune.small_cpu(image_size=odir5k.IMAGE_SIZE))


def pretraining_visits() -> Study:
    """A later visit predicted from an earlier one against a masked autoencoder, ViT-S/16, where eyes come again.

    No public dataset of the registry has visits: DATA/visits is a dataset of one's own with patients, laterality, `visit_years` and a label
    `progresses`, or the phantom's (`retfound phantom --visits 3`). Not yet measured.
    """
    visits = StudyData(name='visits', labels=('progresses',))
    study = _study(VISITS, recipe=_common.vit_s16(), pretrained_on='visits')
    return dataclasses.replace(study, name='pretraining_visits', title='Pretraining where eyes come again', paper='', data=(visits,))


def pretraining_methods_phantom() -> Study:
    """The twin of pretraining_methods on drawn photographs; its weights are made by `--size tiny`."""
    return _common.twin(pretraining_methods())


def pretraining_visits_phantom() -> Study:
    """The twin of pretraining_visits on drawn photographs of eyes that come again; its weights are made by `--size tiny`."""
    study = _common.twin(pretraining_visits())
    visits = StudyData(name='visits', labels=('referable_dr',), phantom=_TINY_VISITS)
    return dataclasses.replace(study, data=(visits,))


def pretraining(method: str, *, size: str, images: int, batch_size: int = 0, image_size: int = 0, data: str = '') -> TrainConfig:
    """A method's run at a size: so many images are drawn in all, from a dataset's directory.

    Args:
      batch_size: [images] of a step; 0: the size's own.
      image_size: [px] of the input and of global views, canvas and local views by the same scale; 0: the recipe's own.

    Raises:
      UsageError: there is no such method or size, or not one step of images.
    """
    if size == 'tiny':
        return _tiny(method, images=images, batch_size=batch_size or 8)
    if size not in _SHIPPED:
        raise UsageError(f'there is no size "{size}"{nearest(size, SIZES) or "; there are " + ", ".join((*SIZES, "tiny"))}')
    _check(method)
    batch, config = batch_size or _BATCH[size], _SHIPPED[size][method]()
    config = _at(config, image_size=image_size) if image_size else config
    return _equal(config, method=method, batch=batch, images=images, data={'path': data, 'phantom': None})


def _at(config: TrainConfig, *, image_size: int) -> TrainConfig:
    """The recipe at another size of the input [px]; local views stay a whole number of patches."""
    encoder, views = config.task.model.encoder, config.data.views
    scale, patch = image_size / config.data.image_size, config.task.model.encoder.patch_size
    if views is not None:
        local = max(patch, round(views.local_size * scale / patch) * patch)
        views = dataclasses.replace(views, canvas=round(views.canvas * scale), local_size=local)
    model = dataclasses.replace(config.task.model, encoder=dataclasses.replace(encoder, image_size=image_size))
    data = dataclasses.replace(config.data, image_size=image_size, views=views)
    return dataclasses.replace(config, task=dataclasses.replace(config.task, model=model), data=data)


def _check(method: str) -> None:
    known = _SHIPPED['small_cpu']
    if method not in known:
        raise UsageError(f'there is no way of pretraining "{method}"{nearest(method, known) or "; there are " + ", ".join(known)}')


def _equal(config: TrainConfig, *, method: str, batch: int, images: int, data: dict[str, Any]) -> TrainConfig:
    """The recipe with another batch and length."""
    if images < batch:
        raise UsageError(f'{images} images are not one step of {batch}; give more, or a smaller batch')
    steps = math.ceil(images / batch)
    optim = dataclasses.replace(config.optim, warmup_steps=max(1, round(steps * config.warmup_epochs / config.epochs)))
    if optim.lr is not None:  # a base rate scales by itself
        share = batch / config.data.batch_size
        optim = dataclasses.replace(optim, lr=optim.lr * (share**0.5 if method in _SQUARE_ROOT else share))
    given = dataclasses.replace(config.data, batch_size=batch, **data)
    # The encoder that all share has no LayerScale, which DINOv2's has.
    encoder = dataclasses.replace(config.task.model.encoder, layer_scale=None)
    task = dataclasses.replace(config.task, model=dataclasses.replace(config.task.model, encoder=encoder))
    return dataclasses.replace(config, task=task, data=given, optim=optim, steps=steps, epochs=0.0, warmup_epochs=0.0)


_TINY_VISITS = PhantomConfig(patients=16, image_size=32, visits=2, dr_grades=(0.3, 0.2, 0.2, 0.15, 0.15))


def _tiny(method: str, *, images: int, batch_size: int) -> TrainConfig:
    """The small recipe around the encoder of the twins, on drawn photographs."""
    _check(method)
    if method == 'mae':
        config = _common.tiny_mae()
        data = dataclasses.replace(config.data, batch_size=batch_size)
        return dataclasses.replace(config, steps=math.ceil(images / batch_size), data=data)
    config, like = _SHIPPED['small_cpu'][method](), _common.tiny_mae()
    encoder = dataclasses.replace(like.task.model.encoder, pool=config.task.model.encoder.pool)
    model = dataclasses.replace(config.task.model, encoder=encoder, **_narrow(config.task.model))
    views = config.data.views and dataclasses.replace(
        config.data.views, canvas=40, **({'local_views': 1, 'local_size': 16} if config.data.views.local_views else {})
    )
    phantom = _TINY_VISITS if method == 'temporal' else like.data.phantom
    config = dataclasses.replace(config, task=dataclasses.replace(config.task, model=model))
    return _equal(config, method=method, batch=batch_size, images=images, data={
        'path': '', 'phantom': phantom, 'image_size': like.data.image_size, 'views': views,
    })


def _narrow(model: Any) -> dict[str, float]:
    """The fields of width that a method's model has, made small; one of the four patches is seen."""
    small = {'hidden': 16, 'out': 8, 'bottleneck': 8, 'prototypes': 16, 'mask_ratio': 0.75}
    small |= {'decoder_width': 16, 'decoder_depth': 1, 'decoder_heads': 2}
    return {field.name: small[field.name] for field in dataclasses.fields(model) if field.name in small}


def _study(methods: Sequence[str], *, recipe: TrainConfig, pretrained_on: str = 'odir5k') -> Study:
    given = (Method(name=name, weights=GIVEN, pretrained_on=(f'{pretrained_on}:train',)) for name in methods)
    return Study(
        name='pretraining_methods',
        title='Ways of pretraining, equal images seen',
        paper='Zhou et al., Nature 2023, comparison of ways of self-supervision',
        data=(StudyData(name='odir5k', labels=EYE_LABELS, kind='multi'), StudyData(name='eyepacs_1098', labels=('dr_grade',))),
        methods=(*given, _common.RANDOM),
        adaptations=('finetune', 'probe', 'knn'),
        recipe=recipe,
        judged=Judged(reference='mae'),
    )


def main(arguments: Sequence[str]) -> None:
    """Trains every method that has not been trained."""
    del arguments
    from retfound_jax.core import compile_cache
    from retfound_jax.core.notice import Notice
    from retfound_jax.train.loop import train

    values = flags.FLAGS
    compile_cache.enable()
    out = Path(values.out)
    with Notice() as notice:
        for method in values.methods:
            config = pretraining(method, size=values.size, images=values.images, batch_size=values.batch_size,
                                 image_size=values.image_size, data=values.data)
            train(config, workdir=out / method, resume=True, notice=lambda: notice.given)
    print(' '.join(f'--weights {method}={out / method}' for method in values.methods))


if __name__ == '__main__':
    flags.DEFINE_string('data', '', 'directory of a dataset, its training split is pretrained on; not for --size tiny, which is drawn')
    flags.DEFINE_string('out', None, 'folder for the runs, one a method', required=True)
    flags.DEFINE_enum('size', 'small_cpu', [*SIZES, 'tiny'], 'the encoder')
    flags.DEFINE_integer('images', 100_000, 'images drawn in all by each method', lower_bound=1)
    flags.DEFINE_integer('batch_size', 0, 'images of a step; 0: 256 for vit_s16, 128 for small_cpu', lower_bound=0)
    flags.DEFINE_integer('image_size', 0, 'side of the input [px]; 0: that of the recipe', lower_bound=0)
    flags.DEFINE_list('methods', list(METHODS), 'which to train')
    app.run(main)
