"""When should the model stay silent: temperature, conformal sets, referral and strange photographs of one judged split, as one table.

Everything is fitted on the run's own validation split and held against the judged one. Decisions are by patient.

Letters: N images, M patients, P patients.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from retfound_jax.evals import conformal, referral, temperature
from retfound_jax.evals.bootstrap import patient_counts, patient_index
from retfound_jax.evals.coverage import ALPHAS, coverage_rows, reasons
from retfound_jax.evals.ensemble import disagreement_of
from retfound_jax.evals.predictions import Predictions
from retfound_jax.evals.questions import NUMBER, Question, questions
from retfound_jax.evals.tables import EvalConfig, choose_thresholds, plan_of
from retfound_jax.evals.views import make_view
from retfound_jax.evals.withholding import Withholding

REPLICATES = 200  # at most, of the bands: a curve has many points
_ORDER = (referral.DISAGREEMENT, referral.MARGIN, referral.ENTROPY)  # what can order the cases of the curve, finely enough


def uncertainty(
    judged: Predictions,
    *,
    validation: Predictions,
    config: EvalConfig | None = None,
    plan: Withholding | None = None,
    ood: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The table of one split, JSON-able:

        split, level, seed, replicates
        temperature   by target, see `temperature.table`
        conformal     rows, see `coverage.coverage_rows`
        referral      by target, rows of the curve, see `referral.curve`
        ordered_by    by target, what ordered the cases of the curve: what did it best on validation
        risk_coverage by target, then by what orders the cases, see `referral.risk_coverage`
        single        by target, the row of a curve at which all sets of 90 % that are not one outcome are referred
        referred_by   by target, rows by group at 20 % referred, see `referral.referred_by`
        ood           see `ood.table`; {} where it was not asked for
    """
    config = config or EvalConfig()
    plan = plan or plan_of(judged, config=config)
    shared = {'seed': config.seed, 'level': config.level}
    replicates = min(config.replicates, REPLICATES)
    out: dict[str, Any] = {
        'split': judged.split,
        'validation': validation.split,
        'level': config.level,
        'seed': config.seed,
        'replicates': replicates,
        'min_n': plan.floor,
        'temperature': temperature.table(judged, validation=validation, replicates=replicates, **shared),
        'conformal': coverage_rows(judged, validation=validation, plan=plan, **shared),
        'ood': ood or {},
    }
    return out | _referral(judged, validation=validation, config=config, plan=plan, replicates=replicates)


def _referral(
    judged: Predictions, *, validation: Predictions, config: EvalConfig, plan: Withholding, replicates: int
) -> dict[str, Any]:
    patient_N, patients = patient_index(judged.columns['patient'], key=judged.columns['key'])
    counts_PR = patient_counts(patients, replicates=replicates, seed=config.seed)
    thresholds = choose_thresholds(validation, rule=config.rule)['patient']
    known = {question.target: question for question in _questions(validation)}
    out: dict[str, dict[str, Any]] = {name: {} for name in ('referral', 'ordered_by', 'risk_coverage', 'single', 'referred_by')}
    for question in _questions(judged):
        target, threshold = question.target, thresholds.get(question.target)
        measures = referral.uncertainties(
            question,
            threshold=threshold,
            disagreement=_by_patient(disagreement_of(judged, target=target), patient_N, question),
            set_threshold=_set_threshold(known[target]),
        )
        primary = _best_order(known[target], validation=validation, threshold=threshold)
        if primary is None or not len(question):  # one number from one model: nothing says how sure it is
            continue
        cases = referral.decide(question, threshold=threshold, counts=counts_PR)
        out['ordered_by'][target] = primary
        out['referral'][target] = referral.curve(cases, uncertainty=measures[primary], level=config.level)
        out['risk_coverage'][target] = {
            name: referral.risk_coverage(cases, uncertainty=value_M, level=config.level) for name, value_M in measures.items()
        }
        if referral.CONFORMAL in measures:
            found = referral.curve(cases, uncertainty=measures[referral.CONFORMAL], shares=(1.0,), level=config.level)
            out['single'][target] = found[0] if found else None
        out['referred_by'][target] = _referred_by(patient_N, question, measures[primary], plan=plan, level=config.level)
    return out


def _best_order(question: Question, *, validation: Predictions, threshold: float | None) -> str | None:
    """The uncertainty with the smallest area under risk and coverage on validation; the first there is where no decision can be judged."""
    patient_N, _ = patient_index(validation.columns['patient'], key=validation.columns['key'])
    disagreement = _by_patient(disagreement_of(validation, target=question.target), patient_N, question)
    measures = referral.uncertainties(question, threshold=threshold, disagreement=disagreement)
    cases = referral.decide(question, threshold=threshold, counts=np.zeros((len(np.unique(patient_N)), 0), np.uint16))
    area = {name: referral.area(cases, uncertainty=measures[name]) for name in _ORDER if name in measures}
    return min(area, key=lambda name: (np.isnan(area[name]), area[name]), default=None)


def _questions(predictions: Predictions) -> list[Question]:
    patient_N, _ = patient_index(predictions.columns['patient'], key=predictions.columns['key'])
    view = make_view(predictions, level='patient', patient=patient_N)
    return questions(view, classes=predictions.classes, cumulative=True)


def _set_threshold(question: Question) -> float | None:
    if question.sort == NUMBER or not len(question):
        return None
    score_M = conformal.true_scores(question, score_MC=conformal.scores(question, method=conformal.LAC))
    return conformal.quantile(score_M, patient=question.patient_M, alpha=ALPHAS[0])


def _by_patient(value_N: np.ndarray | None, patient_N: np.ndarray, question: Question) -> np.ndarray | None:
    """The mean over a patient's images, for the patients of the question."""
    if value_N is None:
        return None
    count_P = np.bincount(patient_N)
    mean_P = np.bincount(patient_N, weights=value_N) / np.maximum(count_P, 1)
    return mean_P[question.patient_M]


def _referred_by(
    patient_N: np.ndarray, question: Question, uncertainty_M: np.ndarray, *, plan: Withholding, level: float
) -> list[dict[str, Any]]:
    """A patient is in a group if any image is: a patient photographed by two cameras was photographed by each."""
    ordered_M = np.sort(uncertainty_M)
    kept = int(np.ceil((1 - referral.FIXED) * len(ordered_M) - 1e-9))
    referred_M = uncertainty_M > ordered_M[max(kept, 1) - 1]
    groups = {
        by: {group: np.isin(question.patient_M, patient_N[mask_N]) for group, mask_N in masks.items()} for by, masks in plan.masks.items()
    }
    why = {
        by: reasons(plan, by, target=question.target, patients={group: int(mask_M.sum()) for group, mask_M in masks.items()})
        for by, masks in groups.items()
    }
    return referral.referred_by(referred_M, groups=groups, why=why, floor=plan.floor, level=level)

