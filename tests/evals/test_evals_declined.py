"""Who did not say, and whom a classification has no word for, are rows of their own in every grouping, never groups of people."""

from __future__ import annotations

import numpy as np
import pytest

from retfound_jax.core.demographics import DECLINED, MISSING, NOT_A_GROUP, NOT_IN_SCHEME
from retfound_jax.core.errors import UsageError
from retfound_jax.evals.predict import columns_of
from retfound_jax.evals.predictions import Predictions, read_predictions, write_predictions
from retfound_jax.evals.subgroups import group_masks, group_names, parse_by

_TABLE = {
    'key': ['a', 'b', 'c', 'd'], 'patient': ['1', '2', '3', '4'], 'sex': ['F', '', DECLINED, 'M'],
    'ethnicity': [NOT_IN_SCHEME, 'Indian', 'Indian', 'Indian'], 'age': [50.0, np.nan, np.nan, 61.0], 'age_word': ['', DECLINED, '', ''],
}


def _predictions(**table: list) -> Predictions:
    columns = columns_of({name: np.array(values) for name, values in table.items()}, np.arange(4))
    return Predictions(kind='multi', labels=('x',), classes=(), split='test', step=1, fingerprint='f', columns=columns,
                       label_NY=np.zeros((4, 1)), score_NS=np.full((4, 1), 0.5))


def test_a_declined_age_is_not_a_missing_one() -> None:
    assert group_names('age_band', predictions=_predictions(**_TABLE)).tolist() == ['50-59', DECLINED, MISSING, '60-69']
    older = {name: values for name, values in _TABLE.items() if name != 'age_word'}
    assert group_names('age_band', predictions=_predictions(**older)).tolist() == ['50-59', MISSING, MISSING, '60-69']


@pytest.mark.parametrize(
    ('by', 'names'),
    [('sex+age_band', ['F, 50-59', MISSING, MISSING, 'M, 60-69']), ('sex+ethnicity', [NOT_IN_SCHEME, MISSING, DECLINED, 'M, Indian']),
     ('ethnicity', [NOT_IN_SCHEME, 'Indian', 'Indian', 'Indian'])],
)
def test_an_intersection_is_no_group_where_a_part_is_none(by: str, names: list[str]) -> None:
    predictions = _predictions(**_TABLE)
    assert group_names(by, predictions=predictions).tolist() == names
    masks = group_masks(by, predictions=predictions)
    assert [name for name in masks if name in NOT_A_GROUP] == list(masks)[-len(set(masks) & NOT_A_GROUP):]


def test_the_word_is_kept_with_the_predictions_and_is_nothing_to_group_by(tmp_path) -> None:
    predictions = _predictions(**_TABLE)
    write_predictions(predictions, path=tmp_path / 'p.parquet')
    assert read_predictions(tmp_path / 'p.parquet').columns['age_word'].tolist() == _TABLE['age_word']
    with pytest.raises(UsageError, match='no column "age_word"'):
        parse_by(['age_word'], columns=predictions.columns)
