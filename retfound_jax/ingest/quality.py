"""A few numbers that tell a sharp, well-lit photograph from a blurred or dark one. They describe; nothing is thrown away by them."""
from __future__ import annotations

import cv2
import numpy as np

from retfound_jax.ingest.fov import Fov, crop_square

_SIDE = 256  # [px]; numbers of differently sized pictures compare only at one size
_RING = 0.9  # of the radius: the rim's edge is no detail of the retina


def measure(pixels: np.ndarray, fov: Fov | None) -> dict[str, float]:
    """Of uint8 RGB [height, width, 3], inside the field of view (the whole picture where there is none):

    sharpness: standard deviation of the Laplacian of the green channel over its mean, as detail scales with light
    brightness: mean of the green channel, 0 to 1
    contrast: standard deviation of the green channel after the light's slow change is taken out, 0 to 1
    saturated: share of pixels with a channel at 250 or more
    dark: share of pixels whose brightest channel is under 20
    """
    square = pixels if fov is None else crop_square(pixels, fov, modality='')
    factor = min(1.0, _SIDE / max(square.shape[:2]))
    square = cv2.resize(square, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    inside = _inside(square.shape[:2], whole=fov is None)
    green = square[:, :, 1].astype(np.float32)
    mean = float(green[inside].mean())
    slow = cv2.GaussianBlur(green, (0, 0), _SIDE / 16)
    return {
        'sharpness': float(cv2.Laplacian(green, cv2.CV_32F)[inside].std()) / max(mean, 1.0),
        'brightness': mean / 255,
        'contrast': float((green - slow)[inside].std()) / 255,
        'saturated': float((square.max(axis=2) >= 250)[inside].mean()),
        'dark': float((square.max(axis=2) < 20)[inside].mean()),
    }


def _inside(shape: tuple[int, int], *, whole: bool) -> np.ndarray:
    if whole:
        return np.ones(shape, bool)
    yy, xx = np.ogrid[:shape[0], :shape[1]]
    return np.hypot(xx - (shape[1] - 1) / 2, yy - (shape[0] - 1) / 2) < _RING * min(shape) / 2
