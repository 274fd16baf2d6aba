"""What one record of a dataset is, and its bytes: a `tf.train.Example` that TFDS reads as it reads its own, without TensorFlow."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

SCHEMA_VERSION = 2
READABLE = (1, 2)  # 1 has nothing of `SINCE_2`, which is '' there

NAN = float('nan')
_KNOWN = ' or '.join(map(str, READABLE))
SINCE_2 = ('diabetes_type', 'source', 'age_word')
_TEXT = (
    'key', 'patient', 'group', 'laterality', 'modality', 'site', 'country', 'camera', 'ethnicity', 'sex', 'pixel_sha256', 'phash', *SINCE_2
)
_INTEGER = ('frame', 'source_height', 'source_width')
_LABEL = 'labels/'  # TFDS joins the names of nested features by a slash


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """One image with all that is known about it. Missing text is '', a missing number is NaN."""

    image: bytes  # encoded JPEG, 3 channels, square, padded
    key: str  # unique in the dataset
    patient: str  # as given by the labels or the file
    group: str  # patients joined by a shared image; splits keep a group together
    laterality: str = ''  # L or R
    modality: str = ''  # CFP, OCT, ...
    site: str = ''
    country: str = ''
    camera: str = ''
    ethnicity: str = ''
    sex: str = ''  # F, M, or the word as given
    age: float = NAN  # [years]
    age_word: str = ''  # 'declined' where the person did not say; the age is NaN then
    diabetes_type: str = ''
    source: str = ''  # the collection it comes from
    frame: int = 0  # of a multi-frame file, from 0
    source_height: int = 0  # [px]
    source_width: int = 0  # [px]
    fov: tuple[float, float, float] = (NAN, NAN, NAN)  # centre x, centre y, radius of the field of view in the source [px]
    pixel_sha256: str = ''  # of the decoded source pixels
    phash: str = ''  # 256 bits in hex
    labels: Mapping[str, float] = dataclasses.field(default_factory=dict)  # class index or number


def features(label_names: Iterable[str]) -> tfds.features.FeaturesDict:
    """The TFDS declaration of a record; what `features.json` of a dataset holds."""
    import numpy as np
    import tensorflow_datasets as tfds

    spec: dict[str, Any] = {'image': tfds.features.Image(shape=(None, None, 3), encoding_format='jpeg')}
    spec |= {name: tfds.features.Text() for name in _TEXT}
    spec |= {name: np.int64 for name in _INTEGER}
    spec |= {'age': np.float32, 'fov': tfds.features.Tensor(shape=(3,), dtype=np.float32)}
    names = list(label_names)
    if names:
        spec['labels'] = {name: np.float32 for name in names}
    return tfds.features.FeaturesDict(spec)


def encode(record: Record) -> bytes:
    """The record as the bytes of a `tf.train.Example`; equal records give equal bytes."""
    example = _example_class()()
    feature = example.features.feature
    feature['image'].bytes_list.value.append(record.image)
    for name in _TEXT:
        feature[name].bytes_list.value.append(getattr(record, name).encode('utf-8'))
    for name in _INTEGER:
        feature[name].int64_list.value.append(getattr(record, name))
    feature['age'].float_list.value.append(record.age)
    feature['fov'].float_list.value.extend(record.fov)
    for name, value in record.labels.items():
        feature[_LABEL + name].float_list.value.append(value)
    # Maps have no order of their own in a protocol buffer: deterministic sorts them by key.
    return example.SerializeToString(deterministic=True)


def decode(data: bytes) -> Record:
    """The inverse of `encode`; the image stays encoded. Floats come back at float32 precision.

    Raises:
      ValueError: the bytes are not a record of this schema.
    """
    from google.protobuf.message import DecodeError

    try:
        feature = _example_class().FromString(data).features.feature
        items = dict(feature.items())
        labels = {name[len(_LABEL) :]: item.float_list.value[0] for name, item in items.items() if name.startswith(_LABEL)}
        return Record(
            image=items['image'].bytes_list.value[0],
            age=items['age'].float_list.value[0],
            fov=tuple(items['fov'].float_list.value),
            labels=labels,
            **{name: _text(items, name) for name in _TEXT},
            **{name: items[name].int64_list.value[0] for name in _INTEGER},
        )
    except (DecodeError, KeyError, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f'the bytes are not a record of schema {_KNOWN}: {error}') from error


def _text(items: Mapping[str, Any], name: str) -> str:
    return '' if name in SINCE_2 and name not in items else items[name].bytes_list.value[0].decode('utf-8')


def decode_image(data: bytes) -> bytes:
    """The encoded image of a record alone, for whoever needs nothing else: a sixth of the time of `decode`.

    Raises:
      ValueError: the bytes are not a record of this schema.
    """
    from google.protobuf.message import DecodeError

    try:
        return _example_class().FromString(data).features.feature['image'].bytes_list.value[0]
    except (DecodeError, IndexError) as error:
        raise ValueError(f'the bytes are not a record of schema {_KNOWN}: {error}') from error


def same(left: Record, right: Record) -> bool:
    """Equality in which NaN equals NaN; dataclass equality says NaN differs from itself."""
    return _comparable(left) == _comparable(right)


def _comparable(record: Record) -> dict[str, Any]:
    def plain(value: float) -> float | None:
        return None if math.isnan(value) else value

    values = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    return values | {
        'age': plain(record.age), 'fov': tuple(map(plain, record.fov)), 'labels': {k: plain(v) for k, v in record.labels.items()}
    }


@functools.cache
def _example_class() -> Any:
    # TFDS ships tf.train.Example without TensorFlow; imported late, since a caller may only want `Record`.
    from tensorflow_datasets.proto import tf_example_pb2

    return tf_example_pb2.Example
