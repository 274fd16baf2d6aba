"""Operations with derivatives written by hand: held to JAX's derivatives of the plain formulas, in float64, and to what they may keep."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import scipy.stats

from retfound_jax.models import ops


def plain_affine(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    return jnp.tensordot(x, kernel, kernel.ndim - bias.ndim) + bias


def plain_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-6) * scale + bias


def plain_attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    weights = jax.nn.softmax(jnp.einsum('blne,bsne->bnls', q, k) / q.shape[-1] ** 0.5)
    return jnp.einsum('bnls,bsne->blne', weights, v)


CASES = {
    'affine': (ops.affine, plain_affine, [(3, 5, 6), (6, 4), (4,)]),
    'affine to heads': (ops.affine, plain_affine, [(3, 5, 6), (6, 3, 2, 4), (3, 2, 4)]),
    'affine from heads': (ops.affine, plain_affine, [(3, 5, 2, 4), (2, 4, 6), (6,)]),
    'affine of rows': (ops.affine, plain_affine, [(5, 6), (6, 4), (4,)]),
    'gelu': (ops.gelu, lambda x: jax.nn.gelu(x, approximate=False), [(4, 50)]),
    'layer norm': (lambda x, s, b: ops.layer_norm(x, s, b, 1e-6), plain_norm, [(2, 3, 8), (8,), (8,)]),
    'attention': (ops.attend, plain_attention, [(2, 5, 3, 4), (2, 7, 3, 4), (2, 7, 3, 4)]),
}


@pytest.mark.parametrize('name', CASES)
def test_value_and_gradients_are_those_of_the_formula(name: str) -> None:
    ours, plain, shapes = CASES[name]
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        inputs = [jnp.asarray(2 * rng.normal(size=shape)) for shape in shapes]
        assert inputs[0].dtype == jnp.float64
        (y, back), (expected, plain_back) = jax.vjp(ours, *inputs), jax.vjp(plain, *inputs)
        dy = jnp.asarray(rng.normal(size=y.shape))
        np.testing.assert_allclose(y, expected, rtol=1e-9, atol=1e-12)
        for found, wanted in zip(back(dy), plain_back(dy), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)


def test_gelu_is_exact_to_its_last_digits_in_float32() -> None:
    x = np.linspace(-12, 12, 20_001, dtype=np.float32)
    exact = x.astype(np.float64) * scipy.stats.norm.cdf(x.astype(np.float64))
    assert (np.abs(np.asarray(ops.gelu(jnp.asarray(x))) - exact) <= 4 * np.finfo(np.float32).eps * np.maximum(1, np.abs(x))).all()


def test_a_softmax_of_large_scores_stays_finite() -> None:
    q = jnp.full((1, 4, 1, 8), 300.0)
    out, back = jax.vjp(ops.attend, q, q, jnp.ones_like(q))
    np.testing.assert_allclose(out, 1.0, rtol=1e-6)
    assert all(bool(jnp.isfinite(grad).all()) for grad in back(jnp.ones_like(out)))


@pytest.mark.parametrize(('name', 'most'), [('gelu', 1), ('layer norm', 1.3), ('attention', 4.2)])
def test_what_backward_keeps_in_bfloat16(name: str, most: float) -> None:
    """In copies of the first input: attention has q, k, v, its output and a number a row; 64 tokens squared would be eight copies more."""
    ours, _, shapes = CASES[name]
    big = {'gelu': [(64, 256)], 'layer norm': [(64, 256), (256,), (256,)], 'attention': [(2, 64, 4, 64)] * 3}[name]
    assert len(big) == len(shapes)
    dtypes = [jnp.bfloat16] + [jnp.float32 if len(shape) == 1 else jnp.bfloat16 for shape in big[1:]]
    inputs = [jnp.ones(shape, dtype) for shape, dtype in zip(big, dtypes, strict=True)]
    kept = jax.eval_shape(lambda *x: jax.vjp(ours, *x)[1], *inputs)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept) if leaf.ndim > 1 or leaf.size > 256)
    assert size <= most * inputs[0].nbytes


def test_eight_bits_round_as_ml_dtypes_does_and_use_the_whole_range() -> None:
    x = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)
    rounded, scale = ops.to_float8(jnp.asarray(x), ops.FLOAT8)
    assert np.abs(np.asarray(rounded, np.float32)).max() == 448
    np.testing.assert_array_equal(np.asarray(rounded), (x / np.float32(scale)).astype(ml_dtypes.float8_e4m3fn))
    zero, one = ops.to_float8(jnp.zeros((3,)), ops.FLOAT8_GRADIENT)
    assert float(one) == 1.0 and not np.asarray(zero, np.float32).any()


def test_products_in_eight_bits_are_near_and_exact_where_eight_bits_suffice() -> None:
    rng = np.random.default_rng(0)
    x, kernel, bias = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in [(64, 128), (128, 3, 16), (3, 16)])
    dy = jnp.asarray(rng.normal(size=(64, 3, 16)), jnp.float32)
    y, back = jax.vjp(lambda *a: ops.affine(*a, float8=True), x, kernel, bias)
    exact, exact_back = jax.vjp(ops.affine, x, kernel, bias)
    pairs = [(y, exact), *zip(back(dy), exact_back(dy), strict=True)]
    # Of a factor at most 2^-4 (E4M3) or 2^-3 (E5M2) is rounded off; errors that are uniform and independent are a third of that or less.
    errors = [float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b)) for a, b in pairs]
    assert 0.005 < errors[0] < 0.05 and 0.005 < errors[1] < 0.08 and 0.005 < errors[2] < 0.08 and errors[3] < 1e-6, errors
    whole = [jnp.asarray(rng.integers(-1, 2, shape), jnp.float32).at[(0,) * len(shape)].set(1.0) for shape in [(8, 6), (6, 4)]]
    np.testing.assert_allclose(ops.affine(*whole, jnp.zeros(4), float8=True), whole[0] @ whole[1], atol=1e-5)
