"""The verdict: a right number stands, a wrong one turns it, and every way in which two numbers cannot be compared is told."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from study_cells import APTOS, SMALL, VIT_L

from retfound_jax.registry import checkpoints
from retfound_jax.registry.checkpoints import Touch
from retfound_jax.studies.published import numbers
from retfound_jax.studies.rows import Origin, Row
from retfound_jax.studies.verdict import ABOVE, BELOW, INCOMPARABLE, UNPUBLISHED, WITHIN, judge

WEIGHTS = 'RETFound_mae_natureCFP'
CLEAN = Origin(weights=WEIGHTS, model=VIT_L, images={'aptos2019': APTOS})


def row(mean: float = 0.942, *, spread: float = 0.004, **more: Any) -> Row:
    given = {'study': 'internal', 'train_on': 'aptos2019', 'test_on': 'aptos2019', 'method': 'retfound', 'adaptation': 'finetune'}
    bounds = {'se_low': mean - spread / 2, 'se_high': mean + spread / 2, 'boot_low': mean - spread, 'boot_high': mean + spread}
    counts = {'n_seeds': 5, 'per_seed': (mean,) * 5, 'n_images': 1100, 'n_patients': 1100}
    return Row(mean=mean, **given | bounds | counts | {'fraction': 1.0, 'metric': 'AUROC', 'origin': CLEAN} | more)


def clean(checkpoint: str, dataset: str) -> None:
    return None


def verdict(one: Row, *, touched: Any = clean, wrong_by: float = 0.0) -> Any:
    def shifted(value: float | None) -> float | None:
        return None if value is None else value + wrong_by

    known = [dataclasses.replace(one, value=shifted(one.value), low=shifted(one.low), high=shifted(one.high)) for one in numbers()]
    return judge(one, touched=touched, numbers=known if wrong_by else None)


def test_the_same_number_is_within() -> None:
    assert verdict(row()).kind == WITHIN
    assert verdict(row(0.9405, spread=0.0)).kind == WITHIN  # rounds to the end of the published interval
    assert verdict(row(0.92, spread=0.03)).kind == WITHIN  # the published value lies in ours


@pytest.mark.parametrize(('wrong_by', 'kind'), [(-0.1, ABOVE), (0.1, BELOW), (0.0, WITHIN)])
def test_a_deliberately_wrong_number_turns_the_verdict(wrong_by: float, kind: str) -> None:
    assert verdict(row(), wrong_by=wrong_by).kind == kind


def test_ours_may_be_above_or_below() -> None:
    assert (verdict(row(0.96)).kind, verdict(row(0.91)).kind) == (ABOVE, BELOW)


def test_one_seed_is_judged_by_its_patients_alone() -> None:
    nan = float('nan')
    assert verdict(row(0.94, se_low=nan, se_high=nan)).kind == WITHIN
    assert verdict(row(0.90, se_low=nan, se_high=nan, boot_low=nan, boot_high=nan)).kind == BELOW


def changed(**origin: Any) -> Row:
    return row(origin=dataclasses.replace(CLEAN, **origin))


@pytest.mark.parametrize(
    ('one', 'why'),
    [
        (changed(model=SMALL), 'another model: width 192, published 1024, depth 6'),
        (changed(weights=''), 'other weights: random weights, published RETFound_mae_natureCFP'),
        (changed(weights='our_mae'), 'other weights: our_mae'),
        (changed(images={'aptos2019': APTOS | {'test': 1099}}), 'other splits: aptos2019 train/val/test 2048/514/1099 images'),
        (changed(images={}), r'other splits: aptos2019 train/val/test \?/\?/\?'),
        (changed(weights='own', pretrained_on=('aptos2019',)), 'contaminated: own was pretrained on aptos2019'),
        (changed(drawn=('aptos2019',)), 'a fixture: aptos2019 drawn by the phantom'),
        (row(adaptation='probe'), 'another protocol: ours is probe, published finetune'),
        (row(float('nan')), 'undefined'),
    ],
)
def test_what_cannot_be_compared_says_why(one: Row, why: str) -> None:
    found = verdict(one)
    assert found.kind == INCOMPARABLE
    assert re.search(why, found.text), found.text


@pytest.mark.parametrize(('kind', 'text'), [('seen', 'contaminated: it saw'), ('possible', 'perhaps contaminated: it saw')])
def test_a_touched_test_set_is_marked_with_and_without_a_published_number(kind: str, text: str) -> None:
    def touched(checkpoint: str, dataset: str) -> Touch | None:
        return Touch(kind=kind, reason='it saw EyePACS') if (checkpoint, dataset) == (WEIGHTS, 'aptos2019') else None

    found = verdict(row(), touched=touched)
    assert found.kind == INCOMPARABLE and text in found.text and (found.mark, found.contamination_text) == ('†', f'{text} EyePACS')
    # the published number is touched even where ours is not
    other = verdict(changed(weights='', model=VIT_L), touched=touched)
    assert not other.mark and 'contaminated' in other.text
    unpublished = verdict(row(fraction=0.1), touched=touched)
    assert unpublished.kind == UNPUBLISHED and unpublished.mark == '†'


def test_what_nobody_says_is_marked_and_does_not_forbid_to_compare() -> None:
    found = verdict(row(), touched=lambda checkpoint, dataset: Touch(kind='unknown', reason='nobody says'))
    assert (found.kind, found.mark, found.contamination_text) == (WITHIN, '‡', 'not known to be clean: nobody says')


@pytest.mark.parametrize(
    ('said', 'test_on', 'reason'),
    [
        ('kermany_oct2017', 'octmnist', 'octmnist'),
        ('eyepacs', 'aptos2019', ''),
        ('aptos2019', 'aptos2019', 'our_mae was pretrained on aptos2019'),
        ('aptos2019:train', 'aptos2019', ''),
    ],
)
def test_a_studys_own_weights_are_held_against_what_they_say(said: str, test_on: str, reason: str) -> None:
    one = dataclasses.replace(changed(weights='our_mae', pretrained_on=(said,)), test_on=test_on)
    found = judge(one, touched=checkpoints.touched)
    assert bool(found.mark) == bool(reason) and reason in found.contamination_text


def test_random_weights_are_clean_and_weights_that_say_nothing_are_not_known_to_be() -> None:
    assert not judge(changed(weights='random'), touched=checkpoints.touched).mark
    assert not judge(changed(weights=''), touched=checkpoints.touched).mark
    assert judge(changed(weights='our_mae'), touched=checkpoints.touched).mark == '‡'
    assert judge(dataclasses.replace(changed(), test_on='eyepacs'), touched=checkpoints.touched).mark == '†'


def test_a_doubtful_number_is_not_compared_and_says_so() -> None:
    images = {'aptos2019': APTOS, 'idrid': {'train': 329, 'val': 84, 'test': 103}}
    origin = dataclasses.replace(CLEAN, images=images)
    found = verdict(row(0.822, study='external', test_on='idrid', origin=origin))
    assert found.kind == INCOMPARABLE and len(found.why) == 1 and 'a slip' in found.text


def test_another_method_of_the_paper_is_not_ours() -> None:
    images = {'retinamnist': {'train': 1080, 'val': 120, 'test': 400}}
    found = verdict(row(train_on='retinamnist', test_on='retinamnist', adaptation='supervised', origin=Origin(images=images)))
    assert 'another model: published with ResNet-18 (28)' in found.text and found.published.value == 0.717


def test_a_set_whose_parts_nobody_printed_cannot_be_checked() -> None:
    found = verdict(row(train_on='brset', test_on='brset', label='amd', adaptation='green_probe', metric='median AUROC'))
    assert 'those of brset are not published in numbers' in found.text and found.published.value == 0.9079


def test_a_number_of_another_label_is_not_ours() -> None:
    assert verdict(row(label='dr_grade')).kind == WITHIN and verdict(row(label='quality')).kind == UNPUBLISHED
    edema = row(train_on='idrid', test_on='idrid', label='dme_risk', target='>=low', metric='median AUROC', adaptation='green_probe')
    assert verdict(edema).published.value == 0.8922
    of_several = row(train_on='brset', test_on='brset', label='amd', target='amd', metric='median AUROC', adaptation='green_probe')
    assert verdict(of_several).published.label == 'amd'
