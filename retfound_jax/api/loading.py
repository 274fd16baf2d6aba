"""A run directory or other people's weights to a `Model`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from flax import nnx

from retfound_jax.api.images import CROPS, Crop
from retfound_jax.api.model import HEADED, Model
from retfound_jax.core.errors import UsageError, UserError, nearest
from retfound_jax.data.config import DataConfig
from retfound_jax.ingest.work import WorkOptions
from retfound_jax.models import positions
from retfound_jax.models.heads import Classifier
from retfound_jax.models.vit import ViT, ViTConfig
from retfound_jax.tasks.supervised import SupervisedTask
from retfound_jax.train.checkpoint import Run, load_run

POOLS = ('mean', 'cls', 'mean_normed')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loaded:
    """Weights in a network, and what is known of them."""

    module: ViT | Classifier
    kind: str
    data: DataConfig  # preprocessing
    task: SupervisedTask | None  # what the head means; None without a head
    names_known: bool
    origin: Mapping[str, Any]


def load(
    path: str | Path,
    *,
    image_size: int | None = None,
    pool: str | None = None,
    norm_twice: bool | None = None,
    classes: Sequence[str] | None = None,
    checkpoint: Literal['best', 'latest'] = 'best',
    batch_size: int = 32,
    crop: Crop = 'fov',
    size: int | None = None,
) -> Model:
    """Loads a run directory of `retfound train`.

    Args:
      path: of the weights.
      image_size: another input size [px]; positions are resampled.
      pool: how an encoder without a head pools its tokens: mean (through a fresh norm, as RETFound's features), cls, mean_normed.
      norm_twice: apply fc_norm twice, as RETFound's code of 2025 does.
      classes: names of the outputs, where the weights carry none.
      checkpoint: of a run directory.
      batch_size: most images computed at once.
      crop: of files: 'fov' cuts the field of view out as `retfound ingest` does, 'none' leaves photographs as they are.
      size: shorter side kept of a file's field of view [px]; None: 256 as in ingest, or more where the image size needs it.

    Raises:
      UserError: the weights cannot be read. UsageError: an argument does not fit them.
    """
    _check(pool=pool, checkpoint=checkpoint, batch_size=batch_size, crop=crop, image_size=image_size, size=size)
    path = Path(path).expanduser()
    loaded = _from_run(load_run(path, which=checkpoint), which=checkpoint, image_size=image_size, pool=pool, norm_twice=norm_twice)
    names, known = _names(loaded, classes)
    return Model(
        loaded.module,
        kind=loaded.kind,
        data=loaded.data,
        task=_renamed(loaded.task, names),
        names=names,
        names_known=known,
        origin=loaded.origin,
        batch_size=batch_size,
        crop=crop,
        size=size or max(WorkOptions.shorter_side, int(loaded.data.image_size / loaded.data.central_share)),
    )


def _check(**given: Any) -> None:
    for name, options in (('pool', (None, *POOLS)), ('checkpoint', ('best', 'latest')), ('crop', CROPS)):
        if given[name] not in options:
            words = [option for option in options if option]
            raise UsageError(f'{name} is {given[name]!r}{nearest(str(given[name]), words)}; choose one of {", ".join(words)}')
    for name, least in (('batch_size', 1), ('image_size', 1), ('size', 32)):
        value = given[name]
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise UsageError(f'{name} is {value!r} and must be a whole number of at least {least}')


def _from_run(run: Run, *, which: str, image_size: int | None, pool: str | None, norm_twice: bool | None) -> Loaded:
    task, headed = run.task, run.task.kind in HEADED
    if not headed and run.task.kind != 'mae':
        raise UserError(f'{run.workdir} holds a run of kind "{run.task.kind}", which this version cannot use; give another run directory')
    config = task.model if headed else dataclasses.replace(task.model.encoder, pool='cls', norm_twice=False)
    params = dict(run.params)
    encoder, config = _resized(dict(params['encoder']), config, image_size)
    encoder, config = _pooled(encoder, config, pool=pool, headed=headed)
    if norm_twice is not None:
        config = dataclasses.replace(config, norm_twice=norm_twice)
    module = _fill(Classifier, {'encoder': encoder, 'head': params['head']}, config, outputs=task.outputs) if headed else _fill(
        ViT, encoder, config
    )
    origin = {'format': 'run directory of retfound-jax', 'weights': str(run.workdir), 'experiment': run.config.name, 'step': run.step}
    return Loaded(
        module=module,
        kind=task.kind,
        data=dataclasses.replace(run.config.data, image_size=config.image_size),
        task=dataclasses.replace(task, model=config) if headed else None,
        names_known=True,
        origin={**origin, 'checkpoint': which},
    )


def _resized(encoder: dict[str, Any], config: ViTConfig, image_size: int | None) -> tuple[dict[str, Any], ViTConfig]:
    """Positions for another grid, resampled as MAE and RETFound do; a fixed table becomes a parameter: no formula gives the new one."""
    if image_size in (None, config.image_size):
        return encoder, config
    changed = dataclasses.replace(config, image_size=image_size)
    if image_size % config.patch_size:
        raise UsageError(f'image_size {image_size} does not divide into patches of {config.patch_size} px; choose a multiple')
    if config.positions == 'rope':
        return encoder, changed
    fixed = config.positions == 'sincos'
    table = positions.sincos_2d(config.width, grid=config.grid) if fixed else np.asarray(encoder['pos_embed'])
    prefix = 1 if fixed or config.cls_position else 0
    encoder['pos_embed'] = jnp.asarray(positions.resample(table, grid=changed.grid, prefix=prefix))
    return encoder, dataclasses.replace(changed, positions='learned', cls_position=bool(prefix))


def _pooled(encoder: dict[str, Any], config: ViTConfig, *, pool: str | None, headed: bool) -> tuple[dict[str, Any], ViTConfig]:
    """The pooling asked for; where an encoder has no norm of that name, a fresh one, as RETFound's features have."""
    wanted = pool or (config.pool if headed else 'mean')
    if wanted == config.pool:
        return encoder, config
    if headed:
        raise UsageError(f'the head was trained on pool "{config.pool}", and pool is "{wanted}"; leave pool out')
    if wanted == 'mean':
        del encoder['norm']
        encoder['fc_norm'] = {'scale': jnp.ones((config.width,)), 'bias': jnp.zeros((config.width,))}
    return encoder, dataclasses.replace(config, pool=wanted)


def _fill(make: type[nnx.Module], params: Mapping[str, Any], config: ViTConfig, **sizes: int) -> nnx.Module:
    """A network around parameters that are there."""
    graph, state = nnx.split(nnx.eval_shape(lambda: make(config, **sizes, rngs=nnx.Rngs(0))))
    nnx.replace_by_pure_dict(state, dict(params))
    return nnx.merge(graph, state)


def _names(loaded: Loaded, given: Sequence[str] | None) -> tuple[tuple[str, ...], bool]:
    """What each score is the score of, and whether that is known.

    Raises:
      UsageError: names are given that do not fit the head, or where it has its own.
    """
    task = loaded.task
    if task is None:
        if given:
            raise UsageError('classes are given, and the weights have no head to name the outputs of; leave classes out')
        return (), True
    own = task.class_names or task.labels
    if not given:
        return own, loaded.names_known
    given = tuple(given)
    if task.kind == 'regress':
        raise UsageError(f'classes are given, and the head predicts a number ("{own[0]}"); leave classes out')
    if len(given) != len(own):
        raise UsageError(f'{len(given)} classes are given, and the head has {len(own)}; give {len(own)} names in the order of training')
    if len(set(given)) < len(given) or not all(given):
        raise UsageError(f'the classes {", ".join(given)} are not all different and not empty; give each output a name of its own')
    if loaded.names_known and given != own:
        raise UsageError(f'classes are given, and the weights carry their own: {", ".join(own)}; leave classes out')
    return given, True


def _renamed(task: SupervisedTask | None, names: tuple[str, ...]) -> SupervisedTask | None:
    if task is None or task.kind == 'regress':
        return task
    return dataclasses.replace(task, labels=names) if task.kind == 'multi' else dataclasses.replace(task, classes=names)
