"""What `predict` and `embed` write: a CSV or parquet file of one row a photograph, and beside it the list of what could not be read.

Rows are encoded as they come, so only the finished columns stay in memory; the file appears whole, at the end, or not at all.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retfound_jax.core.errors import UsageError
from retfound_jax.core.files import atomic_write, csv_text

SUFFIXES = ('.csv', '.parquet')
METADATA = b'retfound'
_ROWS = 4096  # of a parquet row group

Columns = Mapping[str, Sequence[str] | np.ndarray]  # text, numbers [rows], or vectors [rows, D]


class Writer(Protocol):
    """Takes rows batch by batch and writes them all at the end."""

    def append(self, columns: Columns) -> None: ...

    def write(self, path: Path) -> None: ...


def check_out(path: Path, *, overwrite: bool, source: Path) -> None:
    """Refuses, before any work, a place that cannot be written to.

    Raises:
      UsageError: the ending is unknown, the file is there already, is the source, or its folder cannot be written to.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f'--out {path} ends in neither .csv nor .parquet; give it one of these endings')
    if path.is_dir():
        raise UsageError(f'--out {path} is a folder; give the name of a file')
    for place in (path, rejects_path(path)):
        if place.exists() and source.exists() and place.samefile(source):
            raise UsageError(f'--out {path} would overwrite the source {source}; give another name')
    if path.exists() and not overwrite:
        raise UsageError(f'--out {path} exists; give --overwrite to replace it, or another name')
    folder = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    if not folder.is_dir():
        raise UsageError(f'--out {path} lies below {folder}, which is not a folder; give another place')
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f'--out {path}: the folder {folder} cannot be written to; give another place or change its owner')


def rejects_path(path: Path) -> Path:
    """Where the photographs that could not be read are listed: `scores.csv` has `scores.rejects.csv`."""
    return path.with_suffix('.rejects.csv')


def write_rejects(path: Path, rejects: Sequence[tuple[str, str]]) -> None:
    """Key and reason of each photograph without a row; without any, a list of an earlier call is taken away."""
    if not rejects:
        rejects_path(path).unlink(missing_ok=True)
        return
    atomic_write(rejects_path(path), csv_text([('key', 'reason'), *rejects]))


def make_writer(path: Path, *, metadata: Mapping[str, Any]) -> Writer:
    """The writer for a path's ending; `metadata` goes into the header of a parquet file, as JSON under `retfound`."""
    return _Csv() if path.suffix.lower() == '.csv' else _Parquet(metadata)


class _Csv:
    """Vectors become columns NAME_0, NAME_1, ...; float32 in the fewest digits that give it back."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()

    def append(self, columns: Columns) -> None:
        lines = [[cell for part in row for cell in part] for row in zip(*map(_cells, columns.values()), strict=True)]
        if not self._buffer.tell():
            lines.insert(0, [name for column, values in columns.items() for name in _names(column, values)])
        self._buffer.write(csv_text(lines).encode())

    def write(self, path: Path) -> None:
        atomic_write(path, self._buffer.getbuffer())


class _Parquet:
    """Vectors become one column of lists of fixed size."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self._buffer, self._metadata = io.BytesIO(), {METADATA: json.dumps(metadata, sort_keys=True, allow_nan=False).encode()}
        self._waiting: list[pa.Table] = []
        self._writer: pq.ParquetWriter | None = None

    def append(self, columns: Columns) -> None:
        table = pa.table({name: _arrow(values) for name, values in columns.items()})
        self._waiting.append(table.replace_schema_metadata(self._metadata))
        if sum(map(len, self._waiting)) >= _ROWS:
            self._flush()

    def write(self, path: Path) -> None:
        self._flush()
        self._writer.close()
        atomic_write(path, self._buffer.getbuffer())

    def _flush(self) -> None:
        if self._waiting:
            table = pa.concat_tables(self._waiting)
            self._writer = self._writer or pq.ParquetWriter(self._buffer, table.schema)
            self._writer.write_table(table)
            self._waiting = []


def _names(column: str, values: Sequence[str] | np.ndarray) -> list[str]:
    return [f'{column}_{i}' for i in range(values.shape[1])] if getattr(values, 'ndim', 1) == 2 else [column]


def _cells(values: Sequence[str] | np.ndarray) -> list[list[str]]:
    if isinstance(values, np.ndarray):
        return values.reshape(len(values), -1).astype(str).tolist()
    return [[value] for value in values]


def _arrow(values: Sequence[str] | np.ndarray) -> pa.Array:
    if isinstance(values, np.ndarray) and values.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    return pa.array(values) if isinstance(values, np.ndarray) else pa.array(list(values), pa.string())
