"""Selective referral: the model keeps the cases it is sure of and hands the others to a person.

Cases are ordered by an uncertainty. At each share referred, the performance of the rest is measured; if it does not rise, the uncertainty
is worth nothing. One number for the whole curve is the area under risk and coverage (Geifman et al. 2019, arXiv 1805.08206): the mean, over
all cuts, of the share of wrong decisions among the kept. Who is referred is counted by group: a referral that falls on one group is a way
of failing it.

Letters: M rows (patients), R replicates, W wanted shares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from retfound_jax.core.demographics import FLOOR, FLOOR_POSITIVE
from retfound_jax.evals import conformal, metrics
from retfound_jax.evals.bootstrap import map_blocks, percentile_interval
from retfound_jax.evals.pooling import is_blank
from retfound_jax.evals.proportions import wilson
from retfound_jax.evals.questions import NUMBER, YES_NO, Question
from retfound_jax.evals.stats import holm

SHARES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)  # referred
FIXED = 0.2  # referred, at which is looked who is
MARGIN, ENTROPY, DISAGREEMENT, CONFORMAL = 'margin', 'entropy', 'disagreement', 'conformal'
_NUMBERS = ('n', 'referred', 'low', 'high', 'rest', 'p', 'p_holm')
CAUGHT = 'caught'
DECISIONS = ('sensitivity', 'specificity', 'accuracy', CAUGHT)


@dataclass(frozen=True, kw_only=True)
class Cases:
    """The judged patients of one question with how their decisions went."""

    question: Question
    threshold: float | None  # of a yes/no question
    loss_M: np.ndarray  # 1 where the decision is wrong; the absolute error of a number; NaN without a decision
    counts_PR: np.ndarray  # how often each patient is drawn in each replicate


def decide(question: Question, *, threshold: float | None, counts: np.ndarray) -> Cases:
    """Yes from the threshold on, the most probable outcome, or the number as it stands."""
    if question.sort == NUMBER:
        loss_M = np.abs(question.truth_M - question.estimate_M)
    elif question.sort == YES_NO:
        loss_M = np.full(len(question), np.nan) if threshold is None else (question.estimate_M >= threshold) != (question.truth_M > 0)
    else:
        loss_M = question.probability_MC.argmax(axis=1) != question.truth_M
    return Cases(question=question, threshold=threshold, loss_M=np.asarray(loss_M, np.float64), counts_PR=counts)


def uncertainties(
    question: Question, *, threshold: float | None, disagreement: np.ndarray | None = None, set_threshold: float | None = None
) -> dict[str, np.ndarray]:
    """What can order the cases: [M] each, larger for less sure.

    margin         of yes/no: minus the distance of the probability's logit from the threshold's; else of the two most probable outcomes
    entropy        of the outcomes' probabilities
    disagreement   between the members of an ensemble, [M]; NaN (unknown) counts as least sure
    conformal      1 where the set at `set_threshold` (LAC) is not a single outcome
    """
    out: dict[str, np.ndarray] = {}
    probability_MC = np.clip(question.probability_MC, 1e-7, 1 - 1e-7)
    if question.sort == YES_NO and threshold is not None:
        logit_M = np.log(probability_MC[:, 1] / probability_MC[:, 0])
        cut = float(np.clip(threshold, 1e-7, 1 - 1e-7))
        out[MARGIN] = -np.abs(logit_M - np.log(cut / (1 - cut)))
    elif question.sort not in (YES_NO, NUMBER):
        second_M2 = np.sort(question.probability_MC, axis=1)[:, -2:]
        out[MARGIN] = second_M2[:, 0] - second_M2[:, 1]
    if question.sort != NUMBER:
        out[ENTROPY] = -(probability_MC * np.log(probability_MC)).sum(axis=1)
    if disagreement is not None:
        out[DISAGREEMENT] = np.where(np.isnan(disagreement), np.inf, disagreement)
    if set_threshold is not None and question.sort != NUMBER:
        score_MC = conformal.scores(question, method=conformal.LAC)
        out[CONFORMAL] = (conformal.sets(question, score_MC=score_MC, threshold=set_threshold).size_M != 1).astype(np.float64)
    return out


def curve(cases: Cases, *, uncertainty: np.ndarray, shares: Sequence[float] = SHARES, level: float = 0.95) -> list[dict[str, Any]]:
    """Performance of the kept cases for each share referred, with pointwise percentile bands over patients.

    A row: referred (the share there really is; equal uncertainties go together, so it may be less than the wanted one), kept_n, AUROC,
    sensitivity, specificity, accuracy (MAE of a number), `caught`, and `low` and `high` with a bound for each of them. `caught` is the
    share of all who have the finding that are called positive or referred: doubt about every positive case makes the kept look good and
    the kept sensitivity bad, and misses nobody. The cut is fixed, as a threshold is. Cuts that keep fewer than FLOOR patients are left
    out; what would be of fewer than FLOOR_POSITIVE with the finding, or without it, is None.
    """
    rows: dict[int, dict[str, Any]] = {}
    for cut in _cuts(uncertainty, shares):
        kept_M = uncertainty <= cut
        kept_n = int(kept_M.sum())
        if kept_n >= FLOOR and kept_n not in rows:
            rows[kept_n] = {'referred': float(1 - kept_M.mean()), 'kept_n': kept_n} | _measured(cases, kept_M, level=level)
    return [rows[kept_n] for kept_n in sorted(rows, reverse=True)]


def _cuts(uncertainty_M: np.ndarray, shares: Sequence[float]) -> list[float]:
    """The largest uncertainty that is kept, for each wanted share of referred cases."""
    ordered_M = np.sort(uncertainty_M)
    if not len(ordered_M):
        return []
    return [float(ordered_M[max(0, int(np.ceil((1 - wanted) * len(ordered_M) - 1e-9)) - 1)]) for wanted in shares]


def _measured(cases: Cases, kept_M: np.ndarray, *, level: float) -> dict[str, Any]:
    point = _values(cases, kept_M, np.ones((len(kept_M), 1)))
    blocks = map_blocks(lambda weights_MR: _values(cases, kept_M, weights_MR), counts=cases.counts_PR, patient=cases.question.patient_M)
    out: dict[str, Any] = {'low': {}, 'high': {}}
    for name, value in point.items():
        interval = percentile_interval(np.concatenate([block[name] for block in blocks]), value=value[0], level=level)
        out[name] = metrics.finite(interval.value)
        bounds = (interval.low, interval.high) if out[name] is not None else (np.nan, np.nan)
        out['low'][name], out['high'][name] = map(metrics.finite, bounds)
    return out


def _values(cases: Cases, kept_M: np.ndarray, weights_MR: np.ndarray) -> dict[str, np.ndarray]:
    question, kept_MR, loss_M = cases.question, weights_MR[kept_M], cases.loss_M[kept_M]
    mean_loss_R = metrics.divide(loss_M @ kept_MR, kept_MR.sum(axis=0))
    if question.sort == NUMBER:
        return {'MAE': mean_loss_R}
    if question.sort == YES_NO:
        label_M, score_M = question.truth_M[kept_M] > 0, question.estimate_M[kept_M]
        none_R = np.full(kept_MR.shape[1], np.nan)
        few, few_without = (int(side_M.sum()) < FLOOR_POSITIVE for side_M in (label_M, ~label_M))
        out = {'AUROC': none_R if few or few_without else metrics.auroc(label_M, score=score_M, weights=kept_MR)}
        if cases.threshold is None:
            return out | {name: none_R for name in DECISIONS}
        decided = metrics.counts(label_M, predicted=score_M >= cases.threshold, weights=kept_MR)
        return out | {
            'sensitivity': none_R if few else decided.sensitivity,
            'specificity': none_R if few_without else decided.specificity,
            'accuracy': decided.accuracy,
            CAUGHT: 1 - metrics.divide(decided.fn, weights_MR[question.truth_M > 0].sum(axis=0)),
        }
    areas = [
        metrics.auroc(question.truth_M[kept_M] == c, score=question.probability_MC[kept_M, c], weights=kept_MR)
        for c in range(question.probability_MC.shape[1])
    ]
    # a class that is no longer among the kept leaves the mean of the others another number: then there is none
    return {'AUROC': np.mean(areas, axis=0), 'accuracy': 1 - mean_loss_R}


def risk_coverage(cases: Cases, *, uncertainty: np.ndarray, level: float = 0.95) -> dict[str, Any]:
    """The area under the risk-coverage curve, with its interval, beside that of a perfect and of a random order.

    `value` is the mean over cases of the risk among those at least as sure; `best` is reached where every wrong decision is less sure than
    every right one, `random` is the risk without any referral. Only what lies between the two is the uncertainty's own merit:
    `share_of_best` is (random - value) / (random - best), 1 for a perfect order and 0 for a useless one.
    """
    loss_M = cases.loss_M
    if not len(loss_M) or np.isnan(loss_M).any():
        return {'value': None, 'low': None, 'high': None, 'best': None, 'random': None, 'share_of_best': None}
    patient_M = cases.question.patient_M
    blocks = map_blocks(lambda weights_MR: _area(loss_M, uncertainty, weights_MR), counts=cases.counts_PR, patient=patient_M)
    one_M1 = np.ones((len(loss_M), 1))
    value, best, random = _area(loss_M, uncertainty, one_M1)[0], _best(loss_M), float(loss_M.mean())
    interval = percentile_interval(np.concatenate(blocks), value=value, level=level)
    merit = metrics.finite((random - value) / (random - best)) if random > best else None
    return {
        'value': float(value),
        'low': metrics.finite(interval.low),
        'high': metrics.finite(interval.high),
        'best': float(best),
        'random': random,
        'share_of_best': merit,
    }


def area(cases: Cases, *, uncertainty: np.ndarray) -> float:
    """`value` of `risk_coverage` alone; NaN where no decision can be judged."""
    return float(_area(cases.loss_M, uncertainty, np.ones((len(cases.loss_M), 1)))[0])


def _best(loss_M: np.ndarray) -> float:
    """The area under a perfect order, the smallest loss first."""
    return float((np.cumsum(np.sort(loss_M)) / np.arange(1, len(loss_M) + 1)).mean())


def _area(loss_M: np.ndarray, uncertainty_M: np.ndarray, weights_MR: np.ndarray) -> np.ndarray:
    """[R]: the weighted mean of the risk among all rows that are no less sure; rows that are equally sure are kept together."""
    order_M = np.argsort(uncertainty_M, kind='stable')
    sorted_M, weights_MR = uncertainty_M[order_M], weights_MR[order_M]
    last_M = np.searchsorted(sorted_M, sorted_M, side='right') - 1  # the end of each row's tie
    kept_MR = np.cumsum(weights_MR, axis=0)[last_M]
    lost_MR = np.cumsum(weights_MR * loss_M[order_M, None], axis=0)[last_M]
    risk_MR = np.divide(lost_MR, kept_MR, out=np.zeros_like(lost_MR), where=kept_MR > 0)
    return metrics.divide((weights_MR * risk_MR).sum(axis=0), weights_MR.sum(axis=0))


def referred_by(
    referred_M: np.ndarray,
    *,
    groups: Mapping[str, Mapping[str, np.ndarray]],
    why: Mapping[str, Mapping[str, str]],
    floor: int = FLOOR,
    level: float = 0.95,
) -> list[dict[str, Any]]:
    """Whether the referral falls on some groups: for each, the share referred, with that of everybody else and Fisher's exact test.

    Args:
      referred_M: whether each patient is referred.
      groups: for each column of `--by`, the mask [M] of each group.
      why: for each column and group the reason why nothing of it may be printed; '' where it may.
      floor: patients that everybody else must be to be compared with.

    p_holm is corrected over all groups of one column (Holm 1979); `missing` and its like have a row and no test.
    """
    rows: list[dict[str, Any]] = []
    for by, masks in groups.items():
        made = []
        for group, mask_M in masks.items():
            row = {'by': by, 'group': group} | dict.fromkeys(_NUMBERS) | {'note': why[by][group]}
            if not row['note']:
                row |= _referred(referred_M, mask_M, floor=0 if is_blank(group) else floor, level=level)
            made.append(row)
        tested = [row for row in made if row['p'] is not None]
        for row, p in zip(tested, holm([row['p'] for row in tested]) if tested else (), strict=True):
            row['p_holm'] = float(p)
        rows += made
    return rows


def _referred(referred_M: np.ndarray, mask_M: np.ndarray, *, floor: int, level: float) -> dict[str, Any]:
    """The share referred in a group, and the test against everybody else where they are `floor` patients; a floor of 0: no test."""
    inside, outside = int(mask_M.sum()), int((~mask_M).sum())
    yes, other = int(referred_M[mask_M].sum()), int(referred_M[~mask_M].sum())
    low, high = wilson(yes / inside, n=inside, level=level)
    found = {'n': inside, 'referred': yes / inside, 'low': low, 'high': high}
    if floor and outside >= floor:
        p = float(stats.fisher_exact([[yes, inside - yes], [other, outside - other]]).pvalue)
        found |= {'rest': other / outside, 'p': p}
    return found
