"""Planted effects: the mark goes with the label as told, lesions show as told, labels stay, and what is not named keeps its bytes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from retfound_jax.core.config import from_dict, override, to_dict
from retfound_jax.core.errors import UsageError
from retfound_jax.data.config import DataConfig
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.data.phantom.patient import draw_patient, table
from retfound_jax.data.phantom.planted import Shortcut, Visibility
from retfound_jax.data.phantom.render import Photograph, draw_eye
from retfound_jax.data.phantom.sites import SiteStyle
from retfound_jax.data.sources import open_source

CLEAR = SiteStyle(name='Bench', country='Nowhere', camera='ideal', softness=0.0, noise=0.0, jpeg_quality=98, flare=0.0)
SICK = (0.0, 0.0, 0.5, 0.5, 0.0)  # of the grades of diabetic retinopathy
BENCH = PhantomConfig(patients=8, image_size=128, sites=(CLEAR,), links=(), amd=0.9, dr_grades=SICK, missing_fraction=0.0)
SHORTCUT = Shortcut(label='amd', fails_at='Leeds', agreement=0.9, there=0.2)


def of_sex(sex: str, factor: float, disease: str = 'amd') -> Visibility:
    return Visibility(attribute='sex', value=sex, disease=disease, factor=factor)


def first(sex: str) -> int:
    return next(2 * i for i in range(BENCH.patients) if draw_patient(BENCH, i).sex == sex and draw_patient(BENCH, i).eyes[0].amd)


@pytest.fixture(scope='module')
def plain() -> Photograph:
    return draw_eye(BENCH, first('F'))


def green(photograph: Photograph, mask: np.ndarray) -> float:
    return float(photograph.image[..., 1][mask].mean())


def test_the_mark_agrees_with_the_label_as_often_as_told() -> None:
    config = PhantomConfig(patients=1500, amd=0.4, shortcut=SHORTCUT)
    columns = table(config)
    agrees = columns['marked'] == columns['amd']
    there = columns['site'] == 'Leeds'
    for group, told in ((~there, 0.9), (there, 0.2)):
        for label in (0, 1):
            chosen = group & (columns['amd'] == label)
            error = 4 * np.sqrt(told * (1 - told) / chosen.sum())
            assert abs(agrees[chosen].mean() - told) < error
    without = table(replace(config, shortcut=None))
    assert 'marked' not in without and all((columns[name] == without[name]).all() for name in without if name != 'age')


def test_the_mark_is_on_the_photographs_that_the_table_says_and_on_no_other() -> None:
    config = PhantomConfig(patients=10, image_size=48, amd=0.5)
    planted = replace(config, shortcut=SHORTCUT)
    marked = table(planted)['marked'].astype(bool)
    assert 0 < marked.sum() < len(marked)
    for number, mark in enumerate(marked):
        one, other = draw_eye(config, number), draw_eye(planted, number)
        assert one.labels == other.labels
        assert (one.image.tobytes() != other.image.tobytes()) == mark


def test_each_visit_has_its_own_mark() -> None:
    config = PhantomConfig(patients=6, image_size=32, visits=2, shortcut=replace(SHORTCUT, agreement=0.5))
    marked = table(config)['marked'].astype(bool)
    for number in (0, 1, 6, 7):
        alike = draw_eye(config, number).image.tobytes() == draw_eye(replace(config, shortcut=None), number).image.tobytes()
        assert alike != marked[number]
    assert (marked[0::2] != marked[1::2]).any()


@pytest.mark.parametrize('mark', ['cast', 'border', 'notch'])
def test_what_a_mark_does(mark: str, plain: Photograph) -> None:
    config = replace(BENCH, shortcut=Shortcut(label='amd', fails_at='Bench', there=1.0, mark=mark))
    other, fov = draw_eye(config, first('F')), plain.masks['fov']
    change = other.image.astype(int) - plain.image.astype(int)
    if mark == 'cast':
        assert change[fov][:, 2].mean() > 10 and change[fov][:, 0].mean() < -3
    elif mark == 'border':
        assert abs(change[:8, :8].mean() - 40) < 3 and abs(change[fov].mean()) < 2
    else:
        assert change[~fov].max() > 20 and abs(change[fov].mean()) < 2


def test_lesions_are_fainter_by_the_factor_in_the_group_alone(plain: Photograph) -> None:
    bare = draw_eye(BENCH, first('F'), lesions=False)
    seen = plain.masks['drusen'] & ~plain.masks['haemorrhage'] & ~plain.masks['exudate']
    light = {1.0: green(plain, seen) - green(bare, seen)}
    for factor in (0.5, 0.0, -1.0):
        shown = draw_eye(replace(BENCH, visibility=(of_sex('F', factor),)), first('F'))
        light[factor] = green(shown, seen) - green(bare, seen)
        assert shown.labels == plain.labels and (shown.masks['drusen'] == plain.masks['drusen']).all()
    assert light[1.0] > 12
    assert abs(light[0.5] / light[1.0] - 0.5) < 0.15
    assert abs(light[0.0]) < 0.15 * light[1.0]
    assert light[-1.0] < -0.5 * light[1.0]
    man = first('M')
    config = replace(BENCH, visibility=(of_sex('F', -1.0),))
    assert draw_eye(config, man).image.tobytes() == draw_eye(BENCH, man).image.tobytes()


def test_blood_fades_and_turns_pale_too(plain: Photograph) -> None:
    bare = draw_eye(BENCH, first('F'), lesions=False)
    blood = plain.masks['haemorrhage'] & ~plain.masks['drusen'] & ~plain.masks['exudate']
    depth = [
        green(draw_eye(replace(BENCH, visibility=(of_sex('F', factor, 'dr'),)), first('F')), blood) - green(bare, blood)
        for factor in (1.0, 0.5, -1.0)
    ]
    assert depth[0] < 1.5 * depth[1] < 0 < depth[2]


def test_another_colour_shifts_the_lesions_alone(plain: Photograph) -> None:
    blue = replace(BENCH, visibility=(replace(of_sex('F', 1.0), colour='blue'), replace(of_sex('F', 1.0, 'dr'), colour='blue')))
    change = draw_eye(blue, first('F')).image.astype(int) - plain.image.astype(int)
    others = plain.masks['haemorrhage'] | plain.masks['exudate']
    drusen, blood = plain.masks['drusen'] & ~others, plain.masks['haemorrhage'] & ~plain.masks['drusen'] & ~plain.masks['exudate']
    assert change[drusen][:, 2].mean() > 12 and change[drusen][:, 0].mean() < -12
    assert change[blood][:, 0].mean() < -12 and change[blood][:, 1].mean() > 0
    assert draw_eye(blue, first('M')).image.tobytes() == draw_eye(BENCH, first('M')).image.tobytes()


def test_a_factor_of_one_changes_nothing_and_factors_multiply(plain: Photograph) -> None:
    assert draw_eye(replace(BENCH, visibility=(of_sex('F', 1.0),)), first('F')).image.tobytes() == plain.image.tobytes()
    both = replace(BENCH, visibility=(of_sex('F', 0.5), replace(of_sex('F', 0.5), attribute='site', value='Bench')))
    once = replace(BENCH, visibility=(of_sex('F', 0.25),))
    assert draw_eye(both, first('F')).image.tobytes() == draw_eye(once, first('F')).image.tobytes()


def test_the_source_is_that_of_before_where_nothing_is_planted() -> None:
    """The fingerprint is a run's memory of its data: what is off may not change it."""
    config = PhantomConfig(patients=4, image_size=32)
    source = open_source(DataConfig(phantom=config))
    assert open_source(DataConfig(phantom=replace(config, shortcut=SHORTCUT))).fingerprint != source.fingerprint
    assert open_source(DataConfig(phantom=replace(config, visibility=(of_sex('F', 0.5),)))).fingerprint != source.fingerprint
    assert 'label:marked' in open_source(DataConfig(phantom=replace(config, shortcut=SHORTCUT))).table


def test_what_is_planted_is_written_and_read_back() -> None:
    config = PhantomConfig(shortcut=SHORTCUT, visibility=(of_sex('F', -0.5, 'dr'),))
    assert from_dict(PhantomConfig, to_dict(config)) == config
    assert override(config, ['shortcut.agreement=0.8']).shortcut.agreement == 0.8


@pytest.mark.parametrize(('make', 'told'), [
    (lambda: replace(SHORTCUT, label='cataract'), 'is to "cataract"'),
    (lambda: replace(SHORTCUT, agreement=1.2), 'needs probabilities'),
    (lambda: replace(SHORTCUT, strength=0.0), 'strength=0.0'),
    (lambda: PhantomConfig(shortcut=replace(SHORTCUT, fails_at='Leads')), 'did you mean "Leeds"'),
    (lambda: PhantomConfig(shortcut=replace(SHORTCUT, mark='notch')), 'the camera of Leeds always has'),
    (lambda: of_sex('F', 2.0), 'needs one from -1 to 1'),
    (lambda: of_sex('F', 0.5, 'glaucoma'), 'draws no lesions of "glaucoma"'),
    (lambda: PhantomConfig(visibility=(of_sex('X', 0.5),)), 'which nobody has'),
])
def test_what_means_nothing_is_refused(make, told: str) -> None:
    with pytest.raises(UsageError, match=told.replace('"', '.')):
        make()
