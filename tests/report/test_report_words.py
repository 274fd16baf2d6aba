"""Numbers and names as a reader sees them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retfound_jax.report import words


@pytest.mark.parametrize(
    ('value', 'metric', 'shown'),
    [
        (0.94321, 'AUROC', '.943'),
        (1.0, 'AUROC', '1.000'),
        (0.99961, 'AUROC', '1.000'),
        (0.0, 'sensitivity', '.000'),
        (-0.1204, 'kappa_quadratic', '−.120'),
        (-0.0001, 'R2', '.000'),
        (-1.25, 'R2', '−1.250'),
        (None, 'AUROC', '–'),
        (math.nan, 'MAE', '–'),
        (6.2149, 'MAE', '6.21'),
        (62.149, 'MAE', '62.1'),
        (12345.6, 'MAE', '12\u202f346'),
        (0.000548, '', '0.000548'),
        (5.48e-7, '', '5.48e−7'),
        (0.0, '', '0'),
    ],
)
def test_number(value: float | None, metric: str, shown: str) -> None:
    assert words.number(value, metric=metric) == shown


@pytest.mark.parametrize(
    ('numbers', 'metric', 'shown'),
    [
        ((0.943, 0.921, 0.962), 'AUROC', '.943 (.921–.962)'),
        ((0.05, -0.02, 0.11), 'AUROC', '.050 (−.020 to .110)'),
        ((4.2, 3.9, 4.6), 'MAE', '4.20 (3.90–4.60)'),
        ((0.0163, -0.735, 0.841), 'MAE', '0.016 (−0.735 to 0.841)'),
        ((9.96, 8.0, 12.04), 'MAE', '10.0 (8.0–12.0)'),
        ((0.943, None, None), 'AUROC', '.943'),
        ((None, None, None), 'AUROC', '–'),
    ],
)
def test_interval(numbers: tuple[float | None, ...], metric: str, shown: str) -> None:
    assert words.interval(*numbers, metric=metric) == shown


@given(st.floats(), st.sampled_from(['AUROC', 'MAE', 'R2', '']))
def test_any_number_is_short_and_has_a_true_minus(value: float, metric: str) -> None:
    shown = words.number(value, metric=metric)
    assert shown and '-' not in shown and 'nan' not in shown and 'inf' not in shown
    if abs(value) < 1e9:
        assert len(shown) <= 14


def test_shares_are_never_rounded_to_none_or_all() -> None:
    shown = [words.percent(part, 1000) for part in (0, 1, 5, 500, 999, 1000)]
    assert [one.replace('\u202f', ' ') for one in shown] == ['0 %', '<1 %', '0 %', '50 %', '>99 %', '100 %']
    assert words.percent(0, 0) == '–'


def test_counts_spans_and_lists() -> None:
    assert words.count(1234567) == '1\u202f234\u202f567'
    assert (words.plural(1, 'patient'), words.plural(2, 'patient')) == ('1 patient', '2 patients')
    assert (words.duration(42), words.duration(600), words.duration(9000), words.duration(None)) == (
        '42 seconds', '10 minutes', '2.5 hours', 'not recorded',
    )  # fmt: skip
    assert (words.joined('a'), words.joined('abc'), words.joined('')) == ('a', 'a, b and c', '')
    assert words.by_name('sex+age_band') == 'Sex and age'


def test_long_names_are_cut_in_the_middle() -> None:
    cut = words.short('proliferative diabetic retinopathy, left eye', limit=20)
    assert len(cut) == 20 and cut.startswith('prolif') and cut.endswith('eye') and '…' in cut


def test_control_and_direction_characters_are_replaced() -> None:
    assert words.clean('a\x00b\u202ec\ud800\n') == 'a\ufffdb\ufffdc\ufffd\n'
    assert words.nice('>=2') == '≥2'
