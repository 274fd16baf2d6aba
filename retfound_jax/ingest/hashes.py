"""Fingerprints of pictures: exact, for copies, and perceptual, for the same photograph saved twice.

The perceptual hash has 256 bits. With 64, 628 of 5 million pairs of different patients' fundus photographs lie within 4 bits;
with 256, one lies within 10. A near pair is still a candidate, not a proof.
"""
from __future__ import annotations

import hashlib

import cv2
import numpy as np

from retfound_jax.ingest.fov import Fov

BITS = 256
_SIDE, _KEPT = 64, 16  # [px] of the grey copy; [coefficients] a side that are kept
_BLOCK = 1 << 22  # comparisons held in memory at once


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
    bits = np.frombuffer(bytes.fromhex(''.join(phashes)), np.uint8).reshape(len(phashes), BITS // 8)
    unique, first, inverse = np.unique(bits, axis=0, return_index=True, return_inverse=True)
    links = [(int(first[group]), i, 0) for i, group in enumerate(inverse.ravel()) if first[group] != i]
    words = np.ascontiguousarray(unique).view(np.uint64)
    planes = np.unpackbits(unique, axis=1)
    found: set[tuple[int, int, int]] = set()
    for band in range(threshold + 1):
        found.update(_band_pairs(words, np.packbits(planes[:, band::threshold + 1], axis=1), threshold=threshold))
    for a, b, distance in found:
        i, j = sorted((int(first[a]), int(first[b])))
        links.append((i, j, distance))
    return sorted(links)


def _band_pairs(words: np.ndarray, keys: np.ndarray, *, threshold: int) -> list[tuple[int, int, int]]:
    """Near pairs among rows that agree in one band. words: uint64 [n, 4]; keys: uint8 [n, k]."""
    order = np.lexsort(keys.T)
    changes = np.flatnonzero((keys[order][1:] != keys[order][:-1]).any(axis=1)) + 1
    starts, ends = np.concatenate([[0], changes]), np.concatenate([changes, [len(order)]])
    pairs = []
    for start, end in zip(starts, ends, strict=True):
        if end - start > 1:
            pairs += _near_within(words, order[start:end], threshold=threshold)
    return pairs


def _near_within(words: np.ndarray, rows: np.ndarray, *, threshold: int) -> list[tuple[int, int, int]]:
    """All pairs of `rows`, a bounded block at a time, so that a crowded bucket costs time and not memory."""
    pairs = []
    step = max(1, _BLOCK // len(rows))
    for start in range(0, len(rows), step):
        block = rows[start:start + step]
        differing = words[block][:, None] ^ words[rows[start:]][None]
        distance = np.bitwise_count(differing).sum(axis=2, dtype=np.uint16)
        near = np.argwhere(np.triu(distance <= threshold, 1))
        pairs += [(int(block[i]), int(rows[start + j]), int(distance[i, j])) for i, j in near]
    return pairs
