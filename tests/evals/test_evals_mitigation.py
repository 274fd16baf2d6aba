"""Thresholds and recalibration by group: what they repair, what they cannot, what they cost, and where a group is too small for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from retfound_jax.evals.group_thresholds import choose_by_group
from retfound_jax.evals.logistic import expit, logit
from retfound_jax.evals.mitigation import MEASURED, ODDS, mitigations
from retfound_jax.evals.predictions import Predictions
from retfound_jax.evals.tables import EvalConfig
from retfound_jax.evals.thresholds import choose

CONFIG = EvalConfig(by=('site',), replicates=60, permutations=20)


def shifted(seed: int, split: str, *, few: int = 0) -> Predictions:
    """One image a patient; at site B every score is too high and too sure, with the same skill. `few` patients of B stay, where asked."""
    rng = np.random.default_rng(seed)
    n = 1200
    site = np.array(['A', 'B'])[(rng.random(n) < 0.35).astype(int)]
    if few:
        site[np.flatnonzero(site == 'B')[few:]] = 'A'
    label = rng.random(n) < 0.4
    odds = 1.6 * label - 1.2 + rng.normal(size=n)
    odds = np.where(site == 'B', 1.8 * odds + 2.0, odds)
    columns = {'key': np.array([f'{split}{i}' for i in range(n)]), 'patient': np.arange(n).astype(str), 'site': site}
    shared = {'labels': ('sick',), 'classes': (), 'step': 1, 'fingerprint': split, 'columns': columns}
    return Predictions(kind='multi', split=split, label_NY=label[:, None].astype(float), score_NS=expit(odds)[:, None], **shared)


@pytest.fixture(scope='module')
def rows() -> dict[tuple[str, str], dict[str, Any]]:
    """By approach and metric."""
    found = mitigations(shifted(0, 'test'), validation=shifted(1, 'val'), by=('site',), config=CONFIG)
    assert found['level'] == 'patient' and not found['notes']
    return {(row['approach'], row['metric']): row for row in found['rows']}


def test_every_means_stands_beside_nothing_done(rows: dict[tuple[str, str], dict[str, Any]]) -> None:
    assert set(rows) == {(a, m) for a in ('none', 'threshold_per_group', 'recalibration_per_group') for m in (*MEASURED, ODDS)}
    for metric in MEASURED:
        assert rows['none', metric]['overall_change'] == rows['none', metric]['gap_change'] == 0
    assert rows['none', ODDS]['overall_before'] is None and rows['none', ODDS]['worst'] is None


def test_thresholds_repair_decisions_and_leave_ranks(rows: dict[tuple[str, str], dict[str, Any]]) -> None:
    odds = rows['threshold_per_group', ODDS]
    assert odds['gap_before'] > 0.3 > 0.15 > odds['gap_after'] and odds['gap_change_high'] < 0
    assert rows['threshold_per_group', 'balanced_accuracy']['overall_change_low'] > 0
    for metric in ('AUROC', 'AUPRC', 'ECE', 'Brier', 'slope'):
        assert rows['threshold_per_group', metric]['overall_change'] == rows['threshold_per_group', metric]['gap_change'] == 0


def test_recalibration_repairs_probabilities_too(rows: dict[tuple[str, str], dict[str, Any]]) -> None:
    for metric in ('ECE', 'Brier'):
        assert rows['recalibration_per_group', metric]['overall_change_high'] < 0 > rows['recalibration_per_group', metric]['gap_change']
    assert rows['recalibration_per_group', 'AUROC']['overall_change_low'] > 0  # scores of the two sites can be compared now
    assert rows['recalibration_per_group', 'AUROC']['gap_change'] == pytest.approx(0, abs=1e-9)
    assert rows['recalibration_per_group', ODDS]['gap_after'] < 0.15


def test_numbers_are_those_of_the_steps_done_by_hand(rows: dict[tuple[str, str], dict[str, Any]]) -> None:
    test, val = shifted(0, 'test'), shifted(1, 'val')
    called, moved = np.zeros(1200, bool), np.zeros(1200)
    for site in 'AB':
        there, fit = test.columns['site'] == site, val.columns['site'] == site
        label, score = val.label_NY[fit, 0] > 0, val.score_NS[fit, 0]
        called[there] = test.score_NS[there, 0] >= choose(label, score=score)
        line = LogisticRegression(C=np.inf, tol=1e-10).fit(logit(score)[:, None], label)
        moved[there] = line.predict_proba(logit(test.score_NS[there, 0])[:, None])[:, 1]
    label = test.label_NY[:, 0] > 0
    assert rows['threshold_per_group', 'sensitivity']['overall_after'] == pytest.approx(called[label].mean())
    assert rows['recalibration_per_group', 'AUROC']['overall_after'] == pytest.approx(roc_auc_score(label, moved), abs=1e-4)
    assert rows['recalibration_per_group', 'Brier']['overall_after'] == pytest.approx(np.mean((moved - label) ** 2), abs=1e-4)


def test_a_group_too_small_on_validation_goes_by_what_is_everybodys() -> None:
    found = mitigations(shifted(0, 'test'), validation=shifted(1, 'val', few=15), by=('site',), config=CONFIG)
    assert {row['note'] for row in found['rows'] if row['approach'] != 'none'} == {'too few on validation, so as everybody: B'}
    odds = next(row for row in found['rows'] if (row['approach'], row['metric']) == ('threshold_per_group', ODDS))
    assert odds['gap_after'] > 0.3


def test_thresholds_by_group_say_why_they_are_not_the_groups_own() -> None:
    def chosen(validation: Predictions | None, **kw: int) -> Any:
        return choose_by_group(validation, by='site', level='patient', overall={'sick': 0.5}, **kw)

    val = shifted(1, 'val')
    there = val.columns['site'] == 'B'
    own = chosen(val).of('B')['sick']
    assert own.note == '' and own.value == choose(val.label_NY[there, 0] > 0, score=val.score_NS[there, 0])
    few = chosen(val, least=1000).of('B')['sick']
    assert (few.value, few.note) == (0.5, 'the global threshold, as validation has fewer than 1000 patients of this group')
    assert 'fewer than 300 patients of this group with it' in chosen(val, least_positive=300).of('B')['sick'].note
    assert chosen(val).of('C')['sick'].value == 0.5 and 'fewer than 20' in chosen(val).of('C')['sick'].note
    without = replace(val, columns={name: v for name, v in val.columns.items() if name != 'site'})
    assert 'no such column' in chosen(without).of('B')['sick'].note
    assert chosen(None).of('B')['sick'].value == 0.5


@pytest.mark.parametrize('why', ['no validation', 'regression', 'one group'])
def test_where_there_is_nothing_to_do_there_are_no_rows(why: str) -> None:
    test, val = shifted(0, 'test'), shifted(1, 'val')
    if why == 'regression':
        test = replace(test, kind='regress')
    if why == 'one group':
        test = replace(test, columns=dict(test.columns) | {'site': np.full(1200, 'A')})
    found = mitigations(test, validation=None if why == 'no validation' else val, by=('site',), config=CONFIG)
    assert found['rows'] == []
