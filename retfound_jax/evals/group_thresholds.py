"""A threshold of each group's own, chosen on validation; a group that is too small there is judged at the global one, and that is said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from retfound_jax.core.demographics import FLOOR, FLOOR_POSITIVE
from retfound_jax.evals.bootstrap import distinct, patient_index
from retfound_jax.evals.predictions import Predictions
from retfound_jax.evals.subgroups import group_masks
from retfound_jax.evals.thresholds import Rule, choose
from retfound_jax.evals.views import View, make_view

NO_COLUMN = 'the global threshold, as the validation predictions have no such column'
_FEW = 'the global threshold, as validation has fewer than {} patients of this group'


@dataclass(frozen=True, kw_only=True)
class GroupThreshold:
    """A group's threshold; `note` is empty where it is the group's own."""

    value: float | None
    note: str = ''


ByTarget = Mapping[str, GroupThreshold]


@dataclass(frozen=True, kw_only=True)
class GroupThresholds:
    """Thresholds of the groups of one column at one level."""

    chosen: Mapping[str, ByTarget]  # group -> target
    fallback: ByTarget  # of a group that validation does not have

    def of(self, group: str) -> ByTarget:
        """The thresholds by target for one group of the split that is judged."""
        return self.chosen.get(group, self.fallback)


def choose_by_group(
    validation: Predictions | None,
    *,
    by: str,
    level: str,
    overall: Mapping[str, float | None],
    rule: Rule | None = None,
    least: int = FLOOR,
    least_positive: int = FLOOR_POSITIVE,
) -> GroupThresholds:
    """Thresholds by `rule` in each group of `by`; `overall` are the global ones.

    A group needs `least` patients on validation, `least_positive` of them with what is looked for and as many without.
    """
    def everywhere(note: str) -> ByTarget:
        return {target: GroupThreshold(value=value, note=note) for target, value in overall.items()}

    if validation is None or not len(validation) or validation.kind == 'regress':
        return GroupThresholds(chosen={}, fallback=everywhere(''))
    if any(name != 'age_band' and name not in validation.columns for name in by.split('+')):
        return GroupThresholds(chosen={}, fallback=everywhere(NO_COLUMN))
    patient_N, _ = patient_index(validation.columns['patient'], key=validation.columns['key'])
    chosen = {}
    for group, rows_N in group_masks(by, predictions=validation).items():
        view = make_view(validation, level=level, patient=patient_N, rows=rows_N)
        chosen[group] = {
            target: _one(view, t, overall=overall.get(target), rule=rule, least=least, least_positive=least_positive)
            for t, target in enumerate(view.targets)
        }
    return GroupThresholds(chosen=chosen, fallback=everywhere(_FEW.format(least)))


def _one(view: View, t: int, *, overall: float | None, rule: Rule | None, least: int, least_positive: int) -> GroupThreshold:
    label_M = view.label_MT[:, t]
    patients, positive, negative = (distinct(view.patient_M[kept]) for kept in (~np.isnan(label_M), label_M > 0, label_M == 0))
    if patients < least:
        return GroupThreshold(value=overall, note=_FEW.format(least))
    if min(positive, negative) < max(1, least_positive):
        short = 'with' if positive < negative else 'without'
        few = f'fewer than {max(1, least_positive)} patients of this group {short} it'
        return GroupThreshold(value=overall, note=f'the global threshold, as validation has {few}')
    kept_M = ~np.isnan(label_M)
    return GroupThreshold(value=choose(label_M[kept_M] > 0, score=view.score_MT[kept_M, t], rule=rule))
