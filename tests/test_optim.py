"""Schedule and layer scales against their formulas; what decays, what freezes, and that a stack trains as its blocks do."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from retfound_jax.core.errors import UsageError
from retfound_jax.models.heads import Classifier
from retfound_jax.models.layers import stack_blocks, unstack_blocks
from retfound_jax.models.transfer import flat_names
from retfound_jax.models.vit import ViTConfig, vit_config
from retfound_jax.optim import OptimConfig, decay_rate, layer_scales, learning_rate, make_optimizer

TINY = ViTConfig(image_size=16, patch_size=8, width=8, depth=3, heads=2, positions='learned')


def classifier() -> dict:
    abstract = nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: Classifier(TINY, outputs=2, rngs=nnx.Rngs(0)))))
    return gradients(abstract, 7)


def gradients(params: Any, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: rng.normal(size=a.shape).astype(np.float32), params)


def optimizer(params: Any, **changes: Any) -> optax.GradientTransformation:
    trainable = changes.pop('trainable', lambda name: True)
    config = OptimConfig(**{'lr': 1e-2, **changes})
    return make_optimizer(config, params=params, steps=10, batch_size=8, depth=3, trainable=trainable)


def train(params: Any, given: list[Any], **changes: Any) -> Any:
    tx = optimizer(params, **changes)
    state = jax.jit(tx.init)(params)

    @jax.jit
    def update(gradient: Any, state: Any, params: Any) -> tuple[Any, Any]:
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    for gradient in given:
        params, state = update(gradient, state, params)
    return jax.tree.map(np.asarray, params)


def test_schedule_equals_closed_form() -> None:
    """40 steps of warm-up from 0, then the half cosine to min_lr; the peak is 1.5e-4 * 4096 / 256 = 2.4e-3."""
    rate = learning_rate(OptimConfig(warmup_steps=40, min_lr=1e-5), steps=800, batch_size=4096)
    peak = 2.4e-3
    cosine = [1e-5 + (peak - 1e-5) * 0.5 * (1 + math.cos(math.pi * (step - 40) / 760)) for step in (40, 41, 420, 799, 800)]
    got = [float(rate(step)) for step in (0, 1, 20, 39, 40, 41, 420, 799, 800, 900)]
    np.testing.assert_allclose(got, [0, peak / 40, peak / 2, peak * 39 / 40, *cosine, 1e-5], rtol=2e-6, atol=2e-9)
    assert got[6] == pytest.approx((peak + 1e-5) / 2, rel=1e-5)


def test_a_given_rate_ignores_the_batch_and_no_warmup_starts_at_the_peak() -> None:
    rate = learning_rate(OptimConfig(lr=1e-3), steps=10, batch_size=4096)
    assert float(rate(0)) == pytest.approx(1e-3)


@pytest.mark.parametrize('warmup', [11, -1])
def test_a_warmup_that_does_not_fit_is_refused(warmup: int) -> None:
    with pytest.raises(UsageError, match=f'warmup_steps {warmup} do not fit a run of 10 steps'):
        learning_rate(OptimConfig(warmup_steps=warmup), steps=10, batch_size=1)


@pytest.mark.parametrize('scan', [True, False])
def test_layer_scales_of_vit_b(scan: bool) -> None:
    """BEiT's table: .65 ** (13 - layer), embeddings 0, block i is i + 1, head and fc_norm 13."""
    config = vit_config('B', positions='learned', scan=scan)
    params = nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: Classifier(config, outputs=5, rngs=nnx.Rngs(0)))))
    scales = flat_names(layer_scales(params, depth=12, decay=0.65))
    for name in ('cls_token', 'pos_embed', 'patch_embed.proj.kernel', 'patch_embed.proj.bias'):
        assert scales[f'encoder.{name}'] == pytest.approx(0.65**13)
    for name in ('head.kernel', 'head.bias', 'encoder.fc_norm.scale'):
        assert scales[name] == 1
    for part in ('norm1.scale', 'attn.qkv.kernel', 'mlp.fc2.bias'):
        stack = scales[f'encoder.blocks.{part}'].ravel() if scan else [scales[f'encoder.blocks.{i}.{part}'] for i in range(12)]
        np.testing.assert_allclose(stack, [0.65 ** (12 - i) for i in range(12)], rtol=1e-6)
    shapes = flat_names(params)
    assert all(np.broadcast_shapes(scale.shape, shapes[name].shape) == shapes[name].shape for name, scale in scales.items())


def test_a_wrong_depth_is_refused() -> None:
    with pytest.raises(UsageError, match='stacks 3 blocks, but depth is 12'):
        layer_scales(classifier(), depth=12, decay=0.5)


def test_a_stack_trains_as_its_blocks_do() -> None:
    """Three updates with everything on, clipping included."""
    params = classifier()
    given = [gradients(params, seed) for seed in range(3)]
    options = {'layer_decay': 0.65, 'clip_norm': 1.0, 'warmup_steps': 1, 'weight_decay': 0.1}
    stacked = train(params, given, **options)
    blocks = train(unstack_blocks(params), [unstack_blocks(gradient) for gradient in given], **options)
    for (name, a), b in zip(flat_names(stacked).items(), jax.tree.leaves(stack_blocks(blocks)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7, err_msg=name)
    assert not np.array_equal(stacked['head']['kernel'], params['head']['kernel'])


def test_one_update_equals_adamw_by_hand() -> None:
    """First step: update = -lr * scale * (g / (|g| + eps) + wd * p), the decay on kernels alone."""
    params = classifier()
    gradient = gradients(params, 0)
    moved = flat_names(train(params, [gradient], layer_decay=0.5, weight_decay=0.1))
    before, slope, scales = flat_names(params), flat_names(gradient), flat_names(layer_scales(params, depth=3, decay=0.5))
    for name, p in before.items():
        decay = 0.1 if name.endswith('kernel') else 0.0
        want = p - 1e-2 * scales[name] * (np.sign(slope[name]) + decay * p)
        np.testing.assert_allclose(moved[name], want, rtol=1e-4, atol=1e-6, err_msg=name)


def test_weight_decay_spares_biases_norms_tokens_and_positions() -> None:
    """With no gradient only decay moves a parameter: each kernel by 1 - lr * wd, the rest not by a bit."""
    params = classifier()
    moved = flat_names(train(params, [jax.tree.map(np.zeros_like, params)], weight_decay=0.1))
    for name, before in flat_names(params).items():
        if name.endswith('kernel'):
            np.testing.assert_allclose(moved[name], before * (1 - 1e-3), rtol=1e-6)
        else:
            np.testing.assert_array_equal(moved[name], before, err_msg=name)


def test_weight_decay_goes_by_half_a_cosine_where_an_end_is_given() -> None:
    """With no gradient a kernel shrinks by 1 - lr_t * wd_t a step: 10 steps of the run, the rate falling and the decay rising."""
    params = classifier()
    steps = [jax.tree.map(np.zeros_like, params)] * 10
    moved = flat_names(train(params, steps, weight_decay=0.04, weight_decay_end=0.4, trainable=lambda name: name.startswith('head')))
    half = [0.5 * (1 + math.cos(math.pi * step / 10)) for step in range(10)]
    shrunk = math.prod(1 - 1e-2 * share * (0.4 - 0.36 * share) for share in half)
    before = flat_names(params)
    np.testing.assert_allclose(moved['head.kernel'], before['head.kernel'] * shrunk, rtol=1e-5)
    np.testing.assert_array_equal(moved['encoder.patch_embed.proj.kernel'], before['encoder.patch_embed.proj.kernel'])
    assert decay_rate(OptimConfig(), steps=10) == 0.05


def test_clipping_scales_the_whole_gradient() -> None:
    """Adam forgets scale, so clip is seen against a second step: one large gradient counts as one of norm 1."""
    params = classifier()
    small, large = gradients(params, 0), gradients(params, 1)
    norm, size = (np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(tree))) for tree in (large, small))
    small = jax.tree.map(lambda g: g / size, small)
    clipped = train(params, [small, jax.tree.map(lambda g: 1e3 * g, large)], clip_norm=1.0)
    want = train(params, [small, jax.tree.map(lambda g: g / norm, large)])
    for a, b in zip(jax.tree.leaves(clipped), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_frozen_parameters_keep_every_bit_and_carry_no_state() -> None:
    params = classifier()
    given = [gradients(params, seed) for seed in range(3)]
    options = {'weight_decay': 0.1, 'layer_decay': 0.65, 'clip_norm': 1.0}
    moved = train(params, given, trainable=lambda name: name.startswith('head.'), **options)
    for name, leaf in flat_names(moved).items():
        same = np.array_equal(leaf, flat_names(params)[name])
        assert same is not name.startswith('head.'), name
    tx = optimizer(params, trainable=lambda name: name.startswith('head.'))
    sizes = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(tx.init, params)))
    assert sizes == 2 * (8 * 2 + 2) + 2  # two moments of the head, two counters


def test_training_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match='no parameter is trained'):
        optimizer(classifier(), trainable=lambda name: False)


def test_state_has_the_shapes_of_the_parameters() -> None:
    """So that moments shard as their parameters do, found by optax's own tree map; also from abstract shapes and nnx.State."""
    state = nnx.state(nnx.eval_shape(lambda: Classifier(dataclasses.replace(TINY, depth=3), outputs=2, rngs=nnx.Rngs(0))))
    for params in (state, nnx.to_pure_dict(state)):
        tx = optimizer(params, layer_decay=0.65, trainable=lambda name: 'fc_norm' not in name)
        opt = jax.eval_shape(tx.init, params)

        def same(leaf: Any, param: Any) -> Any:
            return leaf if isinstance(leaf, optax.MaskedNode) else leaf.shape == param.shape

        marked = optax.tree_utils.tree_map_params(tx, same, opt, params, is_leaf=lambda leaf: isinstance(leaf, optax.MaskedNode))
        flags = [leaf for leaf in jax.tree.leaves(marked) if isinstance(leaf, bool)]
        assert flags and all(flags) and len(flags) == 2 * (len(jax.tree.leaves(params)) - 2)
