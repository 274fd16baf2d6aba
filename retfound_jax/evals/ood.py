"""Is this a photograph of the kind the model was trained on: distance of its features from those of training photographs.

A probability says nothing of a camera or a disease that was never seen: the classes it is over are those of training. The distance of
the encoder's features can. The alarm is set on validation so that a chosen share of photographs of the usual kind raise it; no unusual
photograph is needed. What is flagged on the judged split beyond that share has changed.

Letters: N images, T training images, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors

from retfound_jax.core.errors import UserError
from retfound_jax.data.config import DataConfig
from retfound_jax.evals.bootstrap import patient_index
from retfound_jax.evals.conformal import quantile
from retfound_jax.evals.features import extract
from retfound_jax.evals.predictions import Predictions
from retfound_jax.evals.proportions import share
from retfound_jax.evals.withholding import Withholding

FALSE_ALARM = 0.05  # share of usual photographs that raise the alarm
NEIGHBOURS = 10
TRAIN_IMAGES = 5000  # at most, looked at to say what is usual
MAHALANOBIS, NEAREST = 'mahalanobis', 'nearest'
_LEAST = 20  # training images


class Distance(Protocol):
    """features [N, D] -> distance [N], larger for stranger."""

    def __call__(self, features_ND: np.ndarray) -> np.ndarray: ...


def mahalanobis(train_TD: np.ndarray) -> Distance:
    """Squared Mahalanobis distance from the mean of all training features, without classes (after Lee et al. 2018, arXiv 1807.03888).

    The covariance is shrunk (Ledoit and Wolf 2004), as there may be fewer images than features.
    """
    fitted = LedoitWolf().fit(_enough(train_TD))
    return lambda features_ND: fitted.mahalanobis(np.asarray(features_ND, np.float64))


def nearest(train_TD: np.ndarray, *, neighbours: int = NEIGHBOURS) -> Distance:
    """Distance to the k-th nearest training image, all features scaled to length 1 (Sun et al. 2022, arXiv 2204.06507)."""
    known = NearestNeighbors(n_neighbors=min(neighbours, len(train_TD))).fit(_unit(_enough(train_TD)))
    return lambda features_ND: known.kneighbors(_unit(features_ND))[0][:, -1]


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features of a split's images, by record key."""

    key_N: np.ndarray
    value_ND: np.ndarray

    def of(self, predictions: Predictions) -> np.ndarray:
        """[N, D] in the rows of the predictions; a UserError where one has no features."""
        order_N = np.argsort(self.key_N)
        at_N = np.clip(np.searchsorted(self.key_N[order_N], predictions.columns['key']), 0, len(order_N) - 1)
        found_N = order_N[at_N]
        missing = int((self.key_N[found_N] != predictions.columns['key']).sum())
        if missing:
            raise UserError(f'{missing} images of the {predictions.split} split have no features: take both from one dataset')
        return self.value_ND[found_N]


def table(
    judged: Predictions,
    *,
    validation: Predictions,
    train: np.ndarray,
    validation_features: np.ndarray,
    judged_features: np.ndarray,
    plan: Withholding,
    false_alarm: float = FALSE_ALARM,
    level: float = 0.95,
) -> dict[str, Any]:
    """What is flagged: {'false_alarm', 'n_train', 'n_validation', 'rows': [method, by, group, n, flagged, low, high, note]}.

    The threshold is the conformal quantile of the validation images, the images of a patient sharing one patient's weight: an image taken
    at random from a new patient of the usual kind is flagged with a probability of `false_alarm` at most. The share is a mean over
    patients.
    UserError where there are fewer than 20 training images.
    """
    patient_V, patient_N = (patient_index(one.columns['patient'], key=one.columns['key'])[0] for one in (validation, judged))
    rows: list[dict[str, Any]] = []
    for method, fit in ((MAHALANOBIS, mahalanobis), (NEAREST, nearest)):
        distance = fit(train)
        threshold = quantile(distance(validation_features), patient=patient_V, alpha=false_alarm)
        flagged_N = distance(judged_features) > threshold
        masks: Mapping[tuple[str, str], np.ndarray] = {('', ''): np.ones(len(judged), bool)}
        masks |= {(by, group): mask_N for by, groups in plan.masks.items() for group, mask_N in groups.items()}
        for (by, group), mask_N in masks.items():
            why = plan.group(by, group) if by else ''
            row: dict[str, Any] = {'method': method, 'by': by, 'group': group, 'note': why} | dict.fromkeys(('n', 'flagged', 'low', 'high'))
            if not why and mask_N.any():
                found = share(flagged_N[mask_N], patient=patient_N[mask_N], level=level)
                row |= {'n': found.n, 'flagged': found.value, 'low': found.low, 'high': found.high}
            rows.append(row)
    counted = {'n_train': len(train), 'n_validation': len(np.unique(patient_V))}
    return {'false_alarm': false_alarm, **counted, 'rows': rows}


def ood_of_run(
    run: Any, *, judged: Predictions, validation: Predictions, data: DataConfig, plan: Withholding, level: float = 0.95
) -> dict[str, Any]:
    """The table of a run (`train.checkpoint.Run`): features of a sample of its training images, of validation and of the judged split.

    `data` is where the judged images are, the run's own data or another dataset.
    """
    own = run.config.data
    train_TD, _ = extract(run.spec, run.params, data=own, split='train', sample=TRAIN_IMAGES)
    value_VD, known = extract(run.spec, run.params, data=own, split=run.config.eval_split)
    value_ND, seen = extract(run.spec, run.params, data=data, split=judged.split)
    return table(
        judged,
        validation=validation,
        train=train_TD,
        validation_features=Features(key_N=known.table['key'], value_ND=value_VD).of(validation),
        judged_features=Features(key_N=seen.table['key'], value_ND=value_ND).of(judged),
        plan=plan,
        level=level,
    )


def _enough(train_TD: np.ndarray) -> np.ndarray:
    train_TD = np.asarray(train_TD, np.float64)
    if len(train_TD) < _LEAST:
        raise UserError(f'{len(train_TD)} training images are too few to say what is usual: at least {_LEAST} are needed for --ood')
    return train_TD


def _unit(features_ND: np.ndarray) -> np.ndarray:
    features_ND = np.asarray(features_ND, np.float64)
    return features_ND / np.maximum(np.linalg.norm(features_ND, axis=1, keepdims=True), 1e-12)
