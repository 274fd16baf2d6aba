"""A record is bytes that TFDS reads back without TensorFlow and without us."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retfound_jax.ingest import records

_words = st.text(alphabet=st.characters(blacklist_categories=['Cs']), max_size=12)
_floats = st.floats(width=32, allow_nan=True, allow_infinity=False)


_TEXTS = ('key', 'patient', 'group', 'site', 'country', 'camera', 'ethnicity', 'sex', 'laterality', 'modality')


@st.composite
def _records(draw: st.DrawFn) -> records.Record:
    texts = {name: draw(_words) for name in _TEXTS}
    labels = draw(st.dictionaries(_words, _floats, max_size=4))
    fov = draw(st.tuples(_floats, _floats, _floats))
    whole = {name: draw(st.integers(0, 2**40)) for name in ('frame', 'source_height', 'source_width')}
    return records.Record(image=draw(st.binary(max_size=40)), age=draw(_floats), fov=fov, labels=labels, **texts, **whole)


@settings(max_examples=60, deadline=None)
@given(_records())
def test_decode_gives_back_what_encode_was_given(record: records.Record) -> None:
    assert records.same(records.decode(records.encode(record)), record)


@settings(max_examples=30, deadline=None)
@given(_records())
def test_equal_records_give_equal_bytes_whatever_the_order_of_labels(record: records.Record) -> None:
    turned = dataclasses.replace(record, labels=dict(reversed(list(record.labels.items()))))
    assert records.encode(turned) == records.encode(record)


@pytest.mark.parametrize('labels', [{}, {'dr grade': 2.0}, {'a/b': 1.0, 'ä': math.nan}])
def test_tfds_reads_the_same_values(labels: dict[str, float]) -> None:
    import tensorflow_datasets as tfds

    record = records.Record(image=b'\xff\xd8jpeg', key='ké.jpg', patient='7', group='6', age=61.5, fov=(1.0, 2.0, 3.0), labels=labels)
    spec = records.features(labels)
    read = spec.deserialize_example_np(records.encode(record), decoders={'image': tfds.decode.SkipDecoding()})
    assert read['image'] == record.image and read['key'].decode() == 'ké.jpg' and read['group'] == b'6' and read['sex'] == b''
    assert read['age'] == np.float32(61.5) and read['fov'].tolist() == [1.0, 2.0, 3.0] and read['frame'] == 0
    for name, value in labels.items():
        assert np.array_equal(read['labels'][name], value, equal_nan=True)


@pytest.mark.parametrize('data', [b'\xff\xff\xff', b'', b'not a record'])
def test_bytes_that_are_no_record_are_an_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        records.decode(data)
