"""A masked autoencoder that starts from other weights: RETFound starts from MAE on ImageNet."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.models.mae import MAEConfig
from retfound_jax.models.transfer import flat_names
from retfound_jax.models.vit import ViTConfig
from retfound_jax.tasks.mae import MAETask

TASK = MAETask(
    model=MAEConfig(
        encoder=ViTConfig(image_size=16, patch_size=8, width=8, depth=1, heads=2), decoder_width=8, decoder_depth=1, decoder_heads=2
    )
)


def params(task=TASK, *, seed):
    return nnx.to_pure_dict(nnx.state(task.init(rngs=nnx.Rngs(seed))))


def test_a_whole_autoencoder_moves_with_its_decoder():
    source, moved = params(seed=1), TASK.load_pretrained(params(seed=0), params(seed=1))
    for name, leaf in flat_names(moved).items():
        np.testing.assert_array_equal(leaf, flat_names(source)[name], err_msg=name)


def test_an_encoder_alone_leaves_the_decoder_as_it_starts():
    fresh, source = params(seed=0), {'encoder': params(seed=1)['encoder']}
    moved = TASK.load_pretrained(fresh, source)
    np.testing.assert_array_equal(moved['encoder']['cls_token'], source['encoder']['cls_token'])
    np.testing.assert_array_equal(moved['decoder_embed']['kernel'], fresh['decoder_embed']['kernel'])
    np.testing.assert_array_equal(moved['mask_token'], fresh['mask_token'])


def test_a_decoder_of_another_size_or_in_pieces_is_refused():
    wide = dataclasses.replace(TASK, model=dataclasses.replace(TASK.model, decoder_width=16))
    with pytest.raises(UserError, match=r'decoder_\S+ is \(.*16.*\) in the weights and \(.*8.*\) in the model'):
        TASK.load_pretrained(params(seed=0), params(wide, seed=1))
    torn = params(seed=1)
    del torn['mask_token']
    with pytest.raises(UserError, match='lack mask_token'):
        TASK.load_pretrained(params(seed=0), torn)


def test_an_image_too_small_to_show_a_patch_is_refused():
    model = MAETask(model=dataclasses.replace(TASK.model, encoder=dataclasses.replace(TASK.model.encoder, image_size=32), mask_ratio=0.9))
    with pytest.raises(UsageError, match='of the 4 patches of a smaller image none visible'):
        model.loss(model.init(rngs=nnx.Rngs(0)), {'image': jnp.zeros((1, 16, 16, 3))}, key=jax.random.key(0))
