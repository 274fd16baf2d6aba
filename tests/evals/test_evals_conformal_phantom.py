"""The promise of conformal sets on the phantom: with a score simulated for very many people, and by a model that saw photographs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from phantom_uncertainty import DATA, UNSEEN_SITES, people, said_of, trained
from scipy.special import expit

from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.data.phantom.patient import table
from retfound_jax.evals import conformal, ood
from retfound_jax.evals.coverage import coverage_rows
from retfound_jax.evals.features import extract
from retfound_jax.evals.metrics import auroc
from retfound_jax.evals.predictions import Predictions
from retfound_jax.evals.proportions import share
from retfound_jax.evals.tables import EvalConfig, plan_of
from retfound_jax.train.checkpoint import Run

pytestmark = pytest.mark.slow
BY = ('sex', 'ethnicity', 'site')
WITHIN = 0.02
DIVISIONS = 50


def rows_of(judged: Predictions, *, validation: Predictions) -> list[dict[str, Any]]:
    return coverage_rows(judged, validation=validation, plan=plan_of(judged, config=EvalConfig(by=BY)), alphas=(0.1,))


def part(whole: Predictions, rows_N: np.ndarray, *, split: str) -> Predictions:
    """Some rows of predictions."""
    columns = {name: values[rows_N] for name, values in whole.columns.items()}
    return replace(whole, split=split, columns=columns, label_NY=whole.label_NY[rows_N], score_NS=whole.score_NS[rows_N])


def simulated(patients: int, *, kind: str) -> Predictions:
    """The phantom's table with a score that knows each label a little, and less of it where the camera is poor."""
    config, rng = PhantomConfig(patients=patients), np.random.default_rng(0)
    given = table(config)
    poor = np.isin(given['camera'], ['HH-40', 'EP-45'])
    grade, n = given['dr_grade'].astype(float), 2 * patients
    shared = np.repeat(rng.normal(size=patients), 2)  # what makes one eye hard makes the other hard too
    blur = (shared + rng.normal(size=n)) * np.where(poor, 2.2, 0.7)
    columns = {
        'key': given['image'],
        'patient': given['patient_id'],
        'laterality': given['eye'],
        'age': given['age'].astype(float),
        **{name: given[name] for name in ('sex', 'ethnicity', 'country', 'site', 'camera')},
    }
    if kind == 'ordinal':
        classes, label = ('0', '1', '2', '3', '4'), grade[:, None]
        score = np.exp(-0.6 * (np.arange(5) - (grade + blur)[:, None]) ** 2) + 1e-6
        score /= score.sum(axis=1, keepdims=True)
    else:
        classes, label = (), np.stack([given['glaucoma'], given['amd']], axis=1).astype(float)
        score = expit(2.5 * label - 1.2 + blur[:, None])
    labels = ('dr_grade',) if classes else ('glaucoma', 'amd')
    return Predictions(
        kind=kind, labels=labels, classes=classes, split='test', step=0, fingerprint='', columns=columns, label_NY=label, score_NS=score
    )


def is_promise(row: dict[str, Any]) -> bool:
    """Whether a row's threshold is of people like those it is about, and its numbers are there."""
    own = row['kind'] == 'by_group' and not row['note']
    return row['coverage'] is not None and (own or (row['kind'], row['by']) == ('overall', ''))


@pytest.mark.parametrize('kind', ['ordinal', 'multi'])
def test_coverage_is_within_two_points_overall_and_in_every_group(kind: str) -> None:
    """100,000 people, so that chance moves a group's coverage by half a point; shown is by how much it is off at most."""
    whole = simulated(100_000, kind=kind)
    half = np.repeat(np.random.default_rng(1).permutation(100_000) % 2 == 0, 2)
    rows = rows_of(part(whole, half, split='test'), validation=part(whole, ~half, split='val'))
    off = [row['coverage'] - 0.9 for row in rows if is_promise(row) or row['kind'] == 'by_class']
    print(f'{kind}: {len(off)} promises, off by {100 * min(off):.2f} to {100 * max(off):.2f} points')
    assert len(off) > 30 and max(map(abs, off)) < WITHIN
    # with one threshold for all, those before a poor camera are let down: this is what calibrating by group is for
    shared = [row for row in rows if (row['kind'], row['by']) == ('overall', 'site') and row['coverage'] is not None]
    assert {'Nairobi', 'Los Angeles'} <= {row['group'] for row in shared if row['p_holm'] < 0.001}
    assert min(row['coverage'] for row in shared) < 0.9 - WITHIN


@pytest.fixture(scope='module')
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A tiny model of photographs of five sites."""
    return trained(Path(tmp_path_factory.mktemp('run')))


@pytest.fixture(scope='module')
def said(run: Run) -> tuple[Predictions, Predictions]:
    """What it says of two phantoms of 1,260 people each, none of whom it learned from."""
    return tuple(said_of(run, people(seed=seed, patients=1800)) for seed in (1, 2))


def test_a_model_that_looked_at_photographs_keeps_the_promise(said: tuple[Predictions, Predictions]) -> None:
    """Once as it is used; then over 50 divisions of the people into validation and judged, so that chance is small."""
    first, second = said
    once = [row for row in rows_of(second, validation=first) if is_promise(row)]
    tested = [row['p_holm'] for row in once if row['p_holm'] is not None]
    assert len(tested) > 30 and min(tested) > 0.001
    whole = together(first, second)
    _, patient_N = np.unique(whole.columns['patient'], return_inverse=True)
    rng, found = np.random.default_rng(3), {}
    for _ in range(DIVISIONS):
        half_N = (rng.permutation(patient_N.max() + 1) % 2 == 0)[patient_N]
        for row in rows_of(part(whole, half_N, split='test'), validation=part(whole, ~half_N, split='val')):
            if is_promise(row):
                name = tuple(row[key] for key in ('target', 'method', 'level', 'by', 'group'))
                found.setdefault(name, []).append(row['coverage'] - 0.9)
    mean = [float(np.mean(values)) for values in found.values() if len(values) == DIVISIONS]
    worst = max(abs(row['coverage'] - 0.9) for row in once)
    off = f'{100 * worst:.1f} points at most once, by {100 * max(map(abs, mean)):.2f} in the mean of {DIVISIONS}'
    print(f'{len(mean)} promises: off by {off}')
    assert len(mean) > 30 and max(map(abs, mean)) < WITHIN


def together(first: Predictions, second: Predictions) -> Predictions:
    """Both in one; each calls its first patient P000000."""
    columns = {name: np.concatenate([first.columns[name], second.columns[name]]) for name in first.columns}
    for name in ('key', 'patient'):
        columns[name] = np.concatenate([np.char.add(mark, one.columns[name]) for mark, one in (('a', first), ('b', second))])
    return replace(
        first,
        columns=columns,
        label_NY=np.concatenate([first.label_NY, second.label_NY]),
        score_NS=np.concatenate([first.score_NS, second.score_NS]),
    )


def test_a_camera_never_seen_is_flagged(run: Run) -> None:
    """Distances of the features of photographs: of the usual kind, from a camera and with a disease that training has none of.

    Measured (2026-11-26): 65 and 51 % of the camera's photographs are flagged, of ordinary ones 6 and 4 %; AUROC .94 and .91. The disease
    is not found, AUROC .38 and .41: it moves the features of so small a model less than people differ. It is printed, not promised.
    """
    known, usual, camera, disease = (
        extract(run.spec, run.params, data=data, split='train')
        for data in (
            people(seed=3, patients=400),
            people(seed=4, patients=400),
            people(seed=5, patients=200, sites=UNSEEN_SITES),
            people(seed=6, patients=200, amd=0.5),
        )
    )
    train_TD, _ = extract(run.spec, run.params, data=DATA, split='train')
    ill_N = disease[1].table['label:amd'] > 0
    for name, fit in (('mahalanobis', ood.mahalanobis), ('nearest', ood.nearest)):
        distance = fit(train_TD)
        threshold = conformal.quantile(distance(known[0]), patient=known[1].table['patient'], alpha=0.05)
        flagged = {}
        for kind, (features_ND, source) in {'usual': usual, 'camera': camera}.items():
            flagged[kind] = share(distance(features_ND) > threshold, patient=source.table['patient'])
        strange = distance(disease[0])
        areas = [
            auroc(np.repeat([0, 1], [len(usual[0]), len(camera[0])]), score=np.r_[distance(usual[0]), distance(camera[0])]),
            auroc(ill_N, score=strange),
        ]
        told = ', '.join(f'{kind} {100 * one.value:.1f} %' for kind, one in flagged.items())
        print(f'{name}: flagged {told}; AUROC of a new camera {areas[0]:.3f}, of a new disease {areas[1]:.3f}')
        assert flagged['usual'].low <= 0.05 + 0.02 and flagged['camera'].low > flagged['usual'].high
        assert areas[0] > 0.6
