"""What one evaluation may not print about its subgroups, decided once for all of its tables together.

The numbers of a table can be worked out from those of another: the women from all and the men, the men over 60 from all men and the
younger ones, the third class from the other two. So every count that any table would print goes into one problem (`core.suppression`):
patients of each group, those of them with a label, with the finding, and without it. Withheld are groups under the floor, findings of
fewer than FLOOR_POSITIVE patients with or without them (0 included: that nobody of 25 has it says something of each), and what would
give either away. With a finding's counts go all its numbers in that group, as a share tells its denominator.

What can be told together with another group is (`pooling`), so that not much has to be withheld.

Letters: N images, P patients, G groups, T targets, K counts, A atoms, U ways to be labelled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from retfound_jax.core import suppression
from retfound_jax.core.demographics import FLOOR, FLOOR_POSITIVE
from retfound_jax.core.suppression import Count
from retfound_jax.evals.pooling import is_blank, pool, with_and_without
from retfound_jax.evals.predictions import Predictions
from retfound_jax.evals.views import View, make_view

Masks = dict[str, dict[str, np.ndarray]]  # by -> group -> images [N]
_Name = tuple[str, ...]  # what is counted, by, group, and the target where it is of one
_LARGEST = 1_000_000  # counts times atoms; a larger problem is decided column by column
_MEMORY = 200_000_000  # [bytes] for sorting the patients into atoms; likewise


@dataclass(frozen=True, kw_only=True)
class Withholding:
    """What may be printed: the groups, and why a number of theirs may not be."""

    masks: Masks  # the groups to judge, some of them several told together
    floor: int
    positive_floor: int
    hidden: frozenset[_Name] = field(repr=False)
    members: Mapping[tuple[str, str], tuple[str, ...]]  # what is told together in a group, the largest first

    def origin(self, by: str, group: str) -> str:
        """The largest of the groups that are told together in this one."""
        return self.members[by, group][0]

    def group(self, by: str, group: str) -> str:
        """Why nothing of this group may be printed; '' where it may."""
        return suppression.note(self.floor) if ('patients', by, group) in self.hidden else ''

    def target(self, by: str, group: str, target: str) -> str:
        """Why no positives and no performance of this target may be printed in this group; '' where they may."""
        whole = self.labelled(by, group, target)
        if whole or ('positive', by, group, target) not in self.hidden:
            return whole
        return f'withheld: <{self.positive_floor} with or without it, or hides such a number'

    def labelled(self, by: str, group: str, target: str) -> str:
        """Why it may not be printed how many have a label of this target; '' where it may."""
        return self.group(by, group) or (suppression.note(self.floor) if ('labelled', by, group, target) in self.hidden else '')

    def shown(self, by: str, target: str) -> list[str]:
        """The groups whose performance may be printed and compared: no blanks, nothing withheld."""
        return [group for group in self.masks[by] if not is_blank(group) and not self.target(by, group, target)]


def decide(
    predictions: Predictions, *, masks: Masks, patient: np.ndarray, floor: int = FLOOR, positive_floor: int = FLOOR_POSITIVE
) -> Withholding:
    """Decides for the groups `masks` [N each] of a file whose images belong to the patients numbered in `patient` [N].

    A group needs `floor` patients, and a target `positive_floor` of them with it and as many without.
    """

    def view(rows_N: np.ndarray | None) -> View:
        return make_view(predictions, level='patient', patient=patient, rows=rows_N)

    views = {(by, group): view(rows_N) for by, of in masks.items() for group, rows_N in of.items()}
    floors = {'floor': floor, 'positive_floor': positive_floor}
    pooled = {by: pool(by, masks=of, views={group: views[by, group] for group in of}, **floors) for by, of in masks.items()}
    kept = {(by, group): view(rows_N) for by, found in pooled.items() for group, rows_N in found.masks.items()}
    # who is told together with others must not be worked out either, and so stays in the problem though no table shows it
    told = {name: found for name, found in views.items() if name not in kept and (is_blank(name[1]) or len(found.patient_M) < floor)}
    problem = Problem(
        whole=view(None),
        views=told | kept,
        unprinted=frozenset(told),
        **floors,
    )
    hidden = frozenset().union(*map(problem.hidden, problem.families())) if masks else frozenset()
    members = {(by, group): of for by, found in pooled.items() for group, of in found.members.items()}
    return Withholding(masks={by: found.masks for by, found in pooled.items()}, hidden=hidden, members=members, **floors)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Everybody and every group as tables of patients, from which the counts of all tables follow."""

    whole: View
    views: Mapping[tuple[str, str], View]  # by, group
    unprinted: frozenset[tuple[str, str]]  # groups that no table shows
    floor: int
    positive_floor: int

    def families(self) -> list[tuple[int, ...]]:
        """Targets whose counts follow from each other: the classes of one label; of several labels each stands for itself."""
        every = range(len(self.whole.targets)) if self.whole.kind != 'regress' else ()
        return [(t,) for t in every] if self.whole.kind == 'multi' else [tuple(every)]

    def hidden(self, family: tuple[int, ...]) -> frozenset[_Name]:
        """What may not be printed of the groups and of these targets."""
        width = (len(self.views) + 1) * (1 + 2 * len(family))
        atoms = _atoms(self, family) if width * len(self.whole.patient_M) <= _MEMORY else None
        if atoms is None or atoms.is_AK.size > _LARGEST:
            return _column_by_column(self, family)
        counts: dict[_Name, Count] = {}
        for v, (by, group) in enumerate([('', ''), *self.views]):
            counts |= self._counts(by, group, atoms=atoms, v=v, family=family)
        return suppression.withheld(counts, people=atoms.people_A)

    def _counts(self, by: str, group: str, *, atoms: _Atoms, v: int, family: tuple[int, ...]) -> dict[_Name, Count]:
        """Every count that is printed of one group; v 0 is everybody."""
        shared = {'total': v == 0, 'unprinted': (by, group) in self.unprinted}
        counts, member_A = {}, atoms.member(v)
        order = 0 if '+' in by else 3  # intersections are given up before single columns
        for at, t in enumerate(family):
            labelled_A, positive_A = atoms.labelled(v, at), atoms.positive(v, at)
            names = [(what, by, group, self.whole.targets[t]) for what in ('labelled', 'positive', 'negative')]
            people = {'floor': self.positive_floor, 'zero_tells': bool(atoms.people_A[labelled_A].any()), 'order': order, **shared}
            labelled = {'floor': self.floor, 'takes_along': (*names[1:],), 'order': order + 1, **shared}
            counts[names[0]] = Count(atoms=np.flatnonzero(labelled_A), **labelled)
            counts[names[1]] = Count(atoms=np.flatnonzero(positive_A), takes_along=(names[2],), **people)
            counts[names[2]] = Count(atoms=np.flatnonzero(labelled_A & ~positive_A), takes_along=(names[1],), **people)
        patients = Count(atoms=np.flatnonzero(member_A), floor=self.floor, takes_along=(*counts,), order=order + 2, **shared)
        return {('patients', by, group): patients} | counts


@dataclass(frozen=True, kw_only=True)
class _Atoms:
    """Patients who are alike in all that is counted; for each, whether they are in each group, labelled there, and positive there."""

    is_AK: np.ndarray
    people_A: np.ndarray
    groups: int  # everybody first
    targets: int

    def member(self, v: int) -> np.ndarray:
        """Whether the patients of an atom are in a group [A]."""
        return self.is_AK[:, v]

    def labelled(self, v: int, at: int) -> np.ndarray:
        """Whether they have a label there [A]."""
        return self.is_AK[:, self.groups + v * self.targets + at]

    def positive(self, v: int, at: int) -> np.ndarray:
        """Whether it is positive [A]."""
        return self.is_AK[:, self.groups + (self.groups + v) * self.targets + at]


def _atoms(problem: Problem, family: tuple[int, ...]) -> _Atoms:
    """The atoms that are there, and those a reader cannot rule out: every way to be labelled in every way to be in groups."""
    views = [problem.whole, *problem.views.values()]
    people_M = problem.whole.patient_M  # each once
    member_MG = np.stack([np.isin(people_M, view.patient_M) for view in views], axis=1)
    label_MGT = np.full((len(people_M), len(views), len(family)), -1, np.int8)  # -1 where there is no label
    for g, view in enumerate(views):
        label_MGT[member_MG[:, g], g] = np.nan_to_num(view.label_MT[:, family], nan=-1)
    member_XG = np.unique(member_MG, axis=0)
    seen_UT = np.unique(label_MGT[:, 0], axis=0) if family else np.zeros((1, 0), np.int8)
    label_XUGT = np.where(member_XG[:, None, :, None], seen_UT[None, :, None, :], -1)
    ways = len(member_XG) * len(seen_UT)
    conceivable = _rows(np.repeat(member_XG, len(seen_UT), axis=0), label_XUGT.reshape(ways, *label_MGT.shape[1:]))
    real = _rows(member_MG, label_MGT)
    is_XK = np.concatenate([real, conceivable])
    packed_X = np.ascontiguousarray(np.packbits(is_XK, axis=1))
    _, first_A, atom_of = np.unique(packed_X.view(f'V{packed_X.shape[1]}')[:, 0], return_index=True, return_inverse=True)
    is_AK, people_A = is_XK[first_A], np.bincount(atom_of[: len(real)], minlength=len(first_A))
    return _Atoms(is_AK=is_AK, people_A=people_A, groups=len(views), targets=len(family))


def _rows(member_MG: np.ndarray, label_MGT: np.ndarray) -> np.ndarray:
    flat = label_MGT.reshape(len(member_MG), label_MGT.shape[1] * label_MGT.shape[2])
    return np.concatenate([member_MG, flat >= 0, flat > 0], axis=1)


def _column_by_column(problem: Problem, family: tuple[int, ...]) -> frozenset[_Name]:
    """For more groups than can be solved for together: single columns each by itself, crossed ones all or nothing."""
    hidden: set[_Name] = set()
    for by in dict.fromkeys(by for by, _ in problem.views):
        views = {group: view for (of, group), view in problem.views.items() if of == by and (of, group) not in problem.unprinted}
        groups = set(suppression.withhold_counts({group: len(view.patient_M) for group, view in views.items()}, floor=problem.floor))
        for t in family:
            groups |= _few(views, t=t, floor=problem.positive_floor, taken=groups)
        groups = set(views) if groups and '+' in by else groups
        targets = [problem.whole.targets[t] for t in family]
        hidden |= {('patients', by, group) for group in groups}
        hidden |= {(what, by, group, target) for group in groups for target in targets for what in ('labelled', 'positive', 'negative')}
    return frozenset(hidden)


def _few(views: Mapping[str, View], *, t: int, floor: int, taken: set[str]) -> set[str]:
    """The groups to withhold so that few patients with a finding, or without it, cannot be worked out."""
    of = {group: tuple(int(n_T[t]) for n_T in with_and_without(view)) for group, view in views.items()}
    ranked = sorted((group for group in of if group not in taken and sum(of[group])), key=lambda group: min(of[group]))
    found: set[str] = set()
    sums = [sum(of[group][side] for group in taken) for side in (0, 1)]
    for group in ranked:
        if min(of[group]) >= floor and (not found | taken or min(sums) >= floor):
            break
        found.add(group)
        sums = [total + n for total, n in zip(sums, of[group], strict=True)]
    return found
