"""Losses that compare views, against loops in float64 written from the papers; rows that only fill up a batch; batch norm; spread."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from retfound_jax.core.errors import UsageError
from retfound_jax.models.contrastive import check_views, info_nce, momentum_at, nt_xent
from retfound_jax.models.projection import BatchNorm, Projection, spread, unit
from retfound_jax.models.swav import sinkhorn, swapped_prediction

RNG = np.random.default_rng(0)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_nt_xent_is_equation_1_of_simclr() -> None:
    z_BGO, temperature = RNG.normal(size=(5, 2, 7)), 0.3
    loss_B, found_B = jax.jit(lambda z: nt_xent(z, temperature=temperature))(z_BGO.astype(np.float32))
    views = [(b, g) for b in range(5) for g in range(2)]

    def one(b: int, g: int) -> float:
        own = z_BGO[b, g]
        others = [math.exp(cosine(own, z_BGO[v]) / temperature) for v in views if v != (b, g)]
        return -math.log(math.exp(cosine(own, z_BGO[b, 1 - g]) / temperature) / sum(others))

    expected = [(one(b, 0) + one(b, 1)) / 2 for b in range(5)]
    np.testing.assert_allclose(loss_B, expected, rtol=2e-6)

    def nearest(b: int, g: int) -> int:
        return max((v for v in views if v != (b, g)), key=lambda v: cosine(z_BGO[b, g], z_BGO[v]))[0]

    np.testing.assert_allclose(found_B, [np.mean([nearest(b, g) == b for g in (0, 1)]) for b in range(5)])


def test_info_nce_is_algorithm_1_of_moco_v3() -> None:
    q, k, temperature = RNG.normal(size=(6, 5)), RNG.normal(size=(6, 5)), 0.2
    loss_B, found_B = jax.jit(lambda q, k: info_nce(q, k, temperature=temperature))(q.astype(np.float32), k.astype(np.float32))
    expected = []
    for i in range(6):
        logits = [cosine(q[i], k[j]) / temperature for j in range(6)]
        expected.append(2 * temperature * (math.log(sum(math.exp(x) for x in logits)) - logits[i]))
    np.testing.assert_allclose(loss_B, expected, rtol=2e-6)
    np.testing.assert_array_equal(found_B, [np.argmax([cosine(q[i], k[j]) for j in range(6)]) == i for i in range(6)])
    keys = jax.jit(jax.grad(lambda k: info_nce(q, k, temperature=temperature)[0].sum()))(k)
    assert not np.any(keys)


def assigned(scores_BY: np.ndarray, *, epsilon: float, iterations: int) -> np.ndarray:
    """SwAV, section 3.1: Q = diag(u) exp(C'Z / eps) diag(v), rows of Q [Y, B] brought to 1 / Y and columns to 1 / B in turn."""
    q_YB = np.exp(scores_BY.astype(np.float64).T / epsilon)
    prototypes, images = q_YB.shape
    q_YB /= q_YB.sum()
    for _ in range(iterations):
        for y in range(prototypes):
            q_YB[y] /= q_YB[y].sum() * prototypes
        for b in range(images):
            q_YB[:, b] /= q_YB[:, b].sum() * images
    return q_YB.T * images


def test_sinkhorn_is_that_of_the_paper_and_uses_all_prototypes() -> None:
    scores_BY = RNG.uniform(-1, 1, (12, 4)).astype(np.float32)
    run = jax.jit(sinkhorn)
    found = run(scores_BY, epsilon=0.05, iterations=3)
    np.testing.assert_allclose(found, assigned(scores_BY, epsilon=0.05, iterations=3), atol=2e-6)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(run(scores_BY, epsilon=0.05, iterations=200).sum(0), 3, atol=1e-3)  # equally many images each


def test_swapped_prediction_is_equation_2_of_swav_over_all_crops() -> None:
    scores_BVY, temperature, views = RNG.uniform(-1, 1, (6, 4, 5)).astype(np.float32), 0.1, 2
    found_B = jax.jit(lambda s: swapped_prediction(s, views=views, temperature=temperature, epsilon=0.05, iterations=3))(scores_BVY)
    expected_B = np.zeros(6)
    for view in range(views):
        q_BY = assigned(scores_BVY[:, view], epsilon=0.05, iterations=3)
        for other in range(4):
            if other != view:
                x_BY = scores_BVY[:, other].astype(np.float64) / temperature
                log_p_BY = x_BY - np.log(np.exp(x_BY).sum(1, keepdims=True))
                expected_B -= (q_BY * log_p_BY).sum(1) / 3 / views
    np.testing.assert_allclose(found_B, expected_B, rtol=1e-5)


def test_rows_that_fill_up_a_batch_change_nothing_for_the_others() -> None:
    weight_B = jnp.array([1.0, 1.0, 1.0, 0.0, 0.0])
    z_BGO, scores_BVY = RNG.normal(size=(5, 2, 6)).astype(np.float32), RNG.uniform(-1, 1, (5, 3, 4)).astype(np.float32)
    given = {'views': 2, 'temperature': 0.1, 'epsilon': 0.05, 'iterations': 3}
    for function, x in (
        (lambda x, w: nt_xent(x, temperature=0.1, weight_B=w)[0], z_BGO),
        (lambda x, w: info_nce(x[:, 0], x[:, 1], temperature=0.1, weight_B=w)[0], z_BGO),
        (lambda x, w: swapped_prediction(x, weight_B=w, **given), scores_BVY),
        (lambda x, w: BatchNorm(6, letters='F', affine=False)(x[:, 0], w), z_BGO),
        (lambda x, w: spread(x[:, 0], w), z_BGO),
    ):
        padded, alone = jax.jit(function)(x, weight_B), jax.jit(function)(x[:3], None)
        assert np.isfinite(padded).all()
        np.testing.assert_allclose(padded[:3] if padded.ndim else padded, alone, rtol=1e-5, atol=1e-6)


def test_batch_norm_and_projection_are_their_formulas() -> None:
    x_BD = (RNG.normal(size=(9, 4)) * 3 + 1).astype(np.float32)
    model = Projection(4, hidden=6, out=5, layers=3, last_norm=True, rngs=nnx.Rngs(0))

    def norm(x: np.ndarray, layer: BatchNorm) -> np.ndarray:
        out = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
        return out if layer.scale is None else out * np.asarray(layer.scale[...]) + np.asarray(layer.bias[...])

    model.norm1.bias[...] = RNG.normal(size=6).astype(np.float32)
    expected = x_BD.astype(np.float64)
    for i in (1, 2, 3):
        assert getattr(model, f'fc{i}').bias is None
        expected = norm(expected @ np.asarray(getattr(model, f'fc{i}').kernel[...], np.float64), getattr(model, f'norm{i}'))
        expected = np.maximum(expected, 0) if i < 3 else expected
    run = nnx.jit(lambda model, x: model(x))
    np.testing.assert_allclose(run(model, x_BD), expected, atol=2e-5)
    half = run(model, x_BD.astype(jnp.bfloat16))
    assert half.dtype == jnp.float32 and np.abs(half - expected).max() < 0.2


def test_spread_tells_a_collapse() -> None:
    x_BO = RNG.normal(size=(500, 16)).astype(np.float32)
    assert float(spread(x_BO)) == pytest.approx(1, abs=0.03)
    assert float(spread(x_BO * 0.01 + 5)) < 0.01
    assert float(spread(jnp.ones((4, 3)))) == 0.0
    np.testing.assert_allclose(np.linalg.norm(unit(x_BO), axis=1), 1, rtol=1e-6)
    assert not np.any(unit(jnp.zeros((2, 3))))


def test_momentum_goes_from_its_start_to_one() -> None:
    assert [float(momentum_at(jnp.float32(p), start=0.99)) for p in (0.0, 0.5, 1.0)] == pytest.approx([0.99, 0.995, 1.0], abs=1e-7)


def test_other_than_two_views_are_refused() -> None:
    for shape, local in (((2, 3, 8, 8, 3), None), ((2, 8, 8, 3), None), ((2, 2, 8, 8, 3), jnp.zeros((2, 1, 4, 4, 3)))):
        with pytest.raises(UsageError, match='SimCLR compares two views of each image; set data.views.global_views 2'):
            check_views(jnp.zeros(shape), local, method='SimCLR')
