"""Weights as a network that runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from retfound_jax.interop.weights import Weights
from retfound_jax.models import layers
from retfound_jax.models.heads import Classifier
from retfound_jax.models.mae import MAE, MAEConfig
from retfound_jax.models.vit import ViT


def build(weights: Weights, *, scan: bool = True, compute_dtype: Literal['float32', 'bfloat16'] = 'float32') -> nnx.Module:
    """A ViT, a Classifier or a MAE around the arrays.

    Args:
      scan: blocks stacked and compiled once, or each for itself.
    """
    encoder = dataclasses.replace(weights.encoder, scan=scan, compute_dtype=compute_dtype)
    mae = isinstance(weights.config, MAEConfig)
    config = dataclasses.replace(weights.config, encoder=encoder) if mae else encoder

    def make() -> nnx.Module:
        if mae:
            return MAE(config, rngs=nnx.Rngs(0))
        return Classifier(config, outputs=weights.outputs, rngs=nnx.Rngs(0)) if weights.outputs else ViT(config, rngs=nnx.Rngs(0))

    graph, state = nnx.split(nnx.eval_shape(make))
    params = _tree(weights.params, scan=scan)
    nnx.replace_by_pure_dict(state, params if mae or weights.outputs else params['encoder'])
    return nnx.merge(graph, state)


def _tree(params: Mapping[str, np.ndarray], *, scan: bool) -> dict[str, Any]:
    """Parameters by dotted name as the nested dictionary a model of ours takes, each stack of blocks joined where `scan`."""
    nested: dict[str, Any] = {}
    for name, array in params.items():
        *path, last = (int(part) if part.isdigit() else part for part in name.split('.'))
        place = nested
        for part in path:
            place = place.setdefault(part, {})
        place[last] = array
    return jax.tree.map(jnp.asarray, layers.stack_blocks(nested) if scan else nested)
