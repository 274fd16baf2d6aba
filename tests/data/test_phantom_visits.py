"""An eye that is photographed again: the same eye, never better, and a first photograph that hints at what comes."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from retfound_jax.cli import main as front
from retfound_jax.core.errors import UsageError
from retfound_jax.data.config import DataConfig
from retfound_jax.data.phantom import render
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.data.phantom.draw_lesions import KINDS
from retfound_jax.data.phantom.patient import draw_patient, table, visits_of
from retfound_jax.data.phantom.render import draw_eye
from retfound_jax.data.sources import open_source

CONFIG = PhantomConfig(patients=300, image_size=64, visits=3, missing_fraction=0.0)
TABLE = table(CONFIG)
GRADES = TABLE['dr_grade'].reshape(-1, 3)


def test_the_first_visit_is_the_phantom_of_one_visit() -> None:
    once = dataclasses.replace(CONFIG, visits=1)
    for eye in (0, 5, 9):
        first, alone = draw_eye(CONFIG, 3 * eye), draw_eye(once, eye)
        assert first.image.tobytes() == alone.image.tobytes()
        assert all((first.masks[name] == alone.masks[name]).all() for name in alone.masks)
    single = table(once)
    assert not {'visit', 'visit_years', 'progresses'} & set(single)
    for name in set(single) - {'image'}:
        assert (TABLE[name][::3] == single[name]).all(), name


def test_the_table_says_when_and_whether_it_gets_worse() -> None:
    assert TABLE['image'][:4].tolist() == ['P000000_R_V0.jpg', 'P000000_R_V1.jpg', 'P000000_R_V2.jpg', 'P000000_L_V0.jpg']
    assert TABLE['visit'].tolist() == [0, 1, 2] * 600
    years = TABLE['visit_years'].reshape(-1, 3)
    assert (years[:, 0] == 0).all() and (np.diff(years) >= 0.99).all() and (np.diff(years) <= 3.01).all()
    assert (years[0::2] == years[1::2]).all()  # both eyes on one day
    assert len(np.unique(years[:, 1])) > 100
    worse = TABLE['progresses'].reshape(-1, 3)
    assert np.isnan(worse[:, 2]).all()
    assert (worse[:, :2] == (GRADES[:, 2:] > GRADES[:, :2])).all()
    assert 0.15 < worse[:, 0].mean() < 0.45
    ages = TABLE['age'].reshape(-1, 3)
    assert ((ages - ages[:, :1] <= years) & (years < ages - ages[:, :1] + 1)).all()


def test_nothing_ever_gets_better_and_lesions_are_those_of_the_grade() -> None:
    for index in range(300):
        patient = draw_patient(CONFIG, index)
        for side in (0, 1):
            visits = visits_of(CONFIG, patient, side)
            counts = np.array([[np.sum(value) for value in dataclasses.astuple(visit.severity)] + [visit.drusen] for visit in visits])
            assert (np.diff(counts, axis=0) >= 0).all()
            assert (np.diff([visit.cup_to_disc for visit in visits]) >= 0).all()
            for visit in visits:
                state, grade = visit.severity, visit.dr_grade
                rule = min(state.haemorrhages) >= 20 or state.beaded_quadrants >= 2 or state.irma >= 1
                new = state.new_vessels_disc or state.new_vessels_elsewhere or state.preretinal
                assert (state.microaneurysms > 0) == (grade > 0)
                assert (sum(state.haemorrhages) > 0) == (grade > 1)
                assert not rule or grade >= 3
                assert rule or grade != 3
                assert bool(new) == (grade == 4)


def test_seen_by_one_camera_an_eye_keeps_its_vessels_and_its_lesions(monkeypatch: pytest.MonkeyPatch) -> None:
    aim = render.draw_camera.aim
    monkeypatch.setattr(render.draw_camera, 'aim', lambda rng, *given, **more: aim(np.random.default_rng(0), *given, **more))
    eye = int(np.flatnonzero((GRADES[:, 0] == 1) & (GRADES[:, 2] >= 2) & (TABLE['dr_grade'].reshape(-1, 3)[:, 1] < 3))[0])
    first, second, third = (draw_eye(CONFIG, 3 * eye + visit) for visit in range(3))
    for name in ('artery', 'disc', 'fovea'):
        assert (first.masks[name] == third.masks[name]).all()
    for before, now in ((first, second), (second, third)):
        for kind in KINDS:
            assert not (before.masks[kind] & ~now.masks[kind]).any(), kind
    assert third.masks['haemorrhage'].sum() > first.masks['haemorrhage'].sum()
    assert np.abs(first.image.astype(int) - second.image).mean() > 3  # another light


def test_the_camera_is_set_anew_at_each_visit_and_labels_are_those_of_the_table() -> None:
    for index in (7, 8, 100):
        photograph = draw_eye(CONFIG, index)
        assert photograph.labels['dr_grade'] == TABLE['dr_grade'][index]
        assert photograph.labels['cup_to_disc'] == pytest.approx(TABLE['cup_to_disc'][index], abs=1e-3)
        assert photograph.visit.years == TABLE['visit_years'][index]
    discs = [np.argwhere(draw_eye(CONFIG, visit).masks['disc']).mean(0) for visit in range(3)]
    assert np.ptp(discs, axis=0).max() > 0.3  # [px]


def test_the_first_photograph_hints_at_what_comes() -> None:
    sick = (GRADES[:, 0] >= 1) & (GRADES[:, 0] <= 3)
    first = [visits_of(CONFIG, draw_patient(CONFIG, eye // 2), eye % 2)[0] for eye in range(600)]
    spots = np.array([visit.severity.microaneurysms for visit in first])
    ranks = np.concatenate([np.argsort(np.argsort(spots[GRADES[:, 0] == grade])) / np.sum(GRADES[:, 0] == grade) for grade in (1, 2, 3)])
    worse = np.concatenate([GRADES[GRADES[:, 0] == grade][:, 2] > grade for grade in (1, 2, 3)])
    assert roc_auc_score(worse, ranks) > 0.7
    assert (GRADES[sick][:, 2] > GRADES[sick][:, 0]).mean() > 1.5 * (GRADES[GRADES[:, 0] == 0][:, 2] > 0).mean()


def test_a_share_of_no_eyes_gets_no_worse() -> None:
    still = table(dataclasses.replace(CONFIG, patients=100, progressing=0.0))
    assert np.nansum(still['progresses']) == 0


def test_the_verb_and_the_source_know_visits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / 'phantom'
    assert front.main(['phantom', f'--out={out}', '--patients=2', '--size=32', '--visits=2', '--format=png']) == 0
    assert '8 photographs of 2 patients' in capsys.readouterr().out
    rows = list(csv.DictReader((out / 'labels.csv').open(encoding='utf-8', newline='')))
    assert [row['image'] for row in rows][:2] == ['P000000_R_V0.png', 'P000000_R_V1.png']
    assert rows[1]['progresses'] == '' and rows[0]['visit_years'] == '0'
    assert len(list((out / 'images').iterdir())) == 8
    labels = ('visit_years', 'visit', 'progresses')
    source = open_source(DataConfig(phantom=CONFIG, split='val', labels=labels, image_size=32))
    assert source.label_classes['visit'] == ['0', '1', '2'] and source.label_classes['visit_years'] is None
    key = str(source.table['key'][4])
    assert (source[4]['image'] == draw_eye(CONFIG, int(np.flatnonzero(TABLE['image'] == key)[0])).image).all()


@pytest.mark.parametrize('wrong', [{'visits': 0}, {'visits': 51}, {'visit_years': 0.0}])
def test_visits_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match='it draws 1 to 50 visits'):
        PhantomConfig(**wrong)
