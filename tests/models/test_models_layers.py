"""Stacks: scanned equals unrolled, remat changes no gradient, drop path keeps expectations, letters name every axis."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec
from models_helpers import filled

from retfound_jax.core.mesh import MeshConfig, ShardingRules, make_mesh, param_spec
from retfound_jax.models.heads import Classifier
from retfound_jax.models.layers import BlockShape, drop_masks, make_blocks, param_letters, stack_blocks, unstack_blocks
from retfound_jax.models.mae import MAE, MAEConfig
from retfound_jax.models.transfer import flat_names
from retfound_jax.models.vit import ViT, ViTConfig, vit_config

TINY = ViTConfig(image_size=16, patch_size=8, width=8, depth=2, heads=2)
Result = tuple[jax.Array, Any]


def loss_and_gradient(config: ViTConfig, params: Any) -> Result:
    """Of one batch, with dropped paths, by an encoder of `config` around `params`."""
    graph = nnx.graphdef(nnx.eval_shape(lambda: ViT(config, rngs=nnx.Rngs(0))))
    rng = np.random.default_rng(0)
    x, way = rng.normal(size=(4, 16, 16, 3)).astype(np.float32), rng.normal(size=(4, 8)).astype(np.float32)
    return jax.jit(jax.value_and_grad(lambda p: (nnx.merge(graph, p).embed(x, key=jax.random.key(1)) * way).sum()))(params)


def changed(**encoder: Any) -> ViTConfig:
    return dataclasses.replace(TINY, drop_path=0.3, **encoder)


@pytest.fixture(scope='module')
def params() -> nnx.State:
    return filled(lambda: ViT(TINY, rngs=nnx.Rngs(0)))[1]


@pytest.fixture(scope='module')
def straight(params: nnx.State) -> Result:
    return loss_and_gradient(changed(), params)


def assert_close(tree: Any, other: Any) -> None:
    for (name, a), b in zip(flat_names(tree).items(), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize('remat', ['dots', 'full'])
def test_remat_changes_no_gradient(remat: str, params: nnx.State, straight: Result) -> None:
    assert_close(loss_and_gradient(changed(remat=remat), params), straight)


@pytest.mark.parametrize('remat', ['none', pytest.param('dots', marks=pytest.mark.slow)])
def test_unrolled_equals_scanned(remat: str, params: nnx.State, straight: Result) -> None:
    loss, gradient = loss_and_gradient(changed(scan=False, remat=remat), unstack_blocks(params))
    np.testing.assert_allclose(loss, straight[0], rtol=1e-6, atol=1e-6)
    assert_close(stack_blocks(gradient), straight[1])


@pytest.mark.slow
def test_unrolled_starts_at_the_same_values() -> None:
    @functools.partial(jax.jit, static_argnums=0)
    def made(scan: bool) -> Any:
        blocks = make_blocks(BlockShape(width=8, heads=2, hidden=8), depth=2, scan=scan, rngs=nnx.Rngs(0))
        return nnx.to_pure_dict(nnx.state(blocks)) if scan else {i: nnx.to_pure_dict(nnx.state(block)) for i, block in enumerate(blocks)}

    assert_close({'blocks': made(False)}, unstack_blocks({'blocks': made(True)}))


def test_stack_and_unstack_are_inverse_on_states_and_plain_trees(params: nnx.State) -> None:
    for tree in (params, nnx.to_pure_dict(params)):
        again = stack_blocks(unstack_blocks(tree))
        assert jax.tree.structure(again) == jax.tree.structure(tree)
        assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), again, tree))


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_dots_remat_keeps_matrix_products_and_full_keeps_less(dtype: str) -> None:
    """Bytes kept for backward, in bfloat16 too, where linear layers have a backward of their own."""

    def kept(remat: str) -> int:
        config = ViTConfig(image_size=64, patch_size=8, width=64, depth=6, heads=2, remat=remat, compute_dtype=dtype)
        graph, params = nnx.split(nnx.eval_shape(lambda: ViT(config, rngs=nnx.Rngs(0))))
        image = jax.ShapeDtypeStruct((16, 64, 64, 3), jnp.float32)
        backward = jax.eval_shape(lambda p, x: jax.vjp(lambda p: nnx.merge(graph, p)(x), p)[1], params, image)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(backward))

    none, dots, full = (kept(remat) for remat in ('none', 'dots', 'full'))
    assert none > 1.5 * dots > 1.5 * 2 * full, (none, dots, full)


def test_drop_path_is_linear_in_depth_and_keeps_the_expectation() -> None:
    masks = np.asarray(drop_masks(jax.random.key(0), depth=5, rate=0.4, batch=20_000))
    rates = np.linspace(0, 0.4, 5)
    np.testing.assert_allclose((masks == 0).mean((1, 2)), rates, atol=0.01)
    np.testing.assert_allclose(masks.mean((1, 2)), 1.0, atol=0.02)
    for layer, rate in zip(masks, rates, strict=True):
        assert set(np.unique(layer)) <= {np.float32(0), np.float32(1) / (np.float32(1) - np.float32(rate))}
    assert abs(np.corrcoef(masks[4, 0], masks[4, 1])[0, 1]) < 0.03  # the two branches of a block drop apart


def test_drop_path_needs_a_key_and_a_rate() -> None:
    assert drop_masks(None, depth=3, rate=0.5, batch=2) is None
    assert drop_masks(jax.random.key(0), depth=3, rate=0.0, batch=2) is None
    config = dataclasses.replace(TINY, drop_path=0.9)
    graph, params = filled(lambda: ViT(config, rngs=nnx.Rngs(0)))
    plain = nnx.graphdef(nnx.eval_shape(lambda: ViT(TINY, rngs=nnx.Rngs(0))))
    x = jnp.tile(jnp.asarray(np.random.default_rng(0).normal(size=(1, 16, 16, 3)), jnp.float32), (8, 1, 1, 1))
    dropped = jax.jit(lambda p, key: nnx.merge(graph, p).embed(x, key=key))
    whole = [jax.jit(lambda p, g=g: nnx.merge(g, p).embed(x))(params) for g in (graph, plain)]
    np.testing.assert_array_equal(*whole)
    first = np.asarray(dropped(params, jax.random.key(0)))
    assert len(np.unique(first.round(5), axis=0)) > 1  # equal samples drop apart
    np.testing.assert_array_equal(first, dropped(params, jax.random.key(0)))


@pytest.mark.parametrize('scan', [True, False])
def test_letters_name_every_axis_but_the_stack(scan: bool) -> None:
    """In arrays and in abstract shapes alike."""
    config = MAEConfig(encoder=dataclasses.replace(TINY, scan=scan, positions='learned'), decoder_width=8, decoder_heads=2)
    abstract = nnx.state(nnx.eval_shape(lambda: MAE(config, rngs=nnx.Rngs(0))))
    letters = flat_names(param_letters(abstract))
    shapes = {name: leaf.shape for name, leaf in flat_names(abstract).items()}
    assert letters.keys() == shapes.keys()
    for name, axes in letters.items():
        stacked = scan and 'blocks' in name
        assert len(shapes[name]) == len(axes) + stacked, name
    block = 'encoder.blocks' if scan else 'encoder.blocks.0'
    want = {'attn.qkv.kernel': 'DTNE', 'attn.proj.kernel': 'NED', 'mlp.fc1.kernel': 'DF', 'mlp.fc2.bias': 'D', 'norm1.scale': 'D'}
    assert {name: letters[f'{block}.{name}'] for name in want} == want
    assert letters['decoder_pred.kernel'] == 'MP' and letters['encoder.pos_embed'] == 'LD'


def test_letters_reach_the_sharding_rules() -> None:
    mesh = make_mesh(MeshConfig(data=1, fsdp=1, tensor=1), devices=jax.devices()[:1])
    model = nnx.eval_shape(lambda: Classifier(vit_config('S'), outputs=2, rngs=nnx.Rngs(0)))
    params = nnx.state(model)
    letters, shapes = flat_names(param_letters(params)), flat_names(params)
    name = 'encoder.blocks.mlp.fc1.kernel'
    spec = param_spec(letters[name], shapes[name].shape, rules=ShardingRules(), mesh=mesh)
    assert spec == PartitionSpec(None, 'fsdp', 'tensor')


def test_gradient_equals_finite_differences() -> None:
    """The whole MAE in float64, along random directions of all parameters, for the scan with dots recomputed."""
    with jax.enable_x64(True):
        encoder, rng, step = dataclasses.replace(TINY, remat='dots', compute_dtype='float64'), np.random.default_rng(3), 1e-5
        config = MAEConfig(encoder=encoder, decoder_width=8, decoder_depth=2, decoder_heads=2, mask_ratio=0.5)
        graph, params = filled(lambda: MAE(config, rngs=nnx.Rngs(0)), dtype=np.float64)
        x, noise = jnp.asarray(rng.normal(size=(2, 16, 16, 3))), jnp.asarray(rng.uniform(size=(2, 4)))
        both = jax.jit(jax.value_and_grad(lambda p: nnx.merge(graph, p)(x, noise_BL=noise).loss))
        loss, gradient = both(params)
        assert loss.dtype == jnp.float64
        for _ in range(5):
            way = jax.tree.map(lambda a: rng.normal(size=a.shape), params)
            slope = sum(float((np.asarray(g) * w).sum()) for g, w in zip(jax.tree.leaves(gradient), jax.tree.leaves(way), strict=True))
            there, back = (both(_moved(params, way, sign * step))[0] for sign in (1, -1))
            assert float((there - back) / (2 * step)) == pytest.approx(slope, rel=1e-6)


def _moved(params: Any, way: Any, step: float) -> Any:
    return jax.tree.map(lambda p, w: jnp.asarray(np.asarray(p) + step * w), params, way)
