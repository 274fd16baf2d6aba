"""Random views of whole images, made on the device: crop, colour jitter, greyscale, blur, solarisation, flip.

The operations are torchvision's on floats, in one fixed order: crop and resize (antialiased bicubic), brightness, contrast, saturation,
hue, greyscale, blur, solarisation; torchvision draws the order of the four of colour anew each time. Nothing is rounded to whole
brightnesses in between. Colours lie in planes [C, S, S] while they are worked on, which a processor does several times faster than with
the three values of a pixel side by side.

B batch, G global views, K local views, H W sides of the canvas, S T sides of a view [px], C channels (red, green, blue).
Colours are 0 to 1 until the end.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from retfound_jax.data.views_config import ViewsConfig

_RATIO = (3 / 4, 4 / 3)  # of width to height of a crop
_TRIES = 10
_GREY = (0.299, 0.587, 0.114)  # brightness of red, green and blue (ITU-R 601)
_HALF = 0.5  # where solarisation begins
_KEYS = -0.5  # the parameter of the cubic, as in Pillow
_TAILS = 4  # [deviations] of the Gaussian that are summed on either side


def make_views(
    image_BHWC: jax.Array,
    *,
    key: jax.Array,
    config: ViewsConfig,
    size: int,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> dict[str, jax.Array]:
    """Normalised float32 views: `image` [B, G, S, S, C], S = `size`, and with `config.local_views` also `local` [B, K, s, s, C].

    Image i draws from `fold_in(key, i)` and its view v from `fold_in` of that with v, local views after the global ones. So the result is
    the same on any number of devices, and more local views do not change the others.

    Args:
      image_BHWC: uint8, square.
      mean, std: of each channel on a scale of 0 to 1.
    """
    wide = _Kind(size=size, scale=config.global_scale, blur=config.blur, solarize=config.solarize)
    small = _Kind(size=config.local_size, scale=config.local_scale, blur=(config.local_blur,), solarize=(0.0,))
    kinds = {'image': (wide, 0, config.global_views), 'local': (small, config.global_views, config.local_views)}

    def one(image_HWC: jax.Array, index: jax.Array) -> dict[str, jax.Array]:
        own, image_HWC = jax.random.fold_in(key, index), image_HWC.astype(jnp.float32) / 255
        made = {}
        for name, (kind, first, count) in kinds.items():
            if count:
                keys = jax.vmap(lambda v: jax.random.fold_in(own, v))(first + jnp.arange(count))
                chances = _each(kind.blur, count), _each(kind.solarize, count)
                made[name] = jax.vmap(lambda *drawn, kind=kind: _view(image_HWC, *drawn, kind=kind, config=config))(keys, *chances)
        return made

    views = jax.vmap(one)(image_BHWC, jnp.arange(len(image_BHWC)))  # each [B, views, C, S, S]
    return {name: (jnp.moveaxis(x, 2, -1) - jnp.asarray(mean)) / jnp.asarray(std) for name, x in views.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Kind:
    """What views of one size are made with; probabilities are those of each view, the last one also of those beyond."""

    size: int
    scale: tuple[float, float]
    blur: tuple[float, ...]
    solarize: tuple[float, ...]


def _each(probabilities: tuple[float, ...], count: int) -> jax.Array:
    return jnp.asarray([probabilities[min(view, len(probabilities) - 1)] for view in range(count)])


def _view(
    image_HWC: jax.Array, key: jax.Array, blur_chance: jax.Array, solar_chance: jax.Array, *, kind: _Kind, config: ViewsConfig
) -> jax.Array:
    """One view [C, S, S]."""
    box_key, flip_key, colour_key, grey_key, blur_key, solar_key = jax.random.split(key, 6)
    box = random_box(box_key, side=len(image_HWC), scale=kind.scale)
    image = crop_resize(image_HWC, box_4=box, size=kind.size, mirrored=jax.random.bernoulli(flip_key, config.flip))
    if any(config.jitter) and config.jitter_probability:
        do_key, draw_key = jax.random.split(colour_key)
        drawn_4 = _draw_jitter(draw_key, strengths=config.jitter)
        image = jnp.where(jax.random.bernoulli(do_key, config.jitter_probability), jitter(image, drawn_4=drawn_4), image)
    if config.grey:
        image = jnp.where(jax.random.bernoulli(grey_key, config.grey), _brightness(image), image)
    if any(kind.blur):
        do_key, draw_key = jax.random.split(blur_key)
        low, high = config.blur_sigma
        sigma = jax.random.uniform(draw_key, minval=low, maxval=high)
        radius = min(math.ceil(_TAILS * high), kind.size - 1)
        image = jnp.where(jax.random.bernoulli(do_key, blur_chance), blur(image, sigma=sigma, radius=radius), image)
    if any(kind.solarize):
        inverted = jnp.where(image >= _HALF, 1 - image, image)
        image = jnp.where(jax.random.bernoulli(solar_key, solar_chance), inverted, image)
    return image


def random_box(key: jax.Array, *, side: int, scale: tuple[float, float]) -> jax.Array:
    """The region of a random resized crop of a square, as torchvision draws it: float32 [4], whole numbers: top, left, height, width.

    Share of the area uniform in `scale`, ratio of width to height log-uniform from 3/4 to 4/3; the first of ten that fits, else the whole.
    """
    area_key, ratio_key, place_key = jax.random.split(key, 3)
    area = side**2 * jax.random.uniform(area_key, (_TRIES,), minval=scale[0], maxval=scale[1])
    ratio = jnp.exp(jax.random.uniform(ratio_key, (_TRIES,), minval=math.log(_RATIO[0]), maxval=math.log(_RATIO[1])))
    wide, tall = jnp.round(jnp.sqrt(area * ratio)), jnp.round(jnp.sqrt(area / ratio))
    fits = (0 < wide) & (wide <= side) & (0 < tall) & (tall <= side)
    first = jnp.argmax(fits)
    extent = jnp.where(fits.any(), jnp.stack([tall[first], wide[first]]), float(side))
    corner = jnp.floor(jax.random.uniform(place_key, (2,)) * (side - extent + 1))
    return jnp.concatenate([jnp.minimum(corner, side - extent), extent])


def crop_resize(image_HWC: jax.Array, *, box_4: jax.Array, size: int, mirrored: jax.Array | bool = False) -> jax.Array:
    """The region (top, left, height, width) resized to [C, S, S] by an antialiased bicubic, what leaves 0 to 1 clipped; perhaps mirrored.

    As two matrix products, which every device does well: each row of a matrix holds the weights of one pixel of the result.
    """
    rows_SH = resize_weights(start=box_4[0], extent=box_4[2], side=image_HWC.shape[0], size=size)
    columns_SW = resize_weights(start=box_4[1], extent=box_4[3], side=image_HWC.shape[1], size=size)
    columns_SW = jnp.where(mirrored, columns_SW[::-1], columns_SW)
    high = jax.lax.Precision.HIGH
    tall_CSW = jnp.einsum('SH,HWC->CSW', rows_SH, image_HWC, precision=high)
    return jnp.clip(jnp.einsum('TW,CSW->CST', columns_SW, tall_CSW, precision=high), 0, 1)


def resize_weights(*, start: jax.Array, extent: jax.Array, side: int, size: int) -> jax.Array:
    """Weights [size, side] of Pillow's bicubic for the pixels from `start` over `extent`, as if the rest were cut off."""
    ratio = extent / size  # [px] of the source for one of the result
    stretch = jnp.maximum(ratio, 1)  # antialiasing: the kernel covers what a pixel covers
    centre_S = start + (jnp.arange(size) + 0.5) * ratio
    pixel_H = jnp.arange(side) + 0.5
    away_SH = jnp.abs(pixel_H - centre_S[:, None]) / stretch
    near = ((_KEYS + 2) * away_SH - (_KEYS + 3)) * away_SH**2 + 1
    far = _KEYS * (((away_SH - 5) * away_SH + 8) * away_SH - 4)
    weights_SH = jnp.where(away_SH < 1, near, jnp.where(away_SH < 2, far, 0))
    weights_SH = jnp.where((pixel_H > start) & (pixel_H < start + extent), weights_SH, 0)
    return weights_SH / weights_SH.sum(1, keepdims=True)


def _draw_jitter(key: jax.Array, *, strengths: tuple[float, float, float, float]) -> jax.Array:
    """Factors of brightness, contrast and saturation from 1 - s (not below 0) to 1 + s, and a shift of the hue in turns: float32 [4]."""
    low = jnp.asarray([*(max(0.0, 1 - strength) for strength in strengths[:3]), -strengths[3]])
    high = jnp.asarray([*(1 + strength for strength in strengths[:3]), strengths[3]])
    return jax.random.uniform(key, (4,), minval=low, maxval=high)


def jitter(image_CHW: jax.Array, *, drawn_4: jax.Array) -> jax.Array:
    """Brightness, contrast and saturation by factors, then the hue turned by a share of the circle."""
    image = jnp.clip(image_CHW * drawn_4[0], 0, 1)
    image = _blended(image, _brightness(image).mean(), factor=drawn_4[1])
    image = _blended(image, _brightness(image), factor=drawn_4[2])
    return _turn_hue(image, turns=drawn_4[3])


def _brightness(image_CHW: jax.Array) -> jax.Array:
    """[1, H, W]."""
    return sum(plane * share for plane, share in zip(image_CHW, _GREY, strict=True))[None]


def _blended(image: jax.Array, other: jax.Array, *, factor: jax.Array) -> jax.Array:
    return jnp.clip(factor * image + (1 - factor) * other, 0, 1)


def _turn_hue(image_CHW: jax.Array, *, turns: jax.Array) -> jax.Array:
    """The hue of HSV turned, saturation and value kept."""
    red, green, blue = image_CHW
    value, least = image_CHW.max(0), image_CHW.min(0)
    chroma = value - least
    over = 1 / jnp.where(chroma > 0, chroma, 1)
    sixths = jnp.where(
        value == red, (green - blue) * over, jnp.where(value == green, 2 + (blue - red) * over, 4 + (red - green) * over)
    )
    sixths = sixths + 6 * turns
    # A channel is `value` within a sixth of its own hue, `least` beyond two sixths, and linear between.
    made = []
    for offset in (5.0, 3.0, 1.0):
        place = offset + sixths
        place = place - 6 * jnp.floor(place / 6)  # jnp.mod calls the C library for each value
        made.append(value - chroma * jnp.clip(jnp.minimum(place, 4 - place), 0, 1))
    return jnp.stack(made)


def blur(image_CHW: jax.Array, *, sigma: jax.Array, radius: int) -> jax.Array:
    """A Gaussian of deviation `sigma` [px] over 2 radius + 1 pixels each way, a square image mirrored at its edges; radius < S.

    As two matrix products, like `crop_resize`: a sum over shifted images is no faster on a CPU and far slower on what multiplies matrices.
    """
    side = image_CHW.shape[1]
    one_S1, other_1S = jnp.arange(side)[:, None], jnp.arange(side)[None]

    def taps(away: jax.Array) -> jax.Array:
        return jnp.where(jnp.abs(away) <= radius, jnp.exp(-0.5 * (away / sigma) ** 2), 0)

    # A pixel counts for itself and for its images beyond either edge, which itself is not doubled.
    before_SS = jnp.where(other_1S > 0, taps(one_S1 + other_1S), 0)
    after_SS = jnp.where(other_1S < side - 1, taps(2 * (side - 1) - one_S1 - other_1S), 0)
    weights_SS = taps(one_S1 - other_1S) + before_SS + after_SS
    weights_SS = weights_SS / weights_SS.sum(1, keepdims=True)
    high = jax.lax.Precision.HIGH
    tall_CSW = jnp.einsum('SH,CHW->CSW', weights_SS, image_CHW, precision=high)
    return jnp.einsum('TW,CSW->CST', weights_SS, tall_CSW, precision=high)
