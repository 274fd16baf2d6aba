"""Moving an encoder from one model to another: by name, every shape asserted, nothing left over that is not named here."""

from __future__ import annotations

import fnmatch
import math
import re
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from retfound_jax.core.errors import UserError
from retfound_jax.models import positions
from retfound_jax.models.layers import STACKS

# What a target may keep of its own, and what of a source may go unused. A fixed table has no parameter, so learned
# positions that a source lacks stay as they start, which is that table.
_FRESH = ('head.*', 'group_weights')  # always the target's own
MISSING = (*_FRESH, 'encoder.fc_norm.*', 'encoder.pos_embed')
_HEADS = (*_FRESH, 'projector.*', 'predictor.*', 'prototypes', 'decoder_*', 'mask_token')
UNVISITED = (*_HEADS, 'encoder.norm.*', 'encoder.fc_norm.*', 'teacher.*', 'momentum_*', 'student*', 'patch_projector.*', 'centre')


def flat_names(params: Any) -> dict[str, Any]:
    """Parameters by dotted name ('encoder.blocks.norm1.scale'), from an `nnx.State` or a plain tree."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]}


def path_name(path: tuple[Any, ...]) -> str:
    """A pytree path as a dotted name, without the '.value' that an nnx.State adds below each parameter."""
    parts = [getattr(key, 'key', getattr(key, 'idx', None)) for key in path]
    return '.'.join(str(part) for part in parts if part is not None)


def load_encoder(params_target: Any, params_source: Any, *, missing: tuple[str, ...] = MISSING) -> Any:
    """`params_target` with its encoder's arrays taken from `params_source`; the head stays the target's own.

    Both are trees of a model with an `encoder` (a MAE, a Classifier), scanned or unrolled. Learned positions of another
    image size are resampled bicubically; those that are the sine-cosine table may go to a model with that table fixed.
    Whatever else both have, such as a MAE's decoder, moves too.

    Args:
      missing: patterns of the names that the source may lack; the target keeps its own.

    Raises:
      UserError: a parameter has another shape, is missing from the source, or would go unused, beyond `missing` and
        `UNVISITED`; the sentence names them.
    """
    source = _as_stacks(flat_names(params_source))
    blocks = Counter(name for name, index in map(_stacked, flat_names(params_target)) if index is not None)
    visited, lacking = set(), []

    def take(path: tuple[Any, ...], target: Any) -> Any:
        name, index = _stacked(path_name(path))
        if name not in source or _matches(name, _FRESH):
            lacking.append(name)
            return target
        visited.add(name)
        if index is not None and len(source[name]) != blocks[name]:
            raise UserError(f'{name} has {len(source[name])} blocks in the weights and {blocks[name]} in the model; choose the same depth')
        value = source[name] if index is None else source[name][index]
        if name.endswith('pos_embed') and value.shape != target.shape:
            value = _resampled(value, rows=len(target))
        if value.shape != target.shape:
            raise UserError(f'{name} is {value.shape} in the weights and {target.shape} in the model; choose the size of the weights')
        return value.astype(target.dtype)

    params = jax.tree_util.tree_map_with_path(take, params_target)
    _refuse('lack', [name for name in dict.fromkeys(lacking) if not _matches(name, missing)])
    unknown = [name for name in source if name not in visited and not _matches(name, UNVISITED)]
    _refuse('hold unknown', [name for name in unknown if not (name == 'encoder.pos_embed' and positions.is_sincos(source[name]))])
    return params


def _resampled(table_LD: jax.Array, *, rows: int) -> jax.Array:
    """Positions of another grid of patches, where both have or both lack a row for the cls token; else as they are."""
    prefix, grid = len(table_LD) - math.isqrt(len(table_LD)) ** 2, math.isqrt(rows)
    if prefix != rows - grid**2:
        return table_LD
    return jnp.asarray(positions.resample(np.asarray(table_LD), grid=grid))


def _refuse(what: str, names: list[str]) -> None:
    if names:
        more = f' and {len(names) - 5} more' if len(names) > 5 else ''
        raise UserError(f'the weights {what} {", ".join(names[:5])}{more}; give weights of the same kind and depth of encoder')


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _stacked(name: str) -> tuple[str, int | None]:
    """A name in an unrolled stack as the stack's name and the index in it."""
    found = re.fullmatch(rf'(.*?\b(?:{"|".join(STACKS)}))\.(\d+)\.(.*)', name)
    return (f'{found[1]}.{found[3]}', int(found[2])) if found else (name, None)


def _as_stacks(named: dict[str, Any]) -> dict[str, Any]:
    """Flat parameters with the blocks of each unrolled stack stacked."""
    out: dict[str, Any] = {}
    for name, leaf in named.items():
        stack, index = _stacked(name)
        if index is None:
            out[stack] = leaf
        else:
            out.setdefault(stack, {})[index] = leaf
    return {name: jnp.stack([leaf[i] for i in sorted(leaf)]) if isinstance(leaf, dict) else leaf for name, leaf in out.items()}
