"""The same photograph under two patient ids: found by pixels and by perceptual hash, and its patients joined for splitting."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

from retfound_jax.core.files import csv_text
from retfound_jax.ingest.hashes import near_pairs

NEAR_THRESHOLD = 10  # [bits of 256]


@dataclasses.dataclass(frozen=True, kw_only=True, order=True)
class Fingerprint:
    """One image as duplicates are sought: sorted by key."""

    key: str
    patient: str
    pixel_sha256: str
    phash: str


@dataclasses.dataclass(frozen=True, kw_only=True, order=True)
class Pair:
    """Two images that are one. Several copies are each linked to the first of them by key."""

    key_a: str
    key_b: str
    patient_a: str
    patient_b: str
    kind: str  # exact, near
    distance: int  # [bits]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Duplicates:
    """What was found. A near pair is a candidate, but joining its patients is the safe side: nothing can leak."""

    pairs: tuple[Pair, ...]
    groups: dict[str, str]  # patient to the smallest patient id that it is joined with, its own where there is none

    @property
    def joined_patients(self) -> int:
        """How many patients share a group with another."""
        sizes: dict[str, int] = {}
        for group in self.groups.values():
            sizes[group] = sizes.get(group, 0) + 1
        return sum(size for size in sizes.values() if size > 1)

    def clusters(self, kind: str) -> int:
        """How many sets of images are linked by pairs of one kind."""
        pairs = [(pair.key_a, pair.key_b) for pair in self.pairs if pair.kind == kind]
        return len(set(_smallest({key for pair in pairs for key in pair}, pairs).values()))

    def to_csv(self) -> str:
        """The pairs as a table."""
        return csv_text([[field.name for field in dataclasses.fields(Pair)], *map(dataclasses.astuple, self.pairs)])


def find(images: Sequence[Fingerprint], *, threshold: int = NEAR_THRESHOLD) -> Duplicates:
    """Exact pairs of any patients, and near pairs (Hamming distance at most `threshold` bits) of different patients."""
    ordered = sorted(images)
    near = near_pairs([image.phash for image in ordered], threshold=threshold)
    pairs = [*exact_pairs(ordered), *filter(None, (near_pair(ordered[i], ordered[j], distance=distance) for i, j, distance in near))]
    return join(pairs, patients={image.patient for image in ordered})


def join(pairs: Iterable[Pair], *, patients: Iterable[str] = ()) -> Duplicates:
    """Groups the patients of the pairs. patients: others, each a group of its own."""
    pairs = sorted(pairs)
    across = [(pair.patient_a, pair.patient_b) for pair in pairs if pair.patient_a != pair.patient_b]
    return Duplicates(pairs=tuple(pairs), groups=_smallest({*patients, *itertools.chain(*across)}, across))


def exact_pairs(ordered: Iterable[Fingerprint]) -> Iterable[Pair]:
    """Links each copy to the first picture of the same pixels. ordered: by key, and with all copies of those that are in it."""
    first: dict[str, Fingerprint] = {}
    for image in ordered:
        other = first.setdefault(image.pixel_sha256, image)
        if other is not image:
            yield _pair(other, image, kind='exact', distance=0)


def near_pair(a: Fingerprint, b: Fingerprint, *, distance: int) -> Pair | None:
    """The pair of two pictures that look alike, the smaller key first; None for one patient's, and for exact copies."""
    if a.patient == b.patient or a.pixel_sha256 == b.pixel_sha256:
        return None
    return _pair(*sorted((a, b)), kind='near', distance=distance)


def _pair(a: Fingerprint, b: Fingerprint, *, kind: str, distance: int) -> Pair:
    return Pair(key_a=a.key, key_b=b.key, patient_a=a.patient, patient_b=b.patient, kind=kind, distance=distance)


def _smallest(members: Iterable[str], links: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Union-find in which the smallest name of a set is its root: member to root."""
    parent = {member: member for member in members}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for a, b in links:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return {member: root(member) for member in parent}
