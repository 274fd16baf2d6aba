"""Labels of several datasets as one: predictions of a model that knows some classes, judged by the classes that all share.

Letters: N images, S scores of the model, C classes in common.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from retfound_jax.core.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelMap:
    """Each class of a dataset's label as a class of the common label; '' has no place in it, and such images are not judged."""

    label: str  # name of the common label
    classes: tuple[str, ...]  # in common, in their order
    of: tuple[tuple[str, str], ...]  # (class of the dataset, class in common)

    def place(self, name: str, *, dataset: str) -> int:
        """The number of a dataset's class in common, -1 where it has no place.

        Raises:
          UserError: the map does not cover the class, or leads to none of the common ones.
        """
        known = dict(self.of)
        if name not in known:
            covered = ', '.join(known)
            raise UserError(f'the label map of {dataset} to {self.label} does not cover its class "{name}" (it covers {covered}): add it')
        if known[name] and known[name] not in self.classes:
            classes = ', '.join(self.classes)
            raise UserError(f'the label map of {dataset} leads "{name}" to "{known[name]}", and {self.label} has {classes}: correct it')
        return self.classes.index(known[name]) if known[name] else -1


def same(label: str, classes: Sequence[str]) -> LabelMap:
    """The map that leaves every class as it is."""
    return LabelMap(label=label, classes=tuple(classes), of=tuple((name, name) for name in classes))


def binary(label: str, classes: Sequence[str], *, positive: Sequence[str], names: tuple[str, str] = ('no', 'yes')) -> LabelMap:
    """The map to a finding that some of the classes are, such as referable diabetic retinopathy of grades from 2."""
    return LabelMap(label=label, classes=names, of=tuple((name, names[name in positive]) for name in classes))


def to_common(map_: LabelMap, label_N: np.ndarray, *, classes: Sequence[str], dataset: str) -> np.ndarray:
    """Labels [N] by number of a dataset's class, NaN missing, as numbers of the common classes, NaN missing or without a place."""
    places = np.array([map_.place(name, dataset=dataset) for name in classes], np.float64)
    places[places < 0] = np.nan
    out_N = np.full(len(label_N), np.nan)
    known_N = ~np.isnan(label_N)
    out_N[known_N] = places[label_N[known_N].astype(np.int64)]
    return out_N


def scores_in_common(map_: LabelMap, score_NS: np.ndarray, *, classes: Sequence[str], dataset: str) -> np.ndarray:
    """Probabilities [N, S] of a model's classes, summed to those [N, C] of the common ones and scaled to 1 where some have no place.

    Raises:
      UserError: the map of the dataset the model was trained on does not cover a class of the model.
    """
    out_NC = np.zeros((len(score_NS), len(map_.classes)))
    for s, name in enumerate(classes):
        place = map_.place(name, dataset=dataset)
        if place >= 0:
            out_NC[:, place] += score_NS[:, s]
    total_N1 = out_NC.sum(axis=1, keepdims=True)
    return np.divide(out_NC, total_N1, out=np.full_like(out_NC, 1 / len(map_.classes)), where=total_N1 > 0)


def check_common(maps: Sequence[tuple[str, LabelMap | None]]) -> None:
    """Raises UserError where the datasets of an external evaluation are not judged by one label. maps: (dataset, its map)."""
    first, known = maps[0]
    for name, map_ in maps[1:]:
        if (map_ is None) != (known is None) or (map_ is not None and (map_.label, map_.classes) != (known.label, known.classes)):
            raise UserError(f'{first} and {name} are not judged by one label: give both a label map to the same classes')
