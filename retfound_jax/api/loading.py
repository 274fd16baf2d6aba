"""A run directory or other people's weights to a `Model`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from retfound_jax.api.images import CROPS, Crop
from retfound_jax.api.model import Model
from retfound_jax.core.errors import UsageError, UserError, nearest
from retfound_jax.ingest.work import WorkOptions
from retfound_jax.interop.adapt import adapted
from retfound_jax.interop.read import read_weights
from retfound_jax.interop.weights import Meaning, Preprocessing, Weights
from retfound_jax.models.layers import unstack_blocks
from retfound_jax.models.mae import MAEConfig
from retfound_jax.models.transfer import flat_names
from retfound_jax.models.vit import POOLS
from retfound_jax.tasks.regress import RegressTask
from retfound_jax.tasks.supervised import SupervisedTask
from retfound_jax.train.checkpoint import Run, is_run, load_run


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
    heads: int | None = None,
    allow_missing: Sequence[str] = (),
    allow_extra: Sequence[str] = (),
) -> Model:
    """Loads a run directory of `retfound train`, or weights of MAE, RETFound, DINOv2, DINOv3, timm or Hugging Face.

    Args:
      path: a run directory, a .pth or .safetensors file, a directory with one, or 'hf:owner/name'. Nothing pickled in it is run.
      image_size: another input size [px]; positions are resampled.
      pool: how an encoder without a head pools its tokens: mean (through a fresh norm, as RETFound's features), cls, mean_normed.
      norm_twice: apply fc_norm twice, as RETFound's code of 2025 does; None: as the weights say.
      classes: names of the outputs, where the weights carry none.
      checkpoint: of a run directory.
      batch_size: most images computed at once.
      crop: of files: 'fov' cuts the field of view out as `retfound ingest` does, 'none' leaves photographs as they are.
      size: shorter side kept of a file's field of view [px]; None: 256 as in ingest, or more where the image size needs it.
      heads: attention heads of other people's weights, where they are not 64 channels each and the file does not say.
      allow_missing, allow_extra: tensors of other people's weights that may be absent or left over.

    Raises:
      UserError: the weights cannot be read. UsageError: an argument does not fit them.
    """
    _check(pool=pool, checkpoint=checkpoint, batch_size=batch_size, crop=crop, image_size=image_size, size=size)
    weights, dtype = read(path, checkpoint=checkpoint, heads=heads, allow_missing=allow_missing, allow_extra=allow_extra)
    kind = weights.meaning.kind
    weights = adapted(weights, encoder=kind == 'mae', pool=pool, norm_twice=norm_twice, image_size=image_size)
    names, known = _names(weights, tuple(classes or ()))
    looked_at = weights.preprocessing
    needed = max(WorkOptions.shorter_side, int(looked_at.image_size / looked_at.crop))
    return Model(
        weights, kind=kind, names=names, names_known=known, batch_size=batch_size, crop=crop, size=size or needed, compute_dtype=dtype
    )


def run_weights(run: Run) -> Weights:
    """A run's parameters with what they mean; of token reconstruction the student's encoder alone.

    Raises:
      UserError: it is a run of a kind without an encoder.
    """
    task, data = run.task, run.config.data
    headed = isinstance(task, SupervisedTask)
    if not headed and not hasattr(getattr(task, 'model', None), 'encoder'):
        raise UserError(f'{run.workdir} holds a run of kind "{task.kind}", which has no encoder to use; give another run directory')
    config = task.model if headed or isinstance(task.model, MAEConfig) else task.model.encoder
    whole = headed or isinstance(config, MAEConfig)
    parts = ('encoder', 'head') if headed else tuple(run.params) if whole else ('encoder',)  # how groups were weighed is not a model's
    params = {name: run.params[name] for name in parts}
    if isinstance(config, MAEConfig):
        config = dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, pool='cls', norm_twice=False))
    scale = {'target_mean': task.target_mean, 'target_std': task.target_std} if isinstance(task, RegressTask) else {}
    kind = task.kind if whole else 'encoder'
    return Weights(
        config=config,
        params={name: np.asarray(leaf) for name, leaf in flat_names(unstack_blocks(params)).items()},
        meaning=Meaning(kind=kind, labels=task.labels if whole else (), classes=task.class_names, **scale),
        preprocessing=Preprocessing(image_size=data.image_size, mean=data.mean, std=data.std, crop=data.central_share),
        origin={'layout': 'run', 'run': str(run.workdir), 'experiment': run.config.name, 'step': run.step},
    )


def read(path: str | Path, *, checkpoint: Literal['best', 'latest'] = 'best', **foreign: Any) -> tuple[Weights, str]:
    """Weights of any origin, and what they compute in: a run as it was trained, others in float32.

    Args:
      foreign: arguments of `interop.read.read_weights`; empty ones are as if not given.

    Raises:
      UserError: they cannot be read. UsageError: an argument does not fit them.
    """
    folder = Path(path).expanduser()
    given = {name: value for name, value in foreign.items() if value}
    if is_run(folder):
        if given:
            raise UsageError(f'{", ".join(given)} is for weights of another origin, and {path} is a run directory; leave it out')
        weights = run_weights(load_run(folder, which=checkpoint))
        return dataclasses.replace(weights, origin={**weights.origin, 'checkpoint': checkpoint}), weights.encoder.compute_dtype
    if checkpoint != 'best':
        raise UsageError(f'checkpoint is "{checkpoint}", and {path} is no run directory; leave checkpoint out')
    return read_weights(path if str(path).startswith('hf:') else folder, **given), 'float32'


def _check(**given: Any) -> None:
    for name, options in (('pool', (None, *POOLS)), ('checkpoint', ('best', 'latest')), ('crop', CROPS)):
        if given[name] not in options:
            words = [option for option in options if option]
            raise UsageError(f'{name} is {given[name]!r}{nearest(str(given[name]), words)}; choose one of {", ".join(words)}')
    for name, least, most in (('batch_size', 1, 65536), ('image_size', 8, 4096), ('size', 32, 16384)):
        value = given[name]
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most):
            raise UsageError(f'{name} is {value!r} and must be a whole number from {least} to {most}')


def _names(weights: Weights, given: tuple[str, ...]) -> tuple[tuple[str, ...], bool]:
    """What each score is the score of, and whether that is known.

    Raises:
      UsageError: names are given that do not fit the head, or where it has its own.
    """
    meaning = weights.meaning
    if not weights.outputs:
        if given:
            raise UsageError('classes are given, and the weights have no head to name the outputs of; leave classes out')
        return (), True
    own = meaning.classes if meaning.kind in ('single', 'ordinal') else meaning.labels
    own = own if len(set(own)) == len(own) else ()  # names that stand twice tell nothing apart
    if meaning.kind == 'regress':
        if given:
            raise UsageError('classes are given, and the head predicts a number; leave classes out')
        return own or ('value',), bool(own)
    count = weights.outputs + (meaning.kind == 'ordinal')
    if not given:
        return (own, True) if own else (tuple(f'class_{place}' for place in range(count)), False)
    if len(given) != count:
        raise UsageError(f'{len(given)} classes are given, and the head has {count}; give {count} names in the order of training')
    if len(set(given)) < count or not all(given):
        raise UsageError(f'the classes {", ".join(given)} are not all different and not empty; give each output a name of its own')
    if own and given != own:
        raise UsageError(f'classes are given, and the weights carry their own: {", ".join(own)}; leave classes out')
    return given, True
