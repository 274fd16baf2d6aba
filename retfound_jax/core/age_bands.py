"""Bands of age, as everything that groups people by age uses them."""

from __future__ import annotations

import numpy as np

AGE_BANDS = ('<40', '40-49', '50-59', '60-69', '>=70')
_EDGES = (40, 50, 60, 70)  # [years]


def age_band(age_N: np.ndarray) -> np.ndarray:
    """The band of each age [years], '' where it is missing."""
    age_N = np.asarray(age_N, np.float64)
    return np.where(np.isnan(age_N), '', np.asarray(AGE_BANDS)[np.digitize(age_N, _EDGES)])
