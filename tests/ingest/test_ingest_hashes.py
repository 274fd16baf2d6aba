"""Copies are found, strangers are not, and no near pair is missed."""
from __future__ import annotations

import itertools
import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_ingest_fov import disc

from retfound_jax.ingest import hashes
from retfound_jax.ingest.fov import Fov

HASH = st.binary(min_size=32, max_size=32)


def near(bits: bytes, flips: list[int]) -> str:
    number = int.from_bytes(bits)
    for flip in flips:
        number ^= 1 << flip
    return number.to_bytes(32).hex()


def brute(phashes: list[str], threshold: int) -> list[tuple[int, int, int]]:
    pairs = itertools.combinations(range(len(phashes)), 2)
    return [(i, j, d) for i, j in pairs if (d := hashes.hamming(phashes[i], phashes[j])) <= threshold]


def groups(count: int, pairs: list[tuple[int, int, int]]) -> list[int]:
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    for i, j, _ in pairs:
        a, b = sorted((root(i), root(j)))
        parent[b] = a
    return [root(i) for i in range(count)]


@settings(max_examples=60, deadline=None)
@given(centres=st.lists(HASH, min_size=1, max_size=3),
       flips=st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(0, 255), max_size=14)), max_size=30), threshold=st.integers(0, 20))
def test_no_near_pair_is_missed(centres: list[bytes], flips: list, threshold: int) -> None:
    """Distinct hashes: exactly the brute-force list. With copies: the same groups, and only true pairs."""
    every = [near(centres[which % len(centres)], where) for which, where in flips]
    distinct = list(dict.fromkeys(every))
    assert hashes.near_pairs(distinct, threshold=threshold) == brute(distinct, threshold)
    found = hashes.near_pairs(every, threshold=threshold)
    assert set(found) <= set(brute(every, threshold))
    assert groups(len(every), found) == groups(len(every), brute(every, threshold))


@settings(max_examples=30)
@given(st.lists(HASH, min_size=1, max_size=4), st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 255), max_size=14))),
       st.integers(0, 12), st.integers(0, 20))
def test_no_pair_across_two_lists_is_missed(centres: list[bytes], flips: list, threshold: int, cut: int) -> None:
    drawn = [near(centres[which % len(centres)], bits) for which, bits in flips]
    a, b = drawn[:cut], drawn[cut:]
    firsts = [{name: i for i, name in reversed([*enumerate(names)])} for names in (a, b)]
    brutally = sorted((i, j, d) for x, i in firsts[0].items() for y, j in firsts[1].items() if (d := hashes.hamming(x, y)) <= threshold)
    assert hashes.near_across(a, b, threshold=threshold) == brutally


def test_no_hashes_and_one() -> None:
    assert hashes.near_pairs([]) == hashes.near_pairs(['0' * 64]) == []


def test_many_copies_and_a_crowded_band_stay_small() -> None:
    assert len(hashes.near_pairs(['ab' * 32] * 20_000)) == 19_999
    rng = np.random.default_rng(0)
    bits = (rng.random((2500, 256)) < 0.5)
    bits[:, ::11] = False  # all agree in one band
    crowd = [row.tobytes().hex() for row in np.packbits(bits, axis=1)]
    tracemalloc.start()
    assert hashes.near_pairs(crowd) == []
    assert tracemalloc.get_traced_memory()[1] < 600e6
    tracemalloc.stop()


def test_a_crowd_is_parted_without_losing_a_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    bits = np.repeat(rng.random((3, 256)) < 0.5, 60, axis=0)
    for row in bits:
        row[rng.choice(256, rng.integers(0, 9), replace=False)] ^= True
    copies = [row.tobytes().hex() for row in np.packbits(bits, axis=1)]
    firsts = sorted({copy: place for place, copy in reversed(list(enumerate(copies)))}.values())
    wanted = [(copies.index(copy), place, 0) for place, copy in enumerate(copies) if copies.index(copy) != place]
    wanted += [(i, j, d) for i in firsts for j in firsts if i < j and (d := hashes.hamming(copies[i], copies[j])) <= 10]
    for few, crowd in ((32, 1024), (4, 1024), (4, 16), (2, 2)):
        monkeypatch.setattr(hashes, '_FEW', few)
        monkeypatch.setattr(hashes, '_CROWD', crowd)
        assert hashes.near_pairs(copies) == sorted(wanted)


@given(a=HASH, b=HASH)
def test_hamming_is_a_distance(a: bytes, b: bytes) -> None:
    apart = sum((x ^ y).bit_count() for x, y in zip(a, b, strict=True))
    assert hashes.hamming(a.hex(), b.hex()) == hashes.hamming(b.hex(), a.hex()) == apart
    assert hashes.hamming(a.hex(), a.hex()) == 0


def test_hashes_of_two_lengths_are_not_compared() -> None:
    with pytest.raises(ValueError, match='bits cannot be compared'):
        hashes.hamming('00', '0000')


def test_pixel_hash_depends_on_pixels_and_size_alone() -> None:
    pixels = disc(height=60, width=60, cx=30, cy=30, radius=25)
    assert hashes.pixel_sha256(pixels) == hashes.pixel_sha256(np.asfortranarray(pixels))
    assert hashes.pixel_sha256(pixels) != hashes.pixel_sha256(pixels.reshape(30, 120, 3))
    other = pixels.copy()
    other[3, 3, 0] ^= 1
    assert hashes.pixel_sha256(pixels) != hashes.pixel_sha256(other)


def test_perceptual_hash_survives_saving_and_tells_pictures_apart() -> None:
    one = disc(height=400, width=400, cx=199.5, cy=199.5, radius=200, seed=1)
    saved = cv2.imdecode(cv2.imencode('.jpg', one, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR)
    small = cv2.resize(one, (256, 256), interpolation=cv2.INTER_AREA)
    other = disc(height=400, width=400, cx=199.5, cy=199.5, radius=200, seed=2)
    margin = cv2.copyMakeBorder(one, 30, 50, 70, 80, cv2.BORDER_CONSTANT)
    first = hashes.phash256(one, fov=Fov(cx=199.5, cy=199.5, radius=200))
    assert len(first) == 64 and first == hashes.phash256(one)
    assert max(hashes.hamming(first, hashes.phash256(copy)) for copy in (saved, small)) <= 10
    assert hashes.hamming(first, hashes.phash256(margin, fov=Fov(cx=269.5, cy=229.5, radius=200))) <= 4
    assert hashes.hamming(first, hashes.phash256(other)) > 30
