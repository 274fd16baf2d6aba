"""The circular field of view of a fundus photograph: find it, cut it out.

Pixels that differ from the dark surround are taken at several thresholds on a small copy; the outermost of them in each row and column lie
on the circle, except where the picture's edge cuts it or something is burnt in beside it. A circle is fitted to them by consensus over
point triples and least squares on the agreeing points (Kasa 1976). Nothing is returned rather than a poor fit.
"""
from __future__ import annotations

import dataclasses

import cv2
import numpy as np

_THUMB = 256  # [px], longer side of the copy that is searched
_LEVELS = (0.10, 0.06, 0.16, 0.25)  # of the way from the surround's brightness to the picture's bright parts
_TRIPLES = 200
_VOTERS = 240  # points that vote on each triple's circle
_TOLERANCE = 0.012  # of the longer side: farther from the circle is no point of it
_LENIENCE = 2  # times the tolerance, when a fitted circle is judged: stretched copies make slightly flat circles
_MIN_RADIUS = 0.25  # of the shorter side; scaled decoding counts on it
_MIN_AGREE = 0.6  # of the points
_MIN_ARC = 0.12  # of the full turn, sectors that hold an agreeing point, on at least three sides
_PLAIN = 2.3  # score (of at most 2.5) at which no other threshold is tried
_MIN_FILLED = 0.85  # of the disc inside the picture, above the threshold
_MAX_SPILL = 0.03  # of the picture outside the disc, above the threshold


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fov:
    """A circle in pixel coordinates; the centre of the top left pixel is (0, 0)."""

    cx: float  # [px]
    cy: float  # [px]
    radius: float  # [px]

    def scaled(self, factor: float) -> Fov:
        """The same circle in a copy of the picture `factor` times as large."""
        return Fov(cx=(self.cx + 0.5) * factor - 0.5, cy=(self.cy + 0.5) * factor - 0.5, radius=self.radius * factor)


def find(pixels: np.ndarray) -> Fov | None:
    """The field of view of uint8 RGB [height, width, 3]; None where no circle shows (OCT, a picture cut inside its circle)."""
    factor = min(1.0, _THUMB / max(pixels.shape[:2]))
    small = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)  # one factor: a rounded size would stretch
    small = cv2.medianBlur(small.max(axis=2), 3)
    dark, bright = np.percentile(small, 1), np.percentile(small, 90)
    if bright - dark < 8:
        return None
    best = (0.0, None)
    for level in _LEVELS:
        best = max(best, _fit_mask(small > dark + level * (bright - dark)), key=lambda fit: fit[0])
        if best[0] > _PLAIN:
            break
    return best[1] and best[1].scaled(1 / factor)


def _fit_mask(mask: np.ndarray) -> tuple[float, Fov | None]:
    """How well a circle explains the mask, and the circle; (0, None) where none does."""
    points = _outline(_largest(mask))
    tolerance = _TOLERANCE * max(mask.shape)
    circle = _consensus(points, tolerance=tolerance) if len(points) >= 24 else None
    if circle is None:
        return 0.0, None
    agree = _distance(points, circle) < _LENIENCE * tolerance
    score = _score(mask, circle, agree=float(agree.mean()), points=points[agree])
    return score, Fov(cx=float(circle[0]), cy=float(circle[1]), radius=float(circle[2])) if score else None


def _largest(mask: np.ndarray) -> np.ndarray:
    """The largest connected part; burnt-in text is another one."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    return labels == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA]) if count > 1 else np.zeros_like(mask)


def _outline(mask: np.ndarray) -> np.ndarray:
    """float [n, 2] (x, y): half a pixel outside the first and last mask pixel of every row and column.

    None at the mask's own extremes, which are where a camera or a picture's edge cuts the circle straight.
    """
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, right = mask.argmax(axis=1)[rows], width - 1 - mask[:, ::-1].argmax(axis=1)[rows]
    top, bottom = mask.argmax(axis=0)[columns], height - 1 - mask[::-1].argmax(axis=0)[columns]
    if not len(rows):
        return np.zeros((0, 2))
    parts = [
        np.stack([left - 0.5, rows], axis=1)[left > columns[0] + 1], np.stack([right + 0.5, rows], axis=1)[right < columns[-1] - 1],
        np.stack([columns, top - 0.5], axis=1)[top > rows[0] + 1], np.stack([columns, bottom + 0.5], axis=1)[bottom < rows[-1] - 1],
    ]
    return np.concatenate(parts).astype(np.float64)


def _consensus(points: np.ndarray, *, tolerance: float) -> np.ndarray | None:
    """(cx, cy, radius) that most points agree with, refined on those; the triples are a fixed sequence: equal pictures, equal circles."""
    picks = np.random.default_rng(0).integers(0, len(points), (_TRIPLES, 3))
    circles = _through(points[picks])
    if not len(circles):
        return None
    x, y = points[::-(-len(points) // _VOTERS)].T
    away = np.abs(np.hypot(x - circles[:, :1], y - circles[:, 1:2]) - circles[:, 2:])
    circle = circles[np.argmax((away < tolerance).sum(axis=1))]
    for _ in range(4):
        agree = _distance(points, circle) < tolerance
        if agree.sum() < 12:
            return None
        circle = _kasa(points[agree])
    return circle


def _distance(points: np.ndarray, circle: np.ndarray) -> np.ndarray:
    return np.abs(np.hypot(points[:, 0] - circle[0], points[:, 1] - circle[1]) - circle[2])


def _through(triples: np.ndarray) -> np.ndarray:
    """float [m, 3]: circles through point triples [n, 3, 2], those of nearly straight triples left out."""
    a, b, c = triples[:, 0], triples[:, 1], triples[:, 2]
    p, q = b - a, c - a
    cross = 2 * (p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0])
    keep = np.abs(cross) > 100
    p, q, a, cross = p[keep], q[keep], a[keep], cross[keep]
    pp, qq = (p**2).sum(axis=1), (q**2).sum(axis=1)
    offset = np.stack([q[:, 1] * pp - p[:, 1] * qq, p[:, 0] * qq - q[:, 0] * pp], axis=1) / cross[:, None]
    return np.concatenate([a + offset, np.hypot(offset[:, 0], offset[:, 1])[:, None]], axis=1)


def _kasa(points: np.ndarray) -> np.ndarray:
    """Least squares of x^2 + y^2 = 2 cx x + 2 cy y + c, about the mean for precision."""
    middle = points.mean(axis=0)
    x, y = (points - middle).T
    (a, b, c), *_ = np.linalg.lstsq(np.stack([2 * x, 2 * y, np.ones_like(x)], axis=1), x**2 + y**2, rcond=None)
    return np.array([a + middle[0], b + middle[1], np.sqrt(max(c + a * a + b * b, 0.0))])


def _score(mask: np.ndarray, circle: np.ndarray, *, agree: float, points: np.ndarray) -> float:
    """0 for a circle that no fundus camera draws; else higher is better, up to 2.5."""
    height, width = mask.shape
    cx, cy, radius = circle
    if not (_MIN_RADIUS * min(height, width) < radius < 0.8 * max(height, width) and 0 < cx < width and 0 < cy < height):
        return 0.0
    yy, xx = np.ogrid[:height, :width]
    away = np.hypot(xx - cx, yy - cy)
    inside, outside = away < 0.98 * radius, away > 1.03 * radius
    filled = float(mask[inside].mean())
    spill = float((mask & outside).mean())
    turn = np.arctan2(points[:, 1] - cy, points[:, 0] - cx) / (2 * np.pi) % 1
    arc, sides = len(np.unique((turn * 72).astype(int))) / 72, len(np.unique((turn * 4).astype(int)))
    if agree < _MIN_AGREE or arc < _MIN_ARC or sides < 3 or filled < _MIN_FILLED or spill > _MAX_SPILL:
        return 0.0
    return agree + 0.5 * arc + filled - 5 * spill


def crop_square(pixels: np.ndarray, fov: Fov | None, *, modality: str) -> np.ndarray:
    """A square uint8 RGB picture: the circle's bounding square with black around the circle, which also takes off burnt-in text.

    The circle is in the middle. Where the picture cuts it on all four sides the square is as small as holds all that is there.
    Without a circle, and for every modality but colour and unknown, the whole picture, padded with black.
    """
    if fov is None or modality not in ('CFP', ''):
        return _pad(pixels)
    height, width = pixels.shape[:2]
    reach = max(fov.cx + 0.5, width - fov.cx - 0.5, fov.cy + 0.5, height - fov.cy - 0.5)  # from the centre to the picture's farthest edge
    side = max(2, round(2 * min(fov.radius, reach)))
    left, top = round(fov.cx + 0.5 - side / 2), round(fov.cy + 0.5 - side / 2)
    square = np.zeros((side, side, 3), np.uint8)
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + side, width), min(top + side, height)
    square[y0 - top:y1 - top, x0 - left:x1 - left] = pixels[y0:y1, x0:x1]
    yy, xx = np.ogrid[:side, :side]
    square[(xx + left - fov.cx) ** 2 + (yy + top - fov.cy) ** 2 > fov.radius**2] = 0
    return square


def _pad(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.zeros((side, side, 3), np.uint8)
    square[top:top + height, left:left + width] = pixels
    return square
