"""Any image dataset of TFDS as a source, without TensorFlow: the table from its scalar features, the images left encoded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retfound_jax.core.errors import UsageError, UserError, nearest
from retfound_jax.data.store import (
    DEMOGRAPHICS,
    LABEL,
    NUMBER_COLUMNS,
    SPLITS,
    TEXT_COLUMNS,
    Contents,
    RecordFailure,
    classes_of,
    label_column,
    text_column,
    words_of,
)
from retfound_jax.ingest.records import SINCE_2

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

_AT_ONCE = 256  # [records]
_KEYS = ('key', 'image_id', 'id', 'file_name', 'filename')  # what datasets call the name of an image
_PATIENTS = ('patient', 'patient_id')
_ALIASES = {'val': 'validation'}


def open_tfds(name: str, *, directory: str, split: str) -> Contents:
    """Opens one split, such as `train`, `val` (TFDS calls it `validation`) or `train[:80%]`.

    Every scalar feature is read once: those named like a demographic become that column, all others labels. A dataset without
    patients counts each image as one.

    Raises:
      UserError: the dataset is not prepared, not readable at random, or has no image feature.
      UsageError: the dataset or the split is unknown.
    """
    builder = _builder(name, directory)
    image = _image_feature(builder, name)
    present = list(builder.info.splits)
    wanted = _split(split, present, name)
    parts = {part: _scalars(_open(builder, part, image), image) for part in present}
    opened = _open(builder, wanted, image) if wanted else None
    nothing = {key: values[:0] for key, values in parts[present[0]].items()}
    chosen = nothing if opened is None else parts.get(wanted) or _scalars(opened, image) or nothing
    # The classes of a feature without names are its values in ANY split, so that a class has one number in all of them.
    everywhere = {key: np.concatenate([columns[key] for columns in parts.values() if columns]) for key in chosen}
    return _contents(builder, chosen, everywhere, store=TfdsStore(data=opened, image=image), split=wanted or split)


def _builder(name: str, directory: str) -> tfds.core.DatasetBuilder:
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=directory or None, try_gcs=False)
    except tfds.core.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)  # those of the community are listed by TensorFlow only
        where = f' in {directory}' if directory else ''
        raise UsageError(f'TFDS has no dataset "{name}"{where}{nearest(name, known)}') from error
    prepare = f"tfds.builder('{name}', data_dir=...).download_and_prepare(file_format='array_record')"
    if not builder.is_prepared():
        raise UserError(f'the TFDS dataset "{name}" is not prepared in {builder.data_dir}; prepare it with {prepare}')
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        kind = builder.info.file_format.value
        raise UserError(f'the TFDS dataset "{name}" is stored as {kind} and cannot be read at random; prepare it again with {prepare}')
    return builder


def _image_feature(builder: tfds.core.DatasetBuilder, name: str) -> str:
    import tensorflow_datasets as tfds

    images = [key for key, feature in builder.info.features.items() if isinstance(feature, tfds.features.Image)]
    if not images:
        raise UserError(f'the TFDS dataset "{name}" has no image feature; it has {", ".join(builder.info.features)}')
    return 'image' if 'image' in images else images[0]


def _split(split: str, present: Sequence[str], name: str) -> str:
    """The split as TFDS calls it, or '' for one of ours that the dataset does not have."""
    base, bracket, rest = split.partition('[')
    base = _ALIASES.get(base, base) if base not in present else base
    if base in present:
        return base + bracket + rest
    if split in SPLITS:
        return ''
    raise UsageError(f'the TFDS dataset "{name}" has no split "{split}"{nearest(base, present)}; it has {", ".join(present)}')


def _open(builder: tfds.core.DatasetBuilder, split: str, image: str) -> tfds.core.BaseDataSource:
    import tensorflow_datasets as tfds

    try:
        return builder.as_data_source(split, decoders={image: tfds.decode.SkipDecoding()})
    except ValueError as error:
        raise UsageError(f'the split "{split}" cannot be read: {str(error).splitlines()[0]}') from error


def _scalars(data: tfds.core.BaseDataSource, image: str) -> dict[str, np.ndarray]:
    """All single values of all records by column, text as str, and the SHA-256 of each encoded image under the image's name."""
    values: dict[str, list[Any]] = {}
    for start in range(0, len(data), _AT_ONCE):
        for record in _records(data, range(start, min(start + _AT_ONCE, len(data)))):
            for key, value in _flat(record):
                value = hashlib.sha256(value).hexdigest() if key == image else value
                values.setdefault(key, []).append(value.decode('utf-8') if isinstance(value, bytes) else value)
    return {key: text_column(column) if isinstance(column[0], str) else np.asarray(column) for key, column in values.items()}


def _records(data: tfds.core.BaseDataSource, positions: Sequence[int]) -> list[dict[str, Any]]:
    from google.protobuf.message import DecodeError

    try:
        return list(data.__getitems__(list(positions)))
    except (RuntimeError, IndexError, ValueError, KeyError, DecodeError) as error:
        reason = (str(error).splitlines() or ['no reason is given'])[0]
        raise RecordFailure('the TFDS dataset', reason) from error


def _flat(record: dict[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
    for key, value in record.items():
        if isinstance(value, dict):
            yield from _flat(value, prefix='' if key == 'labels' else f'{prefix}{key}/')
        elif np.ndim(value) == 0:
            yield prefix + key, value


def _contents(
    builder: tfds.core.DatasetBuilder, chosen: dict[str, np.ndarray], everywhere: dict[str, np.ndarray], *, store: TfdsStore, split: str
) -> Contents:
    hashes = chosen[store.image]
    count = len(hashes)
    given = {name: chosen[name] for name in (*TEXT_COLUMNS, *NUMBER_COLUMNS) if name in chosen}
    keys = next((text_column(chosen[name]) for name in _KEYS if name in chosen), text_column([f'{split}/{row}' for row in range(count)]))
    patients = next((text_column(chosen[name]) for name in _PATIENTS if name in chosen), keys)
    text = {name: text_column(given.get(name, [''] * count)) for name in TEXT_COLUMNS}
    text |= {'key': keys, 'patient': patients, 'group': text_column(given.get('group', patients))}
    text['source'] = text_column(given.get('source', [builder.name] * count))  # so that a mixture can be told apart
    columns = text | {'age': np.asarray(given.get('age', np.full(count, np.nan)), np.float32)}
    features, classes = dict(builder.info.features.items()), {}
    for name, values in chosen.items():
        if name in (store.image, *columns, *_KEYS, *_PATIENTS) or values.dtype.kind not in 'biufU':
            continue
        names = getattr(features.get(name), 'names', None)
        found = list(names) if names else classes_of(everywhere[name])
        if found is None and values.dtype.kind == 'U':
            continue  # free text is no label
        classes[name] = found
        columns[LABEL + name] = np.where(values < 0, np.nan, values).astype(np.float32) if names else label_column(values, found)
    everywhere = {'source': text_column([builder.name]), **everywhere}
    words = {name: words_of(everywhere[name]) if name in everywhere else [] for name in DEMOGRAPHICS if name in text}
    rows = hashlib.sha256('\n'.join([builder.info.full_name, split, *hashes]).encode())
    for name in sorted(name for name in columns if name in given or name not in SINCE_2):  # what it never had changes nothing
        rows.update(np.ascontiguousarray(columns[name]).tobytes())
    return Contents(columns=columns, classes=classes, words=words, store=store, fingerprint=rows.hexdigest())


@dataclass(frozen=True, kw_only=True)
class TfdsStore:
    """Encoded images of one split; TFDS opens its files again in each process."""

    data: Any  # tfds.core.BaseDataSource, None for an empty split
    image: str

    def read(self, positions: Sequence[int]) -> list[bytes | np.ndarray]:
        """Encoded images of the positions.

        Raises:
          RecordFailure: a record is damaged.
        """
        return [record[self.image] for record in _records(self.data, positions)]
