"""Pictures that are there twice, found by many workers: those that could be one are brought together, and only these are compared.

Copies share a hash, so a bucket of hashes is asked at a time. Pictures that look alike share a band of their perceptual hash
(`hashes.near_in_band`), so hashes are sent to a bucket for each band, packed, since they are eleven times as many.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from retfound_jax.ingest import duplicates, hashes
from retfound_jax.ingest.beam.job import Job, bucket
from retfound_jax.ingest.duplicates import Fingerprint, Pair

BLOCK, FIRST = 'block', 'first'
_BUCKET = 1 << 16  # [pictures] that one worker brings together, about 30 MB
_ROWS = 1 << 12  # [pictures] sent as one element
_BYTES = hashes.BITS // 8
_PAIR_FIELDS = tuple(field.name for field in dataclasses.fields(Pair))
Plain = tuple[str, str, str, str]  # a Fingerprint as it is sent


def buckets(files: int) -> int:
    """How many buckets of pictures or of hashes there are."""
    return max(1, -(-files // _BUCKET))


def by_pixels(image: Plain, *, job: Job) -> tuple[int, Plain]:
    """The bucket in which all copies of a picture come together."""
    return bucket(image[2], buckets(job.files)), image


def by_look(image: Plain, *, job: Job) -> tuple[int, Plain]:
    """The bucket in which all pictures of one perceptual hash come together."""
    return bucket(image[3], buckets(job.files)), image


def copies(element: tuple[int, Iterable[Plain]]) -> Iterator[tuple]:
    """The exact pairs of a bucket."""
    yield from map(_plain_pair, duplicates.exact_pairs(_ordered(element[1])))


def looks(element: tuple[int, Iterable[Plain]], *, job: Job) -> Iterator[Any]:
    """Of a bucket: the near pairs of one hash. The first picture of each hash goes on, tagged, and its hash to a block for each band."""
    from apache_beam.pvalue import TaggedOutput

    number, images = element
    firsts: dict[str, Fingerprint] = {}
    for image in _ordered(images):
        first = firsts.setdefault(image.phash, image)
        pair = duplicates.near_pair(first, image, distance=0)
        if pair:
            yield _plain_pair(pair)
    plain = [dataclasses.astuple(image) for image in firsts.values()]
    for begin in range(0, len(plain), _ROWS):
        yield TaggedOutput(FIRST, (number, plain[begin:begin + _ROWS]))
    rows = hashes.as_rows(list(firsts))
    for band in range(job.near_threshold + 1):
        for place, block in _dealt(rows, band=band, threshold=job.near_threshold, count=buckets(job.files)):
            yield TaggedOutput(BLOCK, ((band, place), block.tobytes()))


def near(element: tuple[tuple[int, int], Iterable[bytes]], *, job: Job) -> Iterator[tuple[int, tuple[str, str, str, int]]]:
    """Of one band's bucket: near hashes as (hash, pair), sent once to the bucket of either hash."""
    (band, _), blocks = element
    rows = np.frombuffer(b''.join(sorted(blocks)), np.uint8).reshape(-1, _BYTES)
    for i, j, distance in hashes.near_in_band(rows, band=band, threshold=job.near_threshold).tolist():
        a, b = sorted((rows[i].tobytes().hex(), rows[j].tobytes().hex()))
        for end in (a, b):
            yield bucket(end, buckets(job.files)), (end, a, b, distance)


def ends(element: tuple[int, dict[str, Iterable]]) -> Iterator[tuple[tuple[str, str, int], Plain]]:
    """Puts the first pictures of a bucket to the ends of pairs that lie in it."""
    _, found = element
    wanted = list(found['ends'])
    if wanted:
        firsts = {image[3]: tuple(image) for block in found['firsts'] for image in block}
        for end, a, b, distance in wanted:
            yield (a, b, distance), firsts[end]


def meet(element: tuple[tuple[str, str, int], Iterable[Plain]]) -> Iterator[tuple]:
    """The pair of two pictures that look alike, unless it counts for nothing."""
    (_, _, distance), images = element
    one, other = _ordered(images)
    pair = duplicates.near_pair(one, other, distance=distance)
    if pair:
        yield _plain_pair(pair)


def pair(values: Iterable[Any]) -> Pair:
    """A pair as it was sent."""
    return Pair(**dict(zip(_PAIR_FIELDS, values, strict=True)))


def places_of(keys: np.ndarray, *, count: int) -> np.ndarray:
    """The bucket, of `count`, of each row of bits: uint8 [n, k] to int64 [n]."""
    mixed = np.zeros(len(keys), np.uint64)
    for column in keys.T:
        mixed = (mixed + column + 1) * np.uint64(0x9E3779B97F4A7C15)  # wraps around: an odd factor spreads the bits upwards
    return ((mixed >> np.uint64(32)) % np.uint64(count)).astype(np.int64)


def _dealt(rows: np.ndarray, *, band: int, threshold: int, count: int) -> Iterator[tuple[int, np.ndarray]]:
    """Rows by the bucket of their bits in a band: rows that agree in it meet."""
    if not len(rows):
        return
    places = places_of(hashes.band_keys(rows, band=band, threshold=threshold), count=count)
    order = np.argsort(places, kind='stable')
    starts = np.flatnonzero(np.diff(places[order], prepend=-1))
    for begin, end in zip(starts, [*starts[1:], len(order)], strict=True):
        yield int(places[order[begin]]), rows[order[begin:end]]


def _ordered(images: Iterable[Plain]) -> list[Fingerprint]:
    return sorted(Fingerprint(key=key, patient=patient, pixel_sha256=pixels, phash=look) for key, patient, pixels, look in images)


def _plain_pair(pair: Pair) -> tuple:
    return dataclasses.astuple(pair)
