"""Arteries and veins: four arcades and the nasal pairs as curves, then branches grown step by step.

Growth follows the rules of Murray (1926) for the radii at a fork; a branch never crosses its own kind (it stops), arteries and veins
do cross. Letters: N vessels growing at once, T steps, P points.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.interpolate import CubicSpline

from retfound_jax.data.phantom.draw_canvas import Landmarks

ARTERY, VEIN = 0, 1
_TRUNK_RADIUS = (0.0088, 0.0128)  # arteries are about two thirds as wide as veins; a disc is .3 across and a vein 1/12 of it
_STEP = 0.022
_GRID = 150  # cells on a side of the occupancy grid, which spans -1.25 to 1.25


@dataclass(frozen=True, kw_only=True)
class Vessel:
    """One unbranched vessel in retina coordinates."""

    kind: int
    points_P2: np.ndarray
    half_width_P: np.ndarray
    generation: int


def grow(rng: np.random.Generator, marks: Landmarks, *, tortuosity: float, generations: int = 3) -> list[Vessel]:
    """The whole tree, widest first."""
    vessels = _trunks(rng, marks, tortuosity=tortuosity)
    ground = np.zeros((2, _GRID, _GRID), np.int32)
    for number, vessel in enumerate(vessels):
        _claim(ground, vessel.points_P2, vessel.kind, number + 1)
    parents = list(enumerate(vessels))
    for generation in range(1, generations + 1):
        seeds = _sprout(rng, parents, marks, generation)
        if seeds is None:
            break
        children = _walk(rng, seeds, ground, marks, tortuosity=tortuosity, first=len(vessels), generation=generation)
        parents = list(enumerate(children, start=len(vessels)))
        vessels += children
    return vessels


def bead(vessels: list[Vessel], marks: Landmarks, *, quadrants: int) -> list[Vessel]:
    """Venous beading in the first `quadrants` quadrants around the fovea: the wider veins there swell and narrow like a string of beads."""
    changed = []
    for vessel in vessels:
        around = vessel.points_P2 - marks.fovea
        inside = ((around[:, 0] > 0) * 2 + (around[:, 1] > 0) * 1) < quadrants
        off_disc = np.hypot(*(vessel.points_P2 - marks.disc).T) > 1.3 * marks.disc_radius
        if vessel.kind == VEIN and vessel.half_width_P[0] > 0.005:
            along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(vessel.points_P2, axis=0).T))])
            swell = 1 + (inside & off_disc) * (0.15 + 0.42 * np.sin(2 * np.pi * along / 0.085))
            vessel = replace(vessel, half_width_P=vessel.half_width_P * swell)
        changed.append(vessel)
    return changed


# Control points of the trunks, relative: (toward the nose, up) in units of the disc-to-fovea distance, the disc at (0, 0) and the
# fovea at (-1, 0). Upper side; the lower side is the mirror image.
_TEMPORAL = np.array([[0.03, 0.02], [0.02, 0.14], [-0.10, 0.36], [-0.42, 0.66], [-0.92, 0.80], [-1.45, 0.66], [-1.95, 0.36]])
_NASAL = np.array([[0.04, 0.02], [0.07, 0.14], [0.24, 0.34], [0.50, 0.62], [0.72, 1.00], [0.85, 1.40]])
_MACULAR = np.array([[-0.02, 0.02], [-0.14, 0.10], [-0.36, 0.20], [-0.60, 0.16], [-0.78, 0.10]])
_SIDE = np.array([[0.05, 0.01], [0.22, 0.07], [0.48, 0.10], [0.80, 0.16]])
# shape, how often it is there, radius relative to the trunk, by kind (artery, vein)
_PLAN = ((_TEMPORAL, 1.0, 1.0), (_NASAL, 1.0, 0.78), (_MACULAR, 0.75, 0.40), (_SIDE, 0.8, 0.50))


def _trunks(rng: np.random.Generator, marks: Landmarks, *, tortuosity: float) -> list[Vessel]:
    axis = marks.fovea - marks.disc
    length = float(np.hypot(*axis))
    temporal = axis / length
    up = np.array([temporal[1], -temporal[0]]) if temporal[0] < 0 else np.array([-temporal[1], temporal[0]])
    up = up if up[1] < 0 else -up
    vessels = []
    # The hilum: where the central vessels come up, a little to the nasal side of the disc's middle.
    hilum = marks.disc - temporal * marks.disc_radius * rng.uniform(0.05, 0.3) + up * marks.disc_radius * rng.normal(0, 0.08)
    for shape, chance, relative in _PLAN:
        for side in (1.0, -1.0):
            reach = np.exp(rng.normal(0, 0.10))  # artery and vein of one arcade run together
            for kind in (VEIN, ARTERY):
                if rng.random() > chance:
                    continue
                control = shape.copy()
                spread = np.linspace(0, 1, len(control))[:, None] ** 0.8
                control[:, 1] *= reach * np.exp(rng.normal(0, 0.05)) * (1.0 if kind == VEIN else 0.93)
                control = control + spread * rng.normal(0, 0.045, control.shape)
                points = hilum + length * (-control[:, :1] * temporal + side * control[:, 1:] * up)
                points[0] += rng.normal(0, 0.010, 2)
                radius = _TRUNK_RADIUS[kind] * relative * np.exp(rng.normal(0, 0.07))
                vessels.append(_trunk(rng, points, kind=kind, radius=radius, tortuosity=tortuosity))
    return sorted(vessels, key=lambda vessel: -float(vessel.half_width_P[0]))


def _trunk(rng: np.random.Generator, control: np.ndarray, *, kind: int, radius: float, tortuosity: float) -> Vessel:
    knots = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(control, axis=0).T))])
    at = np.linspace(0, knots[-1], max(8, int(knots[-1] / 0.016)))
    points = CubicSpline(knots, control)(at)
    tangent = np.gradient(points, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1) / np.hypot(tangent[:, 0], tangent[:, 1])[:, None]
    waves = np.zeros(len(at))
    for wavelength, amplitude in ((0.55, 0.010), (0.24, 0.0055), (0.12, 0.0020)):
        phase = np.cumsum(np.abs(1 + 0.5 * _drift(rng, len(at)))) * (at[1] - at[0]) / wavelength
        waves += amplitude * tortuosity * np.sin(2 * np.pi * (phase + rng.random())) * (0.6 + 0.4 * _drift(rng, len(at)))
    points = points + normal * (waves * np.minimum(at / 0.25, 1))[:, None]
    # Every fork takes its share of the flow: the trunk is half as wide at the rim of the field as at the disc.
    taper = 1 - 0.52 * (at / max(knots[-1], 0.9)) ** 0.9
    return Vessel(kind=kind, points_P2=points, half_width_P=radius * taper, generation=0)


def _drift(rng: np.random.Generator, length: int) -> np.ndarray:
    """Slow noise of about unit size."""
    knots = rng.standard_normal(max(4, length // 12))
    return np.interp(np.linspace(0, len(knots) - 1, length), np.arange(len(knots)), knots)


@dataclass(frozen=True, kw_only=True)
class _Seeds:
    """Branches about to grow; arrays over N."""

    start_N2: np.ndarray
    heading_N: np.ndarray
    radius_N: np.ndarray
    kind_N: np.ndarray
    parent_N: np.ndarray
    inward_N: np.ndarray  # bool: toward the fovea


def _sprout(rng: np.random.Generator, parents: list[tuple[int, Vessel]], marks: Landmarks, generation: int) -> _Seeds | None:
    rows = []
    spacing = (0.15, 0.13, 0.11)[generation - 1]
    for number, vessel in parents:
        points, width = vessel.points_P2, vessel.half_width_P
        if len(points) < 6 or width[0] < 0.0017:
            continue
        step = float(np.hypot(*(points[1] - points[0])))
        at = (1.15 * marks.disc_radius if generation == 1 else 0.06) + rng.exponential(0.05)
        side = 1.0 if rng.random() < 0.5 else -1.0
        while at < step * (len(points) - 3):
            i = int(at / step)
            dx, dy = points[i + 1] - points[i]
            heading = np.arctan2(dy, dx) + side * rng.uniform(0.55, 1.15)
            radius = width[i] * (rng.uniform(0.42, 0.78) if generation == 1 else rng.uniform(0.55, 0.85))
            rows.append((points[i, 0], points[i, 1], heading, radius, vessel.kind, number + 1))
            at += spacing * (0.45 + rng.exponential(0.55))
            side = -side if rng.random() < 0.75 else side
    if not rows:
        return None
    data = np.array(rows)
    start, heading = data[:, :2], data[:, 2]
    to_fovea = marks.fovea - start
    between = (start[:, 0] < marks.disc[0] - 0.05) & (np.hypot(*to_fovea.T) < 0.95)
    inward = between & (np.cos(heading) * to_fovea[:, 0] + np.sin(heading) * to_fovea[:, 1] > -0.05)
    return _Seeds(start_N2=start, heading_N=heading, radius_N=data[:, 3], kind_N=data[:, 4].astype(int), parent_N=data[:, 5].astype(int), inward_N=inward)


def _walk(
    rng: np.random.Generator, seeds: _Seeds, ground: np.ndarray, marks: Landmarks, *, tortuosity: float, first: int, generation: int
) -> list[Vessel]:
    """All branches of one generation take their steps together, and stop at a vessel of their own kind."""
    count = len(seeds.heading_N)
    length_N = np.clip(seeds.radius_N / 0.0060, 0.25, 1.0) * rng.uniform(0.45, 1.15, count) * 0.95
    steps = int(np.ceil(length_N.max() / _STEP))
    wander_TN = _wander(rng, steps, count) * (0.15 * (0.55 + 0.45 * tortuosity))
    position, heading = seeds.start_N2.copy(), seeds.heading_N.copy()
    alive, numbers = np.ones(count, bool), first + 1 + np.arange(count)
    path_TN2, grown_N = np.empty((steps + 1, count, 2)), np.zeros(count, int)
    path_TN2[0] = position
    outward = 0.6 * marks.disc + 0.4 * marks.fovea
    for t in range(steps):
        toward = np.where(seeds.inward_N[:, None], marks.fovea - position, position - outward)
        turn = np.angle(np.exp(1j * (np.arctan2(toward[:, 1], toward[:, 0]) - heading)))
        heading = heading + np.clip(turn, -1.0, 1.0) * 0.055 + wander_TN[t]
        position = position + _STEP * np.stack([np.cos(heading), np.sin(heading)], axis=1)
        cell = np.clip(((position + 1.25) * (_GRID / 2.5)).astype(int), 0, _GRID - 1)
        taken = ground[seeds.kind_N, cell[:, 1], cell[:, 0]]
        free = (taken == 0) | (taken == numbers) | ((taken == seeds.parent_N) & (t < 5))
        from_fovea = np.hypot(*(position - marks.fovea).T)
        alive &= free & (from_fovea > 0.085) & (np.abs(position).max(axis=1) < 1.2) & (t * _STEP < length_N)
        if not alive.any():
            break
        path_TN2[t + 1] = position
        grown_N[alive] = t + 1
        ground[seeds.kind_N[alive], cell[alive, 1], cell[alive, 0]] = numbers[alive]
    vessels = []
    for i in range(count):
        points = path_TN2[: grown_N[i] + 1, i]
        if len(points) < 4:
            continue
        along = np.arange(len(points)) * _STEP / length_N[i]
        vessels.append(
            Vessel(kind=int(seeds.kind_N[i]), points_P2=points, half_width_P=seeds.radius_N[i] * (1 - 0.6 * along), generation=generation)
        )
    return vessels


def _wander(rng: np.random.Generator, steps: int, count: int) -> np.ndarray:
    """Turning [radians per step] that remembers its last three steps or so."""
    noise = rng.standard_normal((steps + 2, count))
    return (noise[:-2] + noise[1:-1] + noise[2:]) / 3


def _claim(ground: np.ndarray, points_P2: np.ndarray, kind: int, number: int) -> None:
    cell = ((points_P2 + 1.25) * (_GRID / 2.5)).astype(int)
    cell = cell[(cell >= 0).all(axis=1) & (cell < _GRID).all(axis=1)]
    ground[kind, cell[:, 1], cell[:, 0]] = number
