"""What the camera adds: pose, light, veil, blur, sharpening, tone, noise, the shape of the field, JPEG.

Axes: H W height and width [px], C colours (red, green, blue).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from retfound_jax.data.phantom.draw_canvas import Landmarks, Pose, cloud, grain
from retfound_jax.data.phantom.sites import SiteStyle


def aim(rng: np.random.Generator, style: SiteStyle, marks: Landmarks, *, size: int, laterality: str) -> Pose:
    """Chooses where the camera looks; a left eye is the mirror image of a right one."""
    mirror = 1.0 if laterality == 'R' else -1.0
    target = marks.fovea if style.centre >= 0 else marks.disc
    middle = 0.5 * (marks.fovea + marks.disc)
    centre = middle + abs(style.centre) * (target - middle) + rng.normal(0, (0.055, 0.04))
    radius = size * {'circle': 0.485, 'cut': 0.49, 'overfill': 0.545}[style.crop] * rng.uniform(0.985, 1.0)
    scale = radius / (style.field * np.exp(rng.normal(0, 0.025)))
    turn = math.radians(rng.normal(0, 2.5))
    c, s = math.cos(turn), math.sin(turn)
    matrix = scale * np.array([[c, -s], [s, c]]) @ np.diag([mirror, 1.0])
    shift = np.full(2, (size - 1) / 2) - matrix @ centre
    cut = rng.uniform(0.84, 0.90) if style.crop == 'cut' else 2.0
    return Pose(size=size, radius=float(radius), matrix=matrix, shift=shift, cut=float(cut))


@dataclass(frozen=True, kw_only=True)
class Light:
    """What lies between retina and sensor, at a quarter of the working size: float32 [H, W, C]."""

    gain_HWC: np.ndarray  # multiplies the light of the retina
    veil_HWC: np.ndarray  # is added to it


def light(rng: np.random.Generator, style: SiteStyle, pose: Pose, *, haze: float) -> Light:
    """Uneven flash, vignetting, pale flare at the rim, specks of dust, and the veil of an old lens."""
    size = pose.size // 4
    axis = (np.arange(size, dtype=np.float32) - (size - 1) / 2) * np.float32(pose.size / size / pose.radius)
    u, v = axis[None, :], axis[:, None]
    r2 = u * u + v * v
    tilt = rng.normal(0, 0.13, 2).tolist()
    hot = rng.normal(0, 0.25, 2).tolist()
    gain = 1 - style.vignette * np.float32(rng.uniform(0.6, 1.5)) * r2 + tilt[0] * u + tilt[1] * v
    gain = gain + 0.22 * rng.random() * np.exp(-((u - hot[0]) ** 2 + (v - hot[1]) ** 2) / 0.5) + 0.035 * cloud(rng, size, 3)
    side = rng.uniform(0, 2 * np.pi)
    lean = 0.5 + 0.5 * (math.cos(side) * u + math.sin(side) * v)
    rim = np.exp((np.sqrt(r2) - 1) / 0.085) * (r2 < 1.1) * np.clip(lean * 1.5, 0.15, 1.5)
    strength = style.flare * rng.gamma(1.2, 0.9)
    veil = (rim * strength)[..., None] * np.array([0.62, 0.72, 0.50], np.float32)
    veil = veil + (0.24 * haze * (1 + 0.3 * cloud(rng, size, 3)))[..., None] * np.array([0.60, 0.52, 0.33], np.float32)
    for _ in range(rng.poisson(style.dust)):
        spot, width = rng.uniform(-0.75, 0.75, 2).tolist(), rng.uniform(0.02, 0.05)
        glow = np.exp(-((((u - spot[0]) ** 2 + (v - spot[1]) ** 2) / width**2) ** 2))
        veil = veil + (0.16 * rng.random() * glow)[..., None] * np.array([0.9, 0.9, 1.0], np.float32)
    # An old lens passes less blue, then less green.
    lens = np.array([1 - 0.06 * haze, 1 - 0.17 * haze, 1 - 0.50 * haze], np.float32)
    gain = np.maximum(gain, 0.12)[..., None] * ((1 - 0.22 * haze) * lens)
    return Light(gain_HWC=gain.astype(np.float32), veil_HWC=(veil * lens).astype(np.float32))


def expose(image_HWC: np.ndarray, lamp: Light) -> np.ndarray:
    """Light on the retina, then the veil in front of it."""
    size = (image_HWC.shape[1], image_HWC.shape[0])
    lit = cv2.multiply(image_HWC, cv2.resize(lamp.gain_HWC, size, interpolation=cv2.INTER_LINEAR))
    return cv2.add(lit, cv2.resize(lamp.veil_HWC, size, interpolation=cv2.INTER_LINEAR))


def field_of_view(pose: Pose, style: SiteStyle, size: int) -> np.ndarray:
    """How much of each of `size` x `size` pixels lies inside the field, 0 to 1, float32 [H, W]; the notch counts as inside."""
    scale = size / pose.size
    radius = pose.radius * scale
    axis = np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)
    u, v = axis[None, :], axis[:, None]
    inside = np.clip(radius - np.sqrt(u * u + v * v) + 0.5, 0, 1)
    if style.notch:
        tab = 0.042 * radius
        at = 0.7071 * (radius + 0.1 * tab)
        inside = np.maximum(inside, np.clip(tab - np.sqrt((u - at) ** 2 + (v + at) ** 2) + 0.5, 0, 1))
    return inside * np.clip(pose.cut * radius - np.abs(v) + 0.5, 0, 1)


def develop(image_HWC: np.ndarray, style: SiteStyle, rng: np.random.Generator, *, size: int, haze: float) -> np.ndarray:
    """Working picture to the camera's own tones: float32 [size, size, C], 0 to 255, before noise and frame."""
    blur = (style.softness * math.exp(rng.normal(0, 0.4)) + 0.9 * haze) * size / 256
    work = image_HWC.shape[0] / size
    if blur * work > 0.3:
        image_HWC = cv2.GaussianBlur(image_HWC, (0, 0), blur * work)
    image = cv2.resize(image_HWC, (size, size), interpolation=cv2.INTER_AREA)
    if style.sharpening:
        soft = cv2.GaussianBlur(image, (0, 0), 1.6 * size / 256)
        image = cv2.addWeighted(image, 1 + style.sharpening, soft, -style.sharpening, 0)
    saturation = style.saturation * math.exp(rng.normal(0, 0.05))
    gains = np.array(style.cast) * np.exp(rng.normal(0, (0.04, 0.06, 0.16))) * math.exp(rng.normal(0.0, 0.16))
    mix = saturation * np.eye(3) + (1 - saturation) * np.array([0.30, 0.55, 0.15])
    image = cv2.max(cv2.transform(image, (gains[:, None] * mix).astype(np.float32)), 1e-4)
    # A soft shoulder: bright things roll off toward white as a sensor's tone curve lets them, instead of clipping.
    bright = image > 0.75
    image[bright] = 0.75 + 0.25 * np.tanh((image[bright] - np.float32(0.75)) * np.float32(4))
    return cv2.pow(image, style.gamma) * np.float32(255)


def finish(image_HWC: np.ndarray, inside_HW: np.ndarray, style: SiteStyle, rng: np.random.Generator) -> np.ndarray:
    """Noise, the black frame and the camera's JPEG: uint8 [H, W, C]."""
    size = image_HWC.shape[0]
    noise = cv2.merge([grain(rng, size, sigma=0.6) for _ in range(3)])
    image = cv2.scaleAdd(noise, style.noise, image_HWC)
    inside = cv2.merge([inside_HW] * 3)
    pixels = cv2.convertScaleAbs(cv2.max(cv2.multiply(image - np.float32(style.border), inside), -style.border), beta=style.border)
    quality = int(np.clip(style.jpeg_quality + rng.integers(-4, 5), 30, 98))
    _, data = cv2.imencode('.jpg', pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])
