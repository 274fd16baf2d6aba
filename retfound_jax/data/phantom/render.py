"""One photograph of the phantom with the truth about it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from retfound_jax.core.errors import UsageError
from retfound_jax.core.random import example_rng
from retfound_jax.data.phantom import draw_camera, draw_fundus, draw_lesions, draw_vessels
from retfound_jax.data.phantom.config import PhantomConfig, Stream
from retfound_jax.data.phantom.draw_canvas import Canvas, Landmarks, Pose, ellipse, paint_over, spread
from retfound_jax.data.phantom.draw_fundus import Disc
from retfound_jax.data.phantom.draw_lesions import KINDS, Severity
from retfound_jax.data.phantom.draw_vessels import ARTERY, VEIN, Vessel
from retfound_jax.data.phantom.patient import Eye, Patient, draw_patient

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


@dataclass(frozen=True, kw_only=True)
class Photograph:
    """A drawn photograph; `masks` are bool [H, W], one for each name in `MASKS`."""

    image: np.ndarray  # uint8 [H, W, 3], red green blue
    masks: dict[str, np.ndarray]
    patient: Patient
    laterality: str
    labels: dict[str, float]
    severity: Severity


def draw_eye(config: PhantomConfig, index: int, *, lesions: bool = True) -> Photograph:
    """Draws eye `index` (2 x patient + eye, right eye first): a pure function of its arguments.

    With `lesions=False` the same eye is drawn without lesions; the labels still tell the truth about the eye.

    Raises:
      UsageError: there is no such eye.
    """
    if not 0 <= index < 2 * config.patients:
        raise UsageError(f'there is no eye {index}: the phantom has eyes 0 to {2 * config.patients - 1}')
    patient = draw_patient(config, index // 2)
    eye = patient.eyes[index % 2]
    source = 2 * patient.source + index % 2

    def chance(kind: Stream) -> np.random.Generator:
        return example_rng(config.seed, int(kind), source)

    marks = _landmarks(chance(Stream.EYE), eye)
    pose = draw_camera.aim(chance(Stream.POSE), patient.site, marks, size=_working_size(config.image_size), laterality=eye.laterality)
    state = draw_lesions.severity(chance(Stream.HAEMORRHAGES), dr_grade=eye.dr_grade)
    layers = {name: Canvas(pose) for name in MASKS if name != 'fov'}
    disc = draw_fundus.shape_disc(chance(Stream.DISC), marks, cup_to_disc=eye.cup_to_disc, glaucoma=eye.glaucoma, age=patient.age)
    _outline(layers, marks, disc)
    vessels = draw_vessels.grow(chance(Stream.VESSELS), marks, tortuosity=eye.tortuosity)
    if lesions:
        vessels = draw_vessels.bead(vessels, marks, quadrants=state.beaded_quadrants)
        draw_lesions.paint(layers, pose, marks, state, chance, amd=eye.amd, age=patient.age)
    reflex = _vessels(layers, vessels, pose)
    scene = _scene(patient, pose, marks, disc, chance)
    scene = _compose(scene, layers, reflex)
    image, inside = _photograph(scene, config, patient, pose, chance, index=index)
    return Photograph(
        image=image, masks=_masks(layers, inside), patient=patient, laterality=eye.laterality, labels=_labels(eye), severity=state
    )


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


def _compose(scene: np.ndarray, layers: dict[str, Canvas], reflex: Canvas) -> np.ndarray:
    """Lays pale lesions, then blood, over the scene."""
    unit = scene.shape[0] / 384
    for name, (colour, opacity, blur) in _PALE.items():
        if layers[name].pixels_HW.any():
            paint_over(scene, layers[name].blurred(blur * unit) * np.float32(opacity), colour)
    density = _weigh([layers[name] for name in _FLOW], _FLOW_DENSITY, blur=0.75 * unit)
    density -= _weigh([reflex], _GLINT, blur=0.6 * unit)
    if any(layers[name].pixels_HW.any() for name in _LEAK):
        density += _weigh([layers[name] for name in _LEAK], _LEAK_DENSITY, blur=0.8 * unit)
    return cv2.multiply(scene, cv2.exp(-density))


def _weigh(layers: list[Canvas], weights: np.ndarray, *, blur: float) -> np.ndarray:
    """Blurred layers summed into three colours: float32 [H, W, C]."""
    stack = cv2.GaussianBlur(cv2.merge([layer.pixels_HW for layer in layers]), (0, 0), blur)
    return spread([stack.astype(np.float32)], weights / np.float32(255))


def _photograph(
    scene: np.ndarray, config: PhantomConfig, patient: Patient, pose: Pose, chance: draw_lesions.Chance, *, index: int
) -> tuple[np.ndarray, np.ndarray]:
    """The scene as the site's camera takes it: uint8 [size, size, 3], and how far each pixel lies inside the field."""
    camera, style, size = chance(Stream.CAMERA), patient.site, config.image_size
    scene = draw_camera.expose(scene, draw_camera.light(camera, style, pose, haze=patient.haze))
    image = draw_camera.develop(scene, style, camera, size=size, haze=patient.haze)
    inside = draw_camera.field_of_view(pose, style, size)
    # A second photograph of the same eye differs in its noise and its JPEG, so that stream belongs to the photograph and not to the eye.
    return draw_camera.finish(image, inside, style, example_rng(config.seed, int(Stream.NOISE), index)), inside


def _masks(layers: dict[str, Canvas], inside_HW: np.ndarray) -> dict[str, np.ndarray]:
    """A structure holds the pixels it covers to nearly one half; a lesion those it covers to a quarter, as the least are hardly wider."""
    fov = inside_HW >= 0.5
    cover = {name: 0.25 if name in KINDS else 0.45 for name in layers}
    return {'fov': fov, **{name: layer.mask(len(fov), cover=cover[name]) & fov for name, layer in layers.items()}}
