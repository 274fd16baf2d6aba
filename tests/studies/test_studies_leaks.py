"""Every study that is declared refuses data that leak, before its first cell."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from test_studies_guard import Row, edited, ingested

from retfound_jax.cli import _tables
from retfound_jax.core.errors import UserError
from retfound_jax.studies import run
from retfound_jax.studies.grid import Study, with_weights

STUDIES = tuple(name for name in _tables.entries() if not name.endswith('_phantom'))


@pytest.fixture(scope='module')
def eyes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six patients that do not leak."""
    return ingested(tmp_path_factory.mktemp('study'), seed=3)


def shared_patient(rows: dict[str, Row]) -> None:
    rows['5L'].update(patient='p0')


def one_photograph(rows: dict[str, Row]) -> None:
    rows['4R'].update({name: rows['1L'][name] for name in ('pixel_sha256', 'phash')})


@pytest.mark.parametrize('name', STUDIES)
@pytest.mark.parametrize(
    ('leak', 'said'),
    [
        (shared_patient, 'the patient p0 of .* is in train .* and in test'),
        (one_photograph, 'one photograph twice: 1L in train and 4R in test'),
    ],
)
def test_a_study_refuses_a_leak(name: str, leak: Callable[[dict[str, Row]], None], said: str, eyes: Path, tmp_path: Path) -> None:
    """The last of its datasets leaks, so that all of them are looked at."""
    study: Study = _tables.load(name)
    study = with_weights(study, {method.name: 'not read' for method in study.methods if method.weights})
    *others, last = study.data
    for one in others:
        shutil.copytree(eyes, tmp_path / 'data' / one.name)
    edited(eyes, tmp_path / 'data' / last.name, leak)
    with pytest.raises(UserError, match=said) as error:
        run.run(study, workdir=tmp_path / 'study', data=tmp_path / 'data')
    assert '\n' not in str(error.value) and '. ' not in str(error.value)
    assert not (tmp_path / 'study' / 'cells').exists()


def swapped(rows: dict[str, Row]) -> None:
    """The photographs of a training and of a test image change places."""
    names = ('pixel_sha256', 'phash')
    one, other = ({name: rows[key][name] for name in names} for key in ('1L', '4R'))
    rows['1L'].update(other)
    rows['4R'].update(one)


def test_a_study_across_datasets_refuses_a_photograph_of_both(eyes: Path, tmp_path: Path) -> None:
    """Each is clean by itself; what one tests is what another trains."""
    study = _tables.load('retfound_external')
    study = with_weights(study, {method.name: 'not read' for method in study.methods if method.weights})
    *others, last = study.data
    for one in others:
        shutil.copytree(eyes, tmp_path / 'data' / one.name)
    edited(eyes, tmp_path / 'data' / last.name, swapped)
    with pytest.raises(UserError, match='not all test images are new: one photograph twice: 1L in what .* 4R in the test images'):
        run.run(study, workdir=tmp_path / 'study', data=tmp_path / 'data')
    assert not (tmp_path / 'study' / 'cells').exists()
