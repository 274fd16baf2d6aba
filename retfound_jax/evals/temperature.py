"""Temperature scaling (Guo et al. 2017, "On calibration of modern neural networks", section 4.2): one number divides all logits.

It is fitted on validation images by likelihood, and judged on other images. Probabilities are kept in the files and logits are not, but
the logarithm of a probability is a logit up to what all classes share. The order of the cases never changes, so AUROC stays as it is; what
changes is whether a stated probability means what it says. Above 1 the model was too sure of itself.

Letters: N images, C classes, R replicates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from retfound_jax.evals import metrics
from retfound_jax.evals.bootstrap import bootstrap, patient_index
from retfound_jax.evals.cells import MACRO
from retfound_jax.evals.predictions import Predictions

_LOW, _HIGH = 0.02, 50.0  # temperatures looked at; one at an end means that there is none
_COLD = 1e-5
_TINY = 1e-7  # float32 probabilities come no nearer to 1
_SCORES = ('ECE', 'NLL', 'Brier')


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """The temperature of each target; None where validation has none, with the reason in `note`."""

    temperature: dict[str, float | None]
    note: dict[str, str]


def fit(validation: Predictions) -> Fitted:
    """A temperature for each label (`multi`), or one for all classes together, by maximum likelihood on the labelled images.

    Of grades it divides the logits of P(grade >= k), which are the ones a model of grades has.
    """
    temperature: dict[str, float | None] = {}
    note: dict[str, str] = {}
    for target, label_N, probability_NC in _parts(validation):
        temperature[target], note[target] = _fit(label_N, probability_NC, ordinal=validation.kind == 'ordinal')
    return Fitted(temperature=temperature, note={target: words for target, words in note.items() if words})


def _fit(label_N: np.ndarray, probability_NC: np.ndarray, *, ordinal: bool) -> tuple[float | None, str]:
    if len(np.unique(label_N)) < 2:
        return None, 'validation holds one class only'

    # the likelihood is concave in 1 / T, so it has one maximum in log T
    def loss(log_t: float) -> float:
        return float(_nll(label_N, scaled(probability_NC, temperature=np.exp(log_t), ordinal=ordinal)).mean())

    # near zero the most probable class alone is left: where that is always right, colder is always better
    if (_nll(label_N, scaled(probability_NC, temperature=_COLD, ordinal=ordinal)) < 1).all():
        return None, 'no finite temperature: validation is told apart without an error, so any greater certainty looks better'
    found = minimize_scalar(loss, bounds=(np.log(_LOW), np.log(_HIGH)), method='bounded', options={'xatol': 1e-7})
    value = float(np.exp(found.x))
    if value < _LOW * 1.01:
        return None, f'no temperature above {_LOW:g}: validation is told apart almost without an error'
    if value > _HIGH * 0.99:
        return None, 'no finite temperature: on validation the scores say nothing, or the opposite'
    return value, ''


def scaled(probability_NC: np.ndarray, *, temperature: float, ordinal: bool = False) -> np.ndarray:
    """Probabilities [N, C] whose logits are divided by `temperature`; rows sum to 1.

    `ordinal`: the logits are those of P(class >= k); otherwise of the classes.
    """
    probability_NC = np.asarray(probability_NC, np.float64)
    if ordinal:
        above_NC = np.clip(np.cumsum(probability_NC[:, :0:-1], axis=1)[:, ::-1], _TINY, 1 - _TINY)
        above_NC = expit(logit(above_NC) / temperature)
        edge_N1 = np.ones((len(above_NC), 1))
        return np.concatenate([edge_N1, above_NC], axis=1) - np.concatenate([above_NC, 0 * edge_N1], axis=1)
    logit_NC = np.log(np.clip(probability_NC, _TINY, None)) / temperature
    weight_NC = np.exp(logit_NC - logit_NC.max(axis=1, keepdims=True))
    return weight_NC / weight_NC.sum(axis=1, keepdims=True)


def apply(predictions: Predictions, *, fitted: Fitted) -> Predictions:
    """The same predictions with every logit divided; targets without a temperature stay as they are."""
    score_NS = np.array(predictions.score_NS, np.float64)
    if predictions.kind == 'multi':
        for y, name in enumerate(predictions.labels):
            value = fitted.temperature.get(name)
            if value is not None:
                score_NS[:, y] = scaled(_pair(score_NS[:, y]), temperature=value)[:, 1]
    elif predictions.classes:
        value = fitted.temperature.get(_joint_name(predictions))
        if value is not None:
            score_NS = scaled(score_NS, temperature=value, ordinal=predictions.kind == 'ordinal')
    return replace(predictions, score_NS=score_NS)


def table(judged: Predictions, *, validation: Predictions, replicates: int = 200, seed: int = 0, level: float = 0.95) -> dict[str, Any]:
    """For each target T, and ECE, NLL and Brier of the judged images before and after, with the interval of the change by patient.

    ECE is of the positive class for yes/no, and of the most probable class otherwise (Guo et al., equation 3). Entries are None where they
    do not exist; `note` says why there is no temperature.
    """
    fitted, resampling = fit(validation), {'seed': seed, 'level': level}
    patient_N, _ = patient_index(judged.columns['patient'], key=judged.columns['key'])
    index_N = np.flatnonzero(~np.isnan(judged.label_NY).all(axis=1))
    out: dict[str, Any] = {}
    for target, label_N, probability_NC in _parts(judged):
        rows_N = _rows_of(judged, target, index_N)
        value = fitted.temperature.get(target)
        after_NC = probability_NC if value is None else scaled(probability_NC, temperature=value, ordinal=judged.kind == 'ordinal')
        entry: dict[str, Any] = {'T': value, 'n': len(label_N), 'note': fitted.note.get(target, '')}
        for name in _SCORES if len(label_N) else ():
            before, after = (_score(name, label_N, p_NC) for p_NC in (probability_NC, after_NC))
            entry |= {f'{name}_before': float(before(None)), f'{name}_after': None if value is None else float(after(None))}
            if value is not None:
                change = bootstrap(
                    lambda w_NR, a=after, b=before: a(w_NR) - b(w_NR), patient=patient_N[rows_N], replicates=replicates, **resampling
                )
                entry[f'{name}_change'] = {'value': change.value, 'low': metrics.finite(change.low), 'high': metrics.finite(change.high)}
        out[target] = entry
    return out


def _parts(predictions: Predictions) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(target, label index, probabilities) of what one temperature is for; labelled images only."""
    if predictions.kind == 'regress':
        return []
    if predictions.kind != 'multi':
        kept_N = ~np.isnan(predictions.label_NY[:, 0])
        return [(_joint_name(predictions), predictions.label_NY[kept_N, 0].astype(np.int64), predictions.score_NS[kept_N])]
    parts = []
    for y, name in enumerate(predictions.labels):
        kept_N = ~np.isnan(predictions.label_NY[:, y])
        parts.append((name, predictions.label_NY[kept_N, y].astype(np.int64), _pair(predictions.score_NS[kept_N, y])))
    return parts


def _rows_of(predictions: Predictions, target: str, labelled_N: np.ndarray) -> np.ndarray:
    """Indices of the images in the part of that target."""
    if predictions.kind != 'multi':
        return labelled_N
    return np.flatnonzero(~np.isnan(predictions.label_NY[:, predictions.labels.index(target)]))


def _joint_name(predictions: Predictions) -> str:
    return predictions.classes[1] if len(predictions.classes) == 2 else MACRO


def _pair(score_N: np.ndarray) -> np.ndarray:
    return np.stack([1 - score_N, score_N], axis=1)


def _nll(label_N: np.ndarray, probability_NC: np.ndarray) -> np.ndarray:
    return -np.log(np.clip(probability_NC[np.arange(len(label_N)), label_N], _TINY, None))


def _score(name: str, label_N: np.ndarray, probability_NC: np.ndarray) -> Callable[[np.ndarray | None], np.ndarray]:
    """A function of weights [N, R] (None: each image once)."""
    if name == 'ECE':
        return _ece(label_N, probability_NC)
    if name == 'NLL':
        each_N = _nll(label_N, probability_NC)
    else:
        error_NC = (probability_NC - (label_N[:, None] == np.arange(probability_NC.shape[1]))) ** 2
        each_N = error_NC[:, 1] if probability_NC.shape[1] == 2 else error_NC.sum(axis=1)  # Brier 1950: the sum over the classes
    return lambda weights: each_N.mean() if weights is None else metrics.divide(each_N @ weights, weights.sum(axis=0))


def _ece(label_N: np.ndarray, probability_NC: np.ndarray) -> Callable[[np.ndarray | None], np.ndarray]:
    if probability_NC.shape[1] == 2:
        return lambda weights: metrics.ece(label_N, score=probability_NC[:, 1], weights=weights)
    right_N = probability_NC.argmax(axis=1) == label_N
    return lambda weights: metrics.ece(right_N, score=probability_NC.max(axis=1), weights=weights)
