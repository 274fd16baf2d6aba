"""One photograph of the phantom with the truth about it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from retfound_jax.core.errors import UsageError
from retfound_jax.core.random import example_rng
from retfound_jax.data.phantom import draw_camera, draw_fundus, draw_lesions, draw_vessels
from retfound_jax.data.phantom.config import PhantomConfig, Stream
from retfound_jax.data.phantom.draw_canvas import Canvas, Landmarks, Pose, ellipse
from retfound_jax.data.phantom.draw_fundus import Disc
from retfound_jax.data.phantom.draw_lesions import KINDS, Severity
from retfound_jax.data.phantom.draw_vessels import ARTERY, VEIN, Vessel
from retfound_jax.data.phantom.patient import Eye, Patient, draw_patient

MASKS = ('fov', 'disc', 'cup', 'fovea', 'macula', 'artery', 'vein', *KINDS)
_FOVEA, _MACULA = 0.066, 0.243  # radii of the fovea (1.5 mm across) and the macula (5.5 mm) in retina units (1 = 6.2 mm)
_BLOOD = {
    'vein': np.array([0.36, 0.86, 0.62], np.float32),
    'artery': np.array([0.13, 0.60, 0.46], np.float32),
    'haemorrhage': np.array([0.62, 1.25, 0.85], np.float32),
    'microaneurysm': np.array([0.35, 0.95, 0.65], np.float32),
    'irma': np.array([0.20, 0.62, 0.45], np.float32),
    'new_vessel': np.array([0.16, 0.70, 0.50], np.float32),
}
_PALE = {  # colour, opacity and blur [px at 384] of what is brighter than the retina
    'drusen': (np.array([0.92, 0.74, 0.42], np.float32), 0.62, 1.5),
    'exudate': (np.array([1.02, 0.93, 0.58], np.float32), 0.92, 0.7),
    'cotton_wool': (np.array([0.95, 0.88, 0.74], np.float32), 0.80, 3.0),
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
    for vessel in sorted(vessels, key=lambda v: float(v.half_width_P.mean())):
        wide = float(vessel.half_width_P.mean())
        value = int(255 * np.clip(0.50 + 0.55 * (wide / 0.009) ** 0.8, 0.4, 1.0))
        layers['artery' if vessel.kind == ARTERY else 'vein'].ribbon(vessel.points_P2, vessel.half_width_P, value=value)
        if wide * pose.unit > 0.95:
            thickness = 2 if wide * pose.unit > 2.2 else 1
            bright = int(min(255, (210 if vessel.kind == ARTERY else 75) * min(1.0, wide * pose.unit / 1.4)))
            reflex.line(vessel.points_P2, value=bright, thickness=thickness)
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
    scene += layer[..., None] * (np.array([0.060, 0.075, 0.050], np.float32) * np.float32(0.6 + 0.7 * patient.pigment))
    outline, strength = draw_fundus.foveal_reflex(marks, texture, age=patient.age)
    glint = Canvas(pose)
    glint.polygon(outline)
    scene += (glint.blurred(1.2 * pose.size / 384) * np.float32(0.55 * strength))[..., None]
    draw_fundus.paint_disc(scene, pose, disc, chance(Stream.DISC), pigment=patient.pigment)
    return scene


def _compose(scene: np.ndarray, layers: dict[str, Canvas], reflex: Canvas) -> np.ndarray:
    """Lays pale lesions, then blood, over the scene."""
    unit = scene.shape[0] / 384
    for name, (colour, opacity, blur) in _PALE.items():
        if layers[name].pixels_HW.any():
            alpha = layers[name].blurred(blur * unit) * np.float32(opacity)
            scene += alpha[..., None] * (colour - scene)
    density = layers['vein'].blurred(0.8 * unit)[..., None] * _BLOOD['vein'] + layers['artery'].blurred(0.7 * unit)[..., None] * _BLOOD['artery']
    for name in ('microaneurysm', 'haemorrhage', 'irma', 'new_vessel'):
        if layers[name].pixels_HW.any():
            density += layers[name].blurred(0.7 * unit)[..., None] * _BLOOD[name]
    density -= reflex.blurred(0.6 * unit)[..., None] * np.array([0.16, 0.24, 0.18], np.float32)
    return scene * cv2.exp(-density)


def _photograph(
    scene: np.ndarray, config: PhantomConfig, patient: Patient, pose: Pose, chance: draw_lesions.Chance, *, index: int
) -> tuple[np.ndarray, np.ndarray]:
    """The scene as the site's camera takes it: uint8 [size, size, 3], and how far each pixel lies inside the field."""
    camera, style, size = chance(Stream.CAMERA), patient.site, config.image_size
    scene = draw_camera.expose(scene, draw_camera.light(camera, style, pose, haze=patient.haze), haze=patient.haze)
    image = draw_camera.develop(scene, style, camera, size=size, haze=patient.haze)
    inside = draw_camera.field_of_view(pose, style, size)
    # A second photograph of the same eye differs in its noise and its JPEG, so that stream belongs to the photograph and not to the eye.
    return draw_camera.finish(image, inside, style, example_rng(config.seed, int(Stream.NOISE), index)), inside


def _masks(layers: dict[str, Canvas], inside_HW: np.ndarray) -> dict[str, np.ndarray]:
    fov = inside_HW >= 0.5
    return {'fov': fov, **{name: layer.mask(len(fov)) & fov for name, layer in layers.items()}}
