"""Groups, gaps and equalised odds against fairlearn."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as oracle

from retfound_jax.evals import gaps
from retfound_jax.evals.predictions import Predictions
from retfound_jax.evals.tables import EvalConfig, evaluate

pytestmark = pytest.mark.oracle


def predictions(seed: int, split: str) -> Predictions:
    """Two eyes a patient in four groups; the score works less well in the last."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(500), 2)
    group = rng.integers(4, size=500)[patient]
    label = (rng.random(500) < 0.4)[patient]
    score = 1 / (1 + np.exp(-(np.where(group == 3, 0.8, 1.8) * label - 1 + rng.normal(size=1000))))
    columns = {'key': np.array([f'{split}{i}' for i in range(1000)]), 'patient': patient.astype(str), 'site': np.array(list('ABCD'))[group]}
    shared = {'labels': ('sick',), 'classes': (), 'step': 1, 'fingerprint': split, 'columns': columns}
    return Predictions(kind='multi', split=split, label_NY=label[:, None].astype(float), score_NS=score[:, None], **shared)


def test_groups_gaps_and_equalised_odds_are_fairlearns() -> None:
    fairlearn = pytest.importorskip('fairlearn.metrics', reason='fairlearn is in the oracle environment only')
    test = predictions(0, 'test')
    result = evaluate(test, validation=predictions(1, 'val'), config=EvalConfig(by=('site',), replicates=20, permutations=20))
    label, score, site = test.label_NY[:, 0], test.score_NS[:, 0], test.columns['site']
    called = (score >= result['threshold']['sick']['value']).astype(float)
    decided = {
        'sensitivity': oracle.recall_score,
        'specificity': fairlearn.true_negative_rate,
        'accuracy': oracle.accuracy_score,
        'balanced_accuracy': oracle.balanced_accuracy_score,
        'F1': oracle.f1_score,
    }
    scored = {'AUROC': oracle.roc_auc_score, 'AUPRC': oracle.average_precision_score, 'Brier': oracle.brier_score_loss}
    shared = {'y_true': label, 'sensitive_features': site}
    frames = [fairlearn.MetricFrame(metrics=m, y_pred=p, **shared) for m, p in ((decided, called), (scored, score))]
    rows = {(r['by'], r['group'], r['metric']): r['value'] for r in result['rows'] if r['level'] == 'image' and r['target'] == 'sick'}
    gap = {r['metric']: r['gap'] for r in result['fairness'] if r['level'] == 'image'}
    for frame in frames:
        for name, value in frame.overall.items():
            assert rows['', '', name] == pytest.approx(value), name
        for name, values in frame.by_group.items():
            for group, value in values.items():
                assert rows['site', group, name] == pytest.approx(value), (name, group)
            if name in gap:
                assert gap[name] == pytest.approx(frame.difference()[name])
    odds = next(r for r in result['equalised_odds'] if r['level'] == 'image')
    assert odds['difference'] == pytest.approx(fairlearn.equalized_odds_difference(label, called, sensitive_features=site))


def test_the_difference_is_fairlearns_for_any_rates() -> None:
    fairlearn = pytest.importorskip('fairlearn.metrics', reason='fairlearn is in the oracle environment only')
    rng = np.random.default_rng(3)
    for _ in range(20):
        label, called, group = rng.random(200) < 0.5, rng.random(200) < 0.5, rng.integers(3, size=200)
        rates = [np.array([(called[c & (group == g)] == want).mean() for g in range(3)]) for c, want in ((label, True), (~label, False))]
        still = tuple(np.repeat(rate[:, None], 5, axis=1) for rate in rates)
        found = gaps.equalised_odds(rates[0], specificity=rates[1], replicates=still, level=0.95).value
        assert found == pytest.approx(fairlearn.equalized_odds_difference(label, called, sensitive_features=group))
