"""Token reconstruction against plain numpy, given the same corruption; and the corruption itself."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import models_reference as reference
import numpy as np
import pytest
from flax import nnx
from models_helpers import filled

from retfound_jax.core.errors import UsageError
from retfound_jax.models.layers import unstack_blocks
from retfound_jax.models.token_reconstruction import TokenReconstruction, TokenReconstructionConfig, corrupt
from retfound_jax.models.transfer import flat_names
from retfound_jax.models.vit import ViTConfig

ENCODER = ViTConfig(image_size=32, patch_size=8, width=16, depth=2, heads=2, pool='mean_normed', registers=2, layer_scale=0.5)
CONFIG = TokenReconstructionConfig(encoder=ENCODER)
PHOTOGRAPHS = jnp.asarray(np.random.default_rng(0).normal(size=(3, 32, 32, 3)), jnp.float32)


def encode(image, blank, p, name):
    """Tokens after the final norm, in numpy; a blanked patch has its position alone."""
    p = {key.removeprefix(f'{name}.'): value for key, value in p.items() if key.startswith(f'{name}.')}
    pieces = reference.patches(image, 8) @ p['patch_embed.proj.kernel'] + p['patch_embed.proj.bias']
    pieces[blank] = 0
    x = np.concatenate([p['cls_token'][None], p['reg_token'], pieces + reference.table(16, 4)])
    for i in range(2):
        # LayerScale by hand: gamma multiplies each branch, so it can be taken into the branch's last layer.
        for part, gamma in (('attn.proj', 'ls1'), ('mlp.fc2', 'ls2')):
            for kind in ('kernel', 'bias'):
                p[f'blocks.{i}.{part}.{kind}'] = p[f'blocks.{i}.{part}.{kind}'] * p[f'blocks.{i}.{gamma}.gamma']
        x = reference.block(x, p, f'blocks.{i}', heads=2)
    return reference.norm(x, p, 'norm')


def project(x, p):
    y = np.array([(row - row.mean()) / math.sqrt(row.var() + 1e-5) for row in x]) * p['projector.norm.scale'] + p['projector.norm.bias']
    y = y @ p['projector.mlp.fc1.kernel'] + p['projector.mlp.fc1.bias']
    y = y * 0.5 * (1 + reference.erf(y / math.sqrt(2)))
    return x + (y @ p['projector.mlp.fc2.kernel'] + p['projector.mlp.fc2.bias']) * p['projector.ls.gamma']


@pytest.mark.parametrize('projector', [True, False])
def test_loss_is_the_mean_squared_error_over_all_tokens(projector):
    config = dataclasses.replace(CONFIG, projector=projector)
    graph, params = filled(lambda: TokenReconstruction(config, rngs=nnx.Rngs(0)))
    p = {name: np.asarray(leaf, np.float64) for name, leaf in flat_names(unstack_blocks(nnx.to_pure_dict(params))).items()}
    for key in (None, jax.random.key(3)):
        given = corrupt(PHOTOGRAPHS, key=None if key is None else jax.random.fold_in(key, 0), config=config)
        assert given.blank_BL.any()
        for i, loss in enumerate(nnx.merge(graph, params)(PHOTOGRAPHS, key=key)):
            student = encode(np.asarray(given.image_BHWC[i], np.float64), np.asarray(given.blank_BL[i]), p, 'encoder')
            teacher = encode(np.asarray(PHOTOGRAPHS[i], np.float64), np.zeros(16, bool), p, 'teacher')
            student = project(student, p) if projector else student
            assert student.shape == (1 + 2 + 16, 16)
            assert float(loss) == pytest.approx(((student - teacher) ** 2).mean(), rel=1e-4)


def test_blanked_share_is_within_bounds_and_random_for_each_photograph():
    config = dataclasses.replace(CONFIG, encoder=dataclasses.replace(ENCODER, image_size=320), clean=0)
    image = jnp.zeros((200, 320, 320, 3), jnp.float32)
    share_B = np.asarray(jax.jit(lambda: corrupt(image, key=jax.random.key(0), config=config).blank_BL)()).mean(1)
    # Uniform from 0 to a third, plus at most a few hundredths of chance: 1600 patches, deviation .012.
    assert 0 <= share_B.min() < 0.03 and 0.30 < share_B.max() < 1 / 3 + 0.05
    assert share_B.mean() == pytest.approx(1 / 6, abs=0.03) and share_B.std() == pytest.approx(1 / 3 / math.sqrt(12), abs=0.02)


def test_noise_is_a_fifth_of_the_deviation_of_each_channel_of_each_photograph():
    config = dataclasses.replace(CONFIG, encoder=dataclasses.replace(ENCODER, image_size=160), clean=0)
    scale = np.array([[1.0, 2.0, 0.5], [3.0, 0.0, 1.0]])[:, None, None]
    image = jnp.asarray(np.random.default_rng(1).normal(size=(2, 160, 160, 3)) * scale + 4, jnp.float32)
    noise = np.asarray(corrupt(image, key=jax.random.key(0), config=config).image_BHWC - image)
    np.testing.assert_allclose(noise.std((1, 2)), 0.2 * np.asarray(image).std((1, 2)), rtol=0.05, atol=1e-6)
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.02


def test_the_last_photographs_of_a_training_batch_stay_clean():
    given = corrupt(PHOTOGRAPHS, key=jax.random.key(0), config=dataclasses.replace(CONFIG, clean=2))
    np.testing.assert_array_equal(given.image_BHWC[1:], PHOTOGRAPHS[1:])
    assert not given.blank_BL[1:].any() and not np.array_equal(given.image_BHWC[0], PHOTOGRAPHS[0])


def test_validation_corrupts_every_photograph_alike_wherever_it_stands():
    graph, params = filled(lambda: TokenReconstruction(CONFIG, rngs=nnx.Rngs(0)))
    model = nnx.merge(graph, params)
    np.testing.assert_allclose(model(PHOTOGRAPHS)[::-1], model(PHOTOGRAPHS[::-1]), rtol=1e-6)
    np.testing.assert_allclose(model(PHOTOGRAPHS)[1:2], model(PHOTOGRAPHS[1:2]), rtol=1e-6)


@pytest.mark.parametrize(
    ('change', 'says'),
    [
        ({'encoder': dataclasses.replace(ENCODER, pool='mean')}, 'mean_normed or cls'),
        ({'most_blank': 1.5}, 'most_blank'),
        ({'noise': -1.0}, 'noise'),
    ],
)
def test_numbers_that_do_not_fit_are_refused(change, says):
    with pytest.raises(UsageError, match=says):
        TokenReconstruction(dataclasses.replace(CONFIG, **change), rngs=nnx.Rngs(0))
