"""What is done to a batch on the device: flip, normalisation, random erasing; or views.

B batch, H W image height and width [px], C channels.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from retfound_jax.data.config import DataConfig
from retfound_jax.data.views import make_views

_AREA = (0.02, 1 / 3)  # of the image
_ASPECT = (0.3, 1 / 0.3)
_TRIES = 10
_FIXED_SEED = 0  # of the views of deterministic calls: any constant serves, as long as it never changes


def prepare_batch(batch: Mapping[str, jax.Array], *, key: jax.Array | None, config: DataConfig) -> dict[str, jax.Array]:
    """A batch as a task takes it: its `image` by `prepare`, or with `config.views` `image` and `local` by `make_views`.

    key: of the step; None for evaluation, which has fixed views, others for each place in the batch.
    """
    if config.views is None:
        return {**batch, 'image': prepare(batch['image'], key=key, config=config)}
    key = jax.random.key(_FIXED_SEED) if key is None else key
    given = {'size': config.image_size, 'mean': config.mean, 'std': config.std}
    return {**batch, **make_views(batch['image'], key=key, config=config.views, **given)}


def prepare(image_BHWC: jax.Array, *, key: jax.Array | None, config: DataConfig, dtype: jnp.dtype = jnp.float32) -> jax.Array:
    """uint8 images to normalised ones; with a key also the random flip (where the host has not made it) and erasing.

    Image i draws from `fold_in(key, i)`, i its place in the global batch, so the result is the same on any number of devices.

    Args:
      image_BHWC: uint8.
      key: of the step; None for evaluation.

    Returns:
      [B, H, W, C] of `dtype`; the arithmetic is float32.
    """
    scale, shift = 255.0 * jnp.asarray(config.std), 255.0 * jnp.asarray(config.mean)
    if key is None:
        return ((image_BHWC.astype(jnp.float32) - shift) / scale).astype(dtype)
    flips = config.augment != 'none' and not config.flips_on_host

    def one(image_HWC: jax.Array, index: jax.Array) -> jax.Array:
        flip_key, erase_key = jax.random.split(jax.random.fold_in(key, index))
        if config.pairs:  # a flip makes a left eye of a right one: both of a pair or neither
            flip_key = jax.random.split(jax.random.fold_in(key, index - index % 2))[0]
        if flips:
            image_HWC = jnp.where(jax.random.bernoulli(flip_key), image_HWC[:, ::-1], image_HWC)
        image_HWC = (image_HWC.astype(jnp.float32) - shift) / scale
        return (_erase(image_HWC, key=erase_key, probability=config.random_erasing) if config.random_erasing else image_HWC).astype(dtype)

    return jax.vmap(one)(image_BHWC, jnp.arange(image_BHWC.shape[0]))


def _erase(image_HWC: jax.Array, *, key: jax.Array, probability: float) -> jax.Array:
    """Random erasing in pixel mode (Zhong et al., arXiv 1708.04896): one rectangle of standard normal noise.

    Area and aspect are drawn up to ten times until the rectangle is smaller than the image; all ten are drawn at once here.
    """
    height, width, _ = image_HWC.shape
    area_key, aspect_key, place_key, noise_key, do_key = jax.random.split(key, 5)
    area = jax.random.uniform(area_key, (_TRIES,), minval=_AREA[0], maxval=_AREA[1]) * (height * width)
    aspect = jnp.exp(jax.random.uniform(aspect_key, (_TRIES,), minval=jnp.log(_ASPECT[0]), maxval=jnp.log(_ASPECT[1])))
    tall, wide = jnp.round(jnp.sqrt(area * aspect)), jnp.round(jnp.sqrt(area / aspect))
    fits = (tall < height) & (wide < width)
    first = jnp.argmax(fits)
    tall, wide = tall[first], wide[first]
    place = jax.random.uniform(place_key, (2,))
    top, left = jnp.floor(place[0] * (height - tall + 1)), jnp.floor(place[1] * (width - wide + 1))
    rows, columns = jnp.arange(height)[:, None, None], jnp.arange(width)[None, :, None]
    inside = (rows >= top) & (rows < top + tall) & (columns >= left) & (columns < left + wide)
    chosen = inside & fits.any() & jax.random.bernoulli(do_key, probability)
    return jnp.where(chosen, jax.random.normal(noise_key, image_HWC.shape), image_HWC)
