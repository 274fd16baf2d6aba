"""Differences between groups: gaps and their null, equalised odds, the group that fails, what could not be seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from retfound_jax.core.errors import UsageError
from retfound_jax.evals import failing, gaps
from retfound_jax.evals.delong import group_delong
from retfound_jax.evals.fairness import How, judge
from retfound_jax.evals.permutation import PERMUTED, Grouped, p_value, permuted_groups, permuted_metrics, units
from retfound_jax.evals.power import binomial, detectable_difference, detectable_gap, hanley_mcneil
from retfound_jax.evals.predictions import Predictions
from retfound_jax.evals.rows import GAP
from retfound_jax.evals.stats import holm
from retfound_jax.evals.subgroups import MOST, group_masks
from retfound_jax.evals.tables import EvalConfig, evaluate
from retfound_jax.evals.text import format_table

Make = Callable[..., Predictions]


def grouped(seed: int = 0, *, patients: int = 120, groups: int = 3, worse: float = 0.0, threshold: float | None = 0.5) -> Grouped:
    """Two eyes a patient; the last group's scores know less by `worse`."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), 2)
    group = rng.integers(groups, size=patients)[patient]
    label = (rng.random(patients) < 0.4)[patient] ^ (rng.random(2 * patients) < 0.1)
    signal = np.where(group == groups - 1, 0.4 - worse, 0.4)
    score = np.round(0.3 * rng.random(patients)[patient] + 0.3 * rng.random(2 * patients) + signal * label, 2)
    names = tuple('abcdefgh'[:groups])
    return Grouped(label_M=label, score_M=score, patient_M=patient, group_M=group, groups=names, threshold=threshold)


def test_permuted_groups_keep_patients_and_strata_together() -> None:
    rows = grouped()
    unit, group, stratum = units(rows)
    assert len(group) == 120 and np.array_equal(group[unit], rows.group_M)
    dealt = permuted_groups(group, stratum=stratum, permutations=50, seed=1)
    assert np.array_equal(dealt, permuted_groups(group, stratum=stratum, permutations=50, seed=1)) and (dealt != group[:, None]).any()
    positive = np.bincount(unit, weights=rows.label_M)
    for one in np.unique(stratum):
        inside = stratum == one
        np.testing.assert_array_equal(np.sort(dealt[inside], axis=0), np.sort(group[inside])[:, None].repeat(50, axis=1))
        assert len({min(p, 2) for p in positive[inside]}) == 1
    # groups keep their numbers of diseased eyes
    assert {tuple(np.bincount(column[unit], weights=rows.label_M)) for column in dealt.T} == {tuple(np.bincount(group[unit], rows.label_M))}


def test_permuted_metrics_equal_a_loop_over_permutations() -> None:
    rows = grouped(1)
    unit, group, stratum = units(rows)
    dealt = permuted_groups(group, stratum=stratum, permutations=6, seed=3)
    found = permuted_metrics(rows, permutations=6, seed=3)
    assert set(found) == set(PERMUTED)
    for r in range(6):
        for g in range(3):
            kept = dealt[unit, r] == g
            label, score = rows.label_M[kept], rows.score_M[kept]
            assert found['AUROC'][r, g] == pytest.approx(roc_auc_score(label, score))
            assert found['sensitivity'][r, g] == pytest.approx((score[label] >= 0.5).mean())
            assert found['Brier'][r, g] == pytest.approx(np.mean((score - label) ** 2))


def test_eyes_of_one_patient_in_two_groups_move_apart() -> None:
    rows = grouped(2)
    sides = replace(rows, group_M=np.tile([0, 1], 120), groups=('L', 'R'))
    unit, group, _ = units(sides)
    assert len(group) == 240 and len(np.unique(unit)) == 240


def test_p_counts_the_observed_among_the_null() -> None:
    null = np.arange(1, 100) / 100
    assert p_value(0.5, null=null) == pytest.approx((1 + 50) / 100)
    assert p_value(2.0, null=np.append(null, np.nan)) == 0.01


def test_a_p_beyond_all_permutations_follows_the_tail_on_the_safe_side() -> None:
    rng = np.random.default_rng(0)
    null = rng.normal(size=2000)
    for z in (3.5, 4.0, 5.0, 6.0):
        found = p_value(z, null=null)
        assert stats.norm.sf(z) < found < (1 / 2001 if z > 3.5 else 0.01), z
    assert p_value(1.0, null=null) == pytest.approx((1 + (null >= 1).sum()) / 2001)
    below = [p_value(z, null=rng.normal(size=1000)) < 0.002 for z in rng.normal(size=4000)]
    assert np.mean(below) < 0.004  # 0.002 and its noise
    assert p_value(1.0, null=np.zeros(2000)) == 1 / 2001


def test_two_groups_have_the_ordinary_interval_and_more_have_a_wider_one() -> None:
    rng = np.random.default_rng(0)
    value, replicates = np.array([0.9, 0.8, 0.82]), rng.normal(size=(3, 4000)) * 0.02 + np.array([0.9, 0.8, 0.82])[:, None]
    two, three = gaps.gap(value[:2], replicates=replicates[:2]), gaps.gap(value, replicates=replicates)
    assert (two.low, two.high) == pytest.approx((0.1 - 1.96 * 0.0283, 0.1 + 1.96 * 0.0283), abs=0.003)
    # Tukey's studentised range for three: 3.31 / sqrt(2)
    assert (three.low, three.high) == pytest.approx((0.1 - 2.34 * 0.0283, 0.1 + 2.34 * 0.0283), abs=0.003)
    assert gaps.gap(value[1:], replicates=replicates[1:]).low == 0 and gaps.gap(value, replicates=replicates, most=0.12).high == 0.12


def test_best_and_worst_look_where_better_is() -> None:
    value = np.array([0.2, 0.9, 1.4])
    assert gaps.best_and_worst(value, metric='AUROC') == (2, 0)
    assert gaps.best_and_worst(value, metric='ECE') == (0, 2)
    assert gaps.best_and_worst(value, metric='slope') == (1, 0)


def test_equalised_odds_is_the_larger_of_the_two_gaps() -> None:
    sensitivity, specificity = np.array([0.9, 0.7, 0.8]), np.array([0.95, 0.9, 0.6])
    still = tuple(np.repeat(v[:, None], 10, axis=1) for v in (sensitivity, specificity))
    assert gaps.equalised_odds(sensitivity, specificity=specificity, replicates=still, level=0.95).value == pytest.approx(0.35)


def test_the_failing_group_comes_first_with_its_shortfall() -> None:
    rows = grouped(5, patients=300, worse=0.35)
    null = permuted_metrics(rows, permutations=199, seed=0)
    found = failing.by_evidence(failing.failing_rows(rows, null=null, level=0.95))
    assert found[0]['group'] == 'c' and found[0]['p'] == 1 / 200 and found[0]['low'] > 0
    area = next(row for row in found if (row['group'], row['metric']) == ('c', 'AUROC'))
    assert area['value'] == pytest.approx(roc_auc_score(rows.label_M[rows.group_M == 2], rows.score_M[rows.group_M == 2]))
    assert area['rest'] == pytest.approx(roc_auc_score(rows.label_M[rows.group_M < 2], rows.score_M[rows.group_M < 2]))
    better = [row for row in found if row['group'] != 'c' and row['metric'] == 'AUROC']
    assert all(row['p'] > 0.5 and row['shortfall'] < 0 for row in better)


def test_variances_against_the_rest_are_those_of_the_patient_bootstrap() -> None:
    rows = grouped(6, patients=200)
    rng = np.random.default_rng(0)
    names = np.unique(rows.patient_M)
    for metric in failing.JUDGED:
        held, drawn = failing.against_rest(rows, 0, metric=metric), []
        for _ in range(300):
            taken = np.concatenate([2 * p + np.array([0, 1]) for p in rng.choice(names, len(names))])
            again = Grouped(**(vars(rows) | {name: getattr(rows, name)[taken] for name in ('label_M', 'score_M', 'group_M')}))
            once = failing.against_rest(again, 0, metric=metric)
            drawn.append(once.rest - once.value)
        assert np.var(drawn) == pytest.approx(held.difference_variance, rel=0.25), metric


def test_what_cannot_be_seen_shrinks_with_the_cases_and_solves_its_equation() -> None:
    found = []
    for cases in (20, 80, 320):
        for as_found in (False, True):
            how = {'rest': binomial(0.8, cases=1000), 'at': 0.8, 'lowest': 0.0, 'as_found': as_found}
            d = detectable_difference(lambda p, n=cases: binomial(p, cases=n), **how)
            null, there = binomial(0.8, cases=cases) + 0.16 / 1000, binomial(0.8 - d, cases=cases) + 0.16 / 1000
            critical = max(null, there) if as_found else null
            assert d == pytest.approx(1.959964 * np.sqrt(critical) + 0.841621 * np.sqrt(there), abs=1e-6)
        found.append(d)
    assert found[0] > 1.8 * found[1] > 3.2 * found[2]
    assert np.isnan(detectable_difference(lambda v: hanley_mcneil(v, positives=3, negatives=3), rest=0.0, at=0.7, lowest=0.5))


def test_the_gap_that_permutations_would_show_is_near_the_formula() -> None:
    """Two groups alike: the max-min test is the two-sided test of their difference."""
    rows = grouped(7, patients=500, groups=2)
    null = permuted_metrics(rows, permutations=600, seed=0)['AUROC']
    variance = group_delong(rows.label_M, score=rows.score_M, groups=rows.masks_GM, cluster=rows.patient_M).covariance_KK.trace()
    assert detectable_gap(null, largest=0.4) == pytest.approx((1.96 + 0.84) * np.sqrt(variance), rel=0.15)
    assert np.isnan(detectable_gap(null, largest=0.001))


def planted(*, seed: int, split: str = 'test', wrong: str = 'E') -> Predictions:
    """A yes/no label in five groups, of one of which the scores know nothing; some declined to say and of some it is missing."""
    rng = np.random.default_rng(seed)
    patients = 900
    patient = np.repeat(np.arange(patients), 2)
    names = rng.choice(['A', 'B', 'C', 'D', 'E', 'declined', ''], patients, p=[0.3, 0.2, 0.14, 0.11, 0.11, 0.07, 0.07])
    label = (rng.random(patients) < 0.4)[patient].astype(float)
    score = 1 / (1 + np.exp(-(1.8 * label - 1.2 + 0.7 * rng.normal(size=patients)[patient] + 0.7 * rng.normal(size=2 * patients))))
    lost = np.flatnonzero(names[patient] == wrong)
    score[lost] = score[rng.permutation(lost)]
    columns = {
        'key': np.array([f'{split}{i:05d}' for i in range(2 * patients)]),
        'patient': patient.astype(str),
        'ethnicity': names[patient],
        'sex': rng.choice(['F', 'M'], patients)[patient],
    }
    shared = {'labels': ('sick',), 'classes': (), 'step': 7, 'fingerprint': 'abc', 'columns': columns}
    return Predictions(kind='multi', split=split, label_NY=label[:, None], score_NS=score[:, None], **shared)


@pytest.fixture(scope='module')
def result() -> dict[str, Any]:
    """An evaluation in which group E fails."""
    config = EvalConfig(by=('ethnicity', 'sex'), replicates=100, permutations=199)
    return evaluate(planted(seed=1), validation=planted(seed=2, split='val', wrong=''), config=config)


def test_the_report_names_the_failing_group_first(result: dict[str, Any]) -> None:
    first = result['failing'][0]
    assert (first['level'], first['by'], first['group']) == ('patient', 'ethnicity', 'E') and first['p_holm'] < 0.2
    assert {row['group'] for row in result['failing'] if row['by'] == 'ethnicity'} == set('ABCDE')
    for level in ('image', 'patient'):
        family = [row for row in result['failing'] if row['level'] == level]
        assert [row['p'] for row in family] == sorted(row['p'] for row in family)
        np.testing.assert_allclose([row['p_holm'] for row in family], holm([row['p'] for row in family]))
    text = format_table(result)
    lines = text[text.index('AUROC by ethnicity') :].splitlines()
    assert lines[1].split()[0] == 'E' and lines[-1] != lines[1]


def test_a_gap_has_its_null_beside_it(result: dict[str, Any]) -> None:
    rows = {(row['by'], row['metric']): row for row in result['fairness'] if row['level'] == 'patient'}
    assert {metric for _, metric in rows} == set(PERMUTED)
    gap = rows['ethnicity', 'AUROC']
    assert (gap['worst'], gap['groups']) == ('E', 5) and gap['p'] == pytest.approx(1 / 200)
    assert 0 < gap['by_chance'] < gap['by_chance_high'] < gap['gap'] and gap['low'] <= gap['gap'] <= gap['high']
    assert rows['sex', 'AUROC']['p'] > 0.01 and rows['ethnicity', 'ECE']['note'].startswith('larger in smaller groups')
    values = {r['group']: r['value'] for r in result['rows'] if (r['by'], r['metric'], r['level']) == ('ethnicity', 'AUROC', 'patient')}
    assert gap['gap'] == pytest.approx(max(values[g] for g in 'ABCDE') - min(values[g] for g in 'ABCDE'))
    assert {'declined', 'missing'} <= set(values) and result['permutations'] == {'n': 199, 'seed': 0, 'unit': 'patient'}


def test_equalised_odds_are_of_the_rows(result: dict[str, Any]) -> None:
    odds = next(row for row in result['equalised_odds'] if (row['by'], row['level']) == ('ethnicity', 'patient'))
    gaps_of = {row['metric']: row['gap'] for row in result['fairness'] if (row['by'], row['level']) == ('ethnicity', 'patient')}
    assert odds['difference'] == max(odds['tpr_gap'], odds['fpr_gap']) <= odds['high'] <= 1
    assert (odds['tpr_gap'], odds['fpr_gap']) == pytest.approx((gaps_of['sensitivity'], gaps_of['specificity']))


def test_power_is_said_in_a_sentence(result: dict[str, Any]) -> None:
    row = next(r for r in result['power'] if (r['level'], r['group'], r['metric']) == ('patient', 'E', 'AUROC'))
    assert row['sentence'].startswith(f'With {row["n_positive"]} positive patients a gap in AUROC below {row["detectable"]:.3f}')
    fewer = next(r for r in result['power'] if (r['level'], r['group'], r['metric']) == ('patient', 'A', 'AUROC'))
    assert fewer['n_positive'] > row['n_positive'] and fewer['detectable'] < row['detectable']


def test_groups_have_thresholds_of_their_own_or_it_is_said(result: dict[str, Any]) -> None:
    chosen = result['threshold_by']['ethnicity']['A']['sick']['patient']
    assert chosen['note'] == '' and chosen['value'] != result['threshold']['sick']['patient_value']
    by = [r for r in result['rows'] if (r['by'], r['level'], r['metric']) == ('ethnicity', 'patient', 'sensitivity@group')]
    assert {r['group'] for r in by} == {'A', 'B', 'C', 'D', 'E', 'declined', 'missing', GAP}
    notes = {r['note'] for r in by if r['group'] != GAP and r['note']}
    assert all(note.startswith(('at the global threshold, as validation has fewer', 'every resample', 'withheld')) for note in notes)
    assert not [r for r in result['rows'] if r['metric'].endswith('@group') and not r['by']]


def test_calibration_by_group_has_no_bin_of_a_few(result: dict[str, Any]) -> None:
    found = result['calibration_by']['ethnicity']
    assert set('ABCDE') <= set(found)
    for group, targets in found.items():
        bins = targets['sick']['bins']
        assert min(b['n'] for b in bins) >= 20 and len(bins) <= 10
        row = next(r for r in result['rows'] if (r['by'], r['group'], r['level'], r['metric']) == ('ethnicity', group, 'patient', 'slope'))
        assert targets['sick']['slope'] == pytest.approx(row['value']) and sum(b['n'] for b in bins) == row['n_patients']


def test_a_group_with_one_class_only_is_said_in_words_and_not_compared() -> None:
    test = planted(seed=1)
    label = np.where(test.columns['ethnicity'] == 'B', 0.0, test.label_NY[:, 0])[:, None]
    config = EvalConfig(by=('ethnicity',), replicates=20, permutations=20)
    result = evaluate(replace(test, label_NY=label), validation=planted(seed=2, split='val'), config=config)
    row = next(r for r in result['rows'] if (r['group'], r['metric'], r['level']) == ('B', 'AUROC', 'patient'))
    assert row['value'] is None and row['note'] == 'withheld: <10 with or without it, or hides such a number'
    assert 'B' not in {r['group'] for r in result['failing']} | {r['worst'] for r in result['fairness']}
    assert result['failing'] and format_table(result)


def test_ten_thousand_groups_are_one_sentence(make: Make) -> None:
    test = make('single', n=20_000)
    test = replace(test, columns=dict(test.columns) | {'site': test.columns['patient']})
    with pytest.raises(UsageError, match=f'10000 groups of the test split, more than the {MOST}.*coarser column'):
        group_masks('site', predictions=test)


def test_nothing_to_compare_is_no_row() -> None:
    how = How(permutations=10, seed=0, level=0.95, min_positive=1)
    found = judge({'image': {'sex': {}}}, rows=[], thresholds={'image': {}}, how=how)
    assert (found.fairness, found.failing, found.power, found.equalised_odds) == ([], [], [], [])


def test_scores_that_separate_the_classes_are_compared_in_sound_json() -> None:
    test = planted(seed=3)
    perfect = replace(test, score_NS=0.2 + 0.6 * test.label_NY)
    found = evaluate(perfect, validation=perfect, config=EvalConfig(by=('ethnicity',), replicates=20, permutations=20))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert {row['gap'] for row in found['fairness'] if row['metric'] == 'AUROC'} == {0.0}
    assert 'slope' not in {row['metric'] for row in found['fairness']}
    assert {row['p'] for row in found['failing']} == {1.0} and 'none is shown to be' in format_table(found)
