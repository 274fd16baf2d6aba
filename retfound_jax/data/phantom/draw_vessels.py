"""Arteries and veins: four arcades and the nasal pairs as curves, then branches grown step by step.

A branch never crosses its own kind (it stops), arteries and veins do cross. Radii fall at every fork, as Murray (1926) has it.
Letters: N vessels growing at once, T steps, P points.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.interpolate import CubicSpline

from retfound_jax.data.phantom.draw_canvas import Landmarks

ARTERY, VEIN = 0, 1
_TRUNK_RADIUS = (0.0080, 0.0116)  # arteries are about two thirds as wide as veins; a disc is .3 across and a vein 1/13 of it
_STEP = 0.026
_GRID = 130  # cells on a side of the occupancy grid, which spans -1.25 to 1.25
_SPACING = (0.17, 0.15, 0.13)  # mean distance between forks, by generation

# Control points of the trunks: (toward the nose, up) in units of the disc-to-fovea distance, the disc at (0, 0) and the fovea at
# (-1, 0). Upper side; the lower side is the mirror image.
_TEMPORAL = np.array([[0.03, 0.02], [0.02, 0.15], [-0.10, 0.36], [-0.40, 0.63], [-0.88, 0.78], [-1.42, 0.74], [-1.95, 0.56]])
_NASAL = np.array([[0.04, 0.02], [0.07, 0.14], [0.22, 0.34], [0.46, 0.62], [0.68, 1.00], [0.82, 1.40]])
_MACULAR = np.array([[-0.02, 0.02], [-0.14, 0.10], [-0.36, 0.20], [-0.58, 0.18], [-0.78, 0.10]])
_SIDE = np.array([[0.05, 0.01], [0.22, 0.07], [0.48, 0.10], [0.80, 0.16]])
# shape, how often it is there, radius relative to the trunk
_PLAN = ((_TEMPORAL, 1.0, 1.0), (_NASAL, 1.0, 0.74), (_MACULAR, 0.7, 0.36), (_SIDE, 0.7, 0.42))


@dataclass(frozen=True, kw_only=True)
class Vessel:
    """One unbranched vessel in retina coordinates."""

    kind: int
    points_P2: np.ndarray
    half_width_P: np.ndarray
    width: float  # mean half width


def grow(rng: np.random.Generator, marks: Landmarks, *, tortuosity: float) -> list[Vessel]:
    """The whole tree, trunks first."""
    vessels = _trunks(rng, marks, tortuosity=tortuosity)
    ground = np.zeros((2, _GRID, _GRID), np.int32)
    for number, vessel in enumerate(vessels):
        _claim(ground, vessel, number + 1)
    parents, first = vessels, 0
    for generation in range(len(_SPACING)):
        seeds = _sprout(rng, parents, marks, first=first, generation=generation)
        if seeds is None:
            break
        first = len(vessels)
        parents = _walk(rng, seeds, ground, marks, tortuosity=tortuosity, first=first)
        vessels = vessels + parents
    return vessels


def bead(vessels: list[Vessel], marks: Landmarks, *, quadrants: int) -> list[Vessel]:
    """Venous beading in the first `quadrants` quadrants around the fovea: the wider veins there swell and narrow like a string of beads."""
    if not quadrants:
        return vessels
    changed = []
    for vessel in vessels:
        if vessel.kind == VEIN and vessel.half_width_P[0] > 0.0045:
            around = vessel.points_P2 - marks.fovea
            inside = ((around[:, 0] > 0) * 2 + (around[:, 1] > 0) * 1) < quadrants
            off_disc = np.hypot(*(vessel.points_P2 - marks.disc).T) > 1.3 * marks.disc_radius
            along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(vessel.points_P2, axis=0).T))])
            swell = 1 + (inside & off_disc) * (0.15 + 0.42 * np.sin(2 * np.pi * along / 0.085))
            vessel = replace(vessel, half_width_P=vessel.half_width_P * swell)
        changed.append(vessel)
    return changed


def _trunks(rng: np.random.Generator, marks: Landmarks, *, tortuosity: float) -> list[Vessel]:
    axis = marks.fovea - marks.disc
    length = float(np.hypot(*axis))
    temporal = axis / length
    up = np.array([-temporal[1], temporal[0]])
    up = up if up[1] < 0 else -up
    # The hilum: where the central vessels come up, a little to the nasal side of the disc's middle.
    hilum = marks.disc - temporal * marks.disc_radius * rng.uniform(0.05, 0.35) + up * marks.disc_radius * rng.normal(0, 0.08)
    vessels = []
    for shape, chance, relative in _PLAN:
        for side in (1.0, -1.0):
            reach = np.exp(rng.normal(0, 0.09))  # artery and vein of one arcade run together, one within the other
            apart = rng.choice((-1.0, 1.0)) * rng.uniform(0.05, 0.13)
            for kind, gap in ((VEIN, 0.5 * apart), (ARTERY, -0.5 * apart)):
                if rng.random() > chance:
                    continue
                control = shape.copy()
                spread = np.linspace(0, 1, len(control))[:, None] ** 0.7
                control[:, 1] *= reach * (1 + gap * np.minimum(1, 3 * spread[:, 0]))
                control = control + spread * rng.normal(0, 0.05, control.shape)
                points = hilum + length * (-control[:, :1] * temporal + side * control[:, 1:] * up)
                points[0] += rng.normal(0, 0.010, 2)
                radius = _TRUNK_RADIUS[kind] * relative * np.exp(rng.normal(0, 0.08))
                vessels.append(_trunk(rng, points, kind=kind, radius=radius, tortuosity=tortuosity))
    return vessels


@lru_cache(maxsize=32)
def _spline(controls: int, points: int) -> np.ndarray:
    """The matrix [points, controls] that turns control points into a smooth curve through them."""
    return CubicSpline(np.arange(controls), np.eye(controls))(np.linspace(0, controls - 1, points))


def _trunk(rng: np.random.Generator, control: np.ndarray, *, kind: int, radius: float, tortuosity: float) -> Vessel:
    length = float(np.hypot(*np.diff(control, axis=0).T).sum())
    count = max(12, int(length / 0.016) // 8 * 8)
    points = _spline(len(control), count) @ control
    tangent = np.gradient(points, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1) / np.hypot(tangent[:, 0], tangent[:, 1])[:, None]
    at, step = np.linspace(0, length, count, retstep=True)
    drift_6P = rng.standard_normal((6, max(4, count // 12))) @ _hat(max(4, count // 12), count)
    waves = np.zeros(count)
    for k, (wavelength, amplitude) in enumerate(((0.55, 0.013), (0.22, 0.0075), (0.10, 0.0028))):
        phase = np.cumsum(np.abs(1 + 0.5 * drift_6P[2 * k])) * step / wavelength
        waves += amplitude * tortuosity * np.sin(2 * np.pi * (phase + rng.random())) * (0.6 + 0.4 * drift_6P[2 * k + 1])
    points = points + normal * (waves * np.minimum(at / 0.25, 1))[:, None]
    # Every fork takes its share of the flow: the trunk is much thinner at the rim of the field than at the disc.
    taper = 1 - 0.62 * (at / max(length, 0.9)) ** 0.85
    return Vessel(kind=kind, points_P2=points, half_width_P=radius * taper, width=float(radius * taper.mean()))


@lru_cache(maxsize=32)
def _hat(knots: int, points: int) -> np.ndarray:
    """The matrix [knots, points] of linear interpolation."""
    at = np.linspace(0, knots - 1, points)
    return np.maximum(0, 1 - np.abs(at[None, :] - np.arange(knots)[:, None]))


@dataclass(frozen=True, kw_only=True)
class _Seeds:
    """Branches about to grow; arrays over N."""

    start_N2: np.ndarray
    heading_N: np.ndarray
    radius_N: np.ndarray
    kind_N: np.ndarray
    parent_N: np.ndarray
    inward_N: np.ndarray  # bool: toward the fovea


def _sprout(rng: np.random.Generator, parents: list[Vessel], marks: Landmarks, *, first: int, generation: int) -> _Seeds | None:
    """Places the forks along every parent, on changing sides; one in five is a major one, at a narrow angle."""
    rows = []
    for number, vessel in enumerate(parents, start=first + 1):
        points, width = vessel.points_P2, vessel.half_width_P
        if len(points) < 7 or width[0] < 0.0017:
            continue
        step = float(np.hypot(*(points[1] - points[0]))) if generation else 0.016
        begin = 1.1 * marks.disc_radius if generation == 0 else 0.05
        most = 1 + int(len(points) * step / (0.4 * _SPACING[generation]))
        at = begin + np.cumsum(_SPACING[generation] * (0.30 + rng.exponential(0.70, most))) - 0.3 * _SPACING[generation]
        i = (at / step).astype(int)
        i = i[i < len(points) - 3]
        if not len(i):
            continue
        side = np.where(rng.random() < 0.5, 1.0, -1.0) * np.cumprod(np.where(rng.random(len(i)) < 0.68, -1.0, 1.0))
        major = rng.random(len(i)) < 0.22
        ahead = points[i + 1] - points[i]
        angle = np.where(major, rng.uniform(0.35, 0.7, len(i)), rng.uniform(0.7, 1.3, len(i)))
        heading = np.arctan2(ahead[:, 1], ahead[:, 0]) + side * angle
        radius = width[i] * np.where(major, rng.uniform(0.68, 0.88, len(i)), rng.uniform(0.38, 0.66, len(i)))
        radius = np.maximum(radius, min(0.0016, 0.9 * width[-1]))
        rows.append(np.column_stack([points[i], heading, radius, np.full(len(i), vessel.kind), np.full(len(i), number)]))
    if not rows:
        return None
    data = np.concatenate(rows)
    start, heading = data[:, :2], data[:, 2]
    to_fovea = marks.fovea - start
    between = (start[:, 0] < marks.disc[0] - 0.05) & (np.hypot(*to_fovea.T) < 0.95)
    inward = between & (np.cos(heading) * to_fovea[:, 0] + np.sin(heading) * to_fovea[:, 1] > -0.05)
    kind, parent = data[:, 4].astype(int), data[:, 5].astype(int)
    return _Seeds(start_N2=start, heading_N=heading, radius_N=data[:, 3], kind_N=kind, parent_N=parent, inward_N=inward)


def _walk(rng: np.random.Generator, seeds: _Seeds, ground: np.ndarray, marks: Landmarks, *, tortuosity: float, first: int) -> list[Vessel]:
    """All branches of one generation take their steps together, and stop at a vessel of their own kind."""
    count = len(seeds.heading_N)
    length_N = np.clip(seeds.radius_N / 0.0050, np.where(seeds.inward_N, 0.36, 0.22), 1.0) * rng.uniform(0.5, 1.2, count) * 0.95
    steps = int(np.ceil(length_N.max() / _STEP))
    bend_TN = _wander(rng, steps, count) * (0.6 + 0.4 * tortuosity)
    position, heading, toward_sign = seeds.start_N2.copy(), seeds.heading_N.copy(), np.where(seeds.inward_N, 1.0, -1.0)[:, None]
    goal = np.where(seeds.inward_N[:, None], marks.fovea, 0.6 * marks.disc + 0.4 * marks.fovea)
    alive, numbers, limit_N = np.ones(count, bool), first + 1 + np.arange(count), length_N / _STEP
    path_TN2, grown_N = np.empty((steps + 1, count, 2)), np.zeros(count, int)
    path_TN2[0] = position
    for t in range(steps):
        ahead = np.stack([np.cos(heading), np.sin(heading)], axis=1)
        aim = toward_sign * (goal - position)
        turn = (ahead[:, 0] * aim[:, 1] - ahead[:, 1] * aim[:, 0]) / (np.abs(aim).sum(axis=1) + 1e-6)
        heading = heading + 0.075 * turn + bend_TN[t]
        position = position + _STEP * ahead
        cell = ((np.clip(position, -1.24, 1.24) + 1.25) * (_GRID / 2.5)).astype(np.intp)
        taken = ground[seeds.kind_N, cell[:, 1], cell[:, 0]]
        alive &= (taken == 0) | (taken == numbers) | ((taken == seeds.parent_N) & (t < 4))
        alive &= (t < limit_N) & (((position - marks.fovea) ** 2).sum(axis=1) > 0.085**2) & (np.abs(position).max(axis=1) < 1.2)
        if not alive.any():
            break
        path_TN2[t + 1] = position
        grown_N[alive] = t + 1
        ground[seeds.kind_N[alive], cell[alive, 1], cell[alive, 0]] = numbers[alive]
    taper_T = np.arange(steps + 1)[:, None] / limit_N
    width_TN = seeds.radius_N * (1 - 0.6 * np.minimum(taper_T, 1))
    vessels = []
    for i, (kind, end) in enumerate(zip(seeds.kind_N.tolist(), grown_N.tolist(), strict=True)):
        # A branch cut short at once keeps its number, so that the numbers on the ground stay those of the list.
        end = end if end >= 3 else 0
        vessels.append(
            Vessel(kind=kind, points_P2=path_TN2[: end + 1, i], half_width_P=width_TN[: end + 1, i], width=float(width_TN[end // 2, i]))
        )
    return vessels


def _wander(rng: np.random.Generator, steps: int, count: int) -> np.ndarray:
    """Turning [radians per step]: a quick part and a slow part that swings back and forth."""
    quick = rng.standard_normal((steps + 2, count)).astype(np.float32)
    wave = 2 * np.pi * (np.arange(steps)[:, None] / rng.uniform(6, 14, count) + rng.random(count))
    return 0.085 * (quick[:-2] + quick[1:-1] + quick[2:]) + rng.uniform(0.04, 0.17, count) * np.sin(wave)


def _claim(ground: np.ndarray, vessel: Vessel, number: int) -> None:
    cell = ((vessel.points_P2 + 1.25) * (_GRID / 2.5)).astype(int)
    cell = cell[(cell >= 0).all(axis=1) & (cell < _GRID).all(axis=1)]
    ground[vessel.kind, cell[:, 1], cell[:, 0]] = number
