"""Several runs as one: the mean of what they say about the same images, and how far they disagree.

Runs that differ in their seed alone are wrong in different ways, so their mean is better and better calibrated than each (Lakshminarayanan
et al. 2017, "Simple and scalable predictive uncertainty estimation using deep ensembles"). What they disagree on they have not learned.

Letters: K members, N images, S score columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from retfound_jax.core.errors import UsageError
from retfound_jax.evals.compare import align
from retfound_jax.evals.predictions import Predictions, read_predictions

DISAGREEMENT = 'disagreement'  # column of the predictions; `disagreement:LABEL` for each of several labels
PREFIX = 'ensemble-'  # of the split's name: the run's own predictions stay as they are


def ensemble(members: Sequence[Predictions]) -> Predictions:
    """The mean of the members' scores with a column of disagreement; rows, labels and step are those of the first.

    Disagreement is the mutual information of outcome and member [nats]: the entropy of the mean minus the mean entropy (Houlsby et al.
    2011, arXiv 1112.5745, equation 2); of a number, the standard deviation between members in its unit. For several labels there is a
    column each.
    UsageError for fewer than two members; UserError where they are not of the same images, labels and patients.
    """
    if len(members) < 2:
        raise UsageError('an ensemble takes two runs or more: name the others after --ensemble')
    first = members[0]
    score_KNS = np.stack([first.score_NS, *(align(member, to=first).score_NS for member in members[1:])])
    names = [f'{DISAGREEMENT}:{label}' for label in first.labels] if first.kind == 'multi' else [DISAGREEMENT]
    split = first.split if first.split.startswith(PREFIX) else f'{PREFIX}{first.split}'
    columns = {**first.columns, **dict(zip(names, _disagreement(first.kind, score_KNS), strict=True))}
    return replace(first, split=split, columns=columns, score_NS=score_KNS.mean(axis=0))


def ensemble_runs(workdirs: Sequence[Path | str], *, split: str) -> Predictions:
    """The ensemble of the prediction files `predictions/SPLIT.parquet` of several run directories; errors as in `ensemble`."""
    return ensemble([read_predictions(Path(workdir) / 'predictions' / f'{split}.parquet') for workdir in workdirs])


def disagreement_of(predictions: Predictions, *, target: str) -> np.ndarray | None:
    """The disagreement [N] about a target; None where the predictions are no ensemble's."""
    for name in (f'{DISAGREEMENT}:{target}', DISAGREEMENT):
        if name in predictions.columns:
            return np.asarray(predictions.columns[name], np.float64)
    return None


def _disagreement(kind: str, score_KNS: np.ndarray) -> np.ndarray:
    """[columns, N]."""
    if kind == 'regress':
        return score_KNS[:, :, 0].std(axis=0, ddof=1)[None]
    if kind == 'multi':
        entropy_KNS = _entropy(score_KNS) + _entropy(1 - score_KNS)
        mean_NS = score_KNS.mean(axis=0)
        return np.maximum(_entropy(mean_NS) + _entropy(1 - mean_NS) - entropy_KNS.mean(axis=0), 0.0).T
    told_KN = _entropy(score_KNS).sum(axis=2)
    return np.maximum(_entropy(score_KNS.mean(axis=0)).sum(axis=1) - told_KN.mean(axis=0), 0.0)[None]


def _entropy(probability: np.ndarray) -> np.ndarray:
    """-p log p, 0 where p is 0."""
    safe = np.clip(probability, 1e-300, None)
    return -np.where(probability > 0, probability * np.log(safe), 0.0)
