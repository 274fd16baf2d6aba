"""What is decided about each row, as uncertainty looks at it: which outcomes there are, how probable each is, which one is true.

A yes/no question for each label or for the second of two classes; one question of all classes together where there are more; one number
for a regression. Rows without a true outcome are left out (patients whose eyes differ in a class without an order have none).

Letters: M rows (images or patients), C outcomes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retfound_jax.evals.cells import MACRO
from retfound_jax.evals.views import View

YES_NO, CLASSES, GRADES, NUMBER = 'yes/no', 'classes', 'grades', 'number'


@dataclass(frozen=True, kw_only=True)
class Question:
    """One decision about every row that has an answer to compare with."""

    target: str
    sort: str  # YES_NO, CLASSES, GRADES or NUMBER
    outcomes: tuple[str, ...]  # in the order of the columns; empty for a number
    probability_MC: np.ndarray  # no column for a number
    truth_M: np.ndarray  # index of the outcome, or the number
    estimate_M: np.ndarray  # the number; for yes/no the probability of yes; NaN otherwise
    patient_M: np.ndarray

    def __len__(self) -> int:
        return len(self.truth_M)


def questions(view: View, *, classes: tuple[str, ...], cumulative: bool = False) -> list[Question]:
    """The questions of a view. `classes` are those of the predictions; with `cumulative` also `>=GRADE` as a yes/no question each."""
    if view.kind == 'regress':
        return [_number(view, t) for t in range(len(view.targets))]
    if len(classes) <= 2:
        return [_yes_no(view, t, classes=classes) for t in range(len(view.targets))]
    known_M = view.class_M >= 0
    joint = Question(
        target=MACRO,
        sort=GRADES if view.kind == 'ordinal' else CLASSES,
        outcomes=classes,
        probability_MC=view.probability_MC[known_M],
        truth_M=view.class_M[known_M],
        estimate_M=np.full(int(known_M.sum()), np.nan),
        patient_M=view.patient_M[known_M],
    )
    above = [t for t, target in enumerate(view.targets) if target.startswith('>=')] if cumulative and view.kind == 'ordinal' else []
    return [joint, *(_yes_no(view, t, classes=()) for t in above)]


def _yes_no(view: View, t: int, *, classes: tuple[str, ...]) -> Question:
    known_M = ~np.isnan(view.label_MT[:, t])
    score_M = view.score_MT[known_M, t]
    return Question(
        target=view.targets[t],
        sort=YES_NO,
        outcomes=classes or ('no', 'yes'),
        probability_MC=np.stack([1 - score_M, score_M], axis=1),
        truth_M=view.label_MT[known_M, t].astype(np.int64),
        estimate_M=score_M,
        patient_M=view.patient_M[known_M],
    )


def _number(view: View, t: int) -> Question:
    known_M = ~np.isnan(view.label_MT[:, t])
    return Question(
        target=view.targets[t],
        sort=NUMBER,
        outcomes=(),
        probability_MC=np.zeros((int(known_M.sum()), 0)),
        truth_M=view.label_MT[known_M, t],
        estimate_M=view.score_MT[known_M, t],
        patient_M=view.patient_M[known_M],
    )
