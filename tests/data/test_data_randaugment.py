"""RandAugment: each operation by hand, and the chances by count."""

from __future__ import annotations

import numpy as np
import pytest
from data_sets import picture
from PIL import Image

from retfound_jax.core.random import example_rng
from retfound_jax.data import randaugment
from retfound_jax.data.randaugment import OPERATIONS, rand_augment

FILL = (1, 2, 3)


def apply(name: str, image: np.ndarray, *, level: float, sign: int = 1) -> np.ndarray:
    """One operation at a level of 0 to 1."""
    draw = randaugment._Draw(level=level, sign=sign, fill=FILL)
    return np.asarray(OPERATIONS[name](Image.fromarray(image), draw)).astype(int)


@pytest.mark.parametrize(
    'name', ['rotate', 'shear_x', 'shear_y', 'translate_x', 'translate_y', 'color', 'contrast', 'brightness', 'sharpness']
)
def test_at_level_zero_nothing_moves(name: str) -> None:
    assert (apply(name, picture(0), level=0.0) == picture(0)).all()


def test_values_by_hand() -> None:
    image = picture(1)
    wide = image.astype(int)
    assert (apply('invert', image, level=0.3) == 255 - wide).all()
    assert (apply('posterize', image, level=0.9) == wide // 128 * 128).all()  # 4 - int(3.6) = 1 bit is kept
    assert (apply('posterize', image, level=1.0) == 0).all()
    assert (apply('solarize', image, level=0.5) == np.where(wide < 128, wide, 255 - wide)).all()
    assert (apply('solarize_add', image, level=0.9) == np.where(wide < 128, np.minimum(wide + 99, 255), wide)).all()
    assert np.abs(apply('brightness', image, level=0.9, sign=-1) - wide * 0.19).max() <= 1
    assert np.abs(apply('brightness', image, level=0.5) - np.minimum(wide * 1.45, 255)).max() <= 1


def test_geometry_by_hand() -> None:
    image = picture(1, height=40, width=40)
    moved = apply('translate_x', image, level=0.5)  # by 0.5 x 0.45 x 40 = 9 px
    assert (moved[:, :31] == image[:, 9:]).all() and (moved[:, 31:] == FILL).all()
    moved = apply('translate_y', image, level=0.5, sign=-1)
    assert (moved[9:] == image[:31]).all() and (moved[:9] == FILL).all()
    turned = np.asarray(Image.fromarray(image).rotate(-27, Image.Resampling.BICUBIC, fillcolor=FILL))
    assert (apply('rotate', image, level=0.9, sign=-1) == turned).all()


def test_half_of_the_layers_do_nothing() -> None:
    image = picture(4)
    same = [(rand_augment(image, rng=example_rng(0, 0, index), magnitude=9.0, fill=FILL) == image).all() for index in range(1500)]
    # Both layers pass with a chance of one in four; a few operations also happen to change nothing.
    assert 0.22 < np.mean(same) < 0.31


def test_there_are_fifteen_operations_and_all_occur(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[float]] = {}

    def spy(name: str) -> randaugment.Operation:
        return lambda image, draw: (seen.setdefault(name, []).append(10 * draw.level), image)[1]

    monkeypatch.setattr(randaugment, 'OPERATIONS', {name: spy(name) for name in OPERATIONS})
    for index in range(1500):
        rand_augment(picture(0, height=9, width=9), rng=example_rng(0, 0, index), magnitude=9.0, fill=FILL)
    levels = np.concatenate(list(seen.values()))
    assert len(seen) == len(OPERATIONS) == 15
    assert abs(len(levels) - 1500) < 4 * np.sqrt(3000 / 4)  # two layers, each half of the time
    assert abs(np.median(levels) - 9) < 0.1 and 0.4 < levels.std() < 0.5 and levels.max() == 10  # clipped at the top
