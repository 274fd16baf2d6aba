"""The parts every network here is made of: linear, layer norm, attention, MLP, block, and a stack of blocks.

Letters: B batch, L tokens, D width in, F MLP width, T the fused q, k, v (3), G a gate and its value (2), N heads, E head
width. Every parameter carries its letters as metadata; the stack's leading axis [depth] has none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec

from retfound_jax.models import ops

Remat = Literal['none', 'dots', 'full']
LinearDtype = Literal['compute', 'float8']
AttentionBy = Literal['plain', 'cudnn']
ResidualDtype = Literal['compute', 'float32']
EPSILON = 1e-6  # of a layer norm unless the config says otherwise (MAE, RETFound and DINOv2; PyTorch's own default is 1e-5)
STACKS = ('blocks', 'decoder_blocks')  # attributes that hold a stack of blocks


def xavier_uniform(key: jax.Array, shape: tuple[int, ...], *, fan_in: int) -> jax.Array:
    """Uniform within sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010), the kernel seen as a matrix [fan_in, fan_out]."""
    limit = (6.0 / (fan_in + np.prod(shape) / fan_in)) ** 0.5
    return jax.random.uniform(key, shape, jnp.float32, -limit, limit)


class Linear(nnx.Module):
    """x @ kernel + bias over the last `inputs` axes of x; kernel [*inputs, *outputs] starts Xavier uniform, bias zero."""

    def __init__(
        self,
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        *,
        letters: str,
        rngs: nnx.Rngs,
        use_bias: bool = True,
        dtype: LinearDtype = 'compute',
    ) -> None:
        shape = (*inputs, *outputs)
        kernel = xavier_uniform(rngs.params(), shape, fan_in=int(np.prod(inputs)))
        self.kernel = nnx.Param(kernel, letters=letters)
        self.bias = nnx.Param(jnp.zeros(outputs, jnp.float32), letters=letters[len(inputs) :]) if use_bias else None
        self._outputs, self._float8 = outputs, dtype == 'float8'

    def __call__(self, x: jax.Array) -> jax.Array:
        """Computes in the dtype of x; gradients of kernel and bias are summed in the dtype each is given in, as a rule float32."""
        kernel = self.kernel[...]
        bias = jnp.zeros(self._outputs, kernel.dtype) if self.bias is None else self.bias[...]
        return ops.affine(x, kernel, bias, float8=self._float8)


class LayerNorm(nnx.Module):
    """Layer norm (Ba et al. 2016) over the last axis, in float32 whatever the dtype of x."""

    def __init__(self, width: int, *, letters: str, epsilon: float = EPSILON) -> None:
        self.scale = nnx.Param(jnp.ones((width,), jnp.float32), letters=letters)
        self.bias = nnx.Param(jnp.zeros((width,), jnp.float32), letters=letters)
        self._epsilon = epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        return ops.layer_norm(x, self.scale[...], self.bias[...], self._epsilon)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockShape:
    """What every block of a stack is made like."""

    width: int
    heads: int
    hidden: int  # of the MLP; of a SwiGLU, its gated half
    letter: str = 'D'  # of the width
    mlp: Literal['gelu', 'swiglu'] = 'gelu'
    layer_scale: float | None = None  # start value of each branch's gamma; None: branches are not scaled
    qkv_bias: bool = True
    norm_epsilon: float = EPSILON
    linear: LinearDtype = 'compute'  # what matrix products with parameters are made in
    attention: AttentionBy = 'plain'


class Attention(nnx.Module):
    """Multi-head self-attention with q, k, v from one matrix; softmax in float32."""

    def __init__(self, shape: BlockShape, *, rngs: nnx.Rngs) -> None:
        width, letter, head_width = shape.width, shape.letter, shape.width // shape.heads
        made = {'rngs': rngs, 'dtype': shape.linear}
        self.qkv = Linear((width,), (3, shape.heads, head_width), letters=f'{letter}TNE', use_bias=shape.qkv_bias, **made)
        self.proj = Linear((shape.heads, head_width), (width,), letters=f'NE{letter}', **made)
        self._attend = ops.attend_cudnn if shape.attention == 'cudnn' else ops.attend

    def __call__(self, x_BLD: jax.Array, rotary_2LE: jax.Array | None = None) -> jax.Array:
        """`rotary_2LE`: sines and cosines that turn q and k of the last L tokens (`positions.rotary_2d`)."""
        return self.proj(self._attend(*self._qkv(x_BLD, rotary_2LE)))

    def weights(self, x_BLD: jax.Array, rotary_2LE: jax.Array | None = None) -> jax.Array:
        """How much each token looks at each other, [B, N, L, L] float32; rows sum to 1."""
        q_BLNE, k_BLNE, _ = self._qkv(x_BLD, rotary_2LE)
        return ops.attention_weights(q_BLNE, k_BLNE)

    def _qkv(self, x_BLD: jax.Array, rotary_2LE: jax.Array | None) -> tuple[jax.Array, jax.Array, jax.Array]:
        qkv_BLTNE = self.qkv(x_BLD)
        q_BLNE, k_BLNE, v_BLNE = qkv_BLTNE[:, :, 0], qkv_BLTNE[:, :, 1], qkv_BLTNE[:, :, 2]
        if rotary_2LE is None:
            return q_BLNE, k_BLNE, v_BLNE
        return rotate(q_BLNE, rotary_2LE), rotate(k_BLNE, rotary_2LE), v_BLNE


def rotate(x_BLNE: jax.Array, rotary_2LE: jax.Array) -> jax.Array:
    """Rotary positions (Su et al., arXiv 2104.09864): channel e and e + E/2 of a token are a pair, turned by its angle.

    Only the last tokens have a place in the image; the cls token and registers before them stay as they are.
    """
    first = x_BLNE.shape[1] - rotary_2LE.shape[1]
    sin_L1E, cos_L1E = rotary_2LE[0, :, None], rotary_2LE[1, :, None]
    patches = x_BLNE[:, first:].astype(ops.wide(x_BLNE.dtype))
    half = patches.shape[-1] // 2
    turned = jnp.concatenate([-patches[..., half:], patches[..., :half]], axis=-1)
    return jnp.concatenate([x_BLNE[:, :first], (patches * cos_L1E + turned * sin_L1E).astype(x_BLNE.dtype)], axis=1)


class MLP(nnx.Module):
    """Two linear layers with exact (erf) GELU between."""

    def __init__(self, shape: BlockShape, *, rngs: nnx.Rngs) -> None:
        self.fc1 = Linear((shape.width,), (shape.hidden,), letters=f'{shape.letter}F', rngs=rngs, dtype=shape.linear)
        self.fc2 = Linear((shape.hidden,), (shape.width,), letters=f'F{shape.letter}', rngs=rngs, dtype=shape.linear)

    def __call__(self, x_BLD: jax.Array) -> jax.Array:
        return self.fc2(ops.gelu(self.fc1(x_BLD)))


class SwiGLU(nnx.Module):
    """fc2(silu(gate) * value), gate and value from one matrix (Shazeer, arXiv 2002.05202)."""

    def __init__(self, shape: BlockShape, *, rngs: nnx.Rngs) -> None:
        self.fc1 = Linear((shape.width,), (2, shape.hidden), letters=f'{shape.letter}GF', rngs=rngs, dtype=shape.linear)
        self.fc2 = Linear((shape.hidden,), (shape.width,), letters=f'F{shape.letter}', rngs=rngs, dtype=shape.linear)

    def __call__(self, x_BLD: jax.Array) -> jax.Array:
        gated_BLGF = self.fc1(x_BLD)
        return self.fc2(jax.nn.silu(gated_BLGF[:, :, 0]) * gated_BLGF[:, :, 1])


class LayerScale(nnx.Module):
    """One learned factor a channel of a residual branch (Touvron et al., arXiv 2103.17239)."""

    def __init__(self, width: int, *, start: float, letters: str) -> None:
        self.gamma = nnx.Param(jnp.full((width,), start, jnp.float32), letters=letters)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * self.gamma[...].astype(x.dtype)


class Block(nnx.Module):
    """A pre-norm transformer block: x + attention(norm(x)), then x + MLP(norm(x)); each branch scaled where LayerScale is on."""

    def __init__(self, shape: BlockShape, *, rngs: nnx.Rngs) -> None:
        norm = {'letters': shape.letter, 'epsilon': shape.norm_epsilon}
        self.norm1 = LayerNorm(shape.width, **norm)
        self.attn = Attention(shape, rngs=rngs)
        self.norm2 = LayerNorm(shape.width, **norm)
        self.mlp = (SwiGLU if shape.mlp == 'swiglu' else MLP)(shape, rngs=rngs)
        if shape.layer_scale is not None:
            self.ls1 = LayerScale(shape.width, start=shape.layer_scale, letters=shape.letter)
            self.ls2 = LayerScale(shape.width, start=shape.layer_scale, letters=shape.letter)
        self._scaled = shape.layer_scale is not None

    def __call__(
        self,
        x_BLD: jax.Array,
        drop_2B: jax.Array | None = None,
        rotary_2LE: jax.Array | None = None,
        *,
        branch_dtype: jnp.dtype | None = None,
    ) -> jax.Array:
        """`drop_2B` scales the two residual branches for each sample: 0 where dropped, 1 / keep where kept.

        `branch_dtype` is what the branches compute in; None: the dtype of x.
        """
        dtype = x_BLD.dtype if branch_dtype is None else branch_dtype
        branch = self.attn(self.norm1(x_BLD).astype(dtype), rotary_2LE)
        x_BLD = x_BLD + _dropped(self.ls1(branch) if self._scaled else branch, None if drop_2B is None else drop_2B[0])
        branch = self.mlp(self.norm2(x_BLD).astype(dtype))
        return x_BLD + _dropped(self.ls2(branch) if self._scaled else branch, None if drop_2B is None else drop_2B[1])


def _dropped(branch_BLD: jax.Array, drop_B: jax.Array | None) -> jax.Array:
    return branch_BLD if drop_B is None else branch_BLD * drop_B[:, None, None].astype(branch_BLD.dtype)


def make_blocks(shape: BlockShape, *, depth: int, scan: bool, rngs: nnx.Rngs, kind: type[Block] = Block) -> nnx.Module:
    """`depth` blocks: one Block whose parameters are stacked where `scan`, else a list; the same values either way."""
    keys = jax.random.split(rngs.params(), depth)

    def make(key: jax.Array) -> Block:
        return kind(shape, rngs=nnx.Rngs(params=key))

    if scan:
        return nnx.vmap(make, transform_metadata={nnx.PARTITION_NAME: None})(keys)
    blocks = [make(key) for key in keys]
    return nnx.List(blocks) if hasattr(nnx, 'List') else blocks  # flax 0.11 takes the plain list, 0.12 refuses it


def run_blocks(
    blocks: Any,
    x_BLD: jax.Array,
    *,
    depth: int,
    scan: bool,
    remat: Remat,
    residual_dtype: ResidualDtype = 'compute',
    drop_path: float = 0.0,
    key: jax.Array | None = None,
    rotary_2LE: jax.Array | None = None,
    memory_BSD: jax.Array | None = None,
) -> jax.Array:
    """x through the stack. `drop_path` is the rate at the last block, linear in depth from 0 (Huang et al. 2016).

    What the branches add to is kept in the dtype of x, or in float32 (`residual_dtype`); the result has the dtype of x. `memory_BSD` is
    what blocks with cross-attention look at.
    """
    dtype = x_BLD.dtype
    x_BLD = x_BLD.astype(ops.wide(dtype)) if residual_dtype == 'float32' else x_BLD
    drop = drop_masks(key, depth=depth, rate=drop_path, batch=len(x_BLD))
    graph, params = nnx.split(blocks if scan else blocks[0])
    more = {} if memory_BSD is None else {'memory_BSD': memory_BSD}

    def body(x: jax.Array, layer: tuple[nnx.State, jax.Array | None]) -> tuple[jax.Array, None]:
        return constrain(nnx.merge(graph, layer[0])(x, layer[1], rotary_2LE, branch_dtype=dtype, **more)), None

    body = with_remat(body, remat)
    if scan:
        return jax.lax.scan(body, x_BLD, (params, drop))[0].astype(dtype)
    for i, block in enumerate(blocks):
        x_BLD, _ = body(x_BLD, (nnx.state(block), None if drop is None else drop[i]))
    return x_BLD.astype(dtype)


def first_blocks(blocks: Any, x_BLD: jax.Array, *, count: int, scan: bool, rotary_2LE: jax.Array | None = None) -> tuple[jax.Array, Block]:
    """x after the first `count` blocks, and the block that comes next."""
    graph, params = nnx.split(blocks if scan else blocks[0])

    def body(x: jax.Array, layer: nnx.State) -> tuple[jax.Array, None]:
        return nnx.merge(graph, layer)(x, None, rotary_2LE), None

    if scan:
        x_BLD, _ = jax.lax.scan(body, x_BLD, jax.tree.map(lambda leaf: leaf[:count], params))
        return x_BLD, nnx.merge(graph, jax.tree.map(lambda leaf: leaf[count], params))
    for block in blocks[:count]:
        x_BLD = block(x_BLD, None, rotary_2LE)
    return x_BLD, blocks[count]


def drop_masks(key: jax.Array | None, *, depth: int, rate: float, batch: int) -> jax.Array | None:
    """Stochastic depth's factors [depth, 2, batch]: 0 with probability `rate * i / (depth - 1)`, else 1 / (1 - that)."""
    if key is None or rate == 0.0:
        return None
    keep = 1.0 - np.linspace(0.0, rate, depth, dtype=np.float32)[:, None, None]
    return jax.random.bernoulli(key, keep, (depth, 2, batch)) / keep


def with_remat(body: Any, remat: Remat) -> Any:
    """What backward keeps: 'none' all, 'dots' matrix products and what attention gives, 'full' the block's input."""
    if remat == 'none':
        return body
    policies = jax.checkpoint_policies
    dots = policies.save_from_both_policies(policies.dots_with_no_batch_dims_saveable, policies.save_only_these_names(ops.ATTENDED))
    policy = dots if remat == 'dots' else None
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
