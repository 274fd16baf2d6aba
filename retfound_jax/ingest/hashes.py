"""Fingerprints of pictures: exact, for copies, and perceptual, for the same photograph saved twice.

The perceptual hash has 256 bits. With 64, 628 of 5 million pairs of different patients' fundus photographs lie within 4 bits;
with 256, one lies within 10. A near pair is still a candidate, not a proof.
"""
from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from retfound_jax.ingest.fov import Fov

BITS = 256
_SIDE, _KEPT = 64, 16  # [px] of the grey copy; [coefficients] a side that are kept
_BLOCK = 1 << 22  # comparisons held in memory at once
_FEW, _CROWD = 32, 1024  # [hashes] in a bucket: up to the one all buckets are compared at once, above the other they are parted again


def pixel_sha256(pixels: np.ndarray) -> str:
    """Hex digest over size and pixels, uint8 [height, width, 3], as decoded.

    Equal for copies of a file, and for one picture in two lossless containers. A JPEG decoded at a reduced scale is hashed at
    that scale: its copies still agree, whatever their names or headers, but it never equals a lossless copy of its full-size
    pixels; that pair is near, not exact.
    """
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def phash256(pixels: np.ndarray, *, fov: Fov | None = None) -> str:
    """64 hex digits of uint8 RGB [height, width, 3]: which of the 16 x 16 lowest frequencies of a 64 px grey copy exceed their median.

    The copy is sampled over the circle's exact square, or over the whole picture padded to a square. Cutting at whole pixels first would
    move the copy by fractions of a pixel with every change of size or margin, and half of all re-saved photographs would be missed.
    """
    height, width = pixels.shape[:2]
    if fov is None:
        fov = Fov(cx=width / 2 - 0.5, cy=height / 2 - 0.5, radius=max(height, width) / 2)
    factor = min(1.0, 2 * _SIDE / fov.radius)
    fov = fov.scaled(factor)
    step = 2 * fov.radius / _SIDE
    grey = cv2.cvtColor(cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    grey = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), max(0.3, step / 2))
    offset = (np.arange(_SIDE) + 0.5 - _SIDE / 2) * step
    x, y = np.meshgrid((fov.cx + offset).astype(np.float32), (fov.cy + offset).astype(np.float32))
    copy = cv2.remap(grey, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    low = cv2.dct(copy.astype(np.float64))[:_KEPT, :_KEPT].ravel()
    return np.packbits(low > np.median(low)).tobytes().hex()


def hamming(a: str, b: str) -> int:
    """Number of differing bits of two hex strings of one length."""
    if len(a) != len(b):
        raise ValueError(f'hashes of {4 * len(a)} and {4 * len(b)} bits cannot be compared')
    return (int(a, 16) ^ int(b, 16)).bit_count()


def near_pairs(phashes: list[str], *, threshold: int = 10) -> list[tuple[int, int, int]]:
    """Sorted (i, j, distance), i < j, of hashes within `threshold` bits. No near pair is missed.

    Equal hashes are linked to their first occurrence only, and near ones by their first occurrences: ten thousand copies of one
    picture give ten thousand links, not fifty million, and the connected groups are the same.

    The bits are dealt to threshold + 1 bands in turn. Two hashes within the threshold leave at least one band untouched, so
    only hashes equal in a band are compared.
    """
    if not phashes:
        return []
    unique, first, inverse = np.unique(as_rows(phashes), axis=0, return_index=True, return_inverse=True)
    links = [(int(first[group]), i, 0) for i, group in enumerate(inverse.ravel()) if first[group] != i]
    for band in range(threshold + 1):
        for a, b, distance in near_in_band(unique, band=band, threshold=threshold).tolist():
            links.append((*sorted((int(first[a]), int(first[b]))), distance))
    return sorted(links)


def near_across(phashes: Sequence[str], others: Sequence[str], *, threshold: int = 10) -> list[tuple[int, int, int]]:
    """Sorted (i, j, distance) of phashes[i] and others[j] within `threshold` bits. No near pair is missed.

    Equal hashes of one list count by their first occurrence, as in `near_pairs`; pairs within a list are left out.
    """
    if not phashes or not others:
        return []
    unique, inverse = np.unique(as_rows([*phashes, *others]), axis=0, return_inverse=True)
    first = np.full((2, len(unique)), -1)  # of each hash in each list
    for row, groups in enumerate((inverse.ravel()[:len(phashes)], inverse.ravel()[len(phashes):])):
        first[row, groups[::-1]] = np.arange(len(groups))[::-1]
    both = np.flatnonzero((first >= 0).all(axis=0))
    bands = [near_in_band(unique, band=band, threshold=threshold) for band in range(threshold + 1)]
    a, b, distance = np.concatenate([np.stack([both, both, 0 * both], axis=1), *bands, *(band[:, [1, 0, 2]] for band in bands)]).T
    across = (first[0, a] >= 0) & (first[1, b] >= 0)
    found = {*zip(first[0, a][across].tolist(), first[1, b][across].tolist(), distance[across].tolist(), strict=True)}
    return sorted(found)


def as_rows(phashes: Sequence[str]) -> np.ndarray:
    """Hex strings as uint8 [n, 32]."""
    return np.frombuffer(bytes.fromhex(''.join(phashes)), np.uint8).reshape(len(phashes), BITS // 8)


def band_keys(rows: np.ndarray, *, band: int, threshold: int) -> np.ndarray:
    """The bits of one of the threshold + 1 bands, packed: uint8 [n, k] of uint8 [n, 32]."""
    return np.packbits(np.unpackbits(rows, axis=1)[:, band::threshold + 1], axis=1)


def near_in_band(rows: np.ndarray, *, band: int, threshold: int) -> np.ndarray:
    """int64 [m, 3] of (i, j, distance), i < j: rows within the threshold that agree in `band` and in no band before it.

    Over all bands each near pair comes once, so that bands can be worked on apart. rows: uint8 [n, 32], no two equal.
    """
    if len(rows) < 2:
        return np.zeros((0, 3), np.int64)
    words, planes = np.ascontiguousarray(rows).view(np.uint64), np.unpackbits(rows, axis=1)
    order, sizes = _buckets(planes[:, band::threshold + 1])
    found = [_near_in_buckets(words, order, sizes, threshold=threshold, most=_CROWD)]
    for end, size in zip(np.cumsum(sizes)[sizes > _CROWD], sizes[sizes > _CROWD], strict=True):
        found += _near_in_crowd(words, planes, order[end - size:end], threshold=threshold)
    pairs = np.unique(np.concatenate(found), axis=0)
    for before in range(band):
        apart = (planes[pairs[:, 0], before::threshold + 1] != planes[pairs[:, 1], before::threshold + 1]).any(axis=1)
        pairs = pairs[apart]
    return pairs


def _buckets(planes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows in an order in which equal ones are together, and how many are equal each time. planes: uint8 [n, k] of 0 and 1."""
    keys = np.packbits(planes, axis=1)
    order = np.lexsort(keys.T)
    changes = np.flatnonzero((keys[order][1:] != keys[order][:-1]).any(axis=1)) + 1
    return order, np.diff(np.concatenate([[0], changes, [len(order)]]))


def _near_in_crowd(words: np.ndarray, planes: np.ndarray, rows: np.ndarray, *, threshold: int) -> Iterator[np.ndarray]:
    """Near pairs of many rows, some more than once: they are parted by neighbouring bits, or the time would grow with their square."""
    for columns in np.array_split(np.arange(BITS), threshold + 1):
        order, sizes = _buckets(planes[rows[:, None], columns])
        yield _near_in_buckets(words, rows[order], sizes, threshold=threshold, most=len(rows))


def _near_in_buckets(words: np.ndarray, order: np.ndarray, sizes: np.ndarray, *, threshold: int, most: int) -> np.ndarray:
    """Near pairs within all buckets of up to `most` rows."""
    found = [_near_neighbours(words, order, sizes, threshold=threshold)]
    some = (sizes > _FEW) & (sizes <= most)
    for end, size in zip(np.cumsum(sizes)[some], sizes[some], strict=True):
        found.append(_compare(words, np.sort(order[end - size:end]), threshold=threshold))
    return np.concatenate(found)


def _near_neighbours(words: np.ndarray, order: np.ndarray, sizes: np.ndarray, *, threshold: int) -> np.ndarray:
    """Near pairs within all buckets of up to `_FEW` rows: each row beside the next, the next but one, and so on."""
    few = np.repeat((sizes > 1) & (sizes <= _FEW), sizes)
    bucket, order = np.repeat(np.arange(len(sizes)), sizes)[few], order[few]
    found = [np.zeros((0, 3), np.int64)]
    for lag in range(1, min(_FEW, int(sizes.max()))):
        here = np.flatnonzero(bucket[lag:] == bucket[:-lag])
        a, b = order[here], order[here + lag]
        distance = np.bitwise_count(words[a] ^ words[b]).sum(axis=1, dtype=np.int64)
        near = distance <= threshold
        found.append(np.stack([np.minimum(a, b)[near], np.maximum(a, b)[near], distance[near]], axis=1))
    return np.concatenate(found)


def _compare(words: np.ndarray, rows: np.ndarray, *, threshold: int) -> np.ndarray:
    """Near pairs of `rows`, a bounded block at a time, so that a crowded bucket costs time and not memory."""
    found = []
    step = max(1, _BLOCK // len(rows))
    for start in range(0, len(rows), step):
        block, after = rows[start:start + step], rows[start:]
        distance = np.bitwise_count(words[block][:, None] ^ words[after][None]).sum(axis=2, dtype=np.uint16)
        i, j = np.nonzero(np.triu(distance <= threshold, 1))
        found.append(np.stack([block[i], after[j], distance[i, j].astype(np.int64)], axis=1))
    return np.concatenate(found)
