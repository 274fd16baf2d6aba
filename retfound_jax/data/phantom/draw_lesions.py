"""Lesions of diabetic retinopathy by ICDR grade (Wilkinson et al., Ophthalmology 2003) and drusen of macular degeneration.

Each lesion is an outline filled on the layer of its kind, so the layer is both what is painted and the mask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from retfound_jax.data.phantom.config import Stream
from retfound_jax.data.phantom.draw_canvas import Canvas, Landmarks, Pose, blob

KINDS = ('microaneurysm', 'haemorrhage', 'exudate', 'cotton_wool', 'irma', 'new_vessel', 'drusen')
Chance = Callable[[Stream], np.random.Generator]


@dataclass(frozen=True, kw_only=True)
class Severity:
    """How much of each lesion one eye has (the 4-2-1 rule decides grade 3)."""

    microaneurysms: int = 0
    haemorrhages: tuple[int, int, int, int] = (0, 0, 0, 0)  # in each quadrant around the fovea
    exudate_clusters: int = 0
    cotton_wool: int = 0
    beaded_quadrants: int = 0  # venous beading
    irma: int = 0
    new_vessels_disc: int = 0
    new_vessels_elsewhere: int = 0
    preretinal: int = 0


def severity(rng: np.random.Generator, *, dr_grade: int) -> Severity:
    """What an eye of this ICDR grade shows; grade 3 meets at least one of: 20 haemorrhages in all quadrants, beading in 2, IRMA in 1."""
    if dr_grade == 0:
        return Severity()
    if dr_grade == 1:
        return Severity(microaneurysms=int(rng.integers(3, 9)))
    if dr_grade == 2:
        quadrants = rng.multinomial(int(rng.integers(6, 20)), rng.dirichlet([1.5] * 4))
        return Severity(
            microaneurysms=int(rng.integers(8, 22)),
            haemorrhages=tuple(int(n) for n in quadrants),
            exudate_clusters=int(rng.integers(1, 5)) if rng.random() < 0.75 else 0,
            cotton_wool=int(rng.integers(0, 3)),
        )
    rule = rng.random(3) < (0.75, 0.55, 0.55)
    if dr_grade == 3 and not rule.any():
        rule[0] = True
    heavy = (20, 32) if rule[0] else (5, 15)
    new_vessels = rng.random(3) < (0.6, 0.7, 0.5)
    if not new_vessels.any():
        new_vessels[1] = True
    proliferative = dr_grade == 4
    if proliferative:
        heavy = (4, 20)
    return Severity(
        microaneurysms=int(rng.integers(12, 34)),
        haemorrhages=tuple(int(n) for n in rng.integers(*heavy, 4)),
        exudate_clusters=int(rng.integers(0, 5)),
        cotton_wool=int(rng.integers(1, 6)),
        beaded_quadrants=int(rng.integers(2, 5)) if rule[1] else 0,
        irma=int(rng.integers(1, 4)) if rule[2] else 0,
        new_vessels_disc=int(new_vessels[0]) if proliferative else 0,
        new_vessels_elsewhere=int(rng.integers(1, 4)) if proliferative and new_vessels[1] else 0,
        preretinal=int(rng.integers(1, 3)) if proliferative and new_vessels[2] else 0,
    )


def paint(
    canvases: dict[str, Canvas],
    pose: Pose,
    marks: Landmarks,
    state: Severity,
    chance: Chance,
    *,
    amd: int,
    age: float,
    drusen: int | None = None,
) -> None:
    """Fills the layers named in `KINDS`; each kind takes its own stream of chance.

    Args:
      pose: of the photograph that decides where lesions may lie, which may be an earlier one than that which is drawn.
      drusen: how many; None for what is usual with or without `amd` at this `age` [years].
    """
    place = _Places(pose=pose, marks=marks)
    _microaneurysms(canvases['microaneurysm'], place, chance(Stream.MICROANEURYSMS), count=state.microaneurysms)
    _haemorrhages(canvases['haemorrhage'], place, chance(Stream.HAEMORRHAGES), state)
    _exudates(canvases['exudate'], place, chance(Stream.EXUDATES), clusters=state.exudate_clusters)
    _cotton_wool(canvases['cotton_wool'], place, chance(Stream.COTTON_WOOL), count=state.cotton_wool)
    _irma(canvases['irma'], place, chance(Stream.IRMA), count=state.irma)
    _new_vessels(canvases['new_vessel'], place, chance(Stream.NEW_VESSELS), state)
    _drusen(canvases['drusen'], place, chance(Stream.DRUSEN), amd=amd, age=age, count=drusen)


@dataclass(frozen=True, kw_only=True)
class _Places:
    """Where a lesion may lie: inside the picture, off the disc, and not on the foveola."""

    pose: Pose
    marks: Landmarks

    def allowed(self, points_P2: np.ndarray, *, margin: float, fovea: float = 0.06) -> np.ndarray:
        off_disc = np.hypot(*(points_P2 - self.marks.disc).T) > self.marks.disc_radius * 1.15 + margin * 0.5
        off_fovea = np.hypot(*(points_P2 - self.marks.fovea).T) > fovea
        return off_disc & off_fovea & self.pose.visible(points_P2, margin=margin + 0.03)

    def scatter(
        self, rng: np.random.Generator, count: int, *, margin: float = 0.03, quadrant: int | None = None, near: float = 0.62
    ) -> np.ndarray:
        """Up to `count` points [P, 2], normally spread about the macula and disc, in one quadrant around the fovea where asked."""
        middle = 0.62 * self.marks.fovea + 0.38 * self.marks.disc
        points = middle + rng.normal(0, near, (40 * count + 200, 2)) * np.array([1.0, 0.85])
        points = points[self.allowed(points, margin=margin)]
        if quadrant is not None:
            around = points - self.marks.fovea
            points = points[(around[:, 0] > 0) * 2 + (around[:, 1] > 0) * 1 == quadrant]
        return points[:count]

    def least(self, radius: float, pixels: float) -> float:
        """A radius that still covers `pixels` working pixels, so that no lesion falls between them."""
        return max(radius, pixels / self.pose.unit)


def _microaneurysms(canvas: Canvas, place: _Places, rng: np.random.Generator, *, count: int) -> None:
    for centre in place.scatter(rng, count, near=0.36):
        canvas.polygon(blob(rng, centre, place.least(rng.uniform(0.0055, 0.0095), 1.15), rough=0.05), value=int(rng.integers(170, 256)))


def _haemorrhages(canvas: Canvas, place: _Places, rng: np.random.Generator, state: Severity) -> None:
    for quadrant, count in enumerate(state.haemorrhages):
        for centre in place.scatter(rng, count, quadrant=quadrant, near=0.5):
            from_disc = centre - place.marks.disc
            if rng.random() < 0.32 and np.hypot(*from_disc) < 0.8:
                _flame(canvas, rng, centre, from_disc)
            else:
                radius = place.least(0.0098 * np.exp(rng.normal(0.0, 0.5)), 1.3)
                shape = blob(rng, centre, min(radius, 0.042), rough=0.16, stretch=rng.uniform(1.0, 1.5), angle=rng.uniform(0, np.pi))
                canvas.polygon(shape, value=int(rng.integers(170, 256)))
    for centre in place.scatter(rng, state.preretinal, margin=0.22, near=0.4):
        _boat(canvas, rng, centre)


def _flame(canvas: Canvas, rng: np.random.Generator, centre: np.ndarray, from_disc: np.ndarray) -> None:
    """A haemorrhage between the nerve fibres: a bundle of short streaks along them."""
    angle = np.arctan2(from_disc[1], from_disc[0]) + rng.normal(0, 0.15)
    along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    size = rng.uniform(0.015, 0.034)
    for _ in range(int(rng.integers(4, 8))):
        middle = centre + along * rng.normal(0, 0.35 * size) + across * rng.normal(0, 0.26 * size)
        streak = blob(rng, middle, 0.24 * size, rough=0.08, stretch=rng.uniform(2.5, 4.0), angle=angle)
        canvas.polygon(streak, value=int(rng.integers(165, 256)))


def _boat(canvas: Canvas, rng: np.random.Generator, centre: np.ndarray) -> None:
    """Blood that has settled in front of the retina: level above, round below."""
    t = np.linspace(0, np.pi, 20)
    half, depth = rng.uniform(0.10, 0.19), rng.uniform(0.05, 0.12)
    below = np.stack([half * np.cos(t), depth * np.sin(t) ** 0.8], axis=1)
    above = np.stack([np.linspace(-half, half, 8), rng.normal(-0.006, 0.003, 8)], axis=1)
    canvas.polygon(centre + np.concatenate([below, above]), value=255)


def _exudates(canvas: Canvas, place: _Places, rng: np.random.Generator, *, clusters: int) -> None:
    for centre in place.scatter(rng, clusters, margin=0.12, near=0.30):
        ring, spread = rng.random() < 0.4, rng.uniform(0.05, 0.13)
        count = int(rng.integers(8, 40))
        angle = rng.uniform(0, 2 * np.pi, count)
        reach = spread * (rng.normal(1, 0.14, count) if ring else np.abs(rng.normal(0, 0.75, count)))
        points = centre + np.stack([reach * np.cos(angle), reach * np.sin(angle)], axis=1)
        for point in points[place.allowed(points, margin=0.02, fovea=0.03)]:
            radius = min(place.least(0.0048 * np.exp(rng.normal(0.0, 0.5)), 0.7), 0.018)
            drop = blob(rng, point, radius, rough=0.18, stretch=rng.uniform(1, 1.8), angle=rng.uniform(0, np.pi))
            canvas.polygon(drop, value=int(rng.integers(150, 256)))


def _cotton_wool(canvas: Canvas, place: _Places, rng: np.random.Generator, *, count: int) -> None:
    for centre in place.scatter(rng, count, margin=0.08, near=0.38):
        angle = np.arctan2(*(centre - place.marks.disc)[::-1]) + np.pi / 2 + rng.normal(0, 0.3)
        tuft = blob(rng, centre, rng.uniform(0.024, 0.046), rough=0.16, stretch=rng.uniform(1.1, 1.7), angle=angle)
        canvas.polygon(tuft, value=int(rng.integers(190, 256)))


def _irma(canvas: Canvas, place: _Places, rng: np.random.Generator, *, count: int) -> None:
    """Dilated, kinked capillaries inside the retina."""
    for centre in place.scatter(rng, count, margin=0.12, near=0.42):
        for _ in range(int(rng.integers(2, 5))):
            canvas.line(_curl(rng, centre + rng.normal(0, 0.02, 2), steps=12, step=0.013, turn=0.75), value=int(rng.integers(170, 256)))


def _new_vessels(canvas: Canvas, place: _Places, rng: np.random.Generator, state: Severity) -> None:
    """Fronds of fine looping vessels, on the disc and along the arcades."""
    thickness = max(1, round(0.006 * place.pose.unit))
    if state.new_vessels_disc:
        for _ in range(int(rng.integers(9, 16))):
            start = place.marks.disc + rng.normal(0, 0.4, 2) * place.marks.disc_radius
            line = _curl(rng, start, steps=int(rng.integers(14, 30)), step=0.013, turn=0.36)
            canvas.line(line, value=int(rng.integers(110, 200)))
    for centre in place.scatter(rng, state.new_vessels_elsewhere, margin=0.18, near=0.42):
        for angle in np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(9, 17)))):
            line = _curl(rng, centre + rng.normal(0, 0.012, 2), steps=int(rng.integers(8, 16)), step=0.011, turn=0.5, heading=angle)
            canvas.line(line, value=int(rng.integers(150, 250)), thickness=thickness if rng.random() < 0.3 else 1)


def _curl(rng: np.random.Generator, start: np.ndarray, *, steps: int, step: float, turn: float, heading: float | None = None) -> np.ndarray:
    first = rng.uniform(0, 2 * np.pi) if heading is None else heading
    angle = first + np.cumsum(rng.normal(rng.normal(0, 0.18), turn, steps))
    moves = step * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return start + np.concatenate([np.zeros((1, 2)), np.cumsum(moves, axis=0)])


def _drusen(canvas: Canvas, place: _Places, rng: np.random.Generator, *, amd: int, age: float, count: int | None) -> None:
    """Macular degeneration: many drusen, some large. Without it: at most a few hard ones, in the old."""
    if count is None:
        count = int(rng.integers(28, 95)) if amd else int(rng.poisson(max(0.0, (age - 58) / 14)))
    spread = rng.uniform(0.13, 0.20) if amd else 0.28
    points = place.marks.fovea + rng.normal(0, spread, (3 * count + 3, 2))
    soft = rng.uniform(0.25, 0.7)  # the share of large soft drusen
    for centre in points[place.allowed(points, margin=0.03, fovea=0.0)][:count]:
        large = amd and rng.random() < soft
        radius = rng.uniform(0.012, 0.026) if large else rng.uniform(0.005, 0.010)
        canvas.polygon(blob(rng, centre, place.least(radius, 1.2), rough=0.12), value=int(rng.integers(120, 230)))
