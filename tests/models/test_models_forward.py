"""ViT, MAE and classifier against the plain-numpy reference, and what they must do with shapes, precision and wrong calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import models_reference as reference
import numpy as np
import pytest
from flax import nnx
from models_helpers import filled

from retfound_jax.core.errors import UsageError
from retfound_jax.models.heads import Classifier
from retfound_jax.models.layers import Linear, unstack_blocks
from retfound_jax.models.mae import MAE, MAEConfig, MAEOutput, Pictures, random_masking, targets
from retfound_jax.models.transfer import flat_names
from retfound_jax.models.vit import VIT_SIZES, ViTConfig, check, patchify, unpatchify, vit_config

TINY = ViTConfig(image_size=32, patch_size=8, width=24, depth=3, heads=3)
TINY_MAE = MAEConfig(encoder=TINY, decoder_width=16, decoder_depth=2, decoder_heads=2)
SHAPE = {'size': 8, 'depth': 3, 'heads': 3}


def images(n: int, *, size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, size, size, 3)).astype(np.float32)


def numbers(params: nnx.State) -> reference.Named:
    return {name: np.asarray(leaf, np.float64) for name, leaf in flat_names(unstack_blocks(jax.tree.map(np.asarray, params))).items()}


@pytest.mark.parametrize('pool', ['mean', 'cls'])
def test_classifier_equals_reference(pool: str) -> None:
    graph, params = filled(lambda: Classifier(dataclasses.replace(TINY, pool=pool), outputs=5, rngs=nnx.Rngs(0)))
    x = images(2)
    want = [reference.classify(image.astype(np.float64), numbers(params), pool=pool, **SHAPE) for image in x]
    np.testing.assert_allclose(jax.jit(lambda p, x: nnx.merge(graph, p)(x))(params, x), want, atol=1e-5)


@pytest.mark.parametrize('normalise', [True, False])
def test_mae_equals_reference(normalise: bool) -> None:
    """Loss, predictions and mask; the pictures are the predictions brought back to the image's space."""
    graph, params = filled(lambda: MAE(dataclasses.replace(TINY_MAE, norm_pix_loss=normalise), rngs=nnx.Rngs(0)))
    x, noise = images(3) * 2 + 1, np.random.default_rng(2).uniform(size=(3, 16)).astype(np.float32)

    @jax.jit
    def both(params: nnx.State) -> tuple[MAEOutput, Pictures]:
        model = nnx.merge(graph, params)
        return model(jnp.asarray(x), noise_BL=jnp.asarray(noise)), model.reconstruct(jnp.asarray(x), noise_BL=jnp.asarray(noise))

    out, pictures = both(params)
    shape = {'visible': 4, 'normalise': normalise, 'decoder_depth': 2, 'decoder_heads': 2, **SHAPE}
    want = [reference.mae(image.astype(np.float64), row, numbers(params), **shape) for image, row in zip(x, noise, strict=True)]
    np.testing.assert_allclose(out.per_image_loss_B, [loss for loss, _, _ in want], rtol=1e-5)
    np.testing.assert_allclose(out.loss, np.mean([loss for loss, _, _ in want]), rtol=1e-5)
    np.testing.assert_allclose(out.pred_BLP, [pred for _, pred, _ in want], atol=1e-5)
    np.testing.assert_array_equal(out.mask_BL, [mask for _, _, mask in want])

    mask = np.asarray(pictures.mask)
    assert mask.shape == x.shape and mask.mean() == 0.75
    np.testing.assert_array_equal(pictures.photograph, x)
    np.testing.assert_allclose(pictures.masked, x * (1 - mask))
    np.testing.assert_allclose(pictures.reconstruction, np.where(mask, pictures.prediction, x), rtol=1e-6)
    for image, (_, pred, hidden), shown, covered in zip(x, want, np.asarray(pictures.prediction), mask, strict=True):
        pieces = reference.patches(image, 8)
        if normalise:
            pred = pred * np.sqrt(pieces.var(1, ddof=1, keepdims=True) + 1e-6) + pieces.mean(1, keepdims=True)
        np.testing.assert_allclose(reference.patches(shown, 8), pred, atol=1e-4)
        np.testing.assert_array_equal(reference.patches(covered, 8)[:, 0], hidden)


def test_patchify_order_and_inverse() -> None:
    x = images(2, size=24)
    np.testing.assert_array_equal(patchify(jnp.asarray(x), 8), [reference.patches(image, 8) for image in x])
    np.testing.assert_array_equal(unpatchify(patchify(jnp.asarray(x), 8), 8), x)


def test_standardised_targets_have_mean_zero_and_unbiased_variance_one() -> None:
    t = np.asarray(targets(patchify(jnp.asarray(images(1)) * 5 + 2, 8), norm_pix_loss=True))
    np.testing.assert_allclose(t.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(t.var(-1, ddof=1), 1, rtol=1e-5)


def test_masks_keep_an_exact_count_evenly_and_apart() -> None:
    """36 patches, 9 kept, 4,000 images: each patch is kept a quarter of the time, and images do not share masks."""
    keep, masked = random_masking(jax.random.uniform(jax.random.key(0), (4000, 36)), visible=9)
    both = np.sort(np.concatenate([keep, masked], axis=1), axis=1)
    np.testing.assert_array_equal(both, np.tile(np.arange(36), (4000, 1)))
    kept = np.zeros((4000, 36))
    np.put_along_axis(kept, np.asarray(keep), 1.0, axis=1)
    assert (kept.sum(1) == 9).all()
    error = np.sqrt(0.25 * 0.75 / 4000)
    assert np.abs(kept.mean(0) - 0.25).max() < 4 * error
    pairs = np.corrcoef(kept[0::2].ravel(), kept[1::2].ravel())[0, 1]
    assert abs(pairs) < 4 / np.sqrt(kept.size / 2)


@pytest.mark.parametrize(('image_size', 'ratio', 'visible'), [(224, 0.75, 49), (224, 0.85, 29), (96, 0.75, 9), (160, 0.9, 10)])
def test_visible_counts(image_size: int, ratio: float, visible: int) -> None:
    """160 px: 100 patches at .9 leave 10, though 100 * (1 - .9) is 9.999999999999998 in floats."""
    config = MAEConfig(encoder=vit_config('Ti', image_size=image_size), mask_ratio=ratio)
    assert config.visible == visible


# Millions of parameters at 224 px with 1000 classes, as published.
PUBLISHED = [('Ti', 16, 5.7), ('S', 16, 22.1), ('B', 16, 86.6), ('L', 16, 304.3), ('H', 14, 632.0)]


@pytest.mark.parametrize(('size', 'patch', 'millions'), PUBLISHED)
def test_parameter_counts(size: str, patch: int, millions: float) -> None:
    """Without allocating. Learned positions count, as published."""
    config = vit_config(size, patch_size=patch, positions='learned', pool='cls')
    model = nnx.eval_shape(lambda: Classifier(config, outputs=1000, rngs=nnx.Rngs(0)))
    count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model)))
    assert round(count / 1e6, 1) == pytest.approx(millions, abs=0.051 if size != 'H' else 0.1)


def test_models_hold_parameters_and_nothing_else() -> None:
    graph, params, rest = nnx.split(nnx.eval_shape(lambda: MAE(TINY_MAE, rngs=nnx.Rngs(0))), nnx.Param, ...)
    assert not jax.tree.leaves(rest)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize('patch', [14, 16])
def test_any_square_input_that_divides(patch: int) -> None:
    config = ViTConfig(image_size=6 * patch, patch_size=patch, width=16, depth=1, heads=2)
    graph, params = nnx.split(nnx.eval_shape(lambda: Classifier(config, outputs=2, rngs=nnx.Rngs(0))))
    for grid in (1, 3, 8):
        image = jax.ShapeDtypeStruct((2, grid * patch, grid * patch, 3), jnp.float32)
        assert jax.eval_shape(lambda p, x: nnx.merge(graph, p)(x), params, image).shape == (2, 2)


@pytest.mark.parametrize(
    ('config', 'says'),
    [
        ({'image_size': 100}, 'image_size 100 does not divide into patches of 8 px'),
        ({'heads': 5}, 'width 24 does not divide into 5 heads'),
        ({'width': 18}, 'width that divides by 4, not 18'),
        ({'drop_path': 1.0}, 'drop_path 1.0'),
    ],
)
def test_wrong_numbers_are_refused(config: dict, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        call(lambda: Classifier(dataclasses.replace(TINY, **config), outputs=1, rngs=nnx.Rngs(0)), (1, 32, 32, 3))


def call(build: Callable[[], nnx.Module], shape: tuple[int, ...]) -> None:
    """Builds and calls a model on shapes alone."""
    jax.eval_shape(lambda x: build()(x), jax.ShapeDtypeStruct(shape, jnp.float32))


def test_wrong_calls_are_refused() -> None:
    with pytest.raises(UsageError, match='did you mean "S"'):
        vit_config('S1')
    with pytest.raises(UsageError, match='30x32 px do not divide'):
        call(lambda: Classifier(TINY, outputs=1, rngs=nnx.Rngs(0)), (1, 30, 32, 3))
    with pytest.raises(UsageError, match='learned positions are for 32 px'):
        call(lambda: Classifier(dataclasses.replace(TINY, positions='learned'), outputs=1, rngs=nnx.Rngs(0)), (1, 48, 48, 3))
    with pytest.raises(UsageError, match='without key or noise'):
        call(lambda: MAE(TINY_MAE, rngs=nnx.Rngs(0)), (1, 32, 32, 3))
    with pytest.raises(UsageError, match='mask_ratio 1.0'):
        call(lambda: MAE(dataclasses.replace(TINY_MAE, mask_ratio=1.0), rngs=nnx.Rngs(0)), (1, 32, 32, 3))
    for size in VIT_SIZES:
        check(vit_config(size))


def test_starts_as_the_papers_say() -> None:
    """Linear layers Xavier uniform with q, k, v as one matrix, biases zero, tokens normal .02, head 2e-5."""
    config = ViTConfig(image_size=32, patch_size=16, width=256, depth=2, heads=4)
    named = flat_names(jax.jit(lambda: nnx.to_pure_dict(nnx.state(Classifier(config, outputs=40, rngs=nnx.Rngs(0)))))())
    fans = {'patch_embed.proj': (768, 256), 'qkv': (256, 768), 'attn.proj': (256, 256), 'mlp.fc1': (256, 1024), 'mlp.fc2': (1024, 256)}
    for name, (fan_in, fan_out) in fans.items():
        kernel = next(np.asarray(leaf) for key, leaf in named.items() if key.startswith('encoder') and key.endswith(f'{name}.kernel'))
        limit = np.sqrt(6 / (fan_in + fan_out))
        assert limit * 0.999 < np.abs(kernel).max() <= limit
        assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.02)
    blocks = np.asarray(named['encoder.blocks.mlp.fc1.kernel'])
    assert abs(np.corrcoef(blocks[0].ravel(), blocks[1].ravel())[0, 1]) < 0.01  # each block draws its own
    assert np.std(named['encoder.cls_token']) == pytest.approx(0.02, rel=0.2)
    assert not any(np.any(leaf) for name, leaf in named.items() if name.endswith('bias'))
    head = named['head.kernel']
    assert np.abs(head).max() <= 4e-5 and np.std(head) == pytest.approx(2e-5 * 0.88, rel=0.05)  # normal cut at two deviations


def test_bfloat16_stays_close_and_parameters_get_float32_gradients() -> None:
    x = images(2)
    shallow = dataclasses.replace(TINY, depth=1, scan=False)
    _, params = filled(lambda: Classifier(shallow, outputs=3, rngs=nnx.Rngs(0)))

    def value_and_gradient(dtype: str) -> tuple[jax.Array, nnx.State]:
        config = dataclasses.replace(shallow, compute_dtype=dtype)
        graph = nnx.graphdef(nnx.eval_shape(lambda: Classifier(config, outputs=3, rngs=nnx.Rngs(0))))
        return jax.jit(jax.value_and_grad(lambda p: (nnx.merge(graph, p)(x) ** 2).sum()))(params)

    (half, half_gradient), (exact, gradient) = value_and_gradient('bfloat16'), value_and_gradient('float32')
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, exact, rtol=0.05)
    for a, b in zip(jax.tree.leaves(half_gradient), jax.tree.leaves(gradient), strict=True):
        assert a.dtype == jnp.float32
        assert np.linalg.norm(a - b) < 0.1 * np.linalg.norm(b) + 0.01


def test_bfloat16_sums_gradients_in_float32() -> None:
    """257 rows of ones: bfloat16 knows 256 and 258 only."""
    graph, params = filled(lambda: Linear((4,), (2, 3), letters='DNE', rngs=nnx.Rngs(0)))
    rows = jnp.ones((257, 4), jnp.bfloat16)
    gradient = jax.jit(jax.grad(lambda p: nnx.merge(graph, p)(rows).astype(jnp.float32).sum()))(params)
    assert all((leaf == 257).all() for leaf in jax.tree.leaves(gradient))
