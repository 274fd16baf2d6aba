"""The photographs: the same bytes each time, masks that tell the truth, lesions that follow the grade."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from retfound_jax.core.errors import UsageError
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.data.phantom.draw_lesions import KINDS, severity
from retfound_jax.data.phantom.patient import table
from retfound_jax.data.phantom.render import MASKS, Photograph, draw_eye
from retfound_jax.data.phantom.sites import SiteStyle

CLEAR = SiteStyle(name='Bench', country='Nowhere', camera='ideal', softness=0.0, noise=0.0, jpeg_quality=98, flare=0.0)
BENCH = PhantomConfig(patients=400, image_size=256, sites=(CLEAR,), links=(), lens_ageing=0.0)
GRADES = table(BENCH)['dr_grade']


def _eye(grade: int, which: int = 0, *, lesions: bool = True) -> Photograph:
    return draw_eye(BENCH, int(np.flatnonzero(GRADES == grade)[which]), lesions=lesions)


def test_the_same_eye_has_the_same_bytes_in_any_order() -> None:
    config = PhantomConfig(patients=20, image_size=96)
    forward = [draw_eye(config, i).image for i in (3, 7, 12)]
    backward = [draw_eye(config, i).image for i in (12, 7, 3)][::-1]
    for one, two in zip(forward, backward, strict=True):
        assert one.tobytes() == two.tobytes()
    assert draw_eye(PhantomConfig(patients=20, image_size=96, seed=1), 3).image.tobytes() != forward[0].tobytes()


@pytest.mark.parametrize('size', [64, 96, 250])
def test_shapes_and_types(size: int) -> None:
    photograph = draw_eye(PhantomConfig(patients=2, image_size=size), 1)
    assert photograph.image.shape == (size, size, 3) and photograph.image.dtype == np.uint8
    assert photograph.laterality == 'L'
    assert set(photograph.masks) == set(MASKS)
    for mask in photograph.masks.values():
        assert mask.shape == (size, size) and mask.dtype == bool
        assert not (mask & ~photograph.masks['fov']).any()


def test_labels_are_those_of_the_table() -> None:
    config = PhantomConfig(patients=4, image_size=64)
    columns = table(config)
    for index in range(8):
        labels = draw_eye(config, index).labels
        assert labels['dr_grade'] == columns['dr_grade'][index] and labels['amd'] == columns['amd'][index]
        assert labels['cup_to_disc'] == pytest.approx(columns['cup_to_disc'][index], abs=1e-3)


@pytest.mark.parametrize('grade', [1, 2, 3, 4])
@pytest.mark.parametrize('which', [0, 1])
def test_lesions_change_the_picture_where_their_masks_are_and_nowhere_else(grade: int, which: int) -> None:
    with_lesions, without = _eye(grade, which), _eye(grade, which, lesions=False)
    marked = np.any([with_lesions.masks[kind] for kind in KINDS], axis=0)
    marked |= with_lesions.masks['vein'] ^ without.masks['vein']  # venous beading
    near = cv2.dilate(marked.astype(np.uint8), np.ones((13, 13), np.uint8)) > 0
    change = np.abs(with_lesions.image.astype(int) - without.image.astype(int)).max(axis=2)
    assert change[~near].max() <= 12  # what JPEG carries within a block
    assert change[marked].mean() > 10
    assert not any(without.masks[kind].any() for kind in KINDS)


def test_blood_is_darker_and_exudate_brighter_than_the_same_place_without() -> None:
    for which in range(3):
        sick, plain = _eye(3, which), _eye(3, which, lesions=False)
        change = sick.image[..., 1].astype(int) - plain.image[..., 1].astype(int)
        pale = sick.masks['exudate'] | sick.masks['cotton_wool'] | sick.masks['drusen']
        assert change[sick.masks['haemorrhage'] & ~pale].mean() < -12
        only = sick.masks['exudate'] & ~sick.masks['haemorrhage'] & ~sick.masks['microaneurysm']
        assert not only.any() or change[only].mean() > 12


def test_lesions_follow_the_grade() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        none, mild, moderate, severe, proliferative = (severity(rng, dr_grade=grade) for grade in range(5))
        assert none.microaneurysms == 0
        assert mild.microaneurysms > 0 and sum(mild.haemorrhages) + mild.exudate_clusters + mild.cotton_wool == 0
        assert 0 < sum(moderate.haemorrhages) < 20 and not moderate.irma and not moderate.beaded_quadrants
        assert min(severe.haemorrhages) >= 20 or severe.beaded_quadrants >= 2 or severe.irma >= 1
        assert not severe.new_vessels_disc and not severe.new_vessels_elsewhere and not severe.preretinal
        assert proliferative.new_vessels_disc or proliferative.new_vessels_elsewhere or proliferative.preretinal


@pytest.mark.parametrize('size', [96, 192])
def test_masks_follow_the_grade_at_any_size(size: int) -> None:
    config = PhantomConfig(patients=400, image_size=size, sites=(CLEAR,), links=(), amd=0.0, lens_ageing=0.0)
    grades = table(config)['dr_grade']
    seen = {grade: set() for grade in range(5)}
    for grade, kinds in seen.items():
        for index in np.flatnonzero(grades == grade)[:3]:
            kinds |= {kind for kind, mask in draw_eye(config, int(index)).masks.items() if kind in KINDS and mask.any()}
    assert seen[0] <= {'drusen'}
    assert 'microaneurysm' in seen[1] and seen[1] <= {'microaneurysm', 'drusen'}
    assert {'microaneurysm', 'haemorrhage'} <= seen[2] and 'new_vessel' not in seen[2] | seen[3]
    assert 'haemorrhage' in seen[3] and 'new_vessel' in seen[4]


def test_the_cup_to_disc_ratio_can_be_measured_from_the_masks() -> None:
    config = PhantomConfig(patients=20, image_size=384, sites=(CLEAR,))
    for index in range(0, 16, 2):
        photograph = draw_eye(config, index)
        height = {name: np.ptp(np.flatnonzero(photograph.masks[name].any(axis=1))) + 1 for name in ('cup', 'disc')}
        assert height['cup'] / height['disc'] == pytest.approx(photograph.labels['cup_to_disc'], abs=0.04)
        assert not (photograph.masks['cup'] & ~photograph.masks['disc']).any()


def test_drusen_mark_macular_degeneration() -> None:
    area = {0: [], 1: []}
    amd = table(BENCH)['amd']
    for label in area:
        for index in np.flatnonzero(amd == label)[:6]:
            area[label].append(draw_eye(BENCH, int(index)).masks['drusen'].sum())
    assert min(area[1]) > 2 * max(max(area[0]), 10)


def test_left_eyes_mirror_right_eyes() -> None:
    for patient in range(3):
        right, left = draw_eye(BENCH, 2 * patient), draw_eye(BENCH, 2 * patient + 1)
        columns = np.arange(256)
        place = [(p.masks['disc'].any(axis=0) * columns).sum() / p.masks['disc'].any(axis=0).sum() for p in (right, left)]
        macula = [(p.masks['fovea'].any(axis=0) * columns).sum() / p.masks['fovea'].any(axis=0).sum() for p in (right, left)]
        assert place[0] > macula[0] and place[1] < macula[1]


def test_vessels_leave_the_fovea_free_and_veins_are_darker() -> None:
    for index in range(4):
        eye = draw_eye(BENCH, index, lesions=False)
        centre = cv2.erode(eye.masks['fovea'].astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
        assert not ((eye.masks['artery'] | eye.masks['vein']) & centre).any()
        green = eye.image[..., 1].astype(float)
        inside = cv2.erode(eye.masks['fov'].astype(np.uint8), np.ones((33, 33), np.uint8)) > 0
        inside &= ~(cv2.dilate(eye.masks['disc'].astype(np.uint8), np.ones((33, 33), np.uint8)) > 0)
        around = cv2.blur(green, (31, 31)) + 1
        thick = cv2.erode(eye.masks['vein'].astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        only_artery = eye.masks['artery'] & ~eye.masks['vein'] & inside
        assert (green / around)[thick & inside].mean() < (green / around)[only_artery].mean() < 1.0


def test_pigment_darkens_the_picture() -> None:
    config = PhantomConfig(patients=300, image_size=64, lens_ageing=0.0)
    columns = table(PhantomConfig(patients=300, missing_fraction=0.0))
    mean = {}
    for name in ('Black', 'White'):
        eyes = [draw_eye(config, int(i)) for i in np.flatnonzero(columns['ethnicity'] == name)[:30:2]]
        mean[name] = np.mean([e.image[e.masks['fov']].mean() for e in eyes])
    assert mean['White'] > mean['Black'] + 20


def test_an_old_lens_takes_the_blue_unless_the_link_is_cut() -> None:
    ages = table(PhantomConfig(patients=300, missing_fraction=0.0))['age']
    old = np.flatnonzero(ages > 75)[:8:2]
    for ageing, low, high in ((1.0, 0.015, 1.0), (0.0, -1e-9, 1e-9)):
        config, plain = (PhantomConfig(patients=300, image_size=64, lens_ageing=value) for value in (ageing, 0.0))
        share = [[e.image[..., 2].mean() / e.image[..., 0].mean() for e in (draw_eye(c, int(i)) for i in old)] for c in (plain, config)]
        assert low <= np.mean(share[0]) - np.mean(share[1]) <= high


def test_a_second_photograph_of_one_eye_is_nearly_the_same_picture() -> None:
    config = PhantomConfig(patients=60, image_size=96, near_duplicate_fraction=0.3)
    twin = next(p for p in (draw_eye(config, 2 * i) for i in range(60)) if p.patient.source != p.patient.index)
    first = draw_eye(config, 2 * twin.patient.source)
    assert first.image.tobytes() != twin.image.tobytes()
    assert np.abs(first.image.astype(int) - twin.image.astype(int)).mean() < 6


def test_there_is_no_eye_beyond_the_last() -> None:
    with pytest.raises(UsageError, match='eyes 0 to 9'):
        draw_eye(PhantomConfig(patients=5), 10)
