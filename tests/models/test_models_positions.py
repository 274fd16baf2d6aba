"""Position tables against the closed form, and resampling against OpenCV's bicubic and values worked by hand."""

from __future__ import annotations

import cv2
import models_reference as reference
import numpy as np
import pytest

from retfound_jax.core.errors import UsageError
from retfound_jax.models.positions import resample, sincos_2d


@pytest.mark.parametrize(('width', 'grid'), [(8, 3), (192, 6), (1024, 14)])
def test_sincos_equals_closed_form(width: int, grid: int) -> None:
    table = sincos_2d(width, grid=grid)
    assert table.dtype == np.float32
    np.testing.assert_array_equal(table[0], np.zeros(width))
    np.testing.assert_allclose(table[1:], reference.table(width, grid), atol=1e-6)


def test_sincos_by_hand() -> None:
    """Width 8, patch at row 2, column 1: sin and cos of 1 and .01, then of 2 and .02."""
    want = [np.sin(1), np.sin(0.01), np.cos(1), np.cos(0.01), np.sin(2), np.sin(0.02), np.cos(2), np.cos(0.02)]
    np.testing.assert_allclose(sincos_2d(8, grid=3)[1 + 2 * 3 + 1], want, atol=1e-7)


def test_sincos_table_cannot_be_changed_by_a_caller() -> None:
    with pytest.raises(ValueError, match='read-only'):
        sincos_2d(8, grid=3)[0] = 1


@pytest.mark.parametrize(('old', 'new'), [(14, 16), (14, 24), (6, 14), (16, 8)])
def test_resample_equals_opencv(old: int, new: int) -> None:
    """INTER_CUBIC: half-pixel centres, a = -0.75, repeated borders, no antialiasing."""
    table = np.random.default_rng(0).normal(size=(1 + old * old, 4)).astype(np.float32)
    out = resample(table, grid=new)
    want = cv2.resize(table[1:].reshape(old, old, 4), (new, new), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(out[0], table[0])
    np.testing.assert_allclose(out[1:].reshape(new, new, 4), want, atol=2e-5)


def test_resample_by_hand() -> None:
    """Two to four: the first new centre is at -0.25, the weights of its four taps -.140625, .. with the border repeated."""
    a = -0.75
    far, near = (lambda x: a * (x**3 - 5 * x**2 + 8 * x - 4)), (lambda x: (a + 2) * x**3 - (a + 3) * x**2 + 1)
    right = far(1.25)  # the tap on sample 1; the three others fall on sample 0
    assert far(1.75) + near(0.75) + near(0.25) + right == pytest.approx(1)
    table = np.array([[9.0], [0.0], [1.0], [0.0], [1.0]])  # value 1 in the right column
    np.testing.assert_allclose(resample(table, grid=4)[1:5, 0][0], right, rtol=1e-6)


def test_resample_keeps_the_same_grid_and_refuses_a_ragged_one() -> None:
    table = np.zeros((1 + 9, 4))
    assert resample(table, grid=3) is table
    bare = table[1:]
    assert resample(bare, grid=3) is bare
    with pytest.raises(UsageError, match='table of 8 positions'):
        resample(table[2:], grid=3)
