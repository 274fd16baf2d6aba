"""From the retina's own coordinates to pixels, and the brushes that everything is drawn with.

Retina coordinates: a right eye as its photograph shows it, x to the nose, y down, in units of the radius of a 45 degree field of
view; (0, 0) is the middle between disc and fovea. Axes of arrays: H W working height and width [px], P points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import cv2
import numpy as np

from retfound_jax.core.random import example_rng

_SHIFT = 4  # OpenCV draws with this many fractional bits


@dataclass(frozen=True, kw_only=True)
class Landmarks:
    """Where disc and fovea lie, in retina coordinates."""

    disc: np.ndarray  # [2]
    fovea: np.ndarray  # [2]
    disc_radius: float  # vertical half axis


@dataclass(frozen=True, kw_only=True)
class Pose:
    """How one photograph looks at the retina, on a square canvas of `size` working pixels."""

    size: int  # [px]
    radius: float  # of the field of view [px]
    matrix: np.ndarray  # [2, 2] retina units to px
    shift: np.ndarray  # [2] px of retina (0, 0)
    cut: float  # half height of the visible band, as a share of `radius`; 1 or more leaves the circle whole

    def pixels(self, points_P2: np.ndarray) -> np.ndarray:
        """Retina coordinates to pixel coordinates [P, 2]."""
        return points_P2 @ self.matrix.T + self.shift

    def grid(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Retina x and y of the pixel centres of a `size` x `size` picture that covers the canvas."""
        step = self.size / size
        axis = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(step) - np.float32(0.5)
        inverse = np.linalg.inv(self.matrix).astype(np.float32)
        u, v = axis - np.float32(self.shift[0]), axis - np.float32(self.shift[1])
        x_HW = inverse[0, 0] * u[None, :] + inverse[0, 1] * v[:, None]
        y_HW = inverse[1, 0] * u[None, :] + inverse[1, 1] * v[:, None]
        return x_HW, y_HW

    def visible(self, points_P2: np.ndarray, *, margin: float = 0.06) -> np.ndarray:
        """Which points lie inside the field of view and the frame, at least `margin` radii from the rim; bool [P]."""
        q = (self.pixels(points_P2) - (self.size - 1) / 2) / self.radius
        frame = self.size / 2 / self.radius
        inside = np.hypot(q[:, 0], q[:, 1]) < 1 - margin
        return inside & (np.abs(q[:, 0]) < frame - margin) & (np.abs(q[:, 1]) < min(frame, self.cut) - margin)

    @cached_property
    def unit(self) -> float:
        """Pixels in one retina unit."""
        return math.sqrt(abs(np.linalg.det(self.matrix)))


class Canvas:
    """One grey layer of the drawing: uint8 [H, W], 0 empty to 255 full."""

    def __init__(self, pose: Pose) -> None:
        self.pose = pose
        self.pixels_HW = np.zeros((pose.size, pose.size), np.uint8)

    def polygon(self, points_P2: np.ndarray, *, value: int = 255) -> None:
        """Fills an outline given in retina coordinates."""
        cv2.fillPoly(self.pixels_HW, [self._fixed(points_P2)], int(value), cv2.LINE_AA, _SHIFT)

    def line(self, points_P2: np.ndarray, *, value: int = 255, thickness: int = 1) -> None:
        """Draws an open line, `thickness` in px."""
        cv2.polylines(self.pixels_HW, [self._fixed(points_P2)], False, int(value), thickness, cv2.LINE_AA, _SHIFT)

    def lines(self, lines: list[np.ndarray], *, value: int = 255, thickness: int = 1) -> None:
        """Draws many open lines of one strength, which is quicker than one by one."""
        if lines:
            fixed = np.split(self._fixed(np.concatenate(lines)), np.cumsum([len(line) for line in lines])[:-1])
            cv2.polylines(self.pixels_HW, fixed, False, int(value), thickness, cv2.LINE_AA, _SHIFT)

    def ribbon(self, points_P2: np.ndarray, half_width_P: np.ndarray, *, value: int = 255) -> None:
        """Fills a band of changing width along a line; OpenCV adds about half a pixel on either side, which is taken off first."""
        tangent = np.empty_like(points_P2)
        tangent[1:-1] = points_P2[2:] - points_P2[:-2]
        tangent[0], tangent[-1] = points_P2[1] - points_P2[0], points_P2[-1] - points_P2[-2]
        scale = np.maximum(half_width_P - 0.45 / self.pose.unit, 0.1 / self.pose.unit) / (np.hypot(tangent[:, 0], tangent[:, 1]) + 1e-9)
        edge = np.stack([-tangent[:, 1] * scale, tangent[:, 0] * scale], axis=1)
        self.polygon(np.concatenate([points_P2 + edge, (points_P2 - edge)[::-1]]), value=value)

    def blurred(self, sigma: float) -> np.ndarray:
        """The layer as float32 0 to 1, blurred by `sigma` [px]."""
        layer = cv2.GaussianBlur(self.pixels_HW, (0, 0), sigma) if sigma > 0.2 else self.pixels_HW
        return cv2.multiply(layer, 1 / 255, dtype=cv2.CV_32F)

    def mask(self, size: int, *, cover: float) -> np.ndarray:
        """The drawn part as bool [size, size]: pixels covered to at least the share `cover`, whatever the strength drawn."""
        full = cv2.threshold(self.pixels_HW, 40, 255, cv2.THRESH_BINARY)[1]
        return cv2.resize(full, (size, size), interpolation=cv2.INTER_AREA) >= 255 * cover

    def _fixed(self, points_P2: np.ndarray) -> np.ndarray:
        return np.round(self.pose.pixels(points_P2) * (1 << _SHIFT)).astype(np.int32)


def ellipse(centre: np.ndarray, half_x: float, half_y: float, *, angle: float = 0.0, points: int = 40) -> np.ndarray:
    """An outline [points, 2] of an ellipse turned by `angle` [radians]."""
    t = np.linspace(0, 2 * np.pi, points, endpoint=False)
    x, y = half_x * np.cos(t), half_y * np.sin(t)
    c, s = math.cos(angle), math.sin(angle)
    return np.stack([centre[0] + c * x - s * y, centre[1] + s * x + c * y], axis=1)


_ROUND = np.linspace(0, 2 * np.pi, 16, endpoint=False)
_COS, _SIN = np.cos(_ROUND), np.sin(_ROUND)
_HARMONICS = np.concatenate([f(k * _ROUND)[None] / w for f in (np.cos, np.sin) for k, w in ((2, 1.0), (3, 1.3), (4, 1.6))])  # [6, 16]


def blob(
    rng: np.random.Generator, centre: np.ndarray, radius: float, *, rough: float, stretch: float = 1.0, angle: float = 0.0
) -> np.ndarray:
    """An irregular closed outline [16, 2]: a circle with a few random harmonics, then stretched along `angle`."""
    r = radius * np.clip(1 + rough * (rng.standard_normal(6) @ _HARMONICS), 0.35, 1.8)
    x, y = r * _COS * stretch, r * _SIN
    c, s = math.cos(angle), math.sin(angle)
    return np.stack([centre[0] + c * x - s * y, centre[1] + s * x + c * y], axis=1)


def cloud(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Smooth noise float32 [size, size] of about unit variance with `cells` random values on a side."""
    seed = rng.standard_normal((cells + 2, cells + 2), dtype=np.float32)
    return cv2.resize(seed, (size, size), interpolation=cv2.INTER_CUBIC)


@lru_cache(maxsize=8)
def _tile(size: int, sigma: float) -> np.ndarray:
    rough = example_rng(0, 0, size).standard_normal((size, size), dtype=np.float32)
    fine = cv2.GaussianBlur(rough, (0, 0), sigma) if sigma > 0 else rough
    return fine / fine.std()


def grain(rng: np.random.Generator, size: int, *, sigma: float) -> np.ndarray:
    """Fine noise float32 [size, size] of unit variance: a random window of one large tile that is made once, which is quick."""
    tile = _tile(max(1024, 2 * size), round(sigma, 2))
    y, x = rng.integers(0, len(tile) - size, 2)
    window = tile[y : y + size, x : x + size]
    return window[::-1] if rng.random() < 0.5 else window


def paint_over(image_HWC: np.ndarray, alpha_HW: np.ndarray, colour_C: np.ndarray) -> None:
    """Blends one colour over the picture, in place, where `alpha_HW` is above zero."""
    x, y, width, height = cv2.boundingRect((alpha_HW > 0).astype(np.uint8))
    patch, alpha = image_HWC[y : y + height, x : x + width], alpha_HW[y : y + height, x : x + width]
    patch += alpha[..., None] * (colour_C - patch)


def spread(maps: list[np.ndarray], weights_CK: np.ndarray) -> np.ndarray:
    """Up to four grey maps weighted into three colours: float32 [H, W, C]."""
    stack = cv2.merge(maps) if len(maps) > 1 else maps[0]
    return cv2.transform(stack, weights_CK.astype(np.float32))
