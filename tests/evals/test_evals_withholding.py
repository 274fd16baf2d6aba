"""A reader with a solver and the whole file of an evaluation: what is small there stays unknown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp

from retfound_jax.evals import withholding
from retfound_jax.evals.bootstrap import patient_index
from retfound_jax.evals.predictions import Predictions
from retfound_jax.evals.rows import GAP
from retfound_jax.evals.subgroups import group_masks
from retfound_jax.evals.tables import EvalConfig, evaluate

Make = Callable[..., Predictions]
BY = ('sex', 'age_band', 'sex+age_band')


def people_of(make: Make, *, seed: int, patients: int) -> Predictions:
    """Groups of very different sizes, some blank, with a finding that is rare in some of them; both eyes alike."""
    rng = np.random.default_rng(seed)
    sex = rng.choice(['F', 'M', ''], p=[0.6, 0.36, 0.04], size=patients)
    age = np.where(rng.random(patients) < 0.03, np.nan, rng.normal(57, 12, patients))
    ill = rng.random(patients) < np.where(age < 50, 0.05, 0.45)
    test = make('single', n=2 * patients, classes=('no', 'yes'), seed=seed)
    columns = test.columns | {'sex': np.repeat(sex, 2), 'age': np.repeat(age, 2)}
    return replace(test, columns=columns, label_NY=np.repeat(ill, 2)[:, None].astype(float))


@pytest.mark.parametrize(('seed', 'patients'), [(0, 90), (1, 160), (2, 300), (3, 700)])
def test_the_printed_file_does_not_give_small_groups_away(make: Make, seed: int, patients: int) -> None:
    test = people_of(make, seed=seed, patients=patients)
    result = evaluate(test, validation=None, config=EvalConfig(by=BY, replicates=3, permutations=3))
    masks = {by: {group: mask_N[::2] for group, mask_N in group_masks(by, predictions=test).items()} for by in BY}
    reader = Reader(masks, ill=test.label_NY[::2, 0] > 0)
    groups = reader.read(result['rows'])
    known = {(by, group) for by in BY for group, one in groups[by].items() if one['n_patients'] is not None}
    assert len(known) > 2
    for by, of in masks.items():
        for group, mask_P in of.items():
            if 0 < mask_P.sum() < 20:
                assert (by, group) not in known
                low, high = reader.ends(reader.inside(by, group))
                assert low <= mask_P.sum() <= high and high >= 20, (by, group, low, high)
    for by in BY:
        for group, one in groups[by].items():
            of_group = reader.inside(by, group)
            if one['n_patients'] and one['n_positive'] is None:
                for side in (True, False):
                    ends = reader.ends(of_group & (reader.ill_A == side))
                    assert ends[0] < ends[1] and ends[1] >= 10, (by, group, ends)
            elif one['n_patients']:
                assert 10 <= one['n_positive'] <= one['n_patients'] - 10


class Reader:
    """Knows who could be where, and solves for how many, in whole numbers."""

    def __init__(self, masks: dict[str, dict[str, np.ndarray]], *, ill: np.ndarray) -> None:
        self.names = [(by, group) for by, of in masks.items() for group in of]
        member_PG = np.stack([masks[by][group] for by, group in self.names], axis=1)
        sets = np.unique(member_PG, axis=0)  # every way to be in groups, ill or not
        self.member_AG, self.ill_A = np.repeat(sets, 2, axis=0), np.tile([True, False], len(sets))
        self.rows, self.sums = [np.ones(len(self.ill_A)), self.ill_A.astype(float)], [len(ill), ill.sum()]

    def inside(self, by: str, group: str) -> np.ndarray:
        """The atoms of a group, or of several that are told together."""
        whole = [name for name in self.names if name == (by, group)]
        parts = whole or [(by, part) for part in group.split(' or ')]
        return np.any([self.member_AG[:, self.names.index(part)] for part in parts], axis=0)

    def read(self, rows: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
        """Every count of patients by group; what is withheld has no value, no bounds and no count of what is withheld."""
        groups: dict[str, dict[str, dict[str, Any]]] = {by: {} for by in BY}
        for row in rows:
            if row['level'] != 'patient' or not row['by'] or row['group'] == GAP:
                continue
            if row['note'].startswith('withheld'):
                assert row['value'] is row['low'] is row['high'] is row['n_positive'] is None
                assert row['n_patients'] is not None or row['n_images'] is None
            groups[row['by']][row['group']] = row
        for by, of in groups.items():
            for group, row in of.items():
                inside_A = self.inside(by, group)
                for name, atoms_A in (('n_patients', inside_A), ('n_positive', inside_A & self.ill_A)):
                    if row[name] is not None:
                        self.rows.append(atoms_A.astype(float))
                        self.sums.append(row[name])
        return groups

    def ends(self, atoms_A: np.ndarray) -> tuple[int, int]:
        """Fewest and most patients there can be in these atoms."""
        limits = LinearConstraint(np.array(self.rows), self.sums, self.sums)
        shared = {'constraints': limits, 'bounds': Bounds(0, np.inf), 'integrality': np.ones(len(self.ill_A))}
        found = [milp(sign * atoms_A.astype(float), **shared) for sign in (1, -1)]
        assert all(one.success for one in found)
        return round(found[0].fun), round(-found[1].fun)


def test_two_labels_are_decided_apart_and_many_groups_column_by_column(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    test = people_of(make, seed=5, patients=400)
    patient_N, _ = patient_index(test.columns['patient'], key=test.columns['key'])
    masks = {by: group_masks(by, predictions=test) for by in BY}
    together = withholding.decide(test, masks=masks, patient=patient_N)
    monkeypatch.setattr(withholding, '_LARGEST', 10)
    apart = withholding.decide(test, masks=masks, patient=patient_N)
    assert together.masks.keys() == apart.masks.keys()
    for by in BY:
        shown = set(apart.shown(by, 'yes'))
        assert shown <= set(apart.masks[by]) and not any(withholding.is_blank(group) for group in shown)
        sums = np.zeros(2)
        for group, rows_N in apart.masks[by].items():
            with_it = test.label_NY[rows_N][::2, 0] > 0
            if group in shown:
                assert with_it.sum() >= 10 <= (~with_it).sum()
            else:
                sums += with_it.sum(), (~with_it).sum()
        assert not sums.any() or sums.min() >= 10
    assert not apart.shown('sex+age_band', 'yes')  # crossed columns: all or nothing


def test_blanks_are_folded_only_where_they_would_be_withheld(make: Make) -> None:
    test = people_of(make, seed=6, patients=400)
    patient_N, _ = patient_index(test.columns['patient'], key=test.columns['key'])
    many = replace(test, columns=test.columns | {'sex': np.where(patient_N < 150, 'F', np.where(patient_N < 250, 'M', ''))})
    plan = withholding.decide(many, masks={'sex': group_masks('sex', predictions=many)}, patient=patient_N)
    assert set(plan.masks['sex']) == {'F', 'M', 'missing'} and plan.shown('sex', 'yes') == ['F', 'M']
    few = replace(test, columns=test.columns | {'sex': np.where(patient_N < 250, 'F', np.where(patient_N < 390, 'M', 'declined'))})
    plan = withholding.decide(few, masks={'sex': group_masks('sex', predictions=few)}, patient=patient_N)
    assert [group for group in plan.masks['sex'] if plan.masks['sex'][group].any()] == ['F or declined', 'M']
    assert plan.origin('sex', 'F or declined') == 'F' and plan.origin('sex', 'M') == 'M'
    assert plan.masks['sex']['F or declined'].sum() == 2 * 260


def test_small_groups_are_told_with_others_where_another_would_be_withheld_for_them(make: Make) -> None:
    test = people_of(make, seed=7, patients=400)
    patient_N, _ = patient_index(test.columns['patient'], key=test.columns['key'])
    label_NY = (patient_N % 2)[:, None].astype(float)
    site = np.select([patient_N < 12, patient_N < 100, patient_N < 230], ['Small', 'East', 'South'], 'North')
    age = np.select([patient_N < 8, patient_N < 50, patient_N < 350], [30, 45, 55], 75)
    test = replace(test, columns=test.columns | {'site': site, 'age': age.astype(float)}, label_NY=label_NY)
    masks = {by: group_masks(by, predictions=test) for by in ('site', 'age_band')}
    plan = withholding.decide(test, masks=masks, patient=patient_N)
    assert plan.shown('site', 'yes') == ['East or Small', 'North', 'South'] and plan.origin('site', 'East or Small') == 'East'
    assert plan.shown('age_band', 'yes') == ['<40 or 40-49', '50-59', '>=70']
    assert {group: int(rows_N.sum()) // 2 for group, rows_N in plan.masks['site'].items() if rows_N.any()} == {
        'East or Small': 100, 'North': 170, 'South': 130
    }  # fmt: skip
    two = replace(test, columns=test.columns | {'site': np.where(patient_N < 12, 'Small', 'North')})
    plan = withholding.decide(two, masks={'site': group_masks('site', predictions=two)}, patient=patient_N)
    assert plan.shown('site', 'yes') == [] and all(plan.group('site', group) for group in ('Small', 'North'))  # together they are everybody


def test_several_small_groups_hide_each_other(make: Make) -> None:
    test = people_of(make, seed=8, patients=400)
    patient_N, _ = patient_index(test.columns['patient'], key=test.columns['key'])
    site = np.select([patient_N < 12, patient_N < 30, patient_N < 48], ['Small', 'Less', 'Little'], 'North')
    test = replace(test, columns=test.columns | {'site': site}, label_NY=(patient_N % 2)[:, None].astype(float))
    plan = withholding.decide(test, masks={'site': group_masks('site', predictions=test)}, patient=patient_N)
    assert plan.shown('site', 'yes') == ['North'] and all(plan.group('site', name) for name in ('Small', 'Less', 'Little'))
