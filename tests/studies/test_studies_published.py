"""Printed numbers: each has a source and a standing, splits add up, and a few are checked against a list typed a second time."""

from __future__ import annotations

import pytest

from retfound_jax.registry import catalogue
from retfound_jax.studies.published import CERTAINTIES, Published, numbers, splits

# typed again, apart from the tables: train on, test on, method, target, metric, value
AGAIN = (
    ('aptos2019', 'aptos2019', 'RETFound', 'macro', 'AUROC', 0.943),
    ('aptos2019', 'messidor2', 'RETFound', 'macro', 'AUROC', 0.738),
    ('messidor2', 'messidor2', 'RETFound', 'macro', 'AUROC', 0.884),
    ('retina', 'retina', 'DINOv2-L', 'macro', 'AUROC', 0.892),
    ('glaucoma_fundus', 'glaucoma_fundus', 'RETFound', 'macro', 'AUROC', 0.940),
    ('brset', 'brset', 'RETFound-Green', 'macular_edema macro', 'median AUROC', 0.9751),
    ('brset', 'brset', 'DERETFound', 'dr_grade severe', 'median AUROC', 0.9172),
    ('idrid', 'idrid', 'RETFound-MEH', 'dr_grade mild', 'median AUROC', 0.5361),
    ('brset', 'idrid', 'RETFound-Green', 'dr_grade >=mild', 'median AUROC', 0.9198),
    ('rop', 'rop', 'RETFound-Green', 'rop_stage 3', 'median AUROC', 0.9699),
    ('octmnist', 'octmnist', 'ResNet-50 (28)', 'macro', 'accuracy', 0.762),
    ('retinamnist', 'retinamnist', 'Google AutoML Vision', 'macro', 'AUROC', 0.750),
    ('taop', 'taop', 'FLAIR', 'macro', 'balanced_accuracy', 0.468),
    ('', 'odir200x3', 'KeepFIT, FLAIR + MM-Retinal', 'macro', 'balanced_accuracy', 0.812),
)


def test_every_number_has_a_source_and_a_standing() -> None:
    for one in (*numbers(), *splits()):
        assert one.certainty in CERTAINTIES and len(one.source.split()) > 4, one
    for one in numbers():
        assert (one.value is None) == (one.low is not None and one.high is not None and 'range' in one.note), one
        bounds = [bound for bound in (one.low, one.value, one.high) if bound is not None]
        assert bounds == sorted(bounds) and bounds, one
        assert one.metric == 'significant wins' or 0 <= min(bounds) <= max(bounds) <= 1, one


@pytest.mark.parametrize(('train_on', 'test_on', 'method', 'target', 'metric', 'value'), AGAIN)
def test_numbers_are_as_typed_a_second_time(train_on: str, test_on: str, method: str, target: str, metric: str, value: float) -> None:
    wanted = (train_on, test_on, method, target, metric)

    def key(one: Published) -> tuple[str, ...]:
        return one.train_on, one.test_on, one.method, f'{one.label} {one.target}'.strip(), one.metric

    found = [one.value for one in numbers() if key(one) == wanted]
    assert found == [value]


def test_no_number_is_typed_twice() -> None:
    keys = [(one.study, one.train_on, one.test_on, one.method, one.label, one.target, one.metric, one.source) for one in numbers()]
    assert len(keys) == len(set(keys)) and len(keys) == 205


def test_a_remembered_interval_is_not_printed() -> None:
    (one,) = [one for one in numbers('internal') if one.test_on == 'messidor2']
    assert (one.value, one.low, one.high) == (0.884, None, None)
    assert not [one for one in numbers('internal') if one.test_on in ('papila', 'jsiec', 'octid')]


def test_splits_add_up() -> None:
    for one in splits():
        assert one.train + one.val + one.test == one.total, one
    assert len(splits('papila')) == 2 and {one.train for one in splits('papila')} == {311, 313}
    assert 'prints 264' in splits('messidor2')[0].note and splits('octmnist')[0].total == 109309


def test_the_registry_has_the_same_splits_labels_and_classes() -> None:
    known = catalogue.datasets()
    for name, dataset in known.items():
        if dataset.retfound_split is not None:
            sizes = dataset.retfound_split
            assert (sizes.train, sizes.val, sizes.test) in [(one.train, one.val, one.test) for one in splits(name)], name
    for one in numbers('green_probe'):
        if one.test_on in known and one.target not in ('macro', 'all tasks'):
            (label,) = [label for label in known[one.test_on].labels if label.name == one.label]
            assert one.target.removeprefix('>=') in label.classes, one
        assert one.test_on == 'rop' or one.target == 'all tasks' or one.label in [label.name for label in known[one.test_on].labels], one


def test_the_external_number_that_equals_the_internal_one_is_doubted() -> None:
    (external,) = [one for one in numbers('external') if one.test_on == 'idrid']
    (internal,) = [one for one in numbers('internal') if one.test_on == 'idrid']
    assert (external.value, external.low, external.high) == (internal.value, internal.low, internal.high)
    assert 'slip' in external.doubt and not internal.doubt
