"""Thresholds, calibration and subgroups."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_curve

from retfound_jax.core.errors import UsageError
from retfound_jax.evals.calibration import calibrate, recalibration
from retfound_jax.evals.subgroups import age_band, group_masks, parse_by
from retfound_jax.evals.thresholds import Rule, choose, parse_rule


@pytest.mark.parametrize('seed', range(5))
def test_youden_reaches_the_best_point_of_the_curve(seed: int) -> None:
    rng = np.random.default_rng(seed)
    label = rng.random(200) < 0.3
    score = np.round(rng.random(200) + 0.3 * label, 2)
    fpr, tpr, _ = roc_curve(label, score)
    called = score >= choose(label, score=score)
    assert called[label].mean() - called[~label].mean() == pytest.approx((tpr - fpr).max())


def test_threshold_lies_between_scores() -> None:
    assert choose(np.array([0, 0, 1, 1]), score=np.array([0.1, 0.2, 0.6, 0.9])) == pytest.approx(0.4)
    assert choose(np.array([1, 0]), score=np.array([0.5, 0.5])) == 0.5
    assert choose(np.array([1, 1]), score=np.array([0.1, 0.2])) is None


def test_sensitivity_rule_takes_the_highest_that_reaches_it() -> None:
    rng = np.random.default_rng(1)
    label = rng.random(300) < 0.4
    score = rng.random(300) + 0.5 * label
    t = choose(label, score=score, rule=Rule(sensitivity=0.9))
    assert (score >= t)[label].mean() >= 0.9
    next_up = np.sort(score[score > t])[np.sort(score[score > t]).searchsorted(score[label & (score >= t)].min(), side='right')]
    assert (score >= next_up)[label].mean() < 0.9


def test_rules_are_parsed_or_refused() -> None:
    assert parse_rule('youden') == Rule()
    assert parse_rule('sensitivity=0.8').sensitivity == 0.8
    for text in ('best', 'sensitivity', 'sensitivity=0', 'sensitivity=x', 'youden=1'):
        with pytest.raises(UsageError, match='sensitivity=0.9'):
            parse_rule(text)


def test_recalibration_equals_logistic_regression() -> None:
    rng = np.random.default_rng(0)
    score = rng.random(800) * 0.98 + 0.01
    logit = np.log(score / (1 - score))
    label = rng.random(800) < 1 / (1 + np.exp(-(0.5 * logit - 0.3)))
    oracle = LogisticRegression(C=np.inf, tol=1e-10).fit(logit[:, None], label)
    assert recalibration(label, score=score) == pytest.approx((oracle.coef_[0, 0], oracle.intercept_[0]), abs=1e-4)
    found = calibrate(label, score=score)
    assert found.n.sum() == 800 and 0 < found.ECE < 1
    assert np.nansum(found.mean_score * found.n) == pytest.approx(score.sum())


def test_recalibration_that_does_not_exist_is_nan() -> None:
    for label, score in (([1, 1], [0.2, 0.3]), ([0, 1], [0.5, 0.5]), ([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9])):
        assert np.isnan(recalibration(np.array(label), score=np.array(score))).all()


def test_age_bands() -> None:
    ages = np.array([39.9, 40, 49.9, 50, 60, 69.5, 70, 91, np.nan])
    assert age_band(ages).tolist() == ['<40', '40-49', '40-49', '50-59', '60-69', '60-69', '>=70', '>=70', '']


def test_groups_partition_the_images(make) -> None:
    predictions = make('single')
    for by in ('sex', 'age_band', 'sex+age_band', 'site'):
        masks = group_masks(by, predictions=predictions)
        assert np.sum(list(masks.values()), axis=0).tolist() == [1] * len(predictions)
        assert list(masks)[-1] == 'missing'
    assert list(group_masks('age_band', predictions=predictions))[0] == '<40'
    assert group_masks('site', predictions=predictions)['missing'].all()
    assert all(', ' in name for name in list(group_masks('sex+age_band', predictions=predictions))[:-1])


def test_unknown_group_names_the_nearest(make) -> None:
    assert parse_by(['age', 'sex', 'age_band'], columns=make('single').columns) == ('age_band', 'sex')
    with pytest.raises(UsageError, match='did you mean "site"'):
        parse_by(['sites'], columns=make('single').columns)
    with pytest.raises(UsageError):
        parse_by(['patient'], columns=make('single').columns)
