"""Blocks of a decoder that looks at other tokens: cross-attention before self-attention and MLP.

Letters: B batch, L tokens, S tokens looked at, D width, T keys and values (2), N heads, E head width.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from retfound_jax.models import ops
from retfound_jax.models.layers import Block, BlockShape, LayerNorm, Linear


class CrossAttention(nnx.Module):
    """Multi-head attention whose queries come from one set of tokens and whose keys and values from another; softmax in float32."""

    def __init__(self, shape: BlockShape, *, rngs: nnx.Rngs) -> None:
        width, letter, head_width = shape.width, shape.letter, shape.width // shape.heads
        made = {'rngs': rngs, 'dtype': shape.linear}
        self.q = Linear((width,), (shape.heads, head_width), letters=f'{letter}NE', use_bias=shape.qkv_bias, **made)
        self.kv = Linear((width,), (2, shape.heads, head_width), letters=f'{letter}TNE', use_bias=shape.qkv_bias, **made)
        self.proj = Linear((shape.heads, head_width), (width,), letters=f'NE{letter}', **made)

    def __call__(self, x_BLD: jax.Array, memory_BSD: jax.Array) -> jax.Array:
        kv_BSTNE = self.kv(memory_BSD)
        return self.proj(ops.attend(self.q(x_BLD), kv_BSTNE[:, :, 0], kv_BSTNE[:, :, 1]))


class CrossBlock(Block):
    """x + cross-attention(norm(x), norm(memory)), then a block as any other: the "cross-self" decoder of arXiv 2305.14344, figure 2."""

    def __init__(self, shape: BlockShape, *, rngs: nnx.Rngs) -> None:
        super().__init__(shape, rngs=rngs)
        norm = {'letters': shape.letter, 'epsilon': shape.norm_epsilon}
        self.norm_cross, self.norm_memory = LayerNorm(shape.width, **norm), LayerNorm(shape.width, **norm)
        self.cross = CrossAttention(shape, rngs=rngs)

    def __call__(
        self,
        x_BLD: jax.Array,
        drop_2B: jax.Array | None = None,
        rotary_2LE: jax.Array | None = None,
        *,
        memory_BSD: jax.Array,
        branch_dtype: jnp.dtype | None = None,
    ) -> jax.Array:
        """As `Block`; the branch that looks at `memory_BSD` is never dropped."""
        dtype = x_BLD.dtype if branch_dtype is None else branch_dtype
        branch = self.cross(self.norm_cross(x_BLD).astype(dtype), self.norm_memory(memory_BSD).astype(dtype))
        return super().__call__(x_BLD + branch, drop_2B, rotary_2LE, branch_dtype=branch_dtype)
