"""The parts every network here is made of: linear, layer norm, attention, MLP, block, and a stack of blocks.

Letters: B batch, L tokens, D width in, F MLP width, T the fused q, k, v (3), N heads, E head width. Every parameter
carries its letters as metadata; the stack's leading axis [depth] has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec

Remat = Literal['none', 'dots', 'full']
EPSILON = 1e-6  # of every layer norm (MAE and RETFound checkpoints; PyTorch's default is 1e-5)
STACKS = ('blocks', 'decoder_blocks')  # attributes that hold a stack of blocks


def xavier_uniform(key: jax.Array, shape: tuple[int, ...], *, fan_in: int) -> jax.Array:
    """Uniform within sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010), the kernel seen as a matrix [fan_in, fan_out]."""
    limit = (6.0 / (fan_in + np.prod(shape) / fan_in)) ** 0.5
    return jax.random.uniform(key, shape, jnp.float32, -limit, limit)


class Linear(nnx.Module):
    """x @ kernel + bias over the last `inputs` axes of x; kernel [*inputs, *outputs] starts Xavier uniform, bias zero."""

    def __init__(self, inputs: tuple[int, ...], outputs: tuple[int, ...], *, letters: str, rngs: nnx.Rngs) -> None:
        shape = (*inputs, *outputs)
        kernel = xavier_uniform(rngs.params(), shape, fan_in=int(np.prod(inputs)))
        self.kernel = nnx.Param(kernel, letters=letters)
        self.bias = nnx.Param(jnp.zeros(outputs, jnp.float32), letters=letters[len(inputs) :])

    def __call__(self, x: jax.Array) -> jax.Array:
        """Computes in the dtype of x; gradients of kernel and bias are summed in float32."""
        kernel, bias = self.kernel[...], self.bias[...]
        return _affine(x, kernel, bias) if x.dtype == kernel.dtype else _mixed_affine(x, kernel, bias)


def _affine(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    contracted = kernel.ndim - bias.ndim
    return jnp.tensordot(x, kernel.astype(x.dtype), contracted) + bias.astype(x.dtype)


# Differentiated as it stands, a product in bfloat16 gives its kernel a bfloat16 gradient, which is then also summed over
# devices in bfloat16. This one keeps activations in bfloat16 and sums what goes to the parameters in float32.
@jax.custom_vjp
def _mixed_affine(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    return _affine(x, kernel, bias)


def _mixed_forward(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return _affine(x, kernel, bias), (x, kernel, bias)


def _mixed_backward(kept: tuple[jax.Array, ...], dy: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, kernel, bias = kept
    rows = tuple(range(dy.ndim - bias.ndim))
    contracted = kernel.ndim - bias.ndim
    outputs = tuple(range(dy.ndim - bias.ndim, dy.ndim)), tuple(range(contracted, kernel.ndim))
    dx = jax.lax.dot_general(dy, kernel.astype(dy.dtype), (outputs, ((), ())))
    dkernel = jax.lax.dot_general(x, dy, ((rows, rows), ((), ())), preferred_element_type=kernel.dtype)
    return dx, dkernel, dy.sum(rows, dtype=bias.dtype)


_mixed_affine.defvjp(_mixed_forward, _mixed_backward)


class LayerNorm(nnx.Module):
    """Layer norm (Ba et al. 2016) over the last axis, in float32 whatever the dtype of x."""

    def __init__(self, width: int, *, letters: str) -> None:
        self.scale = nnx.Param(jnp.ones((width,), jnp.float32), letters=letters)
        self.bias = nnx.Param(jnp.zeros((width,), jnp.float32), letters=letters)

    def __call__(self, x: jax.Array) -> jax.Array:
        x32 = x.astype(_wide(x.dtype))
        centred = x32 - x32.mean(-1, keepdims=True)
        variance = jnp.square(centred).mean(-1, keepdims=True)
        return (centred * jax.lax.rsqrt(variance + EPSILON) * self.scale[...] + self.bias[...]).astype(x.dtype)


class Attention(nnx.Module):
    """Multi-head self-attention with q, k, v from one matrix with bias; softmax in float32."""

    def __init__(self, width: int, *, heads: int, letter: str, rngs: nnx.Rngs) -> None:
        head_width = width // heads
        self.qkv = Linear((width,), (3, heads, head_width), letters=f'{letter}TNE', rngs=rngs)
        self.proj = Linear((heads, head_width), (width,), letters=f'NE{letter}', rngs=rngs)

    def __call__(self, x_BLD: jax.Array) -> jax.Array:
        qkv_BLTNE = self.qkv(x_BLD)
        q_BLNE, k_BLNE, v_BLNE = qkv_BLTNE[:, :, 0], qkv_BLTNE[:, :, 1], qkv_BLTNE[:, :, 2]
        return self.proj(attend(q_BLNE, k_BLNE, v_BLNE))


def attend(q_BLNE: jax.Array, k_BLNE: jax.Array, v_BLNE: jax.Array) -> jax.Array:
    """softmax(q k' / sqrt(E)) v per head, [B, L, N, E]; scores and softmax in float32.

    Heads are brought before tokens by hand: on CPU this is a third faster, backward included, than leaving the order to
    einsum, and twice as fast as `jax.nn.dot_product_attention` (37 tokens, 4 heads of 32).
    """
    q, k, v = (x.transpose(0, 2, 1, 3) for x in (q_BLNE * q_BLNE.dtype.type(q_BLNE.shape[-1] ** -0.5), k_BLNE, v_BLNE))
    scores = jnp.einsum('BNLE,BNSE->BNLS', q, k, preferred_element_type=_wide(q.dtype))
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum('BNLS,BNSE->BNLE', weights, v).transpose(0, 2, 1, 3)


class MLP(nnx.Module):
    """Two linear layers with exact (erf) GELU between."""

    def __init__(self, width: int, *, hidden: int, letter: str, rngs: nnx.Rngs) -> None:
        self.fc1 = Linear((width,), (hidden,), letters=f'{letter}F', rngs=rngs)
        self.fc2 = Linear((hidden,), (width,), letters=f'F{letter}', rngs=rngs)

    def __call__(self, x_BLD: jax.Array) -> jax.Array:
        return self.fc2(jax.nn.gelu(self.fc1(x_BLD), approximate=False))


class Block(nnx.Module):
    """A pre-norm transformer block: x + attention(norm(x)), then x + MLP(norm(x))."""

    def __init__(self, width: int, *, heads: int, hidden: int, letter: str = 'D', rngs: nnx.Rngs) -> None:
        self.norm1 = LayerNorm(width, letters=letter)
        self.attn = Attention(width, heads=heads, letter=letter, rngs=rngs)
        self.norm2 = LayerNorm(width, letters=letter)
        self.mlp = MLP(width, hidden=hidden, letter=letter, rngs=rngs)

    def __call__(self, x_BLD: jax.Array, drop_2B: jax.Array | None = None) -> jax.Array:
        """`drop_2B` scales the two residual branches for each sample: 0 where dropped, 1 / keep where kept."""
        branch = self.attn(self.norm1(x_BLD))
        x_BLD = x_BLD + (branch if drop_2B is None else branch * drop_2B[0, :, None, None].astype(branch.dtype))
        branch = self.mlp(self.norm2(x_BLD))
        return x_BLD + (branch if drop_2B is None else branch * drop_2B[1, :, None, None].astype(branch.dtype))


def make_blocks(depth: int, *, scan: bool, rngs: nnx.Rngs, **block: Any) -> nnx.Module:
    """`depth` blocks: one Block whose parameters are stacked where `scan`, else a list; the same values either way."""
    keys = jax.random.split(rngs.params(), depth)

    def make(key: jax.Array) -> Block:
        return Block(rngs=nnx.Rngs(params=key), **block)

    if scan:
        return nnx.vmap(make, transform_metadata={nnx.PARTITION_NAME: None})(keys)
    blocks = [make(key) for key in keys]
    return nnx.List(blocks) if hasattr(nnx, 'List') else blocks  # flax 0.11 takes the plain list, 0.12 refuses it


def run_blocks(
    blocks: Any, x_BLD: jax.Array, *, depth: int, scan: bool, remat: Remat, drop_path: float = 0.0, key: jax.Array | None = None
) -> jax.Array:
    """x through the stack. `drop_path` is the rate at the last block, linear in depth from 0 (Huang et al. 2016)."""
    drop = drop_masks(key, depth=depth, rate=drop_path, batch=len(x_BLD))
    graph, params = nnx.split(blocks if scan else blocks[0])

    def body(x: jax.Array, layer: tuple[nnx.State, jax.Array | None]) -> tuple[jax.Array, None]:
        return constrain(nnx.merge(graph, layer[0])(x, layer[1])), None

    body = with_remat(body, remat)
    if scan:
        return jax.lax.scan(body, x_BLD, (params, drop))[0]
    for i, block in enumerate(blocks):
        x_BLD, _ = body(x_BLD, (nnx.state(block), None if drop is None else drop[i]))
    return x_BLD


def drop_masks(key: jax.Array | None, *, depth: int, rate: float, batch: int) -> jax.Array | None:
    """Stochastic depth's factors [depth, 2, batch]: 0 with probability `rate * i / (depth - 1)`, else 1 / (1 - that)."""
    if key is None or rate == 0.0:
        return None
    keep = 1.0 - np.linspace(0.0, rate, depth, dtype=np.float32)[:, None, None]
    return jax.random.bernoulli(key, keep, (depth, 2, batch)) / keep


def with_remat(body: Any, remat: Remat) -> Any:
    """What backward keeps: 'none' recomputes nothing, 'dots' keeps only matrix products, 'full' only the block's input."""
    if remat == 'none':
        return body
    policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable if remat == 'dots' else None
    return jax.checkpoint(body, policy=policy, prevent_cse=False)


def constrain(x: jax.Array) -> jax.Array:
    """Activations stay split over `data` and `fsdp` on their batch axis where a mesh is set (`jax.set_mesh`).

    Without it XLA may gather whole batches on each device once parameters are split over `fsdp`.
    """
    mesh = jax.sharding.get_abstract_mesh()
    axes = tuple(name for name in ('data', 'fsdp') if name in mesh.axis_names)
    if not axes or x.shape[0] % int(np.prod([mesh.shape[name] for name in axes])):
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(axes))


def param_letters(params: Any) -> Any:
    """The letters of each parameter, in a tree like `params` (an `nnx.State`, of arrays or of abstract shapes) with str leaves."""
    return jax.tree.map(lambda param: param.get_metadata()['letters'], params, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))


def unstack_blocks(params: Mapping[Any, Any]) -> Any:
    """Parameters of scanned stacks as those of lists of blocks: 'blocks.norm1.scale'[i] becomes 'blocks.i.norm1.scale'."""

    def unstack(stack: Any) -> dict[int, Any]:
        if 'norm1' not in stack:
            return stack
        return {i: jax.tree.map(lambda leaf, i=i: leaf[i], stack) for i in range(len(jax.tree.leaves(stack)[0]))}

    return _map_stacks(unstack, params)


def stack_blocks(params: Mapping[Any, Any]) -> Any:
    """The inverse of `unstack_blocks`."""

    def stack(blocks: Any) -> Any:
        return blocks if 'norm1' in blocks else jax.tree.map(lambda *leaves: jnp.stack(leaves), *[blocks[i] for i in sorted(blocks)])

    return _map_stacks(stack, params)


def _map_stacks(change: Callable[[Any], Any], params: Mapping[Any, Any]) -> Any:
    """`params`, an `nnx.State` or a nested dict, with `change` applied to each stack of blocks."""

    def plain(tree: Any) -> Any:  # a State shows its inner dicts as States
        return {name: plain(value) for name, value in tree.items()} if isinstance(tree, Mapping) else tree

    def walk(tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        return {name: change(value) if name in STACKS else walk(value) for name, value in tree.items()}

    out = walk(plain(params))
    return nnx.State(out) if isinstance(params, nnx.State) else out


def _wide(dtype: jnp.dtype) -> jnp.dtype:
    """The dtype of reductions: float32, or float64 where the whole model is."""
    return jnp.promote_types(dtype, jnp.float32)
