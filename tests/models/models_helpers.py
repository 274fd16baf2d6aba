"""Models with known, generic numbers, made without compiling an initialisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from retfound_jax.models.transfer import path_name


def filled(build: Callable[[], nnx.Module], *, seed: int = 0, dtype: Any = np.float32) -> tuple[nnx.GraphDef, nnx.State]:
    """What `nnx.split` gives, every parameter random and off its start: no bias is zero, no scale one."""
    rng = np.random.default_rng(seed)
    graph, abstract = nnx.split(nnx.eval_shape(build))

    def fill(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        value = rng.normal(size=leaf.shape) * 0.2 + path_name(path).endswith('scale')
        return jnp.asarray(value, dtype)

    return graph, jax.tree_util.tree_map_with_path(fill, abstract)
