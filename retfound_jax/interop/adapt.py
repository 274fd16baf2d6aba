"""The same weights put to another use: another input size, another pooling, the encoder alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from retfound_jax.core.errors import UsageError
from retfound_jax.interop.describe import usual_crop
from retfound_jax.interop.weights import Meaning, Weights
from retfound_jax.models import positions
from retfound_jax.models.mae import MAEConfig
from retfound_jax.models.vit import POOLS, ViTConfig

# Whose code resamples positions with antialiasing; MAE's, RETFound's, DINOv2's and Hugging Face's does it without.
_ANTIALIASED = ('timm', 'eva')


def adapted(
    weights: Weights, *, encoder: bool = False, pool: str | None = None, norm_twice: bool | None = None, image_size: int | None = None
) -> Weights:
    """Everything asked for, in the one order that works; what is left out stays as the weights have it.

    Args:
      encoder: the encoder alone.

    Raises:
      UsageError: something of it does not fit the weights.
    """
    if encoder:
        weights = as_encoder(weights, pool=pool)
    elif pool:
        weights = with_pool(weights, pool)
    if norm_twice is not None:
        weights = with_norm_twice(weights, norm_twice)
    return at_size(weights, image_size) if image_size else weights


def at_size(weights: Weights, image_size: int) -> Weights:
    """The weights for square inputs of `image_size` px, positions resampled as the source's own code does.

    A fixed sine-cosine table is resampled too, as MAE and RETFound do it, and becomes a parameter: no formula gives the result.

    Raises:
      UsageError: the size does not divide into the patches.
    """
    encoder, params = weights.encoder, dict(weights.params)
    if image_size == encoder.image_size:
        return weights
    if image_size < 1 or image_size % encoder.patch_size:
        raise UsageError(f'image size {image_size} does not divide into patches of {encoder.patch_size} px; choose a multiple')
    changes: dict[str, Any] = {'image_size': image_size}
    if encoder.positions != 'rope':
        fixed = encoder.positions == 'sincos'
        table = positions.sincos_2d(encoder.width, grid=encoder.grid) if fixed else params['encoder.pos_embed']
        antialias = weights.origin.get('layout') in _ANTIALIASED
        params['encoder.pos_embed'] = positions.resample(table, grid=image_size // encoder.patch_size, antialias=antialias)
        changes['positions'] = 'learned'
    crop = weights.preprocessing.crop
    crop = usual_crop(image_size) if crop == usual_crop(encoder.image_size) else crop
    preprocessing = dataclasses.replace(weights.preprocessing, image_size=image_size, crop=crop)
    return dataclasses.replace(weights, config=_with(weights.config, **changes), params=params, preprocessing=preprocessing)


def as_encoder(weights: Weights, *, pool: str | None = None) -> Weights:
    """The encoder without head or decoder.

    A masked autoencoder has no pooling of its own: unless `pool` says otherwise it gets RETFound's, the mean of the patch tokens
    through a norm that starts as the identity.
    """
    if weights.meaning.kind == 'encoder':
        return with_pool(weights, pool) if pool else weights
    params = {name: array for name, array in weights.params.items() if name.startswith('encoder.')}
    alone = dataclasses.replace(weights, config=weights.encoder, params=params, meaning=Meaning(kind='encoder'))
    pool = pool or ('mean' if weights.meaning.kind == 'mae' else None)
    return with_pool(alone, pool) if pool else alone


def with_pool(weights: Weights, pool: str) -> Weights:
    """Another pooling of the tokens; a norm that it needs and the weights lack starts as the identity.

    Raises:
      UsageError: there is no such pooling, or a head or decoder was trained on another.
    """
    config = weights.config
    if pool not in POOLS:
        raise UsageError(f'there is no pooling "{pool}"; choose one of {", ".join(POOLS)}')
    if isinstance(config, MAEConfig):
        raise UsageError('a masked autoencoder has no pooling; take its encoder first (--encoder)')
    if config.pool == pool:
        return weights
    ours, theirs = ('fc_norm' if one == 'mean' else 'norm' for one in (pool, config.pool))
    if ours != theirs and weights.outputs:
        raise UsageError(f'the head of these weights was trained on pooling "{config.pool}", not "{pool}"; leave the pooling as it is')
    params = dict(weights.params)
    if ours != theirs:
        for name, value in (('scale', 1.0), ('bias', 0.0)):
            params.pop(f'encoder.{theirs}.{name}')
            params[f'encoder.{ours}.{name}'] = np.full(config.width, value, np.float32)
    return dataclasses.replace(weights, config=dataclasses.replace(config, pool=pool, norm_twice=False), params=params)


def with_norm_twice(weights: Weights, norm_twice: bool) -> Weights:
    """RETFound's double norm switched on or off.

    Raises:
      UsageError: the weights have no fc_norm.
    """
    if isinstance(weights.config, MAEConfig) or (norm_twice and weights.config.pool != 'mean'):
        raise UsageError('norm_twice is for weights with an fc_norm (pooling "mean"), and these have none; leave it out')
    return dataclasses.replace(weights, config=dataclasses.replace(weights.config, norm_twice=norm_twice))


def without_cls_position(weights: Weights) -> Weights:
    """The same network with the position of the cls token added to the token itself: timm has none where there are registers."""
    if not weights.encoder.registers or weights.encoder.positions != 'learned' or not weights.encoder.cls_position:
        return weights
    table, token = weights.params['encoder.pos_embed'], weights.params['encoder.cls_token']
    params = {**weights.params, 'encoder.pos_embed': table[1:], 'encoder.cls_token': token + table[0]}
    return dataclasses.replace(weights, config=_with(weights.config, cls_position=False), params=params)


def _with(config: ViTConfig | MAEConfig, **changes: Any) -> ViTConfig | MAEConfig:
    if isinstance(config, MAEConfig):
        return dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, **changes))
    return dataclasses.replace(config, **changes)
