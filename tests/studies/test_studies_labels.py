"""Label maps: what they do, and what they refuse in one sentence."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from experiments.tables.retfound import retfound_external_phantom
from retfound_jax.core.errors import UserError
from retfound_jax.studies import run
from retfound_jax.studies.grid import Method
from retfound_jax.studies.labels import LabelMap, binary, check_common, same, scores_in_common, to_common

GRADES = ('none', 'mild', 'moderate', 'severe')
REFERABLE = binary('referable', GRADES, positive=('moderate', 'severe'))
MAP = LabelMap(label='dr', classes=('no', 'some'), of=(('none', 'no'), ('mild', 'some'), ('moderate', 'some'), ('severe', '')))


def test_labels_and_scores_in_common() -> None:
    label_N = np.array([0, 1, 2, 3, np.nan])
    np.testing.assert_array_equal(to_common(REFERABLE, label_N, classes=GRADES, dataset='a'), [0, 0, 1, 1, np.nan])
    np.testing.assert_array_equal(to_common(MAP, label_N, classes=GRADES, dataset='a'), [0, 1, 1, np.nan, np.nan])
    score_NS = np.random.default_rng(0).dirichlet(np.ones(4), size=7)
    for map_, groups in ((REFERABLE, [[0, 1], [2, 3]]), (MAP, [[0], [1, 2]]), (same('g', GRADES), [[0], [1], [2], [3]])):
        expected = np.stack([[sum(row[i] for i in group) for group in groups] for row in score_NS])
        expected /= expected.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(scores_in_common(map_, score_NS, classes=GRADES, dataset='a'), expected, rtol=1e-12)


def test_classes_in_another_order_go_by_their_names() -> None:
    order = ('severe', 'none', 'moderate', 'mild')
    label_N = np.array([0.0, 1, 2, 3])
    np.testing.assert_array_equal(to_common(REFERABLE, label_N, classes=order, dataset='a'), [1, 0, 1, 0])


def test_no_class_has_a_place() -> None:
    """All the probability on a class without a place says nothing: the common ones are alike."""
    found = scores_in_common(MAP, np.array([[0.0, 0, 0, 1]]), classes=GRADES, dataset='a')
    np.testing.assert_array_equal(found, [[0.5, 0.5]])


@pytest.mark.parametrize(
    ('map_', 'said'),
    [
        (dataclasses.replace(MAP, of=MAP.of[:-1]), 'the label map of a to dr does not cover its class "severe"'),
        (dataclasses.replace(MAP, of=(*MAP.of[:-1], ('severe', 'lots'))), 'map of a leads "severe" to "lots", and dr has no, some'),
    ],
)
def test_a_map_with_a_hole_is_refused(map_: LabelMap, said: str) -> None:
    for call in (
        lambda: to_common(map_, np.zeros(2), classes=GRADES, dataset='a'),
        lambda: scores_in_common(map_, np.ones((1, 4)) / 4, classes=GRADES, dataset='a'),
    ):
        with pytest.raises(UserError, match=said) as error:
            call()
        assert '\n' not in str(error.value) and '. ' not in str(error.value)


OTHERS = (None, dataclasses.replace(REFERABLE, label='else'), dataclasses.replace(REFERABLE, classes=('yes', 'no')))


@pytest.mark.parametrize('other', OTHERS)
def test_maps_that_disagree_are_refused_before_any_cell(tmp_path, other: LabelMap | None) -> None:
    check_common([('a', REFERABLE), ('b', REFERABLE)])
    check_common([('a', None), ('b', None)])
    with pytest.raises(UserError, match='a and b are not judged by one label'):
        check_common([('a', REFERABLE), ('b', other)])
    study = retfound_external_phantom()
    first, second = study.data
    study = dataclasses.replace(study, data=(first, dataclasses.replace(second, common=other)), methods=(Method(name='random'),))
    with pytest.raises(UserError, match='are not judged by one label'):
        run.run(study, workdir=tmp_path, data=tmp_path)
    assert not (tmp_path / 'cells').exists()
