"""Nothing that was learned from is tested on: every study asks here before it trains, and refuses data that leak.

Three things leak: a patient on two sides, a group of patients who share a photograph on two sides, and one photograph on two sides under
whatever names. Photographs are compared by the hashes that ingest keeps in `index.parquet`, so that no image is opened.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from retfound_jax.core.errors import UserError
from retfound_jax.core.storage import is_remote
from retfound_jax.data.config import DataConfig
from retfound_jax.data.sources import Source, open_source
from retfound_jax.data.store import SPLITS
from retfound_jax.ingest.duplicates import NEAR_THRESHOLD
from retfound_jax.ingest.hashes import near_pairs

LEARNED = ('train', 'val')  # the splits a run has seen: it trains on one and is chosen by the other
_TEXT = ('key', 'patient', 'group', 'split')
_HASHES = ('pixel_sha256', 'phash')
_AT_ONCE = 256  # [images] read at once where there are no hashes


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitReport:
    """What was compared, and what these data do not allow to compare, in sentences a table can print."""

    images: dict[str, int]  # by split, those of another dataset as `NAME split`
    patients: dict[str, int]
    unchecked: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Twin:
    """One photograph on two sides, or two that look alike."""

    key_a: str
    key_b: str
    side_a: str
    side_b: str
    kind: str  # exact, near
    distance: int = 0  # [bits of 256]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Rows:
    """The images of a dataset. A hash that is not known is ''; `side` is where an image stands."""

    name: str  # of the dataset, for people
    sides: tuple[str, ...] = SPLITS
    key: np.ndarray
    patient: np.ndarray
    group: np.ndarray
    side: np.ndarray
    pixel_sha256: np.ndarray
    phash: np.ndarray
    unchecked: tuple[str, ...] = ()

    def where(self, mask: np.ndarray) -> _Rows:
        """Those rows alone."""
        return dataclasses.replace(self, **{name: getattr(self, name)[mask] for name in _COLUMNS})

    def place(self) -> np.ndarray:
        """Of each row its side's place among `sides`: what is learned from comes before what it is tested on."""
        return np.argmax(self.side[:, None] == np.array(self.sides)[None], axis=1)


_COLUMNS = ('key', 'patient', 'group', 'side', *_HASHES)


def check_splits(data: DataConfig | Path | str) -> SplitReport:
    """Compares train, validation and test of one dataset with each other, over all its images whatever their labels.

    Args:
      data: a dataset's directory or address, or the configuration that names a dataset of any kind.

    Raises:
      UserError: a patient, a group or a photograph is in two splits.
    """
    rows = _rows(_config(data))
    _refuse_people(rows)
    twins = _twins(rows)
    if twins:
        twin = twins[0]
        raise UserError(
            f'the dataset {rows.name} has {_alike(twin)} {twin.key_a} in {twin.side_a} and {twin.key_b} in {twin.side_b}{_more(twins)}; '
            f'ingest the photographs again without these copies, or without a split column, so that ingest keeps them on one side'
        )
    return _report(rows)


def check_external(
    trained_on: DataConfig | Path | str, tested_on: DataConfig | Path | str, *, test_splits: Sequence[str] = ('test',),
    shared_ids: bool = False, left_out: Collection[str] = (),
) -> SplitReport:
    """Compares train and validation of one dataset with the test images of another.

    Args:
      test_splits: the splits of `tested_on` that are tested on.
      shared_ids: a patient id means the same person in both datasets; else patients are not compared.
      left_out: keys of test images that are not tested on, or were looked at by a person and are no copies.

    Raises:
      UserError: a test image is one that was learned from or looks like it, or its patient is one that was learned from.
    """
    rows = _both(trained_on, tested_on, test_splits=test_splits, left_out=left_out)
    if shared_ids:
        _refuse_people(rows)
    twins = _twins(rows)
    if twins:
        twin = twins[0]
        raise UserError(
            f'not all test images are new: {_alike(twin)} {twin.key_a} in {twin.side_a} and {twin.key_b} in {twin.side_b}{_more(twins)}; '
            f'leave {"this test image" if len(twins) == 1 else f"these {len(twins)} test images"} out'
        )
    report = _report(rows)
    return report if shared_ids else dataclasses.replace(report, unchecked=(
        *report.unchecked, f'patients of {rows.name} are not compared: their ids come from two places'
    ))


def external_twins(
    trained_on: DataConfig | Path | str, tested_on: DataConfig | Path | str, *, test_splits: Sequence[str] = ('test',)
) -> tuple[Twin, ...]:
    """All that `check_external` would refuse for its photographs: `key_b` are those of the test images, to look at or to leave out."""
    return _twins(_both(trained_on, tested_on, test_splits=test_splits))


def _config(data: DataConfig | Path | str) -> DataConfig:
    return data if isinstance(data, DataConfig) else DataConfig(path=str(data))


def _rows(config: DataConfig) -> _Rows:
    """All images of all splits."""
    if config.path:
        return _of_index(config)
    parts = {split: open_source(dataclasses.replace(config.whole(split), labels=())) for split in SPLITS}
    columns = {name: np.concatenate([part.table[name] for part in parts.values()]) for name in ('key', 'patient', 'group')}
    side = np.concatenate([np.full(len(part), split) for split, part in parts.items()])
    nothing = np.full(len(side), '')
    if config.phantom:
        said = ('the photographs of the phantom are not compared: they are drawn, and repeated ones are of one group',)
        return _Rows(name='phantom', side=side, pixel_sha256=nothing, phash=nothing, unchecked=said, **columns)
    said = (f'photographs of {config.tfds_name} are compared byte by byte only: a copy saved anew is not found',)
    encoded = np.concatenate([_encoded_sha256(part) for part in parts.values()])
    if (columns['patient'] == columns['key']).all():
        said += (f'{config.tfds_name} names no patients, each image counts as one: a patient in two splits is not found',)
        columns['patient'] = columns['group'] = nothing
    return _Rows(name=config.tfds_name, side=side, pixel_sha256=encoded, phash=nothing, unchecked=said, **columns)


def _of_index(config: DataConfig) -> _Rows:
    import pyarrow.parquet as pq

    for split in SPLITS:  # says what is wrong with a damaged dataset, and that the index is that of the shards
        open_source(DataConfig(path=config.path, split=split))
    folder = Path(config.path)
    if is_remote(config.path):
        from retfound_jax.data.remote import open_remote

        folder = open_remote(config.path).folder
    file = folder / 'index.parquet'
    known = [name for name in _HASHES if name in pq.read_schema(file).names]
    table = pq.read_table(file, columns=[*_TEXT, *known])
    columns = {name: np.array(table.column(name).to_pylist(), np.str_).reshape(len(table)) for name in (*_TEXT, *known)}
    columns['side'] = columns.pop('split')
    columns |= {name: np.full(len(table), '') for name in _HASHES if name not in known}
    missing = {name: int((columns[name] == '').sum()) for name in _HASHES}
    said = tuple(f'{count} of {len(table)} images of {config.path} have no {name} to compare' for name, count in missing.items() if count)
    return _Rows(name=str(config.path), unchecked=said, **columns)


def _encoded_sha256(source: Source) -> np.ndarray:
    """Of the encoded bytes, for data that keep no hashes: a pass over all images."""
    rows = np.arange(len(source))
    parts = [source.reader.read(rows[start : start + _AT_ONCE]) for start in range(0, len(rows), _AT_ONCE)]
    return np.array([hashlib.sha256(data).hexdigest() for part in parts for data in part], np.str_).reshape(len(rows))


def _both(
    trained_on: DataConfig | Path | str, tested_on: DataConfig | Path | str, *, test_splits: Sequence[str], left_out: Collection[str] = ()
) -> _Rows:
    """What was learned from, then what is tested on, each side with its dataset's name."""
    learned, tested = _rows(_config(trained_on)), _rows(_config(tested_on))
    learned = learned.where(np.isin(learned.side, LEARNED))
    tested = tested.where(np.isin(tested.side, test_splits) & ~np.isin(tested.key, list(left_out)))
    for rows, splits in ((learned, LEARNED), (tested, test_splits)):
        if not len(rows.key):
            raise UserError(f'the dataset {rows.name} has no image in {" or ".join(splits)}: name a split that it has')
    columns = {name: np.concatenate([getattr(learned, name), getattr(tested, name)]) for name in _COLUMNS}
    sides = (f'what {learned.name} trains', f'the test images of {tested.name}')  # train and validation are one side here
    columns['side'] = np.repeat(sides, [len(learned.key), len(tested.key)])
    said = tuple(dict.fromkeys((*learned.unchecked, *tested.unchecked)))
    return _Rows(name=f'{learned.name} and {tested.name}', sides=sides, unchecked=said, **columns)


def _refuse_people(rows: _Rows) -> None:
    for what, names in (('patient', rows.patient), ('group', rows.group)):
        found = _on_two_sides(names, rows)
        if found:
            a, b = found[0]
            raise UserError(
                f'the {what} {names[a]} of {rows.name} is in {rows.side[a]} (image {rows.key[a]}) and in {rows.side[b]} '
                f'(image {rows.key[b]}){_more(found)}; a patient belongs to one side: correct or drop the split column and ingest again'
            )


def _on_two_sides(names: np.ndarray, rows: _Rows) -> list[tuple[int, int]]:
    """For each name that is on two sides, its earliest row and a later one; names that are '' are nobody's."""
    place, first, found = rows.place(), _earliest(names, rows), {}
    for row, name in enumerate(names.tolist()):
        if name and place[first[name]] < place[row]:
            found.setdefault(name, (first[name], row))
    return list(found.values())


def _earliest(names: np.ndarray, rows: _Rows) -> dict[str, int]:
    """Each name's first row on the earliest of its sides."""
    return {name: row for row, name in reversed([(row, str(names[row])) for row in np.argsort(rows.place(), kind='stable').tolist()])}


def _twins(rows: _Rows) -> tuple[Twin, ...]:
    """Every image that is the photograph of an earlier side, `key_b`, with one of those it repeats: first copies, then the nearest."""
    place, found = rows.place(), {}
    first = _earliest(rows.pixel_sha256, rows)
    for row, name in enumerate(rows.pixel_sha256.tolist()):
        if name and place[first[name]] < place[row]:
            found[row] = (-1, first[name])
    hashes, which = np.unique(rows.phash, return_inverse=True)
    known = np.flatnonzero(hashes != '')
    alike = {int(i): [(0, int(i))] for i in known}  # place of a hash to those near it
    for i, j, distance in near_pairs(hashes[known].tolist(), threshold=NEAR_THRESHOLD):
        alike[int(known[i])].append((distance, int(known[j])))
        alike[int(known[j])].append((distance, int(known[i])))
    first = _earliest(which, rows)
    for row, hashed in enumerate(which.tolist()):
        before = [(distance, first[str(other)]) for distance, other in alike.get(hashed, ()) if place[first[str(other)]] < place[row]]
        if before:
            found.setdefault(row, min(before))
    ordered = sorted(found.items(), key=lambda item: item[1][0])
    return tuple(_twin(rows, other, row, distance=distance) for row, (distance, other) in ordered)


def _twin(rows: _Rows, a: int, b: int, *, distance: int) -> Twin:
    kind, side = ('exact' if distance < 0 else 'near'), rows.side
    return Twin(key_a=str(rows.key[a]), key_b=str(rows.key[b]), side_a=side[a], side_b=side[b], kind=kind, distance=max(0, distance))


def _alike(twin: Twin) -> str:
    if twin.kind == 'exact':
        return 'one photograph twice:'
    return f'two photographs that look the same ({twin.distance} of 256 bits apart):'


def _more(found: Sequence[object]) -> str:
    return f', and {len(found) - 1} more' if len(found) > 1 else ''


def _report(rows: _Rows) -> SplitReport:
    masks = {side: rows.place() == place for place, side in enumerate(rows.sides)}
    return SplitReport(
        images={side: int(mask.sum()) for side, mask in masks.items()},
        patients={side: len(set(rows.patient[mask].tolist()) - {''}) for side, mask in masks.items()},
        unchecked=rows.unchecked,
    )
