"""Conformal sets against plain loops written from the papers, and their promise on exchangeable patients."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from retfound_jax.core.errors import UsageError
from retfound_jax.evals import conformal
from retfound_jax.evals.coverage import coverage_rows
from retfound_jax.evals.predictions import Predictions
from retfound_jax.evals.proportions import share
from retfound_jax.evals.questions import CLASSES, GRADES, NUMBER, Question
from retfound_jax.evals.tables import EvalConfig, plan_of

Make = Callable[..., Predictions]


def rows_of(judged: Predictions, *, validation: Predictions, by: tuple[str, ...] = ('sex',), **kw: Any) -> list[dict[str, Any]]:
    """The conformal rows with what the evaluation's plan withholds."""
    return coverage_rows(judged, validation=validation, plan=plan_of(judged, config=EvalConfig(by=by)), **kw)


def question(probability: np.ndarray, truth: np.ndarray, *, sort: str = CLASSES, patient: np.ndarray | None = None) -> Question:
    """A question over classes whose patients are the rows unless given."""
    rows = len(truth)
    return Question(
        target='macro',
        sort=sort,
        outcomes=tuple(map(str, range(probability.shape[1]))),
        probability_MC=probability,
        truth_M=truth,
        estimate_M=np.full(rows, np.nan),
        patient_M=np.arange(rows) if patient is None else patient,
    )


def probabilities(rng: np.random.Generator, rows: int, classes: int) -> np.ndarray:
    """Random rows that sum to 1."""
    made = rng.gamma(0.7, size=(rows, classes))
    return made / made.sum(axis=1, keepdims=True)


def aps_by_loop(p: np.ndarray, u: float) -> list[float]:
    """Romano et al. 2020: the mass of what is more probable than y, and u of y's own."""
    return [sum(q for q in p if q > p[y]) + u * p[y] for y in range(len(p))]


def interval_by_loop(p: np.ndarray, u: float) -> list[float]:
    """Lu et al. 2022: start at the mode, take the more probable neighbour, until y is in."""
    out = [0.0] * len(p)
    low = high = int(np.argmax(p))
    mass = 0.0
    out[low] = u * p[low]
    mass = p[low]
    while high - low + 1 < len(p):
        down = p[low - 1] if low > 0 else -1.0
        up = p[high + 1] if high + 1 < len(p) else -1.0
        if down >= up:
            low -= 1
            joined = low
        else:
            high += 1
            joined = high
        out[joined] = mass + u * p[joined]
        mass += p[joined]
    return out


@pytest.mark.parametrize('classes', [2, 3, 6])
def test_scores_are_those_of_the_papers(classes: int) -> None:
    rng = np.random.default_rng(0)
    p, u, truth = probabilities(rng, 40, classes), rng.random(40), rng.integers(classes, size=40)
    asked = question(p, truth)
    np.testing.assert_allclose(conformal.scores(asked, method='LAC'), 1 - p)
    np.testing.assert_allclose(conformal.scores(asked, method='APS', chance=u), [aps_by_loop(*row) for row in zip(p, u, strict=True)])
    runs = [interval_by_loop(*row) for row in zip(p, u, strict=True)]
    np.testing.assert_allclose(conformal.scores(asked, method='interval', chance=u), runs)
    whole = conformal.scores(asked, method='APS')
    np.testing.assert_allclose(whole, [aps_by_loop(row, 1.0) for row in p])
    with pytest.raises(UsageError, match='APS'):
        conformal.scores(asked, method='RAPS')


def test_the_threshold_is_the_tutorials_order_statistic_and_the_weighted_one_with_two_eyes() -> None:
    rng = np.random.default_rng(1)
    for n in (9, 10, 57, 400):
        score = rng.random(n)
        for alpha in (0.05, 0.1, 0.3):
            rank = math.ceil((n + 1) * (1 - alpha) - 1e-9)
            expected = np.sort(score)[rank - 1] if rank <= n else np.inf
            assert conformal.quantile(score, patient=np.arange(n), alpha=alpha) == expected
    # Lee, Barber and Willett: the 1 - alpha quantile of sum_k sum_i delta(s_ki) / ((K + 1) N_k) + delta(inf) / (K + 1), by a plain loop
    patient = rng.integers(60, size=150)
    score = rng.random(150)
    for alpha in (0.05, 0.1, 0.4):
        weight = [1 / (len(set(patient)) + 1) / (patient == who).sum() for who in patient]
        total, found = 0.0, np.inf
        for s, w in sorted(zip(score, weight, strict=True)):
            total += w
            if total >= 1 - alpha - 1e-9:
                found = s
                break
        assert conformal.quantile(score, patient=patient, alpha=alpha) == found
    assert conformal.quantile(np.zeros(8), patient=np.arange(8), alpha=0.1) == np.inf
    with pytest.raises(UsageError, match='alpha is 1'):
        conformal.quantile(score, patient=patient, alpha=1)


@pytest.mark.parametrize(('method', 'sort'), [('LAC', CLASSES), ('APS', CLASSES), ('interval', GRADES)])
def test_exchangeable_patients_are_covered_as_promised(method: str, sort: str) -> None:
    """1 - alpha at least and 1 - alpha + 1 / (n + 1) at most, in the mean over studies, for a model that is wrong."""
    rng, alpha, n, covered = np.random.default_rng(2), 0.1, 49, []
    for _ in range(400):
        p = probabilities(rng, n + 50, 4)
        true_p = 0.5 * p**0.5 / (p**0.5).sum(axis=1, keepdims=True) + 0.125
        truth = (true_p.cumsum(axis=1) < rng.random((len(p), 1))).sum(axis=1).clip(max=3)
        asked = question(p, truth, sort=sort)
        score = conformal.scores(asked, method=method, chance=rng.random(len(p)))
        true = conformal.true_scores(asked, score_MC=score)
        threshold = conformal.quantile(true[:n], patient=np.arange(n), alpha=alpha)
        covered.append(conformal.sets(asked, score_MC=score, threshold=threshold).covered_M[n:].mean())
    error = np.std(covered, ddof=1) / math.sqrt(len(covered))
    assert 1 - alpha - 3.5 * error < np.mean(covered) < 1 - alpha + 1 / (n + 1) + 3.5 * error
    # and the spread between studies is the beta-binomial's, of which the table states the range
    low, high = conformal.covered_by_chance(calibrated=n, judged=50, alpha=alpha)
    assert 0.92 < np.mean([low <= one <= high for one in covered]) <= 1.0


def test_grades_come_as_a_run_and_a_certain_model_names_one() -> None:
    rng = np.random.default_rng(3)
    p, u = probabilities(rng, 300, 5), rng.random(300)
    asked = question(p, rng.integers(5, size=300), sort=GRADES)
    score = conformal.scores(asked, method='interval', chance=u)
    for threshold in (0.2, 0.5, 0.9):
        for row in score <= threshold:
            at = np.flatnonzero(row)
            assert not len(at) or np.array_equal(at, np.arange(at[0], at[-1] + 1))
    sure = question(np.eye(5)[asked.truth_M], asked.truth_M, sort=GRADES)
    assert (conformal.sets(sure, score_MC=conformal.scores(sure, method='interval'), threshold=1.0 - 1e-12).size_M <= 1).all()


def test_two_eyes_are_not_two_draws() -> None:
    """Some patients have many images, all alike: the order statistic over images promises too much, that over patients does not."""
    rng, alpha, plain, weighted = np.random.default_rng(4), 0.1, [], []
    for _ in range(600):
        images = rng.choice([1, 12], size=24, p=[0.5, 0.5])
        patient = np.repeat(np.arange(24), images)
        hard = 1.5 * (images == 1)  # who has one image is harder
        score = (rng.normal(size=24) + hard)[patient] + 0.05 * rng.normal(size=len(patient))
        own = patient < 23
        new = rng.choice(score[patient == 23])
        plain.append(new <= conformal.quantile(score[own], patient=np.arange(own.sum()), alpha=alpha))
        weighted.append(new <= conformal.quantile(score[own], patient=patient[own], alpha=alpha))
    error = math.sqrt(alpha * (1 - alpha) / len(plain))
    assert np.mean(weighted) > 1 - alpha - 3 * error
    assert np.mean(plain) < 1 - alpha - 3 * error


def test_a_number_gets_an_interval_as_wide_as_the_errors() -> None:
    rng = np.random.default_rng(5)
    truth, n = rng.normal(60, 10, 500), 250
    asked = Question(
        target='age',
        sort=NUMBER,
        outcomes=(),
        probability_MC=np.zeros((500, 0)),
        truth_M=truth,
        estimate_M=truth + rng.normal(2, 3, 500),
        patient_M=np.arange(500),
    )
    score = conformal.scores(asked, method='residual')
    threshold = conformal.quantile(score[:n, 0], patient=np.arange(n), alpha=0.2)
    found = conformal.sets(asked, score_MC=score, threshold=threshold)
    assert found.covered_M[n:].mean() == pytest.approx(np.mean(np.abs(truth - asked.estimate_M)[n:] <= threshold))
    assert set(found.size_M) == {2 * threshold} and found.empty_M is None


def test_shares_of_patients_have_wilsons_interval() -> None:
    rng = np.random.default_rng(6)
    for n, hits in ((40, 36), (25, 25), (25, 0), (300, 7)):
        value = np.zeros(n)
        value[:hits] = 1
        found = share(rng.permutation(value), patient=np.arange(n))
        oracle = stats.binomtest(hits, n).proportion_ci(0.95, method='wilson')
        assert (found.low, found.high) == (pytest.approx(oracle.low), pytest.approx(oracle.high)) and found.value == pytest.approx(hits / n)
    two = share(np.array([1, 0, 1, 1]), patient=np.array([0, 0, 1, 1]))
    assert (two.value, two.n) == (0.75, 2)


def test_the_table_by_group_class_and_image(make: Make) -> None:
    judged, validation = make('single', n=1200, classes=('no', 'yes')), make('single', n=1200, seed=9, split='val', classes=('no', 'yes'))
    rows = rows_of(judged, validation=validation, alphas=(0.1,))
    assert {(row['kind'], row['by']) for row in rows} == {
        ('overall', ''), ('by_class', ''), ('overall', 'class'), ('by_class', 'class'), ('overall', 'sex'), ('by_group', 'sex'),
    }  # fmt: skip
    # LAC by patient, written out: mean score and any eye, 1 - p of the true one, the order statistic
    score = [one.score_NS[:, 1].reshape(-1, 2).mean(axis=1) for one in (validation, judged)]
    label = [one.label_NY[:, 0].reshape(-1, 2).max(axis=1) for one in (validation, judged)]
    fit, own = (np.where(y > 0, 1 - s, s) for s, y in zip(score, label, strict=True))
    threshold = np.sort(fit)[math.ceil(0.9 * (len(fit) + 1)) - 1]
    (found,) = [row for row in rows if (row['level'], row['method'], row['kind'], row['by']) == ('patient', 'LAC', 'overall', '')]
    assert found['coverage'] == pytest.approx(np.mean(own <= threshold)) and found['n'] == found['n_calibration'] == 600
    assert found['both'] == pytest.approx(np.mean((score[1] <= threshold) & (1 - score[1] <= threshold)))
    oracle = stats.betabinom(600, 541, 60)
    assert found['expected_low'] == oracle.ppf(0.025) / 600 and found['p'] == pytest.approx(oracle.cdf(round(found['coverage'] * 600)))
    # within a group: the same, of the group alone
    women = [one.columns['sex'].reshape(-1, 2)[:, 0] == 'F' for one in (validation, judged)]
    limit = np.sort(fit[women[0]])[math.ceil(0.9 * (women[0].sum() + 1)) - 1]
    (found,) = [row for row in rows if (row['method'], row['kind'], row['group'].split(' ')[0]) == ('LAC', 'by_group', 'F')]
    assert found['coverage'] == pytest.approx(np.mean(own[women[1]] <= limit)) and found['n'] == women[1].sum()
    # within a class: the promise is for those who have the finding
    ill = [y > 0 for y in label]
    limit = np.sort(fit[ill[0]])[math.ceil(0.9 * (ill[0].sum() + 1)) - 1]
    (found,) = [row for row in rows if (row['method'], row['kind'], row['group']) == ('LAC', 'by_class', 'yes')]
    assert found['coverage'] == pytest.approx(np.mean(own[ill[1]] <= limit))
    other = np.sort(fit[~ill[0]])[math.ceil(0.9 * ((~ill[0]).sum() + 1)) - 1]
    (found,) = [row for row in rows if (row['method'], row['kind'], row['by']) == ('LAC', 'by_class', '')]
    assert found['coverage'] == pytest.approx(np.mean(own <= np.where(ill[1], limit, other)))
    assert found['both'] == pytest.approx(np.mean((1 - score[1] <= limit) & (score[1] <= other)))


def sexes(predictions: Predictions, *, women: int) -> Predictions:
    """The first patients are women, the others men."""
    return replace(predictions, columns={**predictions.columns, 'sex': np.where(np.arange(len(predictions)) < 2 * women, 'F', 'M')})


def test_a_group_too_small_in_validation_says_so_and_a_small_judged_one_is_withheld(make: Make) -> None:
    judged, validation = sexes(make('ordinal', n=400), women=100), sexes(make('ordinal', n=400, seed=9, split='val'), women=190)
    rows = rows_of(judged, validation=validation, alphas=(0.1,))
    own, shared = ({row['group']: row for row in rows if (row['kind'], row['by'], row['method']) == (kind, 'sex', 'interval')}
                   for kind in ('by_group', 'overall'))  # fmt: skip
    assert 'calibrated on all patients' in own['M']['note'] and own['M']['expected_low'] is None
    assert own['M']['coverage'] == shared['M']['coverage'] and own['M']['n_calibration'] == 200 and not own['F']['note']
    assert own['F']['n_calibration'] == 190
    rows = rows_of(sexes(judged, women=15), validation=validation, alphas=(0.1,))
    found = [row for row in rows if (row['by'], row['group']) in (('sex', 'F'), ('sex', 'M'))]
    # the men are withheld too: all less the men would be the women
    assert len(found) == 2 and all(row['note'].startswith('withheld') and row['n'] is row['coverage'] is None for row in found)


def test_where_eyes_that_differ_leave_too_few_no_group_is_printed(make: Make) -> None:
    judged, validation = sexes(make('single', n=400), women=30), make('single', n=400, seed=9, split='val')
    label = judged.label_NY.copy()
    label[1:60:2] = (label[:60:2] + (np.arange(30) % 2)[:, None]) % 4  # half of the women have two classes
    rows = rows_of(replace(judged, label_NY=label), validation=validation, alphas=(0.1,))
    assert {row['note'][:8] for row in rows if row['by'] == 'sex' and row['group'] in 'FM'} == {'withheld'}


def test_small_blanks_are_calibrated_with_the_group_they_are_folded_into(make: Make) -> None:
    pair = []
    for seed, split in ((0, 'test'), (9, 'val')):
        made = sexes(make('regress', n=600, seed=seed, split=split), women=160)
        pair.append(replace(made, columns={**made.columns, 'sex': np.where(np.arange(600) < 20, '', made.columns['sex'])}))
    rows = rows_of(pair[0], validation=pair[1], alphas=(0.1,))
    (found,) = [row for row in rows if row['kind'] == 'by_group' and row['group'].startswith('F')]
    assert found['group'] == 'F or missing' and found['n'] == found['n_calibration'] == 160


def test_bands_that_are_told_together_are_calibrated_together(make: Make) -> None:
    judged, validation = make('regress', n=600), make('regress', n=600, seed=9, split='val')
    ages = {'test': np.repeat([35.0, 45.0, 65.0], [24, 216, 360]), 'val': np.repeat([35.0, 45.0], [200, 400])}
    judged, validation = (replace(one, columns={**one.columns, 'age': ages[one.split]}) for one in (judged, validation))
    found = rows_of(judged, validation=validation, by=('age_band',), alphas=(0.1,))
    rows = {row['group']: row for row in found if row['kind'] == 'by_group'}
    assert rows['<40 or 40-49']['n'] == 120 and rows['<40 or 40-49']['n_calibration'] == 300
    assert 'calibrated on all' in rows['60-69']['note']


def test_the_order_of_the_rows_changes_nothing(make: Make) -> None:
    judged, validation = make('single', n=300), make('single', n=300, seed=9, split='val')
    order = np.random.default_rng(7).permutation(300)
    moved = replace(
        judged,
        columns={name: values[order] for name, values in judged.columns.items()},
        label_NY=judged.label_NY[order],
        score_NS=judged.score_NS[order],
    )
    assert rows_of(judged, validation=validation) == rows_of(moved, validation=validation)
