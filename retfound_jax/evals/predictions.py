"""Predictions of one split: one row an image, in parquet, with what they mean in the schema's metadata.

Columns: `key`, `patient` and the demographics; then by kind
    single, ordinal   `label` (int class index, -1 missing), `score:CLASS` probabilities
    multi             `label:NAME` (1, 0, NaN missing), `score:NAME` probabilities
    regress           `label`, `score` in the label's unit
The schema's metadata `retfound` is JSON: kind, labels, classes, split, step, dataset_fingerprint.

Letters: N images, Y label columns, S score columns.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retfound_jax.core.errors import UserError
from retfound_jax.core.files import atomic_write

KINDS = ('single', 'multi', 'ordinal', 'regress')
TEXT_COLUMNS = ('laterality', 'sex', 'ethnicity', 'country', 'site', 'camera', 'diabetes_type', 'source')
AGE_WORD = 'age_word'  # 'declined' where the person did not say the age, which is NaN then
_METADATA = b'retfound'


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """One split's predictions in memory; a missing label is NaN for every kind.

    Raises UserError where a score is not finite, and ValueError where the arrays do not fit each other.
    """

    kind: str  # one of KINDS
    labels: tuple[str, ...]  # label columns
    classes: tuple[str, ...]  # of single and ordinal, by index; empty otherwise
    split: str
    step: int  # of the checkpoint
    fingerprint: str  # of the dataset
    columns: Mapping[str, np.ndarray]  # `key`, `patient`, demographics: [N] each
    label_NY: np.ndarray
    score_NS: np.ndarray

    def __post_init__(self) -> None:
        widths = (1, len(self.classes)) if self.classes else (len(self.labels), len(self.labels))
        if (self.label_NY.shape, self.score_NS.shape) != tuple((len(self), width) for width in widths):
            raise ValueError(f'labels {self.label_NY.shape} and scores {self.score_NS.shape} do not fit {len(self)} rows of {widths}')
        bad_N = ~np.isfinite(self.score_NS).all(axis=1)
        if bad_N.any():
            key = self.columns['key'][int(np.argmax(bad_N))]
            raise UserError(
                f'{int(bad_N.sum())} of {len(self)} images of the {self.split} split have a score that is not finite (the first is {key}); '
                'the training diverged: evaluate an earlier checkpoint, or train with a lower rate'
            )

    def __len__(self) -> int:
        return len(self.columns['key'])

    @property
    def score_names(self) -> tuple[str, ...]:
        """What each score column is the score of."""
        return self.classes or self.labels


def write_predictions(predictions: Predictions, *, path: Path | str) -> None:
    """Write the parquet file, whole or not at all; equal predictions give equal bytes."""
    columns = {name: _column(values) for name, values in predictions.columns.items()}
    if predictions.kind == 'multi':
        columns |= {f'label:{name}': predictions.label_NY[:, y] for y, name in enumerate(predictions.labels)}
    elif predictions.kind == 'regress':
        columns['label'] = predictions.label_NY[:, 0]
    else:
        columns['label'] = np.where(np.isnan(predictions.label_NY[:, 0]), -1, predictions.label_NY[:, 0]).astype(np.int32)
    names = ['score'] if predictions.kind == 'regress' else [f'score:{name}' for name in predictions.score_names]
    columns |= {name: predictions.score_NS[:, s] for s, name in enumerate(names)}
    metadata = {
        'kind': predictions.kind,
        'labels': list(predictions.labels),
        'classes': list(predictions.classes),
        'split': predictions.split,
        'step': predictions.step,
        'dataset_fingerprint': predictions.fingerprint,
    }
    table = pa.table(columns).replace_schema_metadata({_METADATA: json.dumps(metadata, sort_keys=True).encode()})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    atomic_write(path, buffer.getvalue())


def read_predictions(path: Path | str) -> Predictions:
    """Read a file that `write_predictions` wrote; a UserError names the file when it is missing, damaged or something else."""
    path = Path(path)
    try:
        table = pq.read_table(io.BytesIO(path.read_bytes()))
    except FileNotFoundError:
        raise UserError(f'no predictions at {path}: run `retfound evaluate` on the run directory first') from None
    except pa.ArrowException as error:
        raise UserError(f'{path} is not a readable parquet file ({error}): delete it and run `retfound evaluate` again') from error
    metadata = (table.schema.metadata or {}).get(_METADATA)
    if metadata is None:
        raise UserError(f"{path} carries no 'retfound' metadata, so it is no predictions file of this library")
    try:
        return _from_table(table, metadata=json.loads(metadata))
    except KeyError as error:
        raise UserError(f'{path} lacks {error}, so it is no predictions file of this version: run `retfound evaluate` again') from error


def _from_table(table: pa.Table, *, metadata: dict) -> Predictions:
    kind, labels, classes = metadata['kind'], tuple(metadata['labels']), tuple(metadata['classes'])
    label_names = [f'label:{name}' for name in labels] if kind == 'multi' else ['label']
    score_names = ['score'] if kind == 'regress' else [f'score:{name}' for name in (classes or labels)]
    label_NY = np.stack([_numbers(table, name) for name in label_names], axis=1)
    if kind in ('single', 'ordinal'):
        label_NY = np.where(label_NY < 0, np.nan, label_NY)
    columns = {
        name: table.column(name).to_numpy(zero_copy_only=False)
        for name in table.column_names
        if name not in label_names and name not in score_names
    }
    for name in ('key', 'patient'):
        columns[name]  # noqa: B018 (a KeyError here names the missing column)
    return Predictions(
        kind=kind,
        labels=labels,
        classes=classes,
        split=metadata['split'],
        step=metadata['step'],
        fingerprint=metadata['dataset_fingerprint'],
        columns={name: values.astype(str) if values.dtype == object else values for name, values in columns.items()},
        label_NY=label_NY,
        score_NS=np.stack([_numbers(table, name) for name in score_names], axis=1),
    )


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    return table.column(name).to_numpy(zero_copy_only=False).astype(np.float64)


def _column(values: np.ndarray) -> pa.Array:
    """Text of any numpy flavour as strings, numbers as they are."""
    values = np.asarray(values)
    return pa.array(values) if values.dtype.kind in 'biuf' else pa.array(values.astype(str).tolist(), pa.string())
