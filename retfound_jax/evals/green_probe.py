"""The probe of RETFound-Green (Engelmann and Bernabeu, Nat Commun 2025): what its tables are made by, so that ours can stand beside them.

Standardised features into scikit-learn's LogisticRegression(max_iter=20000, random_state=42), nothing chosen on validation; 100 bootstraps
of the test rows with seed 42; the median AUROC, one class against the rest, mean over the classes; Wilcoxon's test between the best two.

Their bootstrap draws rows, so two eyes of a patient count as two, and their Wilcoxon test is of 100 resamplings of one test set: its p
value falls with the number of resamplings. It is given because they give it. Ours are the patient bootstrap and the paired difference.

Letters: N rows, D features, C classes, R bootstraps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from retfound_jax.core.errors import UserError
from retfound_jax.evals import metrics
from retfound_jax.evals.probe import Part

SEED, BOOTSTRAPS, MAX_ITER = 42, 100, 20000


@dataclass(frozen=True, kw_only=True)
class GreenResult:
    """Of one set of features."""

    median: float
    auroc_R: np.ndarray  # [R]; a resampling without a class is NaN, and left out of the median
    per_class: dict[str, float]  # median AUROC of each class against the rest


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


def green_result(label_N: np.ndarray, *, score_NC: np.ndarray, classes: tuple[str, ...]) -> GreenResult:
    """Median over 100 bootstraps of the test rows; `label_N` numbers the classes, of two the second is the positive one."""
    label_N = np.asarray(label_N)
    rng = np.random.default_rng(SEED)
    drawn_RN = rng.integers(len(label_N), size=(BOOTSTRAPS, len(label_N)))
    weights_NR = np.stack([np.bincount(row, minlength=len(label_N)) for row in drawn_RN], axis=1).astype(np.float64)
    judged = range(1, 2) if len(classes) == 2 else range(len(classes))
    curves = {classes[c]: metrics.auroc(label_N == c, score=score_NC[:, c], weights=weights_NR) for c in judged}
    mean_R = np.mean(list(curves.values()), axis=0)
    if np.isnan(mean_R).all():
        raise UserError('a class is absent in the test rows: the AUROC over all classes has no value; choose another split')
    return GreenResult(
        median=float(np.nanmedian(mean_R)),
        auroc_R=mean_R,
        per_class={name: float(np.nanmedian(value_R)) for name, value_R in curves.items()},
    )


def best_two(results: Mapping[str, GreenResult]) -> BestTwo:
    """The two highest medians and Wilcoxon's signed rank test between their bootstraps, which are of the same rows."""
    if len(results) < 2:
        raise UserError('a comparison of the best two needs two sets of features')
    first, second = sorted(results, key=lambda name: (-results[name].median, name))[:2]
    a_R, b_R = results[first].auroc_R, results[second].auroc_R
    both = np.isfinite(a_R) & np.isfinite(b_R)
    difference_R = a_R[both] - b_R[both]
    return BestTwo(best=first, second=second, p=1.0 if not difference_R.any() else float(stats.wilcoxon(difference_R).pvalue))
