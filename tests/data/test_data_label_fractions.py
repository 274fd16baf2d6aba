"""Shares of patients by class: what a label-efficiency study trains on. The properties are checked by a plain count, not by the code."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
from data_sets import records, write_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from retfound_jax.core.errors import UsageError
from retfound_jax.data import sources
from retfound_jax.data.config import DataConfig
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.data.sources import open_source
from retfound_jax.data.store import Contents

UNKNOWN = -1

# Patients, each the grades of his images, -1 for an image without the label.
PEOPLE = st.lists(st.lists(st.integers(UNKNOWN, 4), min_size=1, max_size=3), min_size=1, max_size=60)
FRACTIONS = st.floats(0.005, 0.995)


def opened(people: list[list[int]], **options: object) -> sources.Source:
    """A source of these patients, without files."""
    grades = np.array([grade for images in people for grade in images], np.float32)
    names = np.array([f'P{place}' for place, images in enumerate(people) for _ in images])
    columns = {'key': np.arange(len(grades)).astype(str), 'patient': names, 'group': names}
    columns['label:grade'] = np.where(grades == UNKNOWN, np.float32('nan'), grades)
    contents = Contents(columns=columns, classes={'grade': list('01234')}, words={}, store=None, fingerprint='people')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, '_contents', lambda config: contents)
        return open_source(DataConfig(path='people', **options))


def chosen(people: list[list[int]], **options: object) -> set[int]:
    """Places of the patients in the source."""
    return {int(name[1:]) for name in opened(people, stratify='grade', **options).table['patient']}


def count(people: list[list[int]], which: set[int]) -> collections.Counter[int]:
    """Patients of each worst grade."""
    return collections.Counter(max(people[place]) for place in which)


@given(PEOPLE, FRACTIONS, st.integers(0, 3))
def test_each_class_keeps_its_share_and_at_least_one_patient(people: list[list[int]], fraction: float, draw: int) -> None:
    everyone = count(people, set(range(len(people))))
    got = count(people, chosen(people, fraction=fraction, draw=draw))
    total = max(1, round(fraction * len(people)))
    assert got.total() == max(total, len(everyone))
    assert set(got) == set(everyone)
    # Classes too rare for a patient of their own get one all the same, which comes from all by their shares.
    kept = sum(total * size < len(people) for size in everyone.values())
    for grade, size in everyone.items():
        share = total * size / len(people)
        assert got[grade] < share + 1 or got[grade] == 1
        assert got[grade] > share - 1 - (kept + 1) * size / len(people) - 1e-9


@given(PEOPLE, FRACTIONS, FRACTIONS, st.integers(0, 3))
def test_a_smaller_share_lies_inside_a_larger_one(people: list[list[int]], one: float, other: float, draw: int) -> None:
    few, many = (chosen(people, fraction=fraction, draw=draw) for fraction in sorted((one, other)))
    assert few <= many
    assert few == chosen(people, fraction=min(one, other), draw=draw)


@given(PEOPLE, FRACTIONS)
def test_no_patient_is_cut_and_rows_keep_their_order(people: list[list[int]], fraction: float) -> None:
    table = opened(people, stratify='grade', fraction=fraction).table
    images = collections.Counter(table['patient'].tolist())
    assert all(number == len(people[int(name[1:])]) for name, number in images.items())
    assert table['key'].astype(int).tolist() == sorted(table['key'].astype(int).tolist())


@given(PEOPLE, FRACTIONS)
@settings(max_examples=30)
def test_without_strata_and_with_the_first_draw_it_is_the_choice_by_smallest_hash(people: list[list[int]], fraction: float) -> None:
    order = sorted(range(len(people)), key=lambda place: hashlib.sha256(f'fraction:P{place}'.encode()).digest())
    got = {int(name[1:]) for name in opened(people, fraction=fraction).table['patient']}
    assert got == set(order[: max(1, round(fraction * len(people)))])


def test_more_patients_for_all_never_mean_fewer_for_a_class() -> None:
    """Largest remainders would give grade 2 two patients among 10 and one among 11 (the Alabama paradox)."""
    sizes = {0: 600, 1: 600, 2: 200}
    people = [[grade] for grade, size in sizes.items() for _ in range(size)]
    counts = [count(people, chosen(people, fraction=seats / 1400)) for seats in (10, 11)]
    assert [found.total() for found in counts] == [10, 11]
    assert all(counts[0][grade] <= counts[1][grade] for grade in sizes)


def test_another_draw_is_another_choice_with_a_fingerprint_of_its_own() -> None:
    people = [[place % 3] for place in range(60)]
    sets = [frozenset(chosen(people, fraction=0.3, draw=draw)) for draw in range(4)]
    assert len(set(sets)) == 4
    options = [{}, {'draw': 1}, {'stratify': 'grade'}, {'stratify': 'grade', 'draw': 1}]
    assert len({opened(people, fraction=0.3, **option).fingerprint for option in options}) == 4
    # All patients are all patients, however a part would be chosen: predictions of two draws can be paired.
    assert len({opened(people, **option).fingerprint for option in options}) == 1


def test_rows_without_the_trained_label_are_gone_before_patients_are_counted() -> None:
    people = [[0, UNKNOWN], [UNKNOWN], [1], [4, 0]] * 5
    source = opened(people, fraction=0.2, stratify='grade', labels=('grade',))
    assert not np.isnan(source.labels).any()
    assert sorted(float(source.labels[source.table['patient'] == name].max()) for name in set(source.table['patient'])) == [0, 1, 4]


def test_demographics_and_the_phantom_can_be_stratified() -> None:
    config = DataConfig(phantom=PhantomConfig(patients=150, image_size=32, near_duplicate_fraction=0.2), stratify='dr_grade', fraction=0.2)
    some, everyone = open_source(config), open_source(dataclasses.replace(config, fraction=1.0))
    assert set(some.table['group']) < set(everyone.table['group'])
    assert set(np.unique(some.table['label:dr_grade'])) == set(np.unique(everyone.table['label:dr_grade']))
    assert set(some.table['patient']) == {p for p, g in zip(everyone.table['patient'], everyone.table['group'], strict=True)
                                          if g in set(some.table['group'])}
    by_sex = open_source(dataclasses.replace(config, stratify='sex'))
    assert 0 < (by_sex.table['sex'] == 'F').mean() < 1


def test_what_cannot_be_stratified_by_is_said_in_one_sentence(tmp_path: Path) -> None:
    path = str(write_dataset(tmp_path / 'eyes', {'train': records(8)}))
    messages = {'graed': 'no label "graed", did you mean "grade"', 'thickness': '"thickness", which is a number', 'age': 'a number'}
    for label, message in messages.items():
        with pytest.raises(UsageError, match=message) as caught:
            open_source(DataConfig(path=path, fraction=0.5, stratify=label))
        assert '\n' not in str(caught.value)
    assert len(open_source(DataConfig(path=path, stratify='grade', split='val', fraction=0.5))) == 0
