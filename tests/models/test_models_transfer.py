"""Moving an encoder: every tensor arrives, nothing else moves, and what does not fit is named."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from models_helpers import filled

from retfound_jax.core.errors import UserError
from retfound_jax.models.heads import Classifier
from retfound_jax.models.layers import unstack_blocks
from retfound_jax.models.mae import MAE, MAEConfig
from retfound_jax.models.positions import resample, sincos_2d
from retfound_jax.models.transfer import flat_names, load_encoder
from retfound_jax.models.vit import ViT, ViTConfig

TINY = ViTConfig(image_size=32, patch_size=8, width=8, depth=2, heads=2)


def mae(**encoder: Any) -> dict:
    config = MAEConfig(encoder=dataclasses.replace(TINY, **encoder), decoder_width=8, decoder_depth=1, decoder_heads=2)
    return nnx.to_pure_dict(filled(lambda: MAE(config, rngs=nnx.Rngs(0)), seed=0)[1])


def classifier(**encoder: Any) -> dict:
    return nnx.to_pure_dict(filled(lambda: Classifier(dataclasses.replace(TINY, **encoder), outputs=2, rngs=nnx.Rngs(0)), seed=7)[1])


def test_mae_to_classifier_moves_the_encoder_only() -> None:
    source, target = mae(), classifier()
    moved, before, given = flat_names(load_encoder(target, source)), flat_names(target), flat_names(source)
    assert moved.keys() == before.keys()
    for name, leaf in moved.items():
        kept = name.startswith(('head.', 'encoder.fc_norm.'))
        np.testing.assert_array_equal(leaf, (before if kept else given)[name], err_msg=name)
    assert any(np.any(before[name] != leaf) for name, leaf in moved.items())


def test_cls_pooling_takes_the_norm_of_the_mae() -> None:
    source = mae()
    source['encoder']['norm']['scale'] += 1
    moved = load_encoder(classifier(pool='cls'), source)
    np.testing.assert_array_equal(moved['encoder']['norm']['scale'], source['encoder']['norm']['scale'])


def test_encoder_of_mae_and_classifier_give_the_same_tokens() -> None:
    graph, params = filled(lambda: MAE(MAEConfig(encoder=TINY, decoder_width=8, decoder_depth=1, decoder_heads=2), rngs=nnx.Rngs(0)))
    other, fresh = filled(lambda: Classifier(TINY, outputs=2, rngs=nnx.Rngs(0)), seed=7)
    x = jnp.ones((1, 32, 32, 3))
    tokens = [jax.jit(lambda p, g=g: nnx.merge(g, p).encoder(x))(p) for g, p in ((graph, params), (other, load_encoder(fresh, params)))]
    np.testing.assert_array_equal(*tokens)


@pytest.mark.parametrize(('target_scan', 'source_scan'), [(False, True), (True, False), (False, False)])
def test_scanned_and_unrolled_mix(target_scan: bool, source_scan: bool) -> None:
    want = unstack_blocks(load_encoder(classifier(), mae()))
    target, source = (tree if scan else unstack_blocks(tree) for tree, scan in ((classifier(), target_scan), (mae(), source_scan)))
    moved = load_encoder(target, source)
    jax.tree.map(np.testing.assert_array_equal, unstack_blocks(moved) if target_scan else moved, want)


def test_learned_positions_are_resampled_and_start_as_the_table_where_missing() -> None:
    source = mae(positions='learned')
    source['encoder']['pos_embed'] += np.random.default_rng(0).normal(size=(17, 8)).astype(np.float32)
    moved = load_encoder(classifier(positions='learned', image_size=48), source)
    np.testing.assert_allclose(moved['encoder']['pos_embed'], resample(np.asarray(source['encoder']['pos_embed']), grid=6), rtol=1e-6)
    config = dataclasses.replace(TINY, positions='learned', image_size=48)
    start = jax.jit(lambda: ViT(config, rngs=nnx.Rngs(0)).pos_embed[...])()
    np.testing.assert_array_equal(start, sincos_2d(8, grid=6))
    fresh = classifier(positions='learned', image_size=48)
    np.testing.assert_array_equal(load_encoder(fresh, mae())['encoder']['pos_embed'], fresh['encoder']['pos_embed'])


def test_positions_without_a_row_for_the_cls_token_are_resampled_too() -> None:
    source, sizes = mae(positions='learned', cls_position=False), {'positions': 'learned', 'image_size': 48}
    moved = load_encoder(classifier(cls_position=False, **sizes), source)
    want = resample(np.asarray(source['encoder']['pos_embed']), grid=6)
    np.testing.assert_allclose(moved['encoder']['pos_embed'], want, rtol=1e-6)
    with pytest.raises(UserError, match=r'encoder.pos_embed is \(16, 8\) in the weights and \(37, 8\) in the model'):
        load_encoder(classifier(**sizes), source)


def test_a_frozen_teacher_and_a_projector_may_go_unused() -> None:
    source = mae()
    source['teacher'], source['projector'] = mae()['encoder'], {'norm': {'scale': jnp.ones(8)}}
    moved = load_encoder(classifier(), source)
    np.testing.assert_array_equal(moved['encoder']['cls_token'], source['encoder']['cls_token'])


@pytest.mark.parametrize(
    ('target', 'source', 'says'),
    [
        ({'width': 16}, {}, r'encoder\.\S+ is \(2, 8\) in the weights and \(2, 16\) in the model'),
        ({'depth': 3}, {}, r'encoder\.blocks\.\S+ is \(2, .* and \(3, '),
        ({'depth': 3, 'scan': False}, {}, r'has 2 blocks in the weights and 3 in the model'),
        ({'depth': 1, 'scan': False}, {}, r'has 2 blocks in the weights and 1 in the model'),
        ({'patch_size': 16}, {}, r'encoder\.patch_embed\.proj\.kernel is \(192, 8\) in the weights and \(768, 8\) in the model'),
        ({}, {'positions': 'learned'}, r'hold unknown encoder\.pos_embed'),
    ],
)
def test_what_does_not_fit_is_named(target: dict, source: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        load_encoder(classifier(**target), mae(**source))


def test_missing_and_unknown_tensors_are_named() -> None:
    source = mae()
    del source['encoder']['cls_token']
    with pytest.raises(UserError, match='lack encoder.cls_token'):
        load_encoder(classifier(), source)
    source = mae()
    source['encoder']['rope'] = jnp.zeros(3)
    with pytest.raises(UserError, match='hold unknown encoder.rope'):
        load_encoder(classifier(), source)


def test_positions_that_are_the_fixed_table_go_to_a_model_that_has_it() -> None:
    source = mae(positions='learned')
    source['encoder']['pos_embed'] = jnp.asarray(sincos_2d(8, grid=4))
    assert 'encoder.pos_embed' not in flat_names(load_encoder(mae(), source))
    source['encoder']['pos_embed'] = source['encoder']['pos_embed'].at[3, 3].add(0.01)
    with pytest.raises(UserError, match='hold unknown encoder.pos_embed'):
        load_encoder(mae(), source)
