"""Splits follow from the name of a group and nothing else."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.ingest import splits
from retfound_jax.ingest.splits import SplitConfig

_groups = st.lists(st.text(max_size=6), max_size=30)


@given(_groups, _groups)
def test_added_data_moves_nobody(before: list[str], added: list[str]) -> None:
    first = {group: splits.split_of(group, config=SplitConfig()) for group in before}
    second = {group: splits.split_of(group, config=SplitConfig()) for group in [*added, *before]}
    assert all(second[group] == split for group, split in first.items())


@given(_groups, st.floats(0, 0.5), st.floats(0, 0.4))
def test_the_share_of_validation_leaves_the_test_set_alone(groups: list[str], val: float, other: float) -> None:
    one, two = SplitConfig(val=val), SplitConfig(val=other)
    for group in groups:
        assert (splits.split_of(group, config=one) == 'test') == (splits.split_of(group, config=two) == 'test')


def test_the_shares_are_reached() -> None:
    found = [splits.split_of(str(group), config=SplitConfig(val=0.1, test=0.2)) for group in range(4000)]
    assert abs(found.count('test') / 4000 - 0.2) < 0.02 and abs(found.count('val') / 4000 - 0.1) < 0.015


def test_the_draw_is_fixed_across_versions_and_changes_with_the_salt() -> None:
    drawn = ''.join(splits.split_of(str(group), config=SplitConfig())[1] for group in range(12))
    assert drawn == 'arerrrrrerrr'
    assert drawn != ''.join(splits.split_of(str(group), config=SplitConfig(salt='other'))[1] for group in range(12))


@pytest.mark.parametrize(('val', 'test'), [(-0.1, 0.2), (0.5, 0.5), (math.nan, 0.1), (0.1, 1.5)])
def test_shares_that_leave_nothing_are_refused(val: float, test: float) -> None:
    with pytest.raises(UsageError, match='are shares'):
        SplitConfig(val=val, test=test)


def test_one_group_on_two_sides_of_a_given_split_is_refused() -> None:
    assert splits.given_splits([('p', 'train', 'a'), ('q', 'test', 'b'), ('p', 'train', 'c')]) == {'p': 'train', 'q': 'test'}
    with pytest.raises(UserError, match='c is in test, and a of the same patient or with the same image is in train'):
        splits.given_splits([('p', 'train', 'a'), ('p', 'test', 'c')])


def test_class_balance_counts_every_class_and_what_is_missing() -> None:
    values = {'grade': [0.0, 2.0, math.nan, 2.0], 'x': [1.5, math.nan, 1.0, 1.0]}
    balance = splits.class_balance({'grade': ('0', '1', '2'), 'x': None}, values)
    assert balance == {'grade': {'0': 1, '1': 0, '2': 2, 'missing': 1}, 'x': {'known': 3, 'missing': 1}}
