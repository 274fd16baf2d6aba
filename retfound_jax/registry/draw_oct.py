"""A small OCT B-scan of a macula that does not exist: layers of plausible order and brightness, speckle, and one disease.

Enough to try readers and loaders with, and for a class to be seen; no model of tissue. Axes: H depth and W width [px]; X columns.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from retfound_jax.core.errors import UsageError, nearest
from retfound_jax.core.random import example_rng

LABELS = ('normal', 'drusen', 'cnv', 'dme', 'csr', 'dr', 'hole')
# Lower edge of each layer as a share of the retina's thickness, and its grey level: nerve fibres, ganglion cells, inner plexiform,
# inner nuclear, outer plexiform, outer nuclear, photoreceptors, pigment epithelium.
_LAYERS = ((0.12, 170), (0.28, 105), (0.42, 135), (0.52, 75), (0.60, 125), (0.78, 55), (0.90, 150), (1.0, 215))
_VITREOUS, _CHOROID, _FLUID = 12, 110, 10  # grey levels
_STREAM = 41


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Scan:
    """Where the retina lies, each [X] in px: its inner and its outer surface, and the membrane beneath it."""

    inner: np.ndarray
    outer: np.ndarray
    membrane: np.ndarray


def draw_oct(seed: int, *, label: str, size: tuple[int, int] = (64, 96)) -> np.ndarray:
    """A B-scan through the fovea: uint8 [H, W]; another seed gives another picture.

    label: normal, drusen, cnv (neovascular membrane with fluid), dme (cysts), csr (a dome of fluid below the retina), dr (bright
    spots and a little fluid), hole (of the macula).

    Raises:
      UsageError: the label is none of these, or the picture is smaller than 32 px.
    """
    if label not in LABELS:
        raise UsageError(f'there is no OCT picture of "{label}"{nearest(label, LABELS)}; there are {", ".join(LABELS)}')
    if min(size) < 32:
        raise UsageError(f'an OCT picture of {size[0]} x {size[1]} px is too small to show layers; draw 32 px or more')
    rng = example_rng(seed, _STREAM, LABELS.index(label))
    scan, fovea = _surfaces(rng, label, size)
    picture = _tissue(scan, size)
    _disease(picture, scan, fovea, rng, label)
    return _speckle(picture, rng)


def _surfaces(rng: np.random.Generator, label: str, size: tuple[int, int]) -> tuple[_Scan, float]:
    height, width = size
    x = np.arange(width)
    fovea = width * rng.uniform(0.42, 0.58)
    away = (x - fovea) / width
    membrane = height * (rng.uniform(0.62, 0.72) + rng.uniform(-0.10, 0.10) * away + rng.uniform(0.15, 0.45) * away**2)
    thickness = height * rng.uniform(0.27, 0.33) * (1 - rng.uniform(0.40, 0.60) * np.exp(-((away / 0.09) ** 2)))
    if label == 'dme':
        thickness += height * rng.uniform(0.06, 0.12) * np.exp(-((away / 0.2) ** 2))
    outer = membrane - height * _lift(rng, label, x / width, fovea / width)
    return _Scan(inner=outer - thickness, outer=outer, membrane=membrane), fovea


def _lift(rng: np.random.Generator, label: str, x: np.ndarray, fovea: float) -> np.ndarray:
    """How far the retina is raised from its membrane, as a share of the height."""
    if label == 'drusen':
        places = fovea + rng.uniform(-0.32, 0.32, rng.integers(4, 8))
        return np.max([rng.uniform(0.03, 0.07) * np.exp(-(((x - place) / rng.uniform(0.02, 0.04)) ** 2)) for place in places], axis=0)
    if label == 'cnv':
        return rng.uniform(0.11, 0.16) * np.exp(-(((x - fovea - rng.uniform(-0.08, 0.08)) / rng.uniform(0.10, 0.16)) ** 2))
    if label == 'csr':
        return rng.uniform(0.12, 0.18) * np.clip(1 - ((x - fovea) / rng.uniform(0.2, 0.3)) ** 2, 0, None)
    return np.zeros_like(x)


def _tissue(scan: _Scan, size: tuple[int, int]) -> np.ndarray:
    """Vitreous, layers and choroid: float32 [H, W]."""
    y = np.arange(size[0])[:, None]
    picture = np.full(size, _VITREOUS, np.float32)
    depth = (y - scan.inner) / (scan.outer - scan.inner)
    upper = 0.0
    for lower, grey in _LAYERS:
        picture[(depth >= upper) & (depth < lower)] = grey
        upper = lower
    below = y - scan.membrane
    picture = np.where(below >= 0, _CHOROID * np.exp(-np.clip(below, 0, None) / (0.10 * size[0])) + _VITREOUS, picture)
    return np.where((below >= 0) & (below < 0.025 * size[0]), 225, picture).astype(np.float32)


def _disease(picture: np.ndarray, scan: _Scan, fovea: float, rng: np.random.Generator, label: str) -> None:
    height, width = picture.shape
    y, x = np.mgrid[:height, :width]
    between = (y > scan.outer) & (y < scan.membrane)  # the room below a raised retina
    picture[between] = {'drusen': 140, 'cnv': 165, 'csr': _FLUID}.get(label, _CHOROID)
    cysts = {'dme': rng.integers(5, 9), 'cnv': 2, 'dr': 1}.get(label, 0)
    for _ in range(cysts):
        column = int(np.clip(fovea + width * rng.uniform(-0.2, 0.2), 0, width - 1))
        row = scan.inner[column] + rng.uniform(0.35, 0.7) * (scan.outer[column] - scan.inner[column])
        radius_y, radius_x = height * rng.uniform(0.025, 0.06), width * rng.uniform(0.015, 0.035)
        picture[((y - row) / radius_y) ** 2 + ((x - column) / radius_x) ** 2 < 1] = _FLUID
    for _ in range(rng.integers(8, 14) if label == 'dr' else 0):
        column = int(rng.uniform(0.05, 0.95) * width)
        row = scan.inner[column] + rng.uniform(0.3, 0.7) * (scan.outer[column] - scan.inner[column])
        picture[(np.abs(y - row) < 1.5) & (np.abs(x - column) < 1.5)] = 240
    if label == 'hole':
        half = width * rng.uniform(0.04, 0.07) * (0.7 + 0.6 * np.abs((y - scan.inner) / (scan.outer - scan.inner) - 0.5))
        picture[(np.abs(x - fovea) < half) & (y < scan.membrane)] = _VITREOUS


def _speckle(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Multiplies by noise of the gamma family, as averaged speckle is, and blurs by less than a pixel."""
    noisy = picture * rng.gamma(6.0, 1 / 6.0, picture.shape).astype(np.float32) + rng.normal(0, 3, picture.shape).astype(np.float32)
    return np.clip(cv2.GaussianBlur(noisy, (0, 0), 0.7), 0, 255).astype(np.uint8)
