"""The probe of RETFound-Green (Engelmann and Bernabeu, Nat Commun 2025): what its tables are made by, so that ours can stand beside them.

Standardised features into scikit-learn's LogisticRegression(max_iter=20000, random_state=42), nothing chosen on validation; 100 bootstraps
of the test rows with seed 42; the median AUROC, one class against the rest, mean over the classes; Wilcoxon's test between the best two.

Their bootstrap draws rows, so two eyes of a patient count as two, and their Wilcoxon test is of 100 resamplings of one test set: its p
value falls with the number of resamplings. It is given because they give it. Ours are the patient bootstrap and the paired difference.

Letters: N rows, M labelled rows, D features, C classes, R bootstraps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from retfound_jax.core.errors import UserError, nearest
from retfound_jax.evals import metrics
from retfound_jax.evals.cells import MACRO
from retfound_jax.evals.predictions import Predictions
from retfound_jax.evals.probe import Part
from retfound_jax.evals.views import base_targets, make_view

SEED, BOOTSTRAPS, MAX_ITER = 42, 100, 20000


@dataclass(frozen=True, kw_only=True)
class BestTwo:
    """Which features are ahead, and Wilcoxon's p value over the bootstraps."""

    best: str
    second: str
    p: float


def green_scores(train: Part, *, test: Part) -> np.ndarray:
    """Probabilities [N, C] of the test rows, C the classes of the training rows in order; UserError where these hold fewer than two."""
    part = train.labelled()
    if len(np.unique(part.label)) < 2:
        raise UserError(f'the {len(part.label)} labelled training rows hold fewer than two classes: nothing to learn')
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=MAX_ITER, random_state=SEED))
    model.fit(part.features, part.label.astype(np.int64))
    return model.predict_proba(np.asarray(test.features))


def green_draws(predictions: Predictions, *, target: str = MACRO) -> np.ndarray:
    """AUROC of each bootstrap [R], of a target or of the mean over the targets; NaN where a class was not drawn."""
    view = make_view(predictions, level='image', patient=np.arange(len(predictions)))
    known = [*view.targets, MACRO]
    if target not in known:
        raise UserError(f'the predictions have no target "{target}"{nearest(target, known) or "; choose from " + ", ".join(known)}')
    judged = base_targets(predictions) if target == MACRO else (target,)
    rng = np.random.default_rng(SEED)
    rows = len(view.label_MT)
    weights_MR = np.stack([np.bincount(drawn, minlength=rows) for drawn in rng.integers(rows, size=(BOOTSTRAPS, rows))], axis=1)
    curves = []
    for t in (view.targets.index(name) for name in judged):
        present = ~np.isnan(view.label_MT[:, t])
        label_M, weights = view.label_MT[present, t] > 0, weights_MR[present].astype(np.float64)
        curves.append(metrics.auroc(label_M, score=view.score_MT[present, t], weights=weights))
    return np.mean(curves, axis=0)


def green_median(predictions: Predictions, *, target: str = MACRO) -> float:
    """The number of their tables; NaN where a class is absent."""
    auroc_R = green_draws(predictions, target=target)
    return float(np.median(auroc_R[np.isfinite(auroc_R)])) if np.isfinite(auroc_R).any() else float('nan')


def best_two(arms: Mapping[str, Predictions], *, target: str = MACRO) -> BestTwo:
    """The two highest medians and Wilcoxon's signed rank test between their bootstraps, which draw the same rows.

    The files must hold the same images in the same order.
    """
    if len(arms) < 2:
        raise UserError('a comparison of the best two needs two sets of features')
    keys = [one.columns['key'].tolist() for one in arms.values()]
    if any(one != keys[0] for one in keys):
        raise UserError('the sets of features were tested on different images, or in another order: test all on one split')
    draws = {name: green_draws(one, target=target) for name, one in arms.items()}
    medians = {name: green_median(one, target=target) for name, one in arms.items()}
    first, second = sorted(arms, key=lambda name: (-medians[name], name))[:2]
    difference_R = draws[first] - draws[second]
    difference_R = difference_R[np.isfinite(difference_R)]
    return BestTwo(best=first, second=second, p=1.0 if not difference_R.any() else float(stats.wilcoxon(difference_R).pvalue))
