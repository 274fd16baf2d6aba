"""RandAugment (Cubuk et al., arXiv 1909.13719) in the variant that RETFound fine-tunes with: timm's `rand-m9-mstd0.5-inc1`.

Two operations drawn from fifteen with replacement, each applied half of the time; the magnitude is normal around the given one with
deviation 0.5 and clipped to 0..10; "inc1" means that every operation grows more severe with the magnitude.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

_LAYERS = 2
_PROBABILITY = 0.5
_DEVIATION = 0.5
_TOP = 10.0  # magnitudes are tenths of the strongest setting


@dataclass(frozen=True, kw_only=True)
class _Draw:
    """What one operation may use: how strong (0 to 1), which sign, and the colour of pixels from outside."""

    level: float
    sign: int
    fill: tuple[int, int, int]


Operation = Callable[[Image.Image, _Draw], Image.Image]


def rand_augment(image_HWC: np.ndarray, *, rng: np.random.Generator, magnitude: float, fill: tuple[int, int, int]) -> np.ndarray:
    """Augments a uint8 [H, W, 3] image; `fill` colours what a geometric operation brings in from outside."""
    image = Image.fromarray(image_HWC)
    for choice in rng.integers(len(OPERATIONS), size=_LAYERS):
        apply, level, sign = rng.random() < _PROBABILITY, rng.normal(magnitude, _DEVIATION), 1 if rng.random() < 0.5 else -1
        if apply:
            draw = _Draw(level=float(np.clip(level, 0.0, _TOP)) / _TOP, sign=sign, fill=fill)
            image = list(OPERATIONS.values())[choice](image, draw)
    return np.asarray(image)


def _affine(image: Image.Image, draw: _Draw, *, matrix: tuple[float, ...]) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BICUBIC, fillcolor=draw.fill)


def _rotate(image: Image.Image, draw: _Draw) -> Image.Image:
    return image.rotate(draw.sign * draw.level * 30.0, resample=Image.Resampling.BICUBIC, fillcolor=draw.fill)


def _shear_x(image: Image.Image, draw: _Draw) -> Image.Image:
    return _affine(image, draw, matrix=(1, draw.sign * draw.level * 0.3, 0, 0, 1, 0))


def _shear_y(image: Image.Image, draw: _Draw) -> Image.Image:
    return _affine(image, draw, matrix=(1, 0, 0, draw.sign * draw.level * 0.3, 1, 0))


def _translate_x(image: Image.Image, draw: _Draw) -> Image.Image:
    return _affine(image, draw, matrix=(1, 0, draw.sign * draw.level * 0.45 * image.width, 0, 1, 0))


def _translate_y(image: Image.Image, draw: _Draw) -> Image.Image:
    return _affine(image, draw, matrix=(1, 0, 0, 0, 1, draw.sign * draw.level * 0.45 * image.height))


def _posterize(image: Image.Image, draw: _Draw) -> Image.Image:
    bits = 4 - int(draw.level * 4)
    return ImageOps.posterize(image, bits) if bits else Image.new(image.mode, image.size)


def _solarize(image: Image.Image, draw: _Draw) -> Image.Image:
    return ImageOps.solarize(image, 256 - min(256, int(draw.level * 256)))


def _solarize_add(image: Image.Image, draw: _Draw) -> Image.Image:
    """Brightens the darker half of the scale."""
    add = min(128, int(draw.level * 110))
    table = [min(255, value + add) if value < 128 else value for value in range(256)]
    return image.point(table * 3)


def _enhance(kind: type) -> Operation:
    def operation(image: Image.Image, draw: _Draw) -> Image.Image:
        return kind(image).enhance(max(0.1, 1.0 + draw.sign * draw.level * 0.9))

    return operation


OPERATIONS: dict[str, Operation] = {
    'auto_contrast': lambda image, draw: ImageOps.autocontrast(image),
    'equalize': lambda image, draw: ImageOps.equalize(image),
    'invert': lambda image, draw: ImageOps.invert(image),
    'rotate': _rotate,
    'posterize': _posterize,
    'solarize': _solarize,
    'solarize_add': _solarize_add,
    'color': _enhance(ImageEnhance.Color),
    'contrast': _enhance(ImageEnhance.Contrast),
    'brightness': _enhance(ImageEnhance.Brightness),
    'sharpness': _enhance(ImageEnhance.Sharpness),
    'shear_x': _shear_x,
    'shear_y': _shear_y,
    'translate_x': _translate_x,
    'translate_y': _translate_y,
}
