"""The same photograph under two patient ids joins the two."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from retfound_jax.ingest import duplicates
from retfound_jax.ingest.duplicates import Fingerprint


def _image(key: str, patient: str, *, pixels: str = '', bits: int = 0) -> Fingerprint:
    return Fingerprint(key=key, patient=patient, pixel_sha256=pixels or key, phash=f'{bits:064x}')


def _far(place: int) -> int:
    return int(f'{place + 1:02x}' * 32, 16) ^ (0xFFFF << 16 * place)


def test_equal_pixels_join_patients_and_are_listed_once() -> None:
    found = duplicates.find([_image('b', '9', pixels='same'), _image('a', '10', pixels='same'), _image('c', '3', bits=_far(2))])
    (pair,) = found.pairs
    assert (pair.key_a, pair.key_b, pair.patient_a, pair.patient_b, pair.kind, pair.distance) == ('a', 'b', '10', '9', 'exact', 0)
    assert found.groups == {'10': '10', '9': '10', '3': '3'} and found.joined_patients == 2
    assert (found.clusters('exact'), found.clusters('near')) == (1, 0)


def test_near_pictures_join_patients_up_to_the_threshold() -> None:
    images = [_image('a', '1'), _image('b', '2', bits=0x3FF), _image('c', '3', bits=_far(1)), _image('d', '4', bits=_far(1) ^ 0x7FF)]
    found = duplicates.find(images, threshold=10)
    assert [(pair.key_a, pair.key_b, pair.kind, pair.distance) for pair in found.pairs] == [('a', 'b', 'near', 10)]
    assert found.groups == {'1': '1', '2': '1', '3': '3', '4': '4'}


def test_one_patient_may_have_near_pictures_and_exact_ones_are_still_listed() -> None:
    found = duplicates.find([_image('a', '1', pixels='x'), _image('b', '1', pixels='x'), _image('c', '1', bits=1)])
    assert [(pair.key_a, pair.key_b, pair.kind) for pair in found.pairs] == [('a', 'b', 'exact')] and found.joined_patients == 0


def test_joining_is_transitive_and_named_by_the_smallest() -> None:
    images = [_image('a', 'p3', pixels='x'), _image('b', 'p2', pixels='x'), _image('c', 'p2', pixels='y', bits=_far(1)),
              _image('d', 'p1', pixels='y', bits=_far(1))]
    assert duplicates.find(images).groups == {'p1': 'p1', 'p2': 'p1', 'p3': 'p1'}


_images = st.lists(st.tuples(st.sampled_from('pqrs'), st.sampled_from('xyz'), st.sampled_from([0, 1, 3, 2**200 - 1])), max_size=12)


@given(_images, st.randoms())
def test_groups_hold_together_whatever_looks_alike_in_any_order(rows: list[tuple[str, str, int]], random: object) -> None:
    images = [_image(f'k{place}', patient, pixels=pixels, bits=bits) for place, (patient, pixels, bits) in enumerate(rows)]
    found = duplicates.find(images)
    for a, b in itertools.combinations(images, 2):
        if a.pixel_sha256 == b.pixel_sha256 or (int(a.phash, 16) ^ int(b.phash, 16)).bit_count() <= 10:
            assert found.groups[a.patient] == found.groups[b.patient]
    random.shuffle(images)
    assert duplicates.find(images) == found


def test_the_list_is_a_table() -> None:
    found = duplicates.find([_image('a,1', 'p', pixels='x'), _image('b', 'q', pixels='x')])
    assert found.to_csv() == 'key_a,key_b,patient_a,patient_b,kind,distance\n"a,1",b,p,q,exact,0\n'
