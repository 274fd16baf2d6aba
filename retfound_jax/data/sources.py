"""The rows that training or evaluation runs over, whatever they come from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from retfound_jax.core.errors import UsageError, nearest
from retfound_jax.data.balance import Balanced
from retfound_jax.data.compose import composed
from retfound_jax.data.config import DataConfig
from retfound_jax.data.order import Order, Shuffled
from retfound_jax.data.store import DEMOGRAPHICS, LABEL, Contents, Store, class_column
from retfound_jax.data.strata import Strata, find_strata


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Chosen rows of a dataset, with their table and their labels; images are read on demand. Row i is `source[i]`.

    `table` holds key, patient, group, laterality, sex, age, ethnicity, country, site, camera, diabetes_type, source, age_word
    and every `label:NAME`, one value a row.
    `labels` [rows, Y] float32 holds the columns of `label_names` (NaN where missing); `label_classes` names the classes of each label
    (and of the demographics asked for as labels), None for a number. `fingerprint` stands for the data AND the choice of rows.
    """

    table: dict[str, np.ndarray]
    labels: np.ndarray
    label_names: tuple[str, ...]
    label_classes: dict[str, list[str] | None]
    fingerprint: str
    reader: Reader

    def __len__(self) -> int:
        return len(self.table['key'])

    def strata(self, by: str, *, field: str) -> Strata:
        """Who is in which stratum by the columns that `by` names; `field` of the configuration is named in the errors of `find_strata`."""
        return find_strata(by, columns=self.table, classes=self.label_classes, field=field)

    def __getitem__(self, row: int) -> dict[str, Any]:
        if not 0 <= row < len(self):
            raise IndexError(f'row {row} of {len(self)}')
        return {'image': self.reader.read(np.array([row]))[0], **{name: column[row] for name, column in self.table.items()}}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reader:
    """The part of a source that travels to decoding processes: the images of rows, without the table."""

    store: Store
    positions: np.ndarray  # int64, of each row in the store

    def read(self, rows: np.ndarray) -> list[bytes | np.ndarray]:
        """Encoded images, or uint8 [H, W, 3], of the rows."""
        return self.store.read(self.positions[rows].tolist()) if len(rows) else []


def open_source(config: DataConfig) -> Source:
    """Opens what `config` names: one split, the rows with at least one of the labels, and the wanted share or composition of them.

    Raises:
      UserError: the data are missing, unfinished, damaged or of another version.
      UsageError: not exactly one place is named, a split, label or column is unknown, the label to stratify by has no classes, or there
        are too few images for the composition.
    """
    contents = _contents(config)
    classes = dict(contents.classes)
    columns = [_label(config, contents, classes, name) for name in config.labels]
    labels = np.stack(columns, axis=1) if columns else np.zeros((len(contents.columns['key']), 0), np.float32)
    rows = np.arange(len(labels))
    if config.labels:
        rows = rows[~np.isnan(labels).all(axis=1)]
    choice = [contents.fingerprint, config.split, list(config.labels), config.fraction]
    if config.fraction < 1:
        strata = _strata(config, contents, classes)[rows]
        rows = rows[_share(contents.columns['group'][rows], strata, fraction=config.fraction, draw=config.draw)]
        choice += [config.stratify, config.draw] if config.stratify or config.draw else []
    if config.compose:
        chosen = {name: values[rows] for name, values in contents.columns.items()}
        strata = find_strata(config.compose.by, columns=chosen, classes=contents.classes, field='data.compose.by')
        rows = rows[composed(config.compose, strata=strata, people=chosen['group'], draw=config.draw)]
        choice += ['compose', config.compose.by, sorted(config.compose.shares), config.compose.images, config.draw]
    return Source(
        table={name: values[rows] for name, values in contents.columns.items()},
        labels=labels[rows],
        label_names=config.labels,
        label_classes=classes,
        fingerprint=hashlib.sha256(json.dumps([*choice, len(rows)]).encode()).hexdigest(),
        reader=Reader(store=contents.store, positions=rows.astype(np.int64)),
    )


def training_order(config: DataConfig, source: Source, *, seed: int) -> Order:
    """In which order training goes over the rows: shuffled, or by `config.balance`.

    Raises:
      UsageError: the balance does not fit the data.
    """
    if config.balance is None:
        return Shuffled(rows=len(source), seed=seed)
    return Balanced.of(config.balance, strata=source.strata(config.balance.by, field='data.balance.by'), seed=seed)


def _contents(config: DataConfig) -> Contents:
    places = [name for name, given in (('path', config.path), ('tfds_name', config.tfds_name), ('phantom', config.phantom)) if given]
    if len(places) != 1:
        raise UsageError(f'data names {" and ".join(places) or "no place"}; set exactly one of data.path, data.tfds_name and data.phantom')
    if config.path:
        from retfound_jax.data.dataset_source import open_dataset

        return open_dataset(config.path, split=config.split)
    if config.tfds_name:
        from retfound_jax.data.tfds_source import open_tfds

        return open_tfds(config.tfds_name, directory=config.tfds_dir, split=config.split)
    from retfound_jax.data.phantom_source import open_phantom

    return open_phantom(config.phantom, split=config.split)


def _label(config: DataConfig, contents: Contents, classes: dict[str, list[str] | None], name: str) -> np.ndarray:
    """One label column, float32; its classes are added to `classes` where it is a demographic."""
    if LABEL + name in contents.columns:
        return contents.columns[LABEL + name]
    if name not in DEMOGRAPHICS:
        known = sorted(classes)
        listed = f'; it has {", ".join(known)} and {", ".join(DEMOGRAPHICS)}'
        raise UsageError(f'the data have no label "{name}"{nearest(name, [*known, *DEMOGRAPHICS]) or listed}')
    if name == 'age':
        classes[name] = None
        return contents.columns[name]
    classes[name] = contents.words[name]
    return class_column(contents.columns[name], contents.words[name])


def _strata(config: DataConfig, contents: Contents, classes: dict[str, list[str] | None]) -> np.ndarray:
    """The class of each row by the label to stratify by, float32; NaN where it is missing, and everywhere where there is no such label."""
    if not config.stratify:
        return np.full(len(contents.columns['key']), np.nan, np.float32)
    column = _label(config, contents, found := dict(classes), config.stratify)
    if found[config.stratify] is None:
        raise UsageError(f'data.stratify is "{config.stratify}", which is a number: name a label that has classes')
    return column


def _share(groups: np.ndarray, strata: np.ndarray, *, fraction: float, draw: int) -> np.ndarray:
    """Which rows belong to the chosen share of patients: of each stratum those with the smallest hashes.

    A patient's stratum is his highest class, and those without one are a stratum of their own. A smaller share lies inside a larger one.
    """
    people, place = np.unique(groups, return_inverse=True)
    highest = np.full(len(people), -1.0)
    np.fmax.at(highest, place, strata)
    prefix = f'fraction {draw}:' if draw else 'fraction:'
    hashes = [hashlib.sha256(f'{prefix}{name}'.encode()).digest() for name in people]
    order = np.array(sorted(range(len(people)), key=hashes.__getitem__), np.int64)
    members = [order[highest[order] == stratum] for stratum in np.unique(highest)]
    seats = _seats([len(group) for group in members], total=min(len(people), max(1, round(fraction * len(people)))))
    chosen = np.zeros(len(people), bool)
    for group, count in zip(members, seats, strict=True):
        chosen[group[:count]] = True
    return chosen[place]


def _seats(sizes: Sequence[int], *, total: int) -> list[int]:
    """How many of each stratum are among `total`: at least one, the others by the quota method of Balinski and Young (1975).

    It gives each stratum its exact share rounded down or up, and a larger total takes nothing from anybody. Largest remainders do not:
    with them a class can have fewer patients in a larger share. Where there are more strata than `total`, it is one of each.
    """
    seats, everyone, given = [0] * len(sizes), sum(sizes), 0
    while sum(max(1, seat) for seat in seats) < total:
        given += 1
        below = [i for i, size in enumerate(sizes) if seats[i] * everyone < given * size]
        seats[max(below, key=lambda i: sizes[i] / (seats[i] + 1))] += 1
    return [max(1, seat) for seat in seats]
