"""A few numbers that tell a sharp, well-lit photograph from a blurred or dark one. They describe; nothing is thrown away by them."""
from __future__ import annotations

import cv2
import numpy as np

from retfound_jax.ingest.fov import Fov

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
    factor = min(1.0, _SIDE / (2 * fov.radius if fov else max(pixels.shape[:2])))
    small = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    inside = _inside(small.shape[:2], fov=fov and fov.scaled(factor))
    green = small[:, :, 1].astype(np.float32)
    mean = float(green[inside].mean())
    slow = cv2.GaussianBlur(green, (0, 0), _SIDE / 16)
    return {
        'sharpness': float(cv2.Laplacian(green, cv2.CV_32F)[inside].std()) / max(mean, 1.0),
        'brightness': mean / 255,
        'contrast': float((green - slow)[inside].std()) / 255,
        'saturated': float((small.max(axis=2) >= 250)[inside].mean()),
        'dark': float((small.max(axis=2) < 20)[inside].mean()),
    }


def _inside(shape: tuple[int, int], *, fov: Fov | None) -> np.ndarray:
    if fov is None:
        return np.ones(shape, bool)
    yy, xx = np.ogrid[:shape[0], :shape[1]]
    return np.hypot(xx - fov.cx, yy - fov.cy) < _RING * fov.radius
