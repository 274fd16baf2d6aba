"""Who is in a dataset, or in several that are drawn from together: counts that may be shown, with what is missing and declined apart.

No count of fewer than FLOOR patients is in what this module gives out, nor one that would let such a count be worked out.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retfound_jax.core import suppression
from retfound_jax.core.demographics import DECLINED, FLOOR, MISSING, NOT_A_GROUP
from retfound_jax.core.errors import UsageError
from retfound_jax.core.files import csv_text
from retfound_jax.report import census
from retfound_jax.report.census import BANDS, FIELDS, LABEL, Census, Values
from retfound_jax.report.linked import Sum, withheld

SCHEMA = 1
WITHHELD = suppression.note()
EVERYTHING = -1  # the place of all datasets together
_MOST_DATASETS = 50


@dataclass(frozen=True, kw_only=True)
class Count:
    """How many; None for what may not be shown or is not known, which `note` tells apart."""

    patients: int | None
    images: int | None
    share: float | None = None  # of all draws, 0 to 1
    note: str = ''

    @property
    def hidden(self) -> bool:
        """Whether it is withheld."""
        return self.note == WITHHELD

    @property
    def nobody(self) -> bool:
        """Whether nobody is in it."""
        return self.images == 0


NOBODY = Count(patients=0, images=0, share=0.0)
_HIDDEN = Count(patients=None, images=None, note=WITHHELD)


@dataclass(frozen=True, kw_only=True)
class Key:
    """What is counted: a dataset by its place, a split ('' for all), and the values of one or two fields (none for everybody)."""

    place: int
    split: str = ''
    fields: Values = ()
    values: Values = ()


@dataclass(frozen=True, kw_only=True)
class Composition:
    """Counts that may be shown. Place `EVERYTHING` is all datasets together; of a single one it equals place 0."""

    names: tuple[str, ...]
    weights: tuple[float, ...]  # how often each is drawn from, in shares
    weighted: bool  # whether the weights were given; else they follow the number of images
    splits: tuple[tuple[str, ...], ...]
    counts: Mapping[Key, Count]
    manifests: tuple[Mapping[str, Any], ...]
    unknown: tuple[tuple[str, ...], ...]  # for each dataset the fields it records for nobody
    from_index: tuple[bool, ...]

    def count(self, *values: str, fields: Values = (), place: int = EVERYTHING, split: str = '') -> Count:
        """One count; nobody where it is of nobody."""
        found = self.counts.get(Key(place=place, split=split, fields=fields, values=values))
        if found is None and len(fields) == 2 and _in_withheld(self, Key(place=place, fields=fields, values=values)):
            return _HIDDEN  # that nobody of a withheld group is in another one would say what all of that group are
        return found or NOBODY

    def values(self, field: str, *, place: int = EVERYTHING) -> list[str]:
        """The values of a field in the order of a table: ages by age, classes as named, the rest by number; last what is no group."""
        found = [key.values[0] for key in self.counts if key.fields == (field,) and key.place == place and not key.split]
        known = [*BANDS, *self._classes(field)]
        order = {value: place for place, value in enumerate(known)}

        def rank(value: str) -> tuple[Any, ...]:
            count = self.count(value, fields=(field,), place=place)
            return value in NOT_A_GROUP, value == MISSING, order.get(value, len(order)), -(count.images or 0), value

        return sorted(found, key=rank)

    def fields(self, *, labels: bool = False) -> list[str]:
        """The fields, or the labels, that some dataset has; in order."""
        found = dict.fromkeys(key.fields[0] for key in self.counts if len(key.fields) == 1)
        return [name for name in found if name.startswith(LABEL)] if labels else [name for name in FIELDS if name in found]

    def recorded(self, field: str) -> bool:
        """Whether any dataset says anything of it."""
        return any(field not in unknown for unknown in self.unknown)

    def pairs(self) -> list[Values]:
        """The intersections that were counted and are of fields both recorded."""
        found = dict.fromkeys(key.fields for key in self.counts if len(key.fields) == 2)
        return [pair for pair in found if all(map(self.recorded, pair))]

    def _classes(self, field: str) -> Iterable[str]:
        for manifest in self.manifests:
            yield from ((manifest.get('labels') or {}).get(field.removeprefix(LABEL)) or {}).get('classes') or ()


def compose(folders: Sequence[Path | str], *, weights: Sequence[float] | None = None) -> Composition:
    """The composition of dataset directories. weights: how often each is drawn from, in any unit; left out, by their number of images.

    Raises:
      UsageError: a folder is no dataset, two have one name, or the weights do not fit.
      UserError: a manifest or index is damaged.
    """
    if not folders:
        raise UsageError('name at least one dataset directory')
    if len(folders) > _MOST_DATASETS:
        raise UsageError(f'{len(folders)} datasets are too many for one page; give at most {_MOST_DATASETS}')
    check_weights(weights, datasets=len(folders))
    paths = [Path(folder) for folder in folders]
    plain = [path.resolve().name for path in paths]
    names = [name if plain.count(name) == 1 else f'{path.resolve().parent.name}/{name}' for path, name in zip(paths, plain, strict=True)]
    twice = next((name for name in names if names.count(name) > 1), '')
    if twice:
        raise UsageError(f'the dataset {twice} is given twice; name each once and say with --weights how often it is drawn from')
    return of_censuses([census.read(path, name=name) for path, name in zip(paths, names, strict=True)], weights=weights)


def check_weights(weights: Sequence[float] | None, *, datasets: int) -> None:
    """Refuses weights that do not fit.

    Raises:
      UsageError: there are not as many as datasets, or one is negative or no number, or all are zero.
    """
    if weights is None:
        return
    if len(weights) != datasets:
        raise UsageError(f'there are {datasets} datasets and {len(weights)} weights; give one for each dataset, in the same order')
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not sum(weights) > 0:
        raise UsageError(f'the weights {", ".join(f"{weight:g}" for weight in weights)} are not all numbers from 0 up with a sum above 0')


def of_censuses(found: Sequence[Census], *, weights: Sequence[float] | None = None) -> Composition:
    """Puts censuses together and withholds what may not be shown."""
    check_weights(weights, datasets=len(found))
    sizes = [float(one.images['', (), ()]) for one in found]
    given = list(weights) if weights is not None else sizes if sum(sizes) else [1.0] * len(sizes)
    shares = tuple(weight / sum(given) for weight in given)
    images, patients = _together([one.images for one in found]), _together([one.patients for one in found])
    hidden = _hidden(patients)
    guessed = frozenset().union(*(one.guessed for one in found))
    drawn = _drawn(images, hidden, shares)
    counts = {}
    for key, people in patients.items():
        if key in hidden:
            counts[key] = _HIDDEN
        else:
            counted = not guessed & set(key.fields) or not images.get(key, 0)
            counts[key] = Count(patients=people if counted else None, images=images.get(key, 0), share=drawn.get(key))
    return Composition(
        names=tuple(one.name for one in found), weights=shares, weighted=weights is not None, splits=tuple(one.splits for one in found),
        counts=counts, manifests=tuple(one.manifest for one in found), unknown=tuple(one.unknown for one in found),
        from_index=tuple(one.from_index for one in found),
    )


def _together(found: Sequence[Mapping[tuple[str, Values, Values], int]]) -> dict[Key, int]:
    """Counts of each dataset, and of all of them: a field that one does not have is missing there.

    Of several datasets the splits are counted as wholes alone: the more tables there are, the more of each has to be withheld.
    """
    counts: dict[Key, int] = {}
    single = {key[1] for one in found for key in one if len(key[1]) == 1}
    for place, one in enumerate(found):
        for (split, fields, values), count in one.items():
            if not fields or len(fields) == 1 and not (split and len(found) > 1):
                counts[Key(place=place, split=split, fields=fields, values=values)] = count
        for fields in single - {key[1] for key in one}:
            for split in {split for split, names, _ in one if not names and (not split or len(found) == 1)}:
                counts[Key(place=place, split=split, fields=fields, values=(MISSING,))] = one[split, (), ()]
    for key, count in list(counts.items()):
        if not key.split:
            whole = Key(place=EVERYTHING, fields=key.fields, values=key.values)
            counts[whole] = counts.get(whole, 0) + count
    pairs = set.intersection(*({key[1] for key in one if len(key[1]) == 2} for one in found))
    for one in found:
        for (_, fields, values), count in one.items():
            if fields in pairs:
                whole = Key(place=EVERYTHING, fields=fields, values=values)
                counts[whole] = counts.get(whole, 0) + count
    return counts


def _hidden(patients: Mapping[Key, int]) -> frozenset[Key]:
    """What may not be shown: first so that no sums of all these tables fix a small count, then so that none bounds it below the floor."""
    hidden = withheld(patients, sums=_sums(patients), rank=_worth)
    for fields in sorted({key.fields for key in patients if key.fields}, key=lambda names: (len(names), names)):
        keys = [key for key in patients if key.fields == fields]
        if hidden.intersection(keys):
            hidden |= _bounded(patients, keys, hidden) if len(fields) == 1 else _bounded_cells(patients, keys, hidden)
    return hidden


def _bounded(patients: Mapping[Key, int], keys: Sequence[Key], hidden: frozenset[Key]) -> frozenset[Key]:
    """What of one field has to be withheld besides, looked at over all datasets and splits."""
    leaves = [key for key in keys if key.place != EVERYTHING and (key.split or Key(place=key.place) not in _split_places(keys))]
    atoms = [key for key in leaves if patients[key]]
    once = keys[0].fields[0] not in census.OF_IMAGES and not keys[0].fields[0].startswith(LABEL)

    def inside(whole: Key) -> list[int]:
        return [
            at for at, atom in enumerate(atoms)
            if whole.place in (atom.place, EVERYTHING) and whole.split in (atom.split, '') and whole.values in (atom.values, ())
        ]

    totals = {Key(place=key.place, split=key.split) for key in keys} if once else set()
    counts = {
        key: suppression.Count(atoms=inside(key), unprinted=key in hidden, total=not key.fields and key not in hidden, order=_worth(key))
        for key in (*keys, *totals) if patients[key]
    }
    return suppression.withheld(counts, people=np.array([patients[atom] for atom in atoms]))


def _bounded_cells(patients: Mapping[Key, int], cells: Sequence[Key], hidden: frozenset[Key]) -> frozenset[Key]:
    """What of an intersection has to be withheld besides, looked at with its margins."""
    atoms = [key for key in cells if patients[key]]
    counts = {key: suppression.Count(atoms=(at,), unprinted=key in hidden) for at, key in enumerate(atoms)}
    for at in (0, 1):
        margins: dict[Key, list[int]] = {}
        for place, key in enumerate(atoms):
            margins.setdefault(Key(place=key.place, fields=key.fields[at : at + 1], values=key.values[at : at + 1]), []).append(place)
        for key, inside in margins.items():
            if patients.get(key) == sum(patients[atoms[place]] for place in inside):  # not where a patient is in several values
                counts[key] = suppression.Count(atoms=inside, unprinted=key in hidden, total=key not in hidden)
    return suppression.withheld(counts, people=np.array([patients[atom] for atom in atoms]))


def _split_places(keys: Iterable[Key]) -> frozenset[Key]:
    """The datasets that were counted by split, each as the key of its total."""
    return frozenset(Key(place=key.place) for key in keys if key.split)


def _sums(counts: Mapping[Key, int]) -> list[Sum]:
    """Every way in which the counts add up."""
    parts: dict[tuple[Hashable, ...], list[Key]] = {}
    for key in counts:
        if key.split:
            parts.setdefault(('splits', Key(place=key.place, fields=key.fields, values=key.values)), []).append(key)
        elif key.place != EVERYTHING:
            parts.setdefault(('datasets', Key(place=EVERYTHING, fields=key.fields, values=key.values)), []).append(key)
        if len(key.fields) == 1:
            parts.setdefault((f'values of {key.fields[0]}', Key(place=key.place, split=key.split)), []).append(key)
        for at in range(len(key.fields) if len(key.fields) == 2 else 0):
            whole = Key(place=key.place, fields=key.fields[at : at + 1], values=key.values[at : at + 1])
            parts.setdefault((key.fields, whole), []).append(key)
    return [(whole, tuple(keys)) for (_, whole), keys in parts.items() if whole in counts]


def _worth(key: Key) -> int:
    """What a page can do without first: intersections and splits, then the values of a field, last how many there are in all."""
    return 0 if key.split or len(key.fields) > 1 else 1 if key.fields else 2


def _drawn(images: Mapping[Key, int], hidden: Iterable[Key], weights: Sequence[float]) -> dict[Key, float]:
    """The share of draws that are of each value, where no dataset's part in it is withheld."""
    hidden = frozenset(hidden)
    shares = {}
    for key in images:
        if key.place != EVERYTHING or len(key.fields) > 1:
            continue
        each = [Key(place=place, fields=key.fields, values=key.values) for place in range(len(weights))]
        if not any(one in hidden for one in each):
            sizes = [images[Key(place=place)] for place in range(len(weights))]
            shares[key] = sum(w * images.get(one, 0) / size for w, one, size in zip(weights, each, sizes, strict=True) if size)
    return shares


def to_json(found: Composition) -> dict[str, Any]:
    """All counts, ready for `composition.json`."""
    places = {**dict(enumerate(found.names)), EVERYTHING: 'all'}
    rows = [
        {
            'dataset': places[key.place], 'split': key.split or 'all', 'fields': [name.removeprefix(LABEL) for name in key.fields],
            'kind': 'label' if any(name.startswith(LABEL) for name in key.fields) else 'people', 'values': list(key.values),
            'patients': count.patients, 'images': count.images, 'share_of_draws': None if count.share is None else round(count.share, 6),
            'note': count.note,
        }
        for key, count in _ordered(found)
    ]
    datasets = [
        {
            'name': name, 'fingerprint': manifest.get('fingerprint', ''), 'weight': round(weight, 6), 'splits': list(splits),
            'not_recorded': list(unknown), 'counted_from': 'index.parquet' if counted else 'manifest.json',
        }
        for name, manifest, weight, splits, unknown, counted in zip(
            found.names, found.manifests, found.weights, found.splits, found.unknown, found.from_index, strict=True
        )
    ]
    return {
        'schema': SCHEMA, 'floor': FLOOR, 'datasets': datasets, 'weights_given': found.weighted, 'missing': MISSING, 'declined': DECLINED,
        'counts': rows,
    }


def to_csv(found: Composition) -> str:
    """The same as a table, one count a line."""
    rows = to_json(found)['counts']
    head = ('dataset', 'split', 'kind', 'field', 'value', 'patients', 'images', 'share_of_draws', 'note')
    lines = [
        (
            row['dataset'], row['split'], row['kind'], '+'.join(row['fields']), ', '.join(row['values']),
            *('' if row[name] is None else row[name] for name in head[5:]),
        )
        for row in rows
    ]
    return csv_text([head, *lines])


def _ordered(found: Composition) -> list[tuple[Key, Count]]:
    """Rows by dataset, field and split; of a single dataset the copy under `all` is left out, but for intersections."""
    alone = len(found.names) == 1
    order = {band: f'{place:02}' for place, band in enumerate(BANDS)}
    kept = [(key, count) for key, count in found.counts.items() if not (alone and key.place == EVERYTHING and len(key.fields) < 2)]
    kept = [(key, count) for key, count in kept if not (count.hidden and len(key.fields) == 2 and _in_withheld(found, key))]
    return sorted(kept, key=lambda item: (
        item[0].place, len(item[0].fields), item[0].fields, item[0].split, [order.get(value, value) for value in item[0].values]
    ))


def _in_withheld(found: Composition, key: Key) -> bool:
    """Whether an intersection is of a withheld group: which of them have somebody in them is then not told either."""
    return any(found.count(v, fields=(f,), place=key.place).hidden for f, v in zip(key.fields, key.values, strict=True))
