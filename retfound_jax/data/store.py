"""What every kind of source provides: a table of its rows, and a store that gives the image of a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from retfound_jax.core.errors import UserError

# The columns every table has. Text is '' and a number NaN where it is missing. `group` joins patients that share an image; `age_word` is
# 'declined' where the person did not say the age.
TEXT_COLUMNS = (
    'key', 'patient', 'group', 'laterality', 'sex', 'ethnicity', 'country', 'site', 'camera', 'diabetes_type', 'source', 'age_word'
)
NUMBER_COLUMNS = ('age',)
# Those that can be asked for as labels.
DEMOGRAPHICS = ('age', 'sex', 'ethnicity', 'country', 'site', 'camera', 'diabetes_type', 'source', 'laterality')
SPLITS = ('train', 'val', 'test')
LABEL = 'label:'
_MOST_CLASSES = 64


class RecordFailure(UserError):
    """One record is damaged, and others need not be. It holds what it says, so that it can travel between processes."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(where, reason)
        self.where, self.reason = where, reason

    def __str__(self) -> str:
        return f'{self.where} is damaged: a record cannot be read ({self.reason}); copy it again or ingest the images again'


class Store(Protocol):
    """Images by position. It opens its files at the first read of each process, so that it travels to workers as a few names."""

    def read(self, positions: Sequence[int]) -> list[bytes | np.ndarray]:
        """Encoded images, or uint8 [H, W, 3], in the order asked for.

        Raises:
          RecordFailure: one of the records is damaged; the others can still be read.
          UserError: the data cannot be read at all.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Contents:
    """All rows of one split before any choice among them; row i is position i of the store.

    `columns` has TEXT_COLUMNS (str), NUMBER_COLUMNS and one `label:NAME` for each label (float32, NaN where missing, the index of the
    class for classes). `classes` names the classes of a label, None for a number, and `words` the distinct words of a demographic in
    order; both are those of the whole dataset, not of the split, so that a class has one number everywhere.
    """

    columns: dict[str, np.ndarray]
    classes: dict[str, list[str] | None]
    words: dict[str, list[str]]
    store: Store
    fingerprint: str


def text_column(values: Sequence[object]) -> np.ndarray:
    """Values as str, None as ''."""
    return np.array(['' if value is None else str(value) for value in values], dtype=np.str_).reshape(len(values))


def words_of(values: np.ndarray) -> list[str]:
    """The distinct words of a column, sorted, without ''."""
    return [str(word) for word in np.unique(values) if word]


def class_column(values: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Text to the index of its class, float32; '' and words that are no class become NaN."""
    place = {name: float(index) for index, name in enumerate(classes)}
    return np.array([place.get(str(value), np.nan) for value in values], np.float32)


def classes_of(values: np.ndarray) -> list[str] | None:
    """The classes of a column, in order, or None: at most 64 distinct words or whole numbers are classes."""
    if values.dtype.kind in 'US':
        words = words_of(values)
        return words if len(words) <= _MOST_CLASSES else None
    present = np.unique(values[~np.isnan(values)]) if values.dtype.kind == 'f' else np.unique(values)
    if len(present) == 0 or len(present) > _MOST_CLASSES or (present != np.round(present)).any():
        return None
    return [str(int(value)) for value in present]


def label_column(values: np.ndarray, classes: Sequence[str] | None) -> np.ndarray:
    """Values as float32: the index of the class, or the number itself."""
    if classes is None:
        return values.astype(np.float32)
    if values.dtype.kind in 'US':
        return class_column(values, classes)
    words = ['' if value != value else str(int(value)) for value in values.tolist()]
    return class_column(np.array(words, dtype=np.str_), classes)
