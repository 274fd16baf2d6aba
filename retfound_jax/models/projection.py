"""What stands between an encoder and a loss that compares views: MLPs with batch norm, and how far their vectors spread.

Letters: B rows (a batch, or the views of one), D width in, F hidden width, O width out.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from retfound_jax.models.layers import Linear
from retfound_jax.models.ops import wide

_EPSILON = 1e-5  # of batch norm, PyTorch's default
_SMALL = 1e-12  # below any length that a vector is divided by


class BatchNorm(nnx.Module):
    """Batch norm (Ioffe and Szegedy, arXiv 1502.03167) over all rows it is given, in float32, always by the rows' own statistics.

    No running average is kept: the projectors that it stands in are dropped after pretraining, and validation has batches too. Under jit
    on a mesh the rows are those of all devices.
    """

    def __init__(self, width: int, *, letters: str, affine: bool = True) -> None:
        self.scale = nnx.Param(jnp.ones((width,), jnp.float32), letters=letters) if affine else None
        self.bias = nnx.Param(jnp.zeros((width,), jnp.float32), letters=letters) if affine else None

    def __call__(self, x_BF: jax.Array, weight_B: jax.Array | None = None) -> jax.Array:
        """`weight_B` is 0 for rows that only fill up the batch: they count in no statistic."""
        wide_BF = x_BF.astype(wide(x_BF.dtype))
        mean_F = _mean(wide_BF, weight_B)
        centred_BF = wide_BF - mean_F
        out_BF = centred_BF * jax.lax.rsqrt(_mean(jnp.square(centred_BF), weight_B) + _EPSILON)
        if self.scale is not None:
            out_BF = out_BF * self.scale[...] + self.bias[...]
        return out_BF.astype(x_BF.dtype)


class Projection(nnx.Module):
    """Linear layers of widths D, F, ..., O with batch norm and ReLU between them.

    A linear layer that batch norm follows has no bias, since the norm would take it out again.
    """

    def __init__(self, width: int, *, hidden: int, out: int, layers: int, last_norm: bool, rngs: nnx.Rngs) -> None:
        """last_norm: a batch norm without scale and bias on what comes out (MoCo v3)."""
        widths = [width, *[hidden] * (layers - 1), out]
        letters = ['D', *'F' * (layers - 1), 'O']
        self._layers, self._last_norm = layers, last_norm
        for i in range(layers):
            last = i == layers - 1
            normed = not last or last_norm
            made = Linear((widths[i],), (widths[i + 1],), letters=letters[i] + letters[i + 1], use_bias=not normed, rngs=rngs)
            setattr(self, f'fc{i + 1}', made)
            if normed:
                setattr(self, f'norm{i + 1}', BatchNorm(widths[i + 1], letters=letters[i + 1], affine=not last))

    def __call__(self, x_BD: jax.Array, weight_B: jax.Array | None = None) -> jax.Array:
        """[B, O] float32; `weight_B` as in BatchNorm."""
        for i in range(1, self._layers + 1):
            x_BD = getattr(self, f'fc{i}')(x_BD)
            if i < self._layers:
                x_BD = jax.nn.relu(getattr(self, f'norm{i}')(x_BD, weight_B))
        x_BO = x_BD.astype(wide(x_BD.dtype))
        return getattr(self, f'norm{self._layers}')(x_BO, weight_B) if self._last_norm else x_BO


def unit(x_BO: jax.Array) -> jax.Array:
    """Each vector over its length, in float32; where there is none, nothing."""
    x_BO = x_BO.astype(wide(x_BO.dtype))
    return x_BO * jax.lax.rsqrt(jnp.square(x_BO).sum(-1, keepdims=True).clip(_SMALL))


def spread(x_BO: jax.Array, weight_B: jax.Array | None = None) -> jax.Array:
    """How far the directions of vectors spread: the deviation of the normalised vectors in each dimension, times sqrt(O), in the mean.

    0 where all point one way (collapse), near 1 where they point everywhere (Chen and He, arXiv 2011.10566, section 4.1).
    """
    x_BO = unit(jax.lax.stop_gradient(x_BO))
    deviation_O = jnp.sqrt(_mean(jnp.square(x_BO - _mean(x_BO, weight_B)), weight_B))
    return deviation_O.mean() * x_BO.shape[-1] ** 0.5


def _mean(x_BF: jax.Array, weight_B: jax.Array | None) -> jax.Array:
    if weight_B is None:
        return x_BF.mean(0)
    return (x_BF * weight_B[:, None]).sum(0) / weight_B.sum().clip(1)
