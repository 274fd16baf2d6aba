"""Conformal sets of a judged split: how often they hold the truth, overall, in every group and in every class, and how large they are.

Three ways to calibrate: on all validation patients (`overall`), on those of the same group (`by_group`), on those of the same true class
(`by_class`, a promise for the patients who have the finding, and for those who have not). The first promises nothing for a group.

Letters: M rows, C outcomes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from retfound_jax.core.suppression import note
from retfound_jax.evals import conformal
from retfound_jax.evals.bootstrap import patient_index
from retfound_jax.evals.predictions import Predictions
from retfound_jax.evals.proportions import share
from retfound_jax.evals.questions import NUMBER, Question, questions
from retfound_jax.evals.stats import holm
from retfound_jax.evals.subgroups import group_masks
from retfound_jax.evals.views import make_view
from retfound_jax.evals.withholding import Withholding

OVERALL, BY_GROUP, BY_CLASS = 'overall', 'by_group', 'by_class'
CLASS = 'class'  # the `by` of rows about those who truly have an outcome
ALPHAS = (0.1, 0.05)  # shares of sets that may miss the truth
_NUMBERS = (
    'n', 'coverage', 'low', 'high', 'expected_low', 'expected_high', 'mean_size', 'empty', 'both', 'n_calibration', 'p', 'p_holm',
)  # fmt: skip
Row = dict[str, Any]


def coverage_rows(
    judged: Predictions,
    *,
    validation: Predictions,
    plan: Withholding,
    alphas: Sequence[float] = ALPHAS,
    seed: int = 0,
    level: float = 0.95,
) -> list[Row]:
    """The rows of the conformal table, by patient for every group of the plan, by image for all together.

    A row: level, target, method, alpha, kind, by, group, n and n_calibration [patients], coverage with low and high (Wilson, by patient),
    expected_low and expected_high (where chance alone puts it if the promise holds; None where nothing is promised), mean_size, the shares
    `empty` and `both` (all outcomes: the set says nothing), p and p_holm (by patient: how probable so low a coverage is if these patients
    are like those who set the threshold; corrected over the groups that share by, target, method, alpha and kind), note. What the plan
    withholds is one row without numbers. Where a group has fewer patients in validation than the plan's floor, the threshold is that of
    all, and the note says so.
    """
    work = _Work(judged=judged, validation=validation, plan=plan, alphas=tuple(alphas), seed=seed, interval=level)
    rows = work.everybody('patient') + work.everybody('image')
    for by, groups in plan.masks.items():
        calibration = group_masks(by, predictions=validation)
        asked = {group: work.asked(judged, 'patient', mask_N) for group, mask_N in groups.items()}
        why = [
            reasons(plan, by, target=of[0].target, patients={group: len(one) for group, one in zip(groups, of, strict=True)})
            for of in zip(*asked.values(), strict=True)
        ]
        for group in groups:
            same = [calibration[part] for part in plan.members[by, group] if part in calibration]
            same_N = np.any(same, axis=0) if same else np.zeros(len(validation), bool)
            rows += work.group(by, group, asked=asked[group], why=[one[group] for one in why], validation_N=same_N)
    return _corrected(rows)


def reasons(plan: Withholding, by: str, *, target: str, patients: Mapping[str, int]) -> dict[str, str]:
    """Why nothing may be printed of each group about a target; '' where it may.

    Of classes without an order only `patients` count whose eyes have one class. Where this leaves a group under the floor, all groups of
    the column are withheld, as it could be worked out from the others.
    """
    found = {group: plan.labelled(by, group, target) for group in patients}
    if any(0 < n < plan.floor and not found[group] for group, n in patients.items()):
        return {group: words or note(plan.floor) for group, words in found.items()}
    return {group: words or ('' if patients[group] else 'nobody in it') for group, words in found.items()}


def _corrected(rows: list[Row]) -> list[Row]:
    """The rows with `p_holm`."""
    families: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row['p'] is not None:
            families.setdefault(tuple(row[name] for name in ('level', 'target', 'method', 'alpha', 'kind', 'by')), []).append(row)
    for family in families.values():
        for row, p in zip(family, holm([row['p'] for row in family]), strict=True):
            row['p_holm'] = float(p)
    return rows


@dataclass(frozen=True, kw_only=True)
class _Calibrated:
    """A question of validation with the score of each true outcome."""

    question: Question
    score_M: np.ndarray

    @property
    def patients(self) -> int:
        return len(np.unique(self.question.patient_M))

    def threshold(self, alpha: float, *, rows: np.ndarray | None = None) -> float:
        kept = slice(None) if rows is None else rows
        return conformal.quantile(self.score_M[kept], patient=self.question.patient_M[kept], alpha=alpha)


@dataclass(frozen=True, kw_only=True)
class _Work:
    judged: Predictions
    validation: Predictions
    plan: Withholding
    alphas: tuple[float, ...]
    seed: int
    interval: float

    def everybody(self, level: str) -> list[Row]:
        """All patients, and those of each true class, with thresholds of all and of each class."""
        asked, calibration = self.asked(self.judged, level), self.asked(self.validation, level)
        rows = []
        for question, known in zip(asked, calibration, strict=True):
            for method in conformal.methods(question):
                score_MC, fitted = self._score(question, method), self._calibrate(known, method)
                for alpha in self.alphas:
                    head = {'level': level, 'target': question.target, 'method': method, 'alpha': alpha}
                    one = fitted.threshold(alpha)
                    everyone = _Cell(question=question, score_MC=score_MC, threshold=one, calibrated=fitted.patients)
                    rows.append(head | {'kind': OVERALL, 'by': '', 'group': ''} | self._row(everyone, alpha, promised=level == 'patient'))
                    if question.sort != NUMBER and level == 'patient':
                        rows += self._classes(everyone, fitted, head, alpha)
        return rows

    def _classes(self, everyone: _Cell, fitted: _Calibrated, head: Row, alpha: float) -> list[Row]:
        question, known = everyone.question, fitted.question
        own_C = np.array([fitted.threshold(alpha, rows=known.truth_M == c) for c in range(len(question.outcomes))])
        together = replace(everyone, threshold=own_C)
        # several thresholds at once: the number covered is no single beta-binomial
        rows = [head | {'kind': BY_CLASS, 'by': '', 'group': ''} | self._row(together, alpha, promised=False) | {'p': None}]
        for c, name in enumerate(question.outcomes):
            mask_M, calibrated = question.truth_M == c, int((known.truth_M == c).sum())
            for kind, threshold in ((OVERALL, everyone.threshold), (BY_CLASS, own_C)):
                cell = everyone.of(mask_M, threshold=threshold, calibrated=everyone.calibrated if kind == OVERALL else calibrated)
                found = self._row(cell, alpha, promised=kind == BY_CLASS)
                rows.append(head | {'kind': kind, 'by': CLASS, 'group': name} | found)
        return rows

    def group(self, by: str, group: str, *, asked: Sequence[Question], why: Sequence[str], validation_N: np.ndarray) -> list[Row]:
        """The patients of one group at the threshold of all and at that of their own group; `why` a question is withheld."""
        own = self._everyone if all(why) else self.asked(self.validation, 'patient', validation_N)  # withheld: never looked at
        rows = []
        for question, known, same, withheld in zip(asked, self._everyone, own, why, strict=True):
            if withheld:
                head = {'level': 'patient', 'target': question.target, 'method': conformal.methods(question)[0], 'alpha': self.alphas[0]}
                rows.append(head | {'by': by, 'group': group, 'kind': OVERALL} | dict.fromkeys(_NUMBERS) | {'note': withheld})
                continue
            for method in conformal.methods(question):
                score_MC = self._score(question, method)
                fitted = {OVERALL: self._calibrate(known, method), BY_GROUP: self._calibrate(same, method)}
                for alpha in self.alphas:
                    head = {'level': 'patient', 'target': question.target, 'method': method, 'alpha': alpha, 'by': by, 'group': group}
                    rows += [head | {'kind': kind} | self._group_row(question, score_MC, fitted, kind, alpha) for kind in fitted]
        return rows

    def _group_row(
        self, question: Question, score_MC: np.ndarray, fitted: Mapping[str, _Calibrated], kind: str, alpha: float
    ) -> Row:
        # below the floor a threshold would be one patient's; below 1 / alpha - 1 there is none
        few = kind == BY_GROUP and (fitted[kind].patients < self.plan.floor or not np.isfinite(fitted[kind].threshold(alpha)))
        used = fitted[OVERALL if few else kind]
        cell = _Cell(question=question, score_MC=score_MC, threshold=used.threshold(alpha), calibrated=used.patients)
        row = self._row(cell, alpha, promised=kind == BY_GROUP and not few)
        if few and row['coverage'] is not None:
            row['note'] = 'calibrated on all patients: too few of this group in validation'
        return row

    def _row(self, cell: _Cell, alpha: float, *, promised: bool) -> Row:
        patients = len(np.unique(cell.question.patient_M))
        if patients < self.plan.floor:
            few = f'withheld: fewer than {self.plan.floor} patients' if patients else 'nobody in it'
            return dict.fromkeys(_NUMBERS) | {'note': few}
        found = conformal.sets(cell.question, score_MC=cell.score_MC, threshold=cell.threshold)
        covered = share(found.covered_M, patient=cell.question.patient_M, level=self.interval)
        expected, chance = (None, None), {'calibrated': cell.calibrated, 'judged': patients, 'alpha': alpha}
        if promised:
            expected = conformal.covered_by_chance(**chance, level=self.interval)
        # with several images a patient the number covered is no longer beta-binomial
        p = conformal.too_rarely(found.covered_M.sum(), **chance) if patients == len(cell.question) else None
        by_patient = [
            None if value_M is None else share(value_M, patient=cell.question.patient_M).value for value_M in (found.empty_M, found.all_M)
        ]
        size = float(found.size_M.mean())
        values = (patients, covered.value, covered.low, covered.high, *expected, size if np.isfinite(size) else None, *by_patient)
        few = f'too few patients in validation to promise {1 - alpha:.0%}: every outcome is kept'
        words = '' if np.all(np.isfinite(cell.threshold)) else few
        return dict(zip(_NUMBERS, (*values, cell.calibrated, p, None), strict=True)) | {'note': words}

    @cached_property
    def _everyone(self) -> list[Question]:
        return self.asked(self.validation, 'patient')

    def asked(self, predictions: Predictions, level: str, rows: np.ndarray | None = None) -> list[Question]:
        """The questions of these images at a level."""
        patient_N, _ = patient_index(predictions.columns['patient'], key=predictions.columns['key'])
        return questions(make_view(predictions, level=level, patient=patient_N, rows=rows), classes=predictions.classes)

    def _calibrate(self, question: Question, method: str) -> _Calibrated:
        score_MC = self._score(question, method, stream=1)
        return _Calibrated(question=question, score_M=conformal.true_scores(question, score_MC=score_MC))

    def _score(self, question: Question, method: str, *, stream: int = 0) -> np.ndarray:
        """Scores with the random part of each patient, the same in every group and for both eyes."""
        patients = int(question.patient_M.max()) + 1 if len(question) else 0
        chance_P = np.random.Generator(np.random.Philox([self.seed, stream])).random(patients)
        return conformal.scores(question, method=method, chance=chance_P[question.patient_M])


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """Judged rows with the threshold they are judged at."""

    question: Question
    score_MC: np.ndarray
    threshold: float | np.ndarray
    calibrated: int  # patients behind the threshold

    def of(self, mask_M: np.ndarray, *, threshold: float | np.ndarray, calibrated: int) -> _Cell:
        question = self.question
        kept = {name: getattr(question, name)[mask_M] for name in ('probability_MC', 'truth_M', 'estimate_M', 'patient_M')}
        return _Cell(question=replace(question, **kept), score_MC=self.score_MC[mask_M], threshold=threshold, calibrated=calibrated)
