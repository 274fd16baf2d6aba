"""The circle is found where one was drawn, whatever cuts it, and none where there is none; quality numbers tell good from bad."""
from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from retfound_jax.ingest import quality, readers
from retfound_jax.ingest.fov import Fov, crop_square, find

DATA = Path(__file__).parents[3] / 'shared/data'
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason='no real photographs beside the project')


def disc(*, height: int, width: int, cx: float, cy: float, radius: float, seed: int = 0) -> np.ndarray:
    """A vignetted disc with clouds and vessels on a nearly black, noisy ground."""
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[:height, :width]
    away = np.hypot(xx - cx, yy - cy)
    clouds = cv2.resize(rng.normal(0, 25, (9, 9)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    ends = (np.array([cx, cy]) + rng.uniform(-1, 1, (2, 14, 2)) * radius).round().astype(int).tolist()
    vessels = np.zeros((height, width), np.float32)
    for start, end in zip(*ends, strict=True):
        cv2.line(vessels, start, end, 50, max(1, round(radius / 60)))
    light = np.maximum(170 - 80 * (away / radius) ** 2 + clouds - vessels, 45)[:, :, None] * np.array([1.0, 0.6, 0.3])
    ground = np.abs(rng.normal(2, 2, (height, width, 3)))
    return np.clip(np.where((away <= radius)[:, :, None], light, ground), 0, 255).astype(np.uint8)


def assert_close(found: Fov | None, *, cx: float, cy: float, radius: float) -> None:
    assert found is not None
    assert max(abs(found.cx - cx), abs(found.cy - cy), abs(found.radius - radius)) < 0.025 * radius, found


@settings(max_examples=40, deadline=None)
@given(size=st.integers(150, 700), aside=st.floats(-0.05, 0.05), share=st.floats(0.6, 0.98), seed=st.integers(0, 99))
def test_a_whole_circle(size: int, aside: float, share: float, seed: int) -> None:
    truth = {'cx': size * (0.6 + aside), 'cy': size * (0.5 - aside * (1 - share)), 'radius': size * share / 2}
    assert_close(find(disc(height=size, width=round(1.2 * size), seed=seed, **truth)), **truth)


@pytest.mark.parametrize('cut', [0.02, 0.1, 0.2])
def test_a_circle_cut_at_top_and_bottom(cut: float) -> None:
    height = round(500 * (1 - cut))
    truth = {'cx': 300.0, 'cy': height / 2 - 0.5, 'radius': 250.0}
    picture = disc(height=height, width=600, **truth)
    assert_close(find(picture), **truth)
    square = crop_square(picture, find(picture), modality='CFP')
    assert square.shape[0] == square.shape[1] and abs(square.shape[0] - 500) <= 12
    assert square[:round(125 * cut)].max() == 0


def test_a_straight_cut_inside_the_picture() -> None:
    truth = {'cx': 300.0, 'cy': 250.0, 'radius': 220.0}
    picture = disc(height=500, width=600, **truth)
    picture[:80] = 0
    picture[420:] = 0
    assert_close(find(picture), **truth)


def test_a_circle_that_touches_all_edges() -> None:
    truth = {'cx': 127.5, 'cy': 127.5, 'radius': 128.0}
    assert_close(find(disc(height=256, width=256, **truth)), **truth)


def test_a_circle_cut_on_all_sides_is_not_padded() -> None:
    truth = {'cx': 199.5, 'cy': 199.5, 'radius': 235.0}
    picture = disc(height=400, width=400, **truth)
    assert_close(find(picture), **truth)
    assert crop_square(picture, find(picture), modality='').shape[0] <= 410


def test_burnt_in_text_is_ignored_and_blackened() -> None:
    truth = {'cx': 300.0, 'cy': 250.0, 'radius': 210.0}
    picture = cv2.putText(disc(height=500, width=600, **truth), '12.03.2009', (470, 40), 0, 0.7, (255, 255, 255), 2)
    found = find(picture)
    assert_close(found, **truth)
    square = crop_square(picture, found, modality='CFP')
    assert square[:50, -50:].max() == 0


@pytest.mark.parametrize('scale', [0.25, 1.0, 2.5])
def test_the_same_circle_at_every_scale(scale: float) -> None:
    truth = {'cx': 300.0, 'cy': 240.0, 'radius': 200.0}
    picture = cv2.resize(disc(height=500, width=600, **truth), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    found = find(picture)
    assert found is not None
    assert_close(found.scaled(1 / scale), **truth)


def flat() -> np.ndarray:
    return np.clip(np.random.default_rng(0).normal(120, 15, (300, 320, 3)), 0, 255).astype(np.uint8)


def oct_scan() -> np.ndarray:
    yy, xx = np.mgrid[:300, :400]
    band = np.exp(-((yy - 150 - 20 * np.sin(xx / 60)) / 25) ** 2) * 180 + np.random.default_rng(0).gamma(2, 8, (300, 400))
    return np.dstack([np.clip(band, 0, 255).astype(np.uint8)] * 3)


@pytest.mark.parametrize('picture', [flat(), oct_scan(), np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 200, np.uint8)])
def test_no_circle_where_there_is_none(picture: np.ndarray) -> None:
    assert find(picture) is None
    square = crop_square(picture, None, modality='')
    assert square.shape[0] == square.shape[1] == max(picture.shape[:2])


def test_oct_is_padded_and_never_cut() -> None:
    scan = oct_scan()
    square = crop_square(scan, Fov(cx=100, cy=100, radius=50), modality='OCT')
    np.testing.assert_array_equal(square[50:350], scan)
    assert square[:50].max() == square[350:].max() == 0


@settings(max_examples=60, deadline=None)
@given(height=st.integers(32, 90), width=st.integers(32, 90), seed=st.integers(0, 1000), kind=st.sampled_from(['noise', 'blob', 'rows']))
def test_any_picture_gives_a_finite_circle_or_none(height: int, width: int, seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (height, width, 3), np.uint8)
    if kind == 'blob':
        picture = cv2.GaussianBlur(picture, (0, 0), 9)
    elif kind == 'rows':
        picture[rng.random(height) < 0.5] = 0
    found = find(picture)
    square = crop_square(picture, found, modality='')
    assert square.shape[0] == square.shape[1] and square.dtype == np.uint8
    assert found is None or np.isfinite([found.cx, found.cy, found.radius]).all()
    assert all(np.isfinite(value) for value in quality.measure(picture, found).values())


def test_quality_numbers_follow_blur_and_light() -> None:
    truth = {'cx': 150.0, 'cy': 150.0, 'radius': 140.0}
    sharp = disc(height=300, width=300, **truth)
    circle = Fov(**truth)
    plain, blurred, dark = (quality.measure(p, circle) for p in (sharp, cv2.GaussianBlur(sharp, (0, 0), 4), sharp // 8))
    assert plain['sharpness'] > 2 * blurred['sharpness']
    assert plain['brightness'] > 4 * dark['brightness'] and dark['dark'] > 0.5 > plain['dark']
    assert quality.measure(np.full((64, 64, 3), 255, np.uint8), None)['saturated'] == 1


@needs_data
def test_drive_masks_are_met() -> None:
    for path in sorted((DATA / 'drive/fov_masks').glob('*'))[::4]:
        picture = next(p for p in (DATA / 'drive/images').iterdir() if p.stem == '_'.join(path.stem.split('_')[:2]))
        pixels = readers.read(picture)[0].pixels
        found = find(pixels)
        yy, xx = np.ogrid[:pixels.shape[0], :pixels.shape[1]]
        mine = np.hypot(xx - found.cx, yy - found.cy) <= found.radius
        truth = readers.read(path)[0].pixels[:, :, 0] > 127
        assert (mine & truth).sum() / (mine | truth).sum() > 0.97, path.name


@needs_data
@pytest.mark.parametrize(('name', 'least'), [('chase_db1', 1.0), ('cataract_glaucoma', 0.95), ('eyepacs_1098', 0.95), ('odir5k', 0.8)])
def test_real_photographs_show_their_circle(name: str, least: float) -> None:
    paths = sorted((DATA / name / 'images').glob('*'))
    paths = paths[::max(1, len(paths) // 40)]
    assert np.mean([find(readers.read(path, shorter_side=256)[0].pixels) is not None for path in paths]) >= least


@needs_data
def test_real_oct_has_no_circle() -> None:
    paths = sorted((DATA / 'oct_kermany/images').glob('*')) + sorted((DATA / 'oct_srf/images').glob('*'))[::4]
    assert paths and all(find(readers.read(path)[0].pixels) is None for path in paths)


@needs_data
def test_quality_separates_good_from_bad_photographs(record_property: pytest.fixture) -> None:
    with (DATA / 'drimdb/labels.csv').open(newline='') as stream:
        rows = [row for row in csv.DictReader(stream) if row['quality'] != 'outlier'][::2]
    numbers = []
    for row in rows:
        pixels = readers.read(DATA / 'drimdb/images' / row['image'])[0].pixels
        numbers.append(quality.measure(pixels, find(pixels)))
    good = [row['quality'] == 'good' for row in rows]
    scores = {name: roc_auc_score(good, [n[name] for n in numbers]) for name in ('contrast', 'sharpness')}
    for name, score in scores.items():
        record_property(f'AUROC_{name}', score)
    assert scores['contrast'] > 0.9 and scores['sharpness'] > 0.7, scores
