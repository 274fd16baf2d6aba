"""How good are frozen features: a linear probe and k nearest neighbours, by scikit-learn.

What is chosen (regularisation) is chosen on validation patients; test patients are only scored.

Letters: N rows, D features, Y label columns, S score columns.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from retfound_jax.core.errors import UserError
from retfound_jax.evals.metrics import LOWER_IS_BETTER
from retfound_jax.evals.validation import better, validation_metrics

C_GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # inverse strength of the L2 penalty on standardised features
ALPHA_GRID = (1e0, 1e1, 1e2, 1e3, 1e4)  # strength of the L2 penalty of ridge regression
NEIGHBOURS = 20
TEMPERATURE = 0.07  # of the neighbours' votes; Wu et al. 2018, "Unsupervised feature learning via non-parametric instance discrimination"


@dataclass(frozen=True, kw_only=True)
class Part:
    """Features, labels and patients of one split. label: [N] class index or number, [N, Y] of 1, 0 for multi; NaN missing."""

    features: np.ndarray
    label: np.ndarray
    patient: np.ndarray

    def labelled(self, y: int | None = None) -> Part:
        """The rows that have a label (of column y, as a vector)."""
        label = np.asarray(self.label, np.float64)
        label = label[:, y] if y is not None else label.reshape(len(label))
        kept = ~np.isnan(label)
        return Part(features=np.asarray(self.features)[kept], label=label[kept], patient=np.asarray(self.patient)[kept])


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Scores of the probe as `Run.predict` would give them, and what validation chose."""

    score_validation: np.ndarray  # [N, S]
    score_test: np.ndarray  # [N, S]
    chosen: tuple[float, ...]  # C or alpha, one for each fitted model; empty for k-NN
    validation: dict[str, float]  # metrics on validation


def linear_probe(
    train: Part, *, validation: Part, test: Part, kind: str, classes: int = 2, grid: Sequence[float] = (), max_iter: int = 2000
) -> Probe:
    """Standardised features into logistic regression (ridge for `regress`), C (alpha) by the best validation AUROC (MAE).

    kind 'single' and 'ordinal': one multinomial model over `classes`; 'multi': one model a label column. A UserError when a patient is in
    two parts or the training labels hold one class only.
    """
    _disjoint(train, validation, test)
    grid = tuple(grid) or (ALPHA_GRID if kind == 'regress' else C_GRID)

    def fit(part: Part, strength: float) -> Callable[[np.ndarray], np.ndarray]:
        if kind == 'regress':
            return _fitted(make_pipeline(StandardScaler(), Ridge(alpha=strength)), part, classes=0)
        model = LogisticRegression(C=strength, max_iter=max_iter)
        return _fitted(make_pipeline(StandardScaler(), model), part, classes=2 if kind == 'multi' else classes)

    return _probe(train, validation, test, kind=kind, grid=grid, fit=fit)


def knn(train: Part, *, validation: Part, test: Part, kind: str, classes: int = 2, neighbours: int = NEIGHBOURS) -> Probe:
    """Cosine nearest neighbours, each voting with exp(similarity / 0.07); nothing is chosen, validation is only scored.

    With fewer than `neighbours` training rows all of them vote. Errors as in `linear_probe`.
    """
    _disjoint(train, validation, test)

    def fit(part: Part, _: float) -> Callable[[np.ndarray], np.ndarray]:
        options: dict[str, Any] = {'n_neighbors': min(neighbours, len(part.label)), 'metric': 'cosine', 'weights': _votes}
        model = KNeighborsRegressor(**options) if kind == 'regress' else KNeighborsClassifier(**options)
        return _fitted(model, part, classes={'regress': 0, 'multi': 2}.get(kind, classes))

    return replace(_probe(train, validation, test, kind=kind, grid=(0.0,), fit=fit), chosen=())


def _probe(train: Part, validation: Part, test: Part, *, kind: str, grid: Sequence[float], fit: Any) -> Probe:
    """Fit each column over the grid and keep the best on validation; of equals, the first (most regularised C)."""
    columns = range(np.asarray(train.label).shape[1]) if kind == 'multi' else [None]
    chosen, scores = [], {'validation': [], 'test': []}
    for y in columns:
        part, held = train.labelled(y), validation.labelled(y)
        if not len(part.label) or (kind != 'regress' and len(np.unique(part.label)) < 2):
            raise UserError(f'the {len(part.label)} labelled training rows of label {y or 0} hold fewer than two classes: nothing to learn')
        models = [(strength, fit(part, strength)) for strength in grid]
        strength, model = max(models, key=lambda pair: _goodness(pair[1], held, kind=kind)) if len(models) > 1 else models[0]
        chosen.append(strength)
        for name, rows in (('validation', validation), ('test', test)):
            score_NS = model(np.asarray(rows.features))
            scores[name].append(score_NS[:, 1:] if kind == 'multi' else score_NS)
    joined = {name: np.concatenate(parts, axis=1) for name, parts in scores.items()}
    found = validation_metrics(kind, label=validation.label, score=joined['validation'])
    return Probe(score_validation=joined['validation'], score_test=joined['test'], chosen=tuple(chosen), validation=found)


def _goodness(model: Callable[[np.ndarray], np.ndarray], held: Part, *, kind: str) -> float:
    """The deciding validation metric, larger for better; undefined (a class is absent) is worst."""
    if not len(held.label):
        return -np.inf
    kind = 'single' if kind == 'multi' else kind
    metric, _ = better(kind)
    value = validation_metrics(kind, label=held.label, score=model(held.features))[metric]
    return -np.inf if np.isnan(value) else -value if metric in LOWER_IS_BETTER else value


def _fitted(model: Any, part: Part, *, classes: int) -> Callable[[np.ndarray], np.ndarray]:
    """features [N, D] -> [N, classes] probabilities, zero for a class that training never saw; [N, 1] numbers when classes is 0."""
    model.fit(part.features, part.label if not classes else part.label.astype(np.int64))
    if not classes:
        return lambda features: np.asarray(model.predict(features)).reshape(-1, 1)

    def probabilities(features: np.ndarray) -> np.ndarray:
        out_NS = np.zeros((len(features), classes))
        out_NS[:, model.classes_] = model.predict_proba(features)
        return out_NS

    return probabilities


def _votes(distance: np.ndarray) -> np.ndarray:
    """Weights of neighbours at these cosine distances, relative to a neighbour in the same direction."""
    return np.exp(-np.asarray(distance) / TEMPERATURE)


def _disjoint(train: Part, validation: Part, test: Part) -> None:
    parts = {'training': train, 'validation': validation, 'test': test}
    for one, other in itertools.combinations(parts, 2):
        shared = set(np.asarray(parts[one].patient).tolist()) & set(np.asarray(parts[other].patient).tolist()) - {''}
        if shared:
            first = min(map(str, shared))
            raise UserError(f'{len(shared)} patients are in both {one} and {other} (the first is {first}): split by patient before probing')
