"""Split conformal prediction: sets of outcomes that hold the true one for a chosen share of patients, whatever the model is worth.

A score says how badly an outcome fits a row. On validation the scores of the true outcomes are collected; every outcome that fits a new
row no worse than their (1 - alpha) quantile is in its set. If new patients come from where the validation patients came from, at least
1 - alpha of the sets hold the true outcome (Vovk et al. 2005; Angelopoulos and Bates, arXiv 2107.07511, section 1). Calibrated within a
group, this holds within the group (Mondrian; their section 4.1).

Two eyes of a patient are not two draws. By patient there is one row each. By image, the images of a patient share the weight of one patient
(Lee, Barber and Willett, arXiv 2306.06342): the promise is then for an image taken at random from a new patient.

Letters: M rows, C outcomes, P patients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from retfound_jax.core.errors import UsageError
from retfound_jax.evals.questions import GRADES, NUMBER, YES_NO, Question

LAC, APS, INTERVAL, RESIDUAL = 'LAC', 'APS', 'interval', 'residual'


def methods(question: Question) -> tuple[str, ...]:
    """The scores that go with a question; the first is the one to show."""
    return {NUMBER: (RESIDUAL,), GRADES: (INTERVAL, LAC), YES_NO: (LAC, APS)}.get(question.sort, (LAC, APS))


def scores(question: Question, *, method: str, chance: np.ndarray | None = None) -> np.ndarray:
    """How badly each outcome fits each row: [M, C]; of a number, how far off the estimate was: [M, 1].

    Args:
      method: LAC, 1 - probability (Sadinle et al. 2019): the smallest sets, least sure where a case is hard.
        APS, the probability of all outcomes at least as probable, of the outcome itself a random part (Romano et al. 2020, arXiv
        2006.02544): sets grow where a case is hard.
        interval, the same in the order in which an interval grows from the most probable grade to the more probable neighbour (after Lu
        et al. 2022, arXiv 2207.02238): sets are runs of grades.
        residual, the distance of the truth from the estimate.
      chance: a number in [0, 1) for each row, the random part; left out: the whole, which makes larger sets that hold the truth too often.
    """
    if method == RESIDUAL:
        return np.abs(question.truth_M - question.estimate_M)[:, None]
    if method not in (LAC, APS, INTERVAL):
        raise UsageError(f'there is no conformal score "{method}": choose {LAC}, {APS}, {INTERVAL} or {RESIDUAL}')
    probability_MC = question.probability_MC
    if method == LAC:
        return 1 - probability_MC
    order_MC = np.argsort(-probability_MC, axis=1, kind='stable') if method == APS else _grown(probability_MC)
    sorted_MC = np.take_along_axis(probability_MC, order_MC, axis=1)
    part_M1 = np.ones((len(sorted_MC), 1)) if chance is None else np.asarray(chance, np.float64)[:, None]
    mass_MC = np.cumsum(sorted_MC, axis=1) - sorted_MC + part_M1 * sorted_MC
    out_MC = np.empty_like(mass_MC)
    np.put_along_axis(out_MC, order_MC, mass_MC, axis=1)
    return out_MC


def _grown(probability_MC: np.ndarray) -> np.ndarray:
    """The order [M, C] in which grades join an interval that starts at the most probable one; of equals the lower grade joins first."""
    rows, classes = probability_MC.shape
    padded = np.pad(probability_MC, ((0, 0), (1, 1)), constant_values=-1.0)  # beyond the ends there is nothing to join
    order_MC = np.empty((rows, classes), np.int64)
    low_M = high_M = order_MC[:, 0] = probability_MC.argmax(axis=1)
    at_M = np.arange(rows)
    for step in range(1, classes):
        down_M = padded[at_M, low_M] >= padded[at_M, high_M + 2]
        low_M, high_M = low_M - down_M, high_M + ~down_M
        order_MC[:, step] = np.where(down_M, low_M, high_M)
    return order_MC


def true_scores(question: Question, *, score_MC: np.ndarray) -> np.ndarray:
    """The score of each row's true outcome."""
    return score_MC[:, 0] if question.sort == NUMBER else score_MC[np.arange(len(question)), question.truth_M]


def quantile(score_M: np.ndarray, *, patient: np.ndarray, alpha: float) -> float:
    """The threshold: with one row a patient the ceil((P + 1)(1 - alpha))-th smallest score.

    With several, each row weighs 1 / (rows of its patient) of the P + 1 patients, the new one included, and the smallest score is taken
    that 1 - alpha of the weight does not exceed. Infinite where there are too few patients to promise anything, P < 1 / alpha - 1.
    """
    if not 0 < alpha < 1:
        raise UsageError(f'alpha is {alpha} and must lie between 0 and 1: it is the share of sets that may miss the truth')
    if not len(score_M):
        return float('inf')
    _, index_M, count_P = np.unique(np.asarray(patient), return_inverse=True, return_counts=True)
    order_M = np.argsort(score_M, kind='stable')
    reached_M = np.cumsum(1 / count_P[index_M[order_M]]) / (len(count_P) + 1)
    at = int(np.searchsorted(reached_M, 1 - alpha - 1e-9))
    return float(score_M[order_M[at]]) if at < len(score_M) else float('inf')


def covered_by_chance(*, calibrated: int, judged: int, alpha: float, level: float = 0.95) -> tuple[float, float]:
    """Where the share of covered patients falls by chance alone if both samples are of the same people, one row each.

    The number covered is beta-binomial (Vovk 2012; Angelopoulos and Bates, section 3.2): a small calibration sample makes a threshold that
    may be off, a small judged sample counts it roughly. (0, 1) where nobody was judged; covered in full where the threshold is infinite.
    """
    rank = int(np.ceil((calibrated + 1) * (1 - alpha) - 1e-9))
    if not judged:
        return 0.0, 1.0
    if rank > calibrated:
        return 1.0, 1.0
    found = stats.betabinom(judged, rank, calibrated + 1 - rank)
    low, high = found.ppf([(1 - level) / 2, (1 + level) / 2])
    return float(low) / judged, float(high) / judged


def too_rarely(covered: float, *, calibrated: int, judged: int, alpha: float) -> float:
    """One-sided p value: how probable so few covered patients, or fewer, are if both samples are of the same people.

    `covered` is the number of judged patients whose set holds the truth. Beta-binomial as in `covered_by_chance`.
    """
    rank = int(np.ceil((calibrated + 1) * (1 - alpha) - 1e-9))
    if not judged or rank > calibrated:
        return 1.0
    return float(stats.betabinom(judged, rank, calibrated + 1 - rank).cdf(round(covered)))


@dataclass(frozen=True, kw_only=True)
class Sets:
    """The sets of some rows."""

    covered_M: np.ndarray  # whether the true outcome is in it
    size_M: np.ndarray  # outcomes in it; the width of a number's interval in its unit
    empty_M: np.ndarray | None  # none for a number
    all_M: np.ndarray | None  # every outcome is in it, so it says nothing


def sets(question: Question, *, score_MC: np.ndarray, threshold: float | np.ndarray) -> Sets:
    """The sets at a threshold, or at one for each outcome [C]."""
    if question.sort == NUMBER:
        width_M = np.full(len(question), 2 * float(threshold))
        return Sets(covered_M=score_MC[:, 0] <= threshold, size_M=width_M, empty_M=None, all_M=None)
    member_MC = score_MC <= threshold
    size_M = member_MC.sum(axis=1)
    return Sets(
        covered_M=member_MC[np.arange(len(question)), question.truth_M],
        size_M=size_M,
        empty_M=size_M == 0,
        all_M=size_M == member_MC.shape[1],
    )
