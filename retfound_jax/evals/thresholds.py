"""Operating points: chosen on validation, applied to test unchanged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retfound_jax.core.errors import UsageError
from retfound_jax.evals.metrics import roc


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How a threshold is chosen: `youden` (largest sensitivity + specificity - 1), or the highest one that reaches a sensitivity."""

    name: str = 'youden'
    sensitivity: float | None = None


def parse_rule(text: str) -> Rule:
    """'youden' or 'sensitivity=0.9'; anything else is a UsageError."""
    name, _, number = text.partition('=')
    if name == 'youden' and not number:
        return Rule()
    try:
        wanted = float(number)
    except ValueError:
        wanted = np.nan
    if name != 'sensitivity' or not 0 < wanted <= 1:
        raise UsageError(f"threshold rule '{text}' is not known: write youden, or sensitivity=0.9 with a number above 0 and up to 1")
    return Rule(name=text, sensitivity=wanted)


def choose(label_N: np.ndarray, *, score: np.ndarray, rule: Rule | None = None) -> float | None:
    """The threshold t of 'positive when score >= t' by the rule (default Youden 1950); None when a class is absent.

    It lies midway between the last score called positive and the next one below, so that it is no single patient's score. Of equally
    good thresholds the highest is taken.
    """
    rule = rule or Rule()
    label_N = np.asarray(label_N, bool)
    if not label_N.any() or label_N.all():
        return None
    curve = roc(label_N, score=score)
    fpr_G, tpr_G, score_G = curve.fpr_GR[:, 0], curve.tpr_GR[:, 0], curve.score_G
    if rule.sensitivity is None:
        best = int(np.argmax(np.round(tpr_G - fpr_G, 12)))  # rounded: equal J must not be told apart by the last bit
    else:
        best = int(np.argmax(tpr_G >= rule.sensitivity - 1e-12))
    if best + 1 == len(score_G):
        return float(score_G[best])
    middle = (score_G[best] + score_G[best + 1]) / 2
    return float(middle if middle > score_G[best + 1] else score_G[best])
