"""The ground of the picture: pigment, choroid, macula, nerve fibre sheen and the optic disc.

Light is modelled as reflectance times absorption (Beer-Lambert): maps of optical density are added, weighted for red, green and blue,
and the exponential of the sum is the colour. Axes: H W working height and width [px], C colours (red, green, blue).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np

from retfound_jax.data.phantom.draw_canvas import Canvas, Landmarks, Pose, cloud, ellipse, grain, spread

_BLOND = np.log(np.array([0.80, 0.46, 0.27], np.float32))  # reflectance of a fundus with next to no melanin
_BROWN = np.log(np.array([0.46, 0.245, 0.115], np.float32))  # and of a densely pigmented one
_MACULA = np.array([0.22, 0.34, 0.36], np.float32)  # density of the pigment of the macula and of the taller pigment cells there
_FOVEOLA = np.array([0.34, 0.46, 0.26], np.float32)
_CHOROID = np.array([0.23, 0.24, 0.11], np.float32)  # how much lighter a choroidal vessel is than the pigment between
_FIBRES = np.array([0.10, 0.20, 0.22], np.float32)  # how much paler the thick nerve fibres around the disc make it
_FINE = np.array([0.016, 0.024, 0.026], np.float32)  # the grain of the pigment epithelium
_GRANULAR = np.array([0.014, 0.020, 0.016], np.float32)
_MOTTLE = np.array([0.9, 1.1, 1.0], np.float32)


@dataclass(frozen=True, kw_only=True)
class Disc:
    """The shape of the optic disc and its cup, in retina coordinates."""

    centre: np.ndarray
    half_x: float
    half_y: float
    cup_centre: np.ndarray
    cup_half_x: float
    cup_half_y: float
    temporal: np.ndarray  # unit vector to the fovea
    crescent: float  # width of the pale crescent at the temporal rim, as a share of the radius
    pallor: float  # 0 usual to 1 pale


def shape_disc(rng: np.random.Generator, marks: Landmarks, *, cup_to_disc: float, glaucoma: int, age: float) -> Disc:
    """Draws the proportions; the vertical ones are given exactly by `cup_to_disc`."""
    axis = marks.fovea - marks.disc
    temporal = axis / np.hypot(*axis)
    half_y, aspect = marks.disc_radius, float(np.clip(rng.normal(0.925, 0.035), 0.82, 1.0))
    half_x = half_y * aspect
    # Glaucoma takes the rim above and below first, so its cup is a little taller than wide.
    cup_aspect = float(np.clip(rng.normal(0.93 if glaucoma else 1.02, 0.05), 0.8, 1.12))
    cup_half_y = half_y * cup_to_disc
    cup_half_x = min(half_x * cup_to_disc * cup_aspect, 0.93 * half_x)
    offset_x = (half_x - cup_half_x) * rng.uniform(0.02, 0.28)
    offset_y = (half_y - cup_half_y) * rng.normal(0.05, 0.12) if cup_to_disc < 0.85 else 0.0
    return Disc(
        centre=marks.disc,
        half_x=half_x,
        half_y=half_y,
        cup_centre=marks.disc + np.array([np.sign(temporal[0]) * offset_x, offset_y]),
        cup_half_x=cup_half_x,
        cup_half_y=cup_half_y,
        temporal=temporal,
        crescent=float(max(0.0, rng.normal(0.02 + 0.10 * glaucoma + 0.0015 * (age - 50), 0.09))),
        pallor=float(np.clip(rng.normal(0.25 + 0.25 * glaucoma, 0.15), 0, 1)),
    )


def grow_cup(disc: Disc, *, cup_to_disc: float) -> Disc:
    """The same disc with a larger cup: what rim is left keeps its proportions all around."""
    half_y = disc.half_y * cup_to_disc
    half_x = min(disc.cup_half_x * half_y / disc.cup_half_y, 0.93 * disc.half_x)
    left = np.array([(disc.half_x - half_x) / (disc.half_x - disc.cup_half_x), (disc.half_y - half_y) / (disc.half_y - disc.cup_half_y)])
    centre = disc.centre + (disc.cup_centre - disc.centre) * left
    return dataclasses.replace(disc, cup_half_y=half_y, cup_half_x=half_x, cup_centre=centre)


def ground(
    pose: Pose, marks: Landmarks, *, pigment: float, tessellation: float, choroid: np.random.Generator, texture: np.random.Generator
) -> np.ndarray:
    """Reflectance of the retina without disc, vessels or lesions: float32 [H, W, C]."""
    coarse = pose.size // 4
    x_HW, y_HW = pose.grid(coarse)
    from_fovea = (x_HW - float(marks.fovea[0])) ** 2 + (y_HW - float(marks.fovea[1])) ** 2
    tone = _BLOND + (_BROWN - _BLOND) * np.float32(pigment)
    mottle = 0.050 * cloud(texture, coarse, 5) + 0.035 * cloud(texture, coarse, 11) + 0.022 * cloud(texture, coarse, 26)
    macula = np.exp(-from_fovea / np.float32(2 * texture.uniform(0.15, 0.21) ** 2)) * np.float32(texture.uniform(0.7, 1.25))
    foveola = np.exp(-from_fovea / np.float32(2 * texture.uniform(0.038, 0.055) ** 2)) * np.float32(texture.uniform(0.6, 1.2))
    hue = 0.05 * cloud(texture, coarse, 4)  # slow drift of colour between red and yellow
    log_HWC = tone - macula[..., None] * _MACULA - foveola[..., None] * _FOVEOLA + mottle[..., None] * _MOTTLE
    log_HWC[..., 1] += hue
    # The nerve fibre layer is thickest at the disc, and makes the retina around it paler.
    from_disc = (x_HW - float(marks.disc[0])) ** 2 + (y_HW - float(marks.disc[1])) ** 2
    pale = np.exp(-from_disc / np.float32(2 * texture.uniform(0.22, 0.36) ** 2)) * np.float32(texture.gamma(3.0, 0.25))
    log_HWC += pale[..., None] * _FIBRES
    log_HWC = cv2.resize(log_HWC, (pose.size, pose.size), interpolation=cv2.INTER_LINEAR)
    net = _choroid(pose, marks, choroid, tessellation=tessellation)
    fine = grain(texture, pose.size, sigma=1.0 * pose.size / 384)
    coarse_grain = grain(texture, pose.size, sigma=2.4 * pose.size / 384)
    log_HWC += spread([net, fine, coarse_grain], np.column_stack([_CHOROID, _FINE, _GRANULAR]))
    return cv2.exp(log_HWC)


def _choroid(pose: Pose, marks: Landmarks, rng: np.random.Generator, *, tessellation: float) -> np.ndarray:
    """The net of choroidal vessels as it shows through the pigment epithelium: float32 [H, W], about zero on average."""
    canvas, count, steps = Canvas(pose), 150, 13
    pole = 0.45 * marks.disc + 0.55 * marks.fovea + rng.normal(0, 0.05, 2)
    angle, reach = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.uniform(0.02, 1.0, count)) * 1.05
    position = pole + np.stack([reach * np.cos(angle), 0.9 * reach * np.sin(angle)], axis=1)
    heading = np.arctan2(*(position - pole).T[::-1]) + rng.normal(0, 0.35, count)
    path = [position]
    for _ in range(steps):
        aim = np.arctan2(*(position - pole).T[::-1])
        heading = heading + 0.25 * np.angle(np.exp(1j * (aim - heading))) + rng.normal(0, 0.26, count)
        position = position + 0.05 * np.stack([np.cos(heading), np.sin(heading)], axis=1)
        path.append(position)
    path_NT2 = np.stack(path, axis=1)
    for brush in range(12):  # a brush is one thickness and one strength
        width, value = 0.016 + 0.006 * (brush % 4), 135 + 55 * (brush // 4)
        canvas.lines(list(path_NT2[brush::12]), value=value, thickness=max(1, round(width * pose.unit)))
    net = canvas.blurred((2.2 - 1.0 * tessellation) * pose.size / 384)
    coarse = pose.size // 8
    x_HW, y_HW = pose.grid(coarse)
    veiled = np.exp(-((x_HW - float(marks.fovea[0])) ** 2 + (y_HW - float(marks.fovea[1])) ** 2) / np.float32(2 * 0.28**2))
    # The pigment epithelium is thickest behind the macula and thins below and to the nose.
    window = (1 - 0.85 * veiled) * np.clip(0.75 + 0.3 * cloud(rng, coarse, 4) + 0.25 * y_HW, 0.1, 1.5)
    window = cv2.resize(window.astype(np.float32), (pose.size, pose.size), interpolation=cv2.INTER_LINEAR)
    return (net - np.float32(0.45)) * window * np.float32(0.10 + 1.25 * tessellation)


def sheen(pose: Pose, marks: Landmarks, rng: np.random.Generator, *, age: float) -> np.ndarray:
    """Light thrown back by the nerve fibre layer: fine arcs that leave the disc, strongest above and below it and in the young; [H, W]."""
    size = pose.size // 2
    x_HW, y_HW = pose.grid(size)
    dx, dy = x_HW - float(marks.disc[0]), y_HW - float(marks.disc[1])
    r = np.sqrt(dx * dx + dy * dy)
    bend = np.float32(0.9) * r * np.sign(dy) * (dx < 0)  # fibres arch around the macula
    angle = np.arctan2(dy, dx) + bend * np.abs(dy) / (r + np.float32(1e-3))
    fibres = cv2.GaussianBlur(rng.standard_normal((1, 720)).astype(np.float32), (0, 0), 1.2)[0] * np.float32(1.6)
    index = ((angle + np.float32(2 * np.pi)) * np.float32(720 / (2 * np.pi))).astype(np.int32) % 720
    streaks = fibres[index]
    poles = (dy / (r + np.float32(1e-3))) ** 2
    envelope = np.exp(-((r - np.float32(0.20)) ** 2) / np.float32(2 * 0.21**2)) * (np.float32(0.28) + np.float32(0.72) * poles)
    youth = float(np.clip(1.25 - age / 75, 0.22, 1.0)) * rng.uniform(0.6, 1.3)
    layer = envelope * (1 + np.float32(0.33) * streaks) * np.float32(youth)
    return cv2.resize(layer.astype(np.float32), (pose.size, pose.size), interpolation=cv2.INTER_LINEAR)


def foveal_reflex(marks: Landmarks, rng: np.random.Generator, *, age: float) -> tuple[np.ndarray, float]:
    """A young fovea throws back a bright dot, a young macula a faint ring: an outline to fill, and its strength 0 to 1."""
    strength = float(np.clip(rng.normal(0.75 - age / 65, 0.15), 0, 0.7))
    centre = marks.fovea + rng.normal(0, 0.008, 2)
    return ellipse(centre, 0.012 * rng.uniform(0.7, 1.4), 0.010 * rng.uniform(0.7, 1.4)), strength


def paint_disc(image_HWC: np.ndarray, pose: Pose, disc: Disc, rng: np.random.Generator, *, pigment: float) -> None:
    """Lays the disc over the ground, in place: orange rim, paler to the temple, bright cup, and the crescent around it."""
    box = _box(pose, disc.centre, 2.0 * disc.half_y)
    x_HW, y_HW = (grid[box] for grid in pose.grid(pose.size))
    dx, dy = x_HW - float(disc.centre[0]), y_HW - float(disc.centre[1])
    q = np.sqrt((dx / disc.half_x) ** 2 + (dy / disc.half_y) ** 2)
    aside = (dx * float(disc.temporal[0]) + dy * float(disc.temporal[1])) / disc.half_y  # +1 at the temporal rim
    cup = np.sqrt(((x_HW - float(disc.cup_centre[0])) / disc.cup_half_x) ** 2 + ((y_HW - float(disc.cup_centre[1])) / disc.cup_half_y) ** 2)
    soft = 0.06 + 0.6 / (disc.half_y * pose.unit)
    patch = image_HWC[box]
    _surround(patch, q, aside, disc, pigment=pigment, soft=soft)
    lit = np.float32(0.86 + 0.10 * rng.random())
    rim = np.array([0.95, 0.55, 0.32], np.float32)
    pale = np.array([1.00, 0.75, 0.47], np.float32)
    deep = np.array([1.06, 0.96, 0.74], np.float32)
    shade = np.clip(0.30 + 0.42 * aside + 0.35 * disc.pallor, 0, 1)[..., None].astype(np.float32)
    colour = rim + (pale - rim) * shade
    inside = _step(cup, 1.0, 0.13 + soft)[..., None]
    glow = np.exp(-((cup / 0.8) ** 2))[..., None].astype(np.float32)
    colour += (deep - colour) * inside * (np.float32(0.72) + np.float32(0.28) * glow)
    fine = grain(rng, pose.size, sigma=1.8 * pose.size / 384)[box]
    colour *= lit * (1 + np.float32(0.03) * fine[..., None])
    patch += (colour - patch) * _step(q, 1.0, soft)[..., None]


def _surround(patch: np.ndarray, q: np.ndarray, aside: np.ndarray, disc: Disc, *, pigment: float, soft: float) -> None:
    """The pale crescent of bared sclera at the temporal side, a thin dark pigment line, and light scattered by the disc."""
    edge = 1 + disc.crescent * np.clip(aside, 0, 1)
    bared = _step(q, edge, soft)[..., None] * np.float32(min(1.0, 12 * disc.crescent) * 0.55)
    patch += (np.array([0.88, 0.66, 0.44], np.float32) - patch) * bared
    line = np.exp(-(((q - edge - 0.03) / 0.05) ** 2)) * np.clip(0.35 + 0.65 * aside, 0, 1)
    patch *= 1 - np.float32(0.22 * pigment) * line[..., None].astype(np.float32)
    halo = np.exp(-np.clip(q - 1, 0, None) / 0.28)[..., None].astype(np.float32) * _step(q, 1.75, 0.2)[..., None]
    patch *= 1 + halo * np.array([0.10, 0.16, 0.14], np.float32)


def _step(value: np.ndarray, edge: np.ndarray | float, width: float) -> np.ndarray:
    """1 below `edge`, 0 above, smooth over +-`width`."""
    t = np.clip((edge - value) / (2 * width) + 0.5, 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def _box(pose: Pose, centre: np.ndarray, reach: float) -> tuple[slice, slice]:
    x, y = pose.pixels(centre[None])[0]
    r = reach * pose.unit
    span = [slice(max(0, int(v - r)), max(0, min(pose.size, int(v + r) + 1))) for v in (y, x)]
    return span[0], span[1]
