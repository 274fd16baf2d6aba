"""Referral curves, the area under risk and coverage, who is referred, and ensembles, against plain loops and scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, recall_score, roc_auc_score

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.evals import referral
from retfound_jax.evals.bootstrap import patient_counts
from retfound_jax.evals.ensemble import disagreement_of, ensemble, ensemble_runs
from retfound_jax.evals.predictions import Predictions, read_predictions, write_predictions
from retfound_jax.evals.questions import YES_NO, Question

Make = Callable[..., Predictions]


def asked(score: np.ndarray, truth: np.ndarray) -> Question:
    """A yes/no question, a patient a row."""
    return Question(
        target='ill',
        sort=YES_NO,
        outcomes=('no', 'yes'),
        probability_MC=np.stack([1 - score, score], axis=1),
        truth_M=truth,
        estimate_M=score,
        patient_M=np.arange(len(score)),
    )


@pytest.fixture(scope='module')
def cases() -> referral.Cases:
    rng = np.random.default_rng(0)
    score = rng.random(300)
    question = asked(score, (rng.random(300) < score).astype(int))
    return referral.decide(question, threshold=0.4, counts=patient_counts(300, replicates=100))


def test_the_curve_is_scikit_learns_of_the_kept(cases: referral.Cases) -> None:
    question = cases.question
    doubt = referral.uncertainties(question, threshold=0.4)['margin']
    rows = referral.curve(cases, uncertainty=doubt, shares=(0.0, 0.25, 0.6))
    assert [row['kept_n'] for row in rows] == [300, 225, 120] and [round(row['referred'], 9) for row in rows] == [0, 0.25, 0.6]
    for row in rows:
        kept = np.argsort(doubt, kind='stable')[: row['kept_n']]
        truth, score = question.truth_M[kept], question.estimate_M[kept]
        called = score >= 0.4
        assert row['AUROC'] == pytest.approx(roc_auc_score(truth, score))
        assert row['accuracy'] == pytest.approx(accuracy_score(truth, called))
        assert row['sensitivity'] == pytest.approx(recall_score(truth, called))
        assert row['specificity'] == pytest.approx(recall_score(truth, called, pos_label=0))
        missed = (question.truth_M > 0) & (question.estimate_M < 0.4) & np.isin(np.arange(300), kept)
        assert row['caught'] == pytest.approx(1 - missed.sum() / (question.truth_M > 0).sum())
        assert all(row['low'][name] <= row[name] <= row['high'][name] for name in ('AUROC', 'accuracy'))
    assert rows[0]['accuracy'] < rows[1]['accuracy'] < rows[2]['accuracy']


def test_what_would_be_of_few_positives_is_not_said_but_whom_the_referral_catches_is() -> None:
    score = np.r_[np.linspace(0.01, 0.3, 200), np.linspace(0.5, 0.6, 15)]
    question = asked(score, (score > 0.4).astype(int))
    cases = referral.decide(question, threshold=0.55, counts=patient_counts(215, replicates=20))
    first, *_, last = referral.curve(cases, uncertainty=referral.uncertainties(question, threshold=0.55)['entropy'])
    assert first['sensitivity'] == first['caught'] < 1
    assert last['caught'] == 1 and last['sensitivity'] is last['AUROC'] is None and last['specificity'] == last['accuracy'] == 1


def test_the_margin_is_the_distance_from_the_threshold_in_log_odds(cases: referral.Cases) -> None:
    doubt = referral.uncertainties(cases.question, threshold=0.4)
    score = cases.question.estimate_M
    np.testing.assert_allclose(doubt['margin'], -np.abs(np.log(score / (1 - score)) - np.log(0.4 / 0.6)), atol=1e-6)
    np.testing.assert_allclose(doubt['entropy'], [stats.entropy([s, 1 - s]) for s in score], atol=1e-5)
    assert 'margin' not in referral.uncertainties(cases.question, threshold=None)


def test_the_area_is_the_papers_mean_over_cuts(cases: referral.Cases) -> None:
    rng = np.random.default_rng(1)
    doubt, loss = rng.random(300), cases.loss_M
    found = referral.risk_coverage(cases, uncertainty=doubt)
    order = np.argsort(doubt)
    assert found['value'] == pytest.approx(np.mean([loss[order[:k]].mean() for k in range(1, 301)]))
    # Geifman et al. 2019: the optimum is close to r + (1 - r) ln(1 - r)
    r = loss.mean()
    assert found['best'] == pytest.approx(r + (1 - r) * np.log(1 - r), abs=2 / 300)
    assert found['low'] < found['value'] < found['high'] and abs(found['share_of_best']) < 0.35
    perfect = referral.risk_coverage(cases, uncertainty=loss + 1e-6 * doubt)
    assert perfect['value'] == pytest.approx(perfect['best']) and perfect['share_of_best'] == pytest.approx(1)
    alike = referral.risk_coverage(cases, uncertainty=np.zeros(300))
    assert alike['value'] == pytest.approx(r) and alike['share_of_best'] == pytest.approx(0)


def test_equal_doubts_are_kept_or_referred_together(cases: referral.Cases) -> None:
    doubt = np.repeat([0.0, 1.0, 2.0], 100)
    rows = referral.curve(cases, uncertainty=doubt, shares=(0.0, 0.2, 0.34, 0.5, 0.95, 1.0))
    assert [row['kept_n'] for row in rows] == [300, 200, 100]
    counts = np.random.default_rng(2).integers(0, 4, 300).astype(float)
    repeated = np.repeat(np.arange(300), counts.astype(int))
    weighted = referral._area(cases.loss_M, doubt + np.arange(300) % 7, counts[:, None])[0]
    # a weight is as many equal rows, which are kept together
    u, loss = (doubt + np.arange(300) % 7)[repeated], cases.loss_M[repeated]
    assert weighted == pytest.approx(np.mean([loss[u <= cut].mean() for cut in u]))


def test_a_referral_that_falls_on_one_group_is_found_and_a_fair_one_is_not() -> None:
    rng = np.random.default_rng(3)
    group = rng.choice(['A', 'B', 'C', 'missing'], size=800, p=[0.4, 0.3, 0.28, 0.02])
    masks = {'site': {name: group == name for name in ('A', 'B', 'C', 'missing')}}
    unfair = rng.random(800) < np.where(group == 'B', 0.4, 0.12)
    why = {'site': {'A': '', 'B': '', 'C': '', 'missing': 'withheld: fewer than 20 patients'}}
    rows = {row['group']: row for row in referral.referred_by(unfair, groups=masks, why=why)}
    inside = group == 'B'
    oracle = stats.fisher_exact([[(unfair[side] == answer).sum() for answer in (True, False)] for side in (inside, ~inside)])
    assert rows['B']['p'] == pytest.approx(oracle.pvalue) and rows['B']['p_holm'] < 1e-6 and rows['B']['referred'] > rows['B']['rest']
    assert rows['missing']['n'] is None and rows['missing']['note'].startswith('withheld')
    false = []
    for _ in range(200):
        fair = rng.random(800) < 0.2
        made = referral.referred_by(fair, groups=masks, why=why)
        false.append(any(row['p_holm'] is not None and row['p_holm'] < 0.05 for row in made))
    assert np.mean(false) < 0.07  # Fisher's test is on the safe side


def test_an_ensemble_is_the_mean_and_disagrees_where_its_members_do(make: Make, tmp_path: Path) -> None:
    first, rng = make('single', n=300), np.random.default_rng(4)
    other = rng.permuted(first.score_NS, axis=1)
    order = rng.permutation(300)
    second = replace(
        first,
        columns={name: values[order] for name, values in first.columns.items()},
        label_NY=first.label_NY[order],
        score_NS=other[order],
    )
    made = ensemble([first, second])
    np.testing.assert_allclose(made.score_NS, (first.score_NS + other) / 2)
    expected = [stats.entropy((p + q) / 2) - (stats.entropy(p) + stats.entropy(q)) / 2 for p, q in zip(first.score_NS, other, strict=True)]
    np.testing.assert_allclose(disagreement_of(made, target='macro'), expected, atol=1e-12)
    assert made.split == 'ensemble-test' and disagreement_of(first, target='macro') is None
    np.testing.assert_allclose(disagreement_of(ensemble([first, first]), target='macro'), 0, atol=1e-12)
    for name, member in (('a', first), ('b', second)):
        write_predictions(member, path=tmp_path / name / 'predictions' / 'test.parquet')
    write_predictions(ensemble_runs([tmp_path / 'a', tmp_path / 'b'], split='test'), path=tmp_path / 'mean.parquet')
    read = read_predictions(tmp_path / 'mean.parquet')
    np.testing.assert_allclose(disagreement_of(read, target='macro'), expected, atol=1e-12)
    with pytest.raises(UsageError, match='two runs or more'):
        ensemble([first])
    with pytest.raises(UserError, match='shared'):
        ensemble([first, make('single', n=200)])
    with pytest.raises(UserError, match='evaluate'):
        ensemble_runs([tmp_path / 'a', tmp_path / 'absent'], split='test')


def test_labels_and_numbers_disagree_each_in_their_way(make: Make) -> None:
    first = make('multi', n=100)
    second = replace(first, score_NS=np.clip(first.score_NS + np.array([0.2, 0.0]), 0, 1))
    made = ensemble([first, second])
    p, q = first.score_NS[:, 0], second.score_NS[:, 0]
    expected = [stats.entropy([m, 1 - m]) - (stats.entropy([a, 1 - a]) + stats.entropy([b, 1 - b])) / 2
                for a, b, m in zip(p, q, (p + q) / 2, strict=True)]  # fmt: skip
    np.testing.assert_allclose(disagreement_of(made, target='glaucoma'), expected, atol=1e-9)
    np.testing.assert_allclose(disagreement_of(made, target='amd'), 0, atol=1e-12)
    ages = make('regress', n=100)
    older = replace(ages, score_NS=ages.score_NS + 4)
    np.testing.assert_allclose(disagreement_of(ensemble([ages, older, ages]), target='age'), np.std([0, 4, 0], ddof=1))
