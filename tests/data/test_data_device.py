"""The last steps of a batch: normalisation exactly, flip and erasing by count."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from retfound_jax.data.config import DataConfig
from retfound_jax.data.device import prepare as prepare_eagerly

prepare = jax.jit(prepare_eagerly, static_argnames=('config', 'dtype'))  # one compilation for each test instead of one for each operation

IMAGES = np.random.default_rng(0).integers(0, 256, (64, 12, 12, 3), np.uint8)


def normal(images: np.ndarray, config: DataConfig) -> np.ndarray:
    """Normalised by NumPy in float64."""
    return (images / 255 - np.array(config.mean)) / np.array(config.std)


def test_without_a_key_only_normalisation() -> None:
    config = DataConfig(random_erasing=1.0)
    found = prepare(IMAGES, key=None, config=config)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, normal(IMAGES, config), atol=2e-6)


def test_each_image_is_flipped_or_not() -> None:
    config = DataConfig()
    found = np.asarray(prepare(IMAGES, key=jax.random.key(0), config=config))
    plain, mirrored = normal(IMAGES, config), normal(IMAGES[:, :, ::-1], config)
    flips = [np.allclose(image, mirror, atol=1e-5) for image, mirror in zip(found, mirrored, strict=True)]
    stays = [np.allclose(image, same, atol=1e-5) for image, same in zip(found, plain, strict=True)]
    assert all(a != b for a, b in zip(flips, stays, strict=True))
    assert 16 < sum(flips) < 48
    for other in (DataConfig(augment='none'), DataConfig(randaugment=9.0)):  # the second is flipped before, on the host
        np.testing.assert_allclose(prepare(IMAGES, key=jax.random.key(0), config=other), plain, atol=2e-6)


def test_an_image_depends_on_its_place_and_not_on_the_rest_of_the_batch() -> None:
    config = DataConfig(random_erasing=0.5)
    key = jax.random.key(3)
    whole = np.asarray(prepare(IMAGES, key=key, config=config))
    others = np.concatenate([IMAGES[:10], 255 - IMAGES[10:]])  # of the same shape: compiled once
    assert (np.asarray(prepare(others, key=key, config=config))[:10] == whole[:10]).all()


def test_half_precision_is_the_rounded_single_precision() -> None:
    config = DataConfig()
    single = prepare(IMAGES, key=jax.random.key(1), config=config)
    half = prepare(IMAGES, key=jax.random.key(1), config=config, dtype=jnp.bfloat16)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), single, rtol=2**-8, atol=1e-6)


def test_erasing_fills_one_rectangle_with_noise() -> None:
    count, side, probability = 300, 32, 0.7
    config = DataConfig(augment='none', random_erasing=probability)
    images = np.full((count, side, side, 3), 128, np.uint8)
    found = np.asarray(prepare(images, key=jax.random.key(5), config=config))
    changed = (np.abs(found - normal(images[:1], config)) > 1e-4).any(-1)
    erased = changed.any((1, 2))
    expected = count * probability
    assert abs(erased.sum() - expected) <= 4 * np.sqrt(expected * (1 - probability))
    shares, logs = [], []
    for mask in changed[erased]:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() > 0.99  # a full rectangle, noise may hit the old value
        shares.append(len(rows) * len(columns) / side**2)
        logs.append(np.log(len(rows) / len(columns)))
    assert 0.01 < min(shares) and max(shares) < 0.36
    assert abs(np.mean(shares) - (0.02 + 1 / 3) / 2) < 0.05
    assert abs(np.mean(logs)) < 0.25 and np.abs(logs).max() < np.log(1 / 0.3) + 0.4
    noise = found[changed]
    assert abs(noise.mean()) < 0.05 and abs(noise.std() - 1) < 0.05
