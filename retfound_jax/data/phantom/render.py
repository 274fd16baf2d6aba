"""One photograph of the phantom with the truth about it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from retfound_jax.core.errors import UsageError
from retfound_jax.core.random import example_rng
from retfound_jax.data.phantom import draw_camera, draw_fundus, draw_lesions, draw_vessels
from retfound_jax.data.phantom.config import PhantomConfig, Stream, later
from retfound_jax.data.phantom.draw_canvas import Canvas, Landmarks, Pose, ellipse, paint_over, spread
from retfound_jax.data.phantom.draw_fundus import Disc
from retfound_jax.data.phantom.draw_lesions import KINDS, Severity
from retfound_jax.data.phantom.draw_vessels import ARTERY, VEIN, Vessel
from retfound_jax.data.phantom.patient import Eye, Patient, draw_patient, marked, visits_of, who
from retfound_jax.data.phantom.planted import Look, looks
from retfound_jax.data.phantom.progress import Visit, new_lesions
from retfound_jax.data.phantom.sites import SiteStyle

MASKS = ('fov', 'disc', 'cup', 'fovea', 'macula', 'artery', 'vein', *KINDS)
_LEVELS = 5  # of strength, for vessels thinner than a pixel
_FOVEA, _MACULA = 0.066, 0.243  # radii of the fovea (1.5 mm across) and the macula (5.5 mm) in retina units (1 = 6.2 mm)
# Optical density of blood for red, green and blue; the columns of one 3 x 4 matrix for each group of four layers.
_FLOW = ('vein', 'artery', 'new_vessel', 'irma')
_FLOW_DENSITY = np.array([[0.30, 0.09, 0.14, 0.16], [0.74, 0.50, 0.66, 0.56], [0.50, 0.37, 0.46, 0.40]], np.float32)
_LEAK = ('haemorrhage', 'microaneurysm')
_LEAK_DENSITY = np.array([[0.42, 0.26], [1.00, 0.80], [0.62, 0.52]], np.float32)
_GLINT = np.array([[0.12], [0.20], [0.15]], np.float32)
_PALE = {  # colour, opacity and blur [px at 384] of what is brighter than the retina
    'drusen': (np.array([0.94, 0.75, 0.40], np.float32), 0.58, 1.7),
    'exudate': (np.array([1.02, 0.93, 0.58], np.float32), 0.92, 0.7),
    'cotton_wool': (np.array([0.92, 0.84, 0.68], np.float32), 0.66, 3.2),
}
_DARK = np.array([0.15, 0.03, 0.01], np.float32)  # of pale lesions that are planted the other way round
_BLUE = np.array([0.25, 0.40, 0.90], np.float32)  # and of those planted in another colour


@dataclass(frozen=True, kw_only=True)
class Photograph:
    """A drawn photograph; `masks` are bool [H, W], one for each name in `MASKS`."""

    image: np.ndarray  # uint8 [H, W, 3], red green blue
    masks: dict[str, np.ndarray]
    patient: Patient
    laterality: str
    labels: dict[str, float]
    severity: Severity
    visit: Visit


@dataclass(frozen=True, kw_only=True)
class _Chance:
    """The generators of one visit of one eye, by kind: anew at each visit, or those of the eye for what stays."""

    seed: int
    source: int  # the eye
    visit: int = 0

    def __call__(self, kind: Stream) -> np.random.Generator:
        return example_rng(self.seed, later(kind, self.visit), self.source)


def draw_eye(config: PhantomConfig, index: int, *, lesions: bool = True) -> Photograph:
    """Draws photograph `index` ((2 x patient + eye) x visits + visit, right eye first): a pure function of its arguments.

    With `lesions=False` the same eye is drawn without lesions; the labels still tell the truth about the eye. At each visit of an eye
    the camera is set anew; vessels, disc and pigment are the same, and lesions lie where they lay, with new ones among them.

    Raises:
      UsageError: there is no such photograph.
    """
    if not 0 <= index < 2 * config.patients * config.visits:
        what, count = 'eye' if config.visits == 1 else 'photograph', 2 * config.patients * config.visits
        raise UsageError(f'there is no {what} {index}: the phantom has {what}s 0 to {count - 1}')
    number, now = divmod(index, config.visits)
    patient = draw_patient(config, number // 2)
    eye, visits = patient.eyes[number % 2], visits_of(config, patient, number % 2)
    at = visits[now]
    chance = _Chance(seed=config.seed, source=2 * patient.source + number % 2)
    camera = replace(chance, visit=now)

    marks = _landmarks(chance(Stream.EYE), eye)
    poses = [
        draw_camera.aim(draw(Stream.POSE), patient.site, marks, size=_working_size(config.image_size), laterality=eye.laterality)
        for draw in (chance, camera)
    ]
    layers = {name: Canvas(poses[1]) for name in MASKS if name != 'fov'}
    disc = draw_fundus.shape_disc(chance(Stream.DISC), marks, cup_to_disc=eye.cup_to_disc, glaucoma=eye.glaucoma, age=patient.age)
    disc = draw_fundus.grow_cup(disc, cup_to_disc=at.cup_to_disc) if now else disc
    _outline(layers, marks, disc)
    vessels = draw_vessels.grow(chance(Stream.VESSELS), marks, tortuosity=eye.tortuosity)
    if lesions:
        vessels = draw_vessels.bead(vessels, marks, quadrants=at.severity.beaded_quadrants)
        _lesions(layers, poses[0], marks, visits[: now + 1], chance, amd=eye.amd, age=patient.age)
    reflex = _vessels(layers, vessels, poses[1])
    patient = _aged(config, patient, years=at.years) if now else patient
    labels = _labels(replace(eye, dr_grade=at.dr_grade, cup_to_disc=at.cup_to_disc))
    visible = looks(config.visibility, who=who(patient))
    scene = _compose(_scene(patient, poses[1], marks, disc, chance), layers, reflex, visible)
    style = patient.site
    if config.shortcut and marked(config, patient, side=number % 2, visit=now, label=int(labels[config.shortcut.label])):
        style = config.shortcut.on(style)
    image, inside = _photograph(scene, config, patient, style, poses[1], camera, eye=number)
    shown = {'laterality': eye.laterality, 'labels': labels, 'severity': at.severity, 'visit': at}
    return Photograph(image=image, masks=_masks(layers, inside), patient=patient, **shown)


def _lesions(
    layers: dict[str, Canvas], pose: Pose, marks: Landmarks, visits: tuple[Visit, ...], chance: _Chance, *, amd: int, age: float
) -> None:
    """Those of the first visit, then what came with each later one; `pose` is the first visit's, so that nothing ever moves."""
    draw_lesions.paint(layers, pose, marks, visits[0].severity, chance, amd=amd, age=age)
    for before, now in zip(visits, visits[1:], strict=False):
        new, more = new_lesions(now.severity, before.severity), now.drusen - before.drusen
        draw_lesions.paint(layers, pose, marks, new, replace(chance, visit=now.number), amd=amd, age=age, drusen=more)


def _aged(config: PhantomConfig, patient: Patient, *, years: float) -> Patient:
    """The same person later: the lens yellows on."""
    older = patient.age + years
    lens = 0.5 * (((older - 20) / 70) ** 2 - ((patient.age - 20) / 70) ** 2)
    return replace(patient, age=older, haze=float(np.clip(patient.haze + config.lens_ageing * lens, 0.0, 1.0)))


def _labels(eye: Eye) -> dict[str, float]:
    return {
        'dr_grade': eye.dr_grade,
        'referable_dr': int(eye.dr_grade >= 2),
        'glaucoma': eye.glaucoma,
        'amd': eye.amd,
        'cup_to_disc': eye.cup_to_disc,
    }


def _working_size(image_size: int) -> int:
    """Drawn at one and a half times the size and never below 256 px, so that fine vessels survive; a multiple of 8."""
    return max(256, -(-3 * image_size // 16) * 8)


def _landmarks(rng: np.random.Generator, eye: Eye) -> Landmarks:
    rng.standard_normal(6)  # those of patient.py, from the same stream
    apart, drop = np.clip(rng.normal(0.78, 0.03), 0.70, 0.86), rng.normal(0.11, 0.03)
    return Landmarks(disc=np.array([apart / 2, -drop / 2]), fovea=np.array([-apart / 2, drop / 2]), disc_radius=eye.disc_radius)


def _outline(layers: dict[str, Canvas], marks: Landmarks, disc: Disc) -> None:
    layers['disc'].polygon(ellipse(disc.centre, disc.half_x, disc.half_y, points=72))
    layers['cup'].polygon(ellipse(disc.cup_centre, disc.cup_half_x, disc.cup_half_y, points=72))
    layers['fovea'].polygon(ellipse(marks.fovea, _FOVEA, _FOVEA))
    layers['macula'].polygon(ellipse(marks.fovea, _MACULA, _MACULA))


def _vessels(layers: dict[str, Canvas], vessels: list[Vessel], pose: Pose) -> Canvas:
    """Draws thin before thick; returns the layer of the bright line along the middle of the wider ones."""
    reflex = Canvas(pose)
    for kind, name, shine in ((VEIN, 'vein', 80), (ARTERY, 'artery', 220)):
        family = sorted((v for v in vessels if v.kind == kind and len(v.points_P2) > 1), key=lambda v: v.width)
        thin = [v for v in family if v.width * pose.unit < 0.75]
        for level in range(_LEVELS):  # lines thinner than the brush are drawn fainter instead
            lines = [v.points_P2 for v in thin if min(_LEVELS - 1, int(v.width * pose.unit / 0.75 * _LEVELS)) == level]
            layers[name].lines(lines, value=50 + 130 * (level + 1) // _LEVELS)
        for vessel in family[len(thin) :]:
            half_px, depth = vessel.width * pose.unit, min(1.0, 0.48 + 0.52 * (vessel.width / 0.008) ** 0.8)
            layers[name].ribbon(vessel.points_P2, vessel.half_width_P, value=int(255 * depth))
            if half_px > 0.95:
                reflex.line(vessel.points_P2, value=int(shine * min(1.0, half_px / 1.4)), thickness=2 if half_px > 2.2 else 1)
    return reflex


def _scene(patient: Patient, pose: Pose, marks: Landmarks, disc: Disc, chance: draw_lesions.Chance) -> np.ndarray:
    """Everything that lies under the vessels: float32 [H, W, C]."""
    texture = chance(Stream.TEXTURE)
    scene = draw_fundus.ground(
        pose,
        marks,
        pigment=patient.pigment,
        tessellation=patient.tessellation,
        choroid=chance(Stream.CHOROID),
        texture=texture,
    )
    layer = draw_fundus.sheen(pose, marks, texture, age=patient.age)
    scene += spread([layer], np.array([[0.060], [0.075], [0.050]]) * (0.6 + 0.7 * patient.pigment))
    outline, strength = draw_fundus.foveal_reflex(marks, texture, age=patient.age)
    glint = Canvas(pose)
    glint.polygon(outline)
    paint_over(scene, glint.blurred(1.2 * pose.size / 384) * np.float32(0.45 * strength), np.array([1.0, 0.95, 0.85], np.float32))
    draw_fundus.paint_disc(scene, pose, disc, chance(Stream.DISC), pigment=patient.pigment)
    return scene


def _compose(scene: np.ndarray, layers: dict[str, Canvas], reflex: Canvas, visible: dict[str, Look]) -> np.ndarray:
    """Lays pale lesions, then blood, over the scene; `visible` has how a layer shows where it is not as usual (planted.Visibility)."""
    unit = scene.shape[0] / 384
    for name, (colour, opacity, blur) in _PALE.items():
        look = visible.get(name, Look())
        if layers[name].pixels_HW.any() and look.strength:
            alpha = layers[name].blurred(blur * unit) * np.float32(opacity * abs(look.strength))
            paint_over(scene, alpha, _DARK if look.strength < 0 else _BLUE if look.blue else colour)
    density = _weigh([layers[name] for name in _FLOW], _scaled(_FLOW_DENSITY, _FLOW, visible), blur=0.75 * unit)
    density -= _weigh([reflex], _GLINT, blur=0.6 * unit)
    if any(layers[name].pixels_HW.any() for name in _LEAK):
        density += _weigh([layers[name] for name in _LEAK], _scaled(_LEAK_DENSITY, _LEAK, visible), blur=0.8 * unit)
    return cv2.multiply(scene, cv2.exp(-density))


def _scaled(density_CK: np.ndarray, names: tuple[str, ...], visible: dict[str, Look]) -> np.ndarray:
    """The optical density of each layer as it shows."""
    if not visible:
        return density_CK
    seen = [visible.get(name, Look()) for name in names]
    columns = [one.strength * (density_C[[1, 0, 2]] if one.blue else density_C) for one, density_C in zip(seen, density_CK.T, strict=True)]
    return np.stack(columns, axis=1).astype(np.float32)


def _weigh(layers: list[Canvas], weights: np.ndarray, *, blur: float) -> np.ndarray:
    """Blurred layers summed into three colours: float32 [H, W, C]."""
    stack = cv2.GaussianBlur(cv2.merge([layer.pixels_HW for layer in layers]), (0, 0), blur)
    return spread([stack.astype(np.float32)], weights / np.float32(255))


def _photograph(
    scene: np.ndarray, config: PhantomConfig, patient: Patient, style: SiteStyle, pose: Pose, chance: _Chance, *, eye: int
) -> tuple[np.ndarray, np.ndarray]:
    """The scene as a camera takes it: uint8 [size, size, 3], and how far each pixel lies inside the field."""
    camera, size = chance(Stream.CAMERA), config.image_size
    scene = draw_camera.expose(scene, draw_camera.light(camera, style, pose, haze=patient.haze))
    image = draw_camera.develop(scene, style, camera, size=size, haze=patient.haze)
    inside = draw_camera.field_of_view(pose, style, size)
    # A near duplicate differs in its noise and its JPEG, so that stream belongs to the number of the eye and not to whose eye it is.
    return draw_camera.finish(image, inside, style, replace(chance, source=eye)(Stream.NOISE)), inside


def _masks(layers: dict[str, Canvas], inside_HW: np.ndarray) -> dict[str, np.ndarray]:
    """A structure holds the pixels it covers to nearly one half; a lesion those it covers to a quarter, as the least are hardly wider."""
    fov = inside_HW >= 0.5
    cover = {name: 0.25 if name in KINDS else 0.45 for name in layers}
    return {'fov': fov, **{name: layer.mask(len(fov), cover=cover[name]) & fov for name, layer in layers.items()}}
