"""The four operations a transformer spends its time in, with derivatives written by hand.

What backward needs is kept in the dtype of the activations and made again where that is cheaper than keeping it; left to itself, JAX keeps
float32 copies of every step within a norm, a GELU and a softmax. And the gradient of a kernel is one product over flattened rows: over
two axes at once, XLA's CPU compiler first copies both factors transposed.

Letters: R rows, B batch, L S tokens, D width, N heads, E head width.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

ATTENDED = 'attended'  # what attention gives, by name, for policies of what backward keeps
FLOAT8, FLOAT8_GRADIENT = jnp.float8_e4m3fn, jnp.float8_e5m2


def wide(dtype: jnp.dtype) -> jnp.dtype:
    """The dtype of reductions: float32, or float64 where the whole model is."""
    return jnp.promote_types(dtype, jnp.float32)


def affine(x: jax.Array, kernel: jax.Array, bias: jax.Array, *, float8: bool = False) -> jax.Array:
    """x @ kernel + bias over the last axes of x, in the dtype of x.

    Gradients of kernel and bias are summed in the dtype each is given in: float32 parameters under bfloat16 activations get float32
    gradients, and those are what devices then sum.

    Args:
      x: [..., *inputs].
      kernel: [*inputs, *outputs].
      bias: [*outputs].
      float8: round the factors of all three products to eight bits (Micikevicius et al., arXiv 2209.05433): E4M3 for x and kernel, E5M2
        for gradients, each scaled so that its largest entry is the format's largest number.
    """
    inputs = x.ndim - (kernel.ndim - bias.ndim)
    rows = x.reshape(math.prod(x.shape[:inputs]), *x.shape[inputs:])
    return (_affine8 if float8 else _affine)(rows, kernel, bias).reshape(*x.shape[:inputs], *bias.shape)


@jax.custom_vjp
def _affine(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    return _affine_forward(x, kernel, bias)[0]


def _affine_forward(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return jnp.tensordot(x, kernel.astype(x.dtype), kernel.ndim - bias.ndim) + bias.astype(x.dtype), (x, kernel, bias)


def _affine_backward(kept: tuple[jax.Array, ...], dy: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, kernel, bias = kept
    dx = jax.lax.dot_general(dy, kernel.astype(dy.dtype), (_outputs(kernel, bias), ((), ())))
    if x.dtype == kernel.dtype:
        dkernel = jax.lax.dot_general(x, dy, _ROWS)
    else:  # with one axis of rows, XLA's CPU runtime has no product of bfloat16 that is summed in float32
        rows = (((0, 1), (0, 1)), ((), ()))
        dkernel = jax.lax.dot_general(x[None], dy[None], rows, preferred_element_type=kernel.dtype)
    return dx, dkernel, dy.sum(0, dtype=bias.dtype)


_ROWS = (((0,), (0,)), ((), ()))
_affine.defvjp(_affine_forward, _affine_backward)


def _outputs(kernel: jax.Array, bias: jax.Array) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes that dy [R, *outputs] and kernel [*inputs, *outputs] share."""
    return tuple(range(1, 1 + bias.ndim)), tuple(range(kernel.ndim - bias.ndim, kernel.ndim))


@jax.custom_vjp
def _affine8(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    return _affine8_forward(x, kernel, bias)[0]


def _affine8_forward(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    contracted = kernel.ndim - bias.ndim
    x8, x_scale = to_float8(x, FLOAT8)
    kernel8, kernel_scale = to_float8(kernel, FLOAT8)
    axes = tuple(range(1, 1 + contracted)), tuple(range(contracted))
    y = jax.lax.dot_general(x8, kernel8, (axes, ((), ())), preferred_element_type=x.dtype) * (x_scale * kernel_scale)
    # The empty array carries the dtype of x: what is kept must be arrays.
    return (y + bias).astype(x.dtype), (x8, x_scale, kernel8, kernel_scale, kernel, bias, jnp.zeros((0,), x.dtype))


def _affine8_backward(kept: tuple[jax.Array, ...], dy: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    x8, x_scale, kernel8, kernel_scale, kernel, bias, like = kept
    dy8, dy_scale = to_float8(dy, FLOAT8_GRADIENT)
    dx = jax.lax.dot_general(dy8, kernel8, (_outputs(kernel, bias), ((), ())), preferred_element_type=jnp.float32)
    dkernel = jax.lax.dot_general(x8, dy8, _ROWS, preferred_element_type=jnp.float32)
    scaled = (dkernel * (x_scale * dy_scale)).astype(kernel.dtype)
    return (dx * (dy_scale * kernel_scale)).astype(like.dtype), scaled, dy.sum(0, dtype=bias.dtype)


_affine8.defvjp(_affine8_forward, _affine8_backward)


def to_float8(x: jax.Array, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
    """x rounded to eight bits, and the float32 scalar that it is to be multiplied by; x is used up to the format's largest number."""
    top = float(jnp.finfo(dtype).max)
    largest = jnp.abs(x).max().astype(jnp.float32)
    scale = jnp.where(largest > 0, largest / top, 1.0)
    return jnp.clip(x.astype(jnp.float32) / scale, -top, top).astype(dtype), scale


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """x Phi(x) with the exact normal distribution function (Hendrycks and Gimpel, arXiv 1606.08415), computed in float32."""
    return _gelu_forward(x)[0]


def _gelu_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    x32 = x.astype(wide(x.dtype))
    return (x32 * _normal(x32)).astype(x.dtype), x


def _gelu_backward(x: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    x32 = x.astype(wide(x.dtype))
    density = jnp.exp(-0.5 * jnp.square(x32)) * (2.0 * np.pi) ** -0.5
    return ((_normal(x32) + x32 * density) * dy).astype(x.dtype),


def _normal(x: jax.Array) -> jax.Array:
    # By erf, not erfc: on CPU it takes a third of the time, and what is lost left of -5 is below float32's precision of the result's scale.
    return 0.5 * (1.0 + jax.lax.erf(x * 0.5**0.5))


gelu.defvjp(_gelu_forward, _gelu_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> jax.Array:
    """Layer norm (Ba et al., arXiv 1607.06450) over the last axis, computed in float32, returned in the dtype of x."""
    return _norm_forward(x, scale, bias, epsilon)[0]


def _norm_forward(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    x32 = x.astype(wide(x.dtype))
    mean = x32.mean(-1, keepdims=True)
    rate = jax.lax.rsqrt(jnp.square(x32 - mean).mean(-1, keepdims=True) + epsilon)
    return ((x32 - mean) * rate * scale + bias).astype(x.dtype), (x, mean, rate, scale)


def _norm_backward(epsilon: float, kept: tuple[jax.Array, ...], dy: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, mean, rate, scale = kept
    dy32 = dy.astype(rate.dtype)
    unit = (x.astype(rate.dtype) - mean) * rate
    scaled = dy32 * scale
    dx = rate * (scaled - scaled.mean(-1, keepdims=True) - unit * (scaled * unit).mean(-1, keepdims=True))
    rows = tuple(range(x.ndim - 1))
    return dx.astype(x.dtype), (dy32 * unit).sum(rows).astype(scale.dtype), dy32.sum(rows).astype(scale.dtype)


layer_norm.defvjp(_norm_forward, _norm_backward)


def attention_weights(q_BLNE: jax.Array, k_BLNE: jax.Array) -> jax.Array:
    """softmax(q k' / sqrt(E)) per head, [B, N, L, S]; float32."""
    return jax.nn.softmax(_scores(_heads_first(_shrunk(q_BLNE)), _heads_first(k_BLNE)), axis=-1)


@jax.custom_vjp
def attend(q_BLNE: jax.Array, k_BLNE: jax.Array, v_BLNE: jax.Array) -> jax.Array:
    """softmax(q k' / sqrt(E)) v per head, [B, L, N, E]; scores and softmax in float32.

    Of the L x S weights nothing is kept but the logarithm of each row's sum; backward makes them again, as FlashAttention does (Dao et
    al., arXiv 2205.14135, section 3.1), here without its blocks. Heads are brought before tokens by hand: on CPU einsum's own order takes
    longer.
    """
    return _attend_forward(q_BLNE, k_BLNE, v_BLNE)[0]


def _attend_forward(q_BLNE: jax.Array, k_BLNE: jax.Array, v_BLNE: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    v_BNSE, scores_BNLS = _heads_first(v_BLNE), _scores(_heads_first(_shrunk(q_BLNE)), _heads_first(k_BLNE))
    top_BNL1 = scores_BNLS.max(-1, keepdims=True)
    weights_BNLS = jnp.exp(scores_BNLS - top_BNL1)
    sum_BNL1 = weights_BNLS.sum(-1, keepdims=True)
    out_BNLE = _product('BNLS,BNSE->BNLE', weights_BNLS.astype(v_BNSE.dtype), v_BNSE)
    out_BLNE = checkpoint_name(_heads_first(out_BNLE / sum_BNL1).astype(v_BLNE.dtype), ATTENDED)
    log_BNL = checkpoint_name((top_BNL1 + jnp.log(sum_BNL1))[..., 0], ATTENDED)
    return out_BLNE, (q_BLNE, k_BLNE, v_BLNE, out_BLNE, log_BNL)


def _attend_backward(kept: tuple[jax.Array, ...], dout_BLNE: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    q_BLNE, k_BLNE, v_BLNE, out_BLNE, log_BNL = kept
    q_BNLE, k_BNSE, v_BNSE, dout_BNLE = map(_heads_first, (_shrunk(q_BLNE), k_BLNE, v_BLNE, dout_BLNE))
    dtype = v_BLNE.dtype
    weights_BNLS = jnp.exp(_scores(q_BNLE, k_BNSE) - log_BNL[..., None])
    dv_BNSE = _product('BNLS,BNLE->BNSE', weights_BNLS.astype(dtype), dout_BNLE)
    dweights_BNLS = _product('BNLE,BNSE->BNLS', dout_BNLE, v_BNSE)
    # The softmax takes from each row its mean under the weights, which is dout . out.
    inner_BNL = (dout_BLNE.astype(log_BNL.dtype) * out_BLNE.astype(log_BNL.dtype)).sum(-1).transpose(0, 2, 1)
    dscores_BNLS = (weights_BNLS * (dweights_BNLS - inner_BNL[..., None])).astype(dtype)
    dq_BNLE = _product('BNLS,BNSE->BNLE', dscores_BNLS, k_BNSE) * q_BLNE.shape[-1] ** -0.5
    dk_BNSE = _product('BNLS,BNLE->BNSE', dscores_BNLS, q_BNLE)
    return tuple(_heads_first(x).astype(dtype) for x in (dq_BNLE, dk_BNSE, dv_BNSE))


attend.defvjp(_attend_forward, _attend_backward)


def attend_cudnn(q_BLNE: jax.Array, k_BLNE: jax.Array, v_BLNE: jax.Array) -> jax.Array:
    """`attend` by cuDNN's fused kernel: on NVIDIA GPUs, in bfloat16 or float16 alone.

    The kernel refuses odd numbers of tokens, and a ViT's are odd: one is added, and its length told so that nobody looks at it.
    """
    length = q_BLNE.shape[1]
    padded = [jnp.pad(x, ((0, 0), (0, length % 2), (0, 0), (0, 0))) for x in (q_BLNE, k_BLNE, v_BLNE)]
    lengths_B = jnp.full((q_BLNE.shape[0],), length, jnp.int32)
    out_BLNE = jax.nn.dot_product_attention(
        *padded, query_seq_lengths=lengths_B, key_value_seq_lengths=lengths_B, implementation='cudnn'
    )
    return checkpoint_name(out_BLNE[:, :length], ATTENDED)


def _product(letters: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum(letters, a, b, preferred_element_type=wide(a.dtype))


def _scores(q_BNLE: jax.Array, k_BNSE: jax.Array) -> jax.Array:
    return _product('BNLE,BNSE->BNLS', q_BNLE, k_BNSE)


def _shrunk(q_BLNE: jax.Array) -> jax.Array:
    return q_BLNE * q_BLNE.dtype.type(q_BLNE.shape[-1] ** -0.5)


def _heads_first(x_BLNE: jax.Array) -> jax.Array:
    return x_BLNE.transpose(0, 2, 1, 3)
