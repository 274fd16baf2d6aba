"""One encoded image to one square of pixels, for training and for evaluation.

Both speak torchvision's language (`RandomResizedCrop`, `Resize`, `CenterCrop`), since published recipes do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from retfound_jax.data.config import DataConfig
from retfound_jax.data.decode import Encoded, open_image
from retfound_jax.data.randaugment import rand_augment

_RATIO = (3 / 4, 4 / 3)
_TRIES = 10
# Beyond this shrinking the four taps of OpenCV's cubic skip pixels and alias; area averaging is then nearer to an antialiased cubic.
_CUBIC_UP_TO = 1.25


@dataclass(frozen=True, kw_only=True)
class Box:
    """A region of an image [px]."""

    top: int
    left: int
    height: int
    width: int


def train_image(
    data: bytes | np.ndarray, *, rng: np.random.Generator, config: DataConfig, out: np.ndarray | None = None
) -> np.ndarray:
    """Decodes, crops, resizes and augments one image: uint8 [S, S, 3]. Without RandAugment the flip comes later, on the device.

    With `config.views` nothing is drawn: the central square, all of the image that is made into views on the device.

    Args:
      out: uint8 [S, S, 3], its rows contiguous, to write into and to return.

    Raises:
      DecodeFailure: the image cannot be decoded.
    """
    if config.views is not None:
        encoded = open_image(data)
        return crop_resize(encoded, box=_square(height=encoded.height, width=encoded.width), size=config.views.canvas, out=out)
    if config.augment == 'none':
        image = eval_image(data, size=config.image_size, share=config.central_share)
    else:
        encoded = open_image(data)
        box = random_box(rng, height=encoded.height, width=encoded.width, scale=config.crop_scale)
        image = crop_resize(encoded, box=box, size=config.image_size, out=out)
    if config.flips_on_host and rng.random() < 0.5:
        image = image[:, ::-1]
    if config.randaugment:
        fill = tuple(min(255, round(255 * value)) for value in config.mean)
        image = rand_augment(image, rng=rng, magnitude=config.randaugment, fill=fill)
    if out is None or image is out:
        return image
    out[...] = image
    return out


def random_box(
    rng: np.random.Generator, *, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float] = _RATIO
) -> Box:
    """Draws the region of a random resized crop, with the semantics of torchvision.

    Share of the area uniform in `scale`, ratio of width to height log-uniform in `ratio`; after ten regions that do not fit, the
    largest central one whose ratio does.
    """
    logs = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(_TRIES):  # `random` and arithmetic: `uniform` draws the same numbers at four times the cost
        area = height * width * (scale[0] + (scale[1] - scale[0]) * rng.random())
        aspect = math.exp(logs[0] + (logs[1] - logs[0]) * rng.random())
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return Box(top=int(rng.integers(height - h + 1)), left=int(rng.integers(width - w + 1)), height=h, width=w)
    return _central_box(height=height, width=width, ratio=ratio)


def _central_box(*, height: int, width: int, ratio: tuple[float, float]) -> Box:
    given = width / height
    if given < ratio[0]:
        h, w = max(1, round(width / ratio[0])), width
    elif given > ratio[1]:
        h, w = height, max(1, round(height * ratio[1]))
    else:
        h, w = height, width
    return Box(top=(height - h) // 2, left=(width - w) // 2, height=h, width=w)


def _square(*, height: int, width: int) -> Box:
    side = min(height, width)
    return Box(top=(height - side) // 2, left=(width - side) // 2, height=side, width=side)


def crop_resize(image: Encoded, *, box: Box, size: int, out: np.ndarray | None = None) -> np.ndarray:
    """The region resized to uint8 [size, size, 3] (into `out`, if given); decoded at a half, quarter or eighth where twice as large.

    The corners of a reduced region are rounded to its pixels, a shift of at most half a pixel of the result.
    """
    r = image.reduction_for(height=box.height, width=box.width, size=size)
    pixels = image.pixels(reduction=r, borrow=True)
    top, left = round(box.top / r), round(box.left / r)
    bottom, right = round((box.top + box.height) / r), round((box.left + box.width) / r)
    return resize(pixels[top:bottom, left:right], size=size, out=out)


def resize(pixels_HWC: np.ndarray, *, size: int, out: np.ndarray | None = None) -> np.ndarray:
    """uint8 [H, W, 3] to [size, size, 3]: cubic where it grows or hardly shrinks, area averages where it shrinks. Never a view."""
    method = interpolation(max(pixels_HWC.shape[:2]) / size)
    made = cv2.resize(pixels_HWC, (size, size), dst=out, interpolation=method)
    return made if out is None else out


def interpolation(shrink: float) -> int:
    """OpenCV's number for the interpolation that divides the longer side by `shrink`."""
    return cv2.INTER_CUBIC if shrink <= _CUBIC_UP_TO else cv2.INTER_AREA


def eval_image(data: bytes | np.ndarray, *, size: int, share: float) -> np.ndarray:
    """Shorter side to `size / share` by Pillow's bicubic, then the central square: uint8 [size, size, 3].

    The same pixels as torchvision's `Resize` and `CenterCrop` on a Pillow image, so published numbers can be met exactly.

    Raises:
      DecodeFailure: the image cannot be decoded.
    """
    pixels = open_image(data).pixels()
    height, width = pixels.shape[:2]
    short = int(size / share)
    if height <= width:
        height, width = short, int(short * width / height)
    else:
        height, width = int(short * height / width), short
    if (height, width) != pixels.shape[:2]:
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
    top, left = round((height - size) / 2), round((width - size) / 2)
    return pixels[top : top + size, left : left + size]
