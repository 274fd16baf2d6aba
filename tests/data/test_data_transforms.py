"""Crops with torchvision's semantics, and resizing beside Pillow."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from data_sets import jpeg, picture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from retfound_jax.core.random import example_rng
from retfound_jax.data import transforms
from retfound_jax.data.config import DataConfig
from retfound_jax.data.decode import open_image
from retfound_jax.data.transforms import Box, crop_resize, eval_image, random_box, resize, train_image


def pillow_crop(data: bytes, box: Box, size: int) -> np.ndarray:
    """What torchvision's `resized_crop` gives on a Pillow image."""
    image = Image.open(io.BytesIO(data)).crop((box.left, box.top, box.left + box.width, box.top + box.height))
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)).astype(int)


@given(
    height=st.integers(1, 600),
    width=st.integers(1, 600),
    scale=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted).map(tuple),
    seed=st.integers(0, 2**32),
)
def test_a_box_lies_in_the_image(height: int, width: int, scale: tuple[float, float], seed: int) -> None:
    box = random_box(np.random.default_rng(seed), height=height, width=width, scale=scale)
    assert box.height >= 1 and box.width >= 1
    assert 0 <= box.top <= height - box.height
    assert 0 <= box.left <= width - box.width


def test_boxes_of_a_square_have_the_wanted_areas_and_ratios() -> None:
    rng = np.random.default_rng(0)
    boxes = [random_box(rng, height=1000, width=1000, scale=(0.2, 0.5)) for _ in range(4000)]
    areas = np.array([box.height * box.width / 1e6 for box in boxes])
    logs = np.log([box.width / box.height for box in boxes])
    assert areas.min() > 0.198 and areas.max() < 0.502  # nothing of this size fails to fit, so the draw is uniform
    assert abs(areas.mean() - 0.35) < 4 * 0.3 / math.sqrt(12 * 4000)
    assert abs(logs).max() < math.log(4 / 3) + 0.005
    assert abs(logs.mean()) < 4 * 2 * math.log(4 / 3) / math.sqrt(12 * 4000)
    tops = np.array([box.top / (1000 - box.height) for box in boxes])
    assert abs(tops.mean() - 0.5) < 4 / math.sqrt(12 * 4000)


@pytest.mark.parametrize(
    ('shape', 'expected'),
    [((10, 1000), (10, 13)), ((1000, 10), (13, 10)), ((100, 100), (100, 100))],
)
def test_where_nothing_fits_the_largest_central_region_is_taken(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    # An area of 1 with a ratio that is not the image's cannot fit; a square fits only by a ratio of exactly 1.
    box = random_box(np.random.default_rng(1), height=shape[0], width=shape[1], scale=(1.0, 1.0))
    assert (box.height, box.width) == expected
    assert (box.top, box.left) == ((shape[0] - box.height) // 2, (shape[1] - box.width) // 2)


@pytest.mark.parametrize('side', [40, 96, 110, 130, 150, 190, 191])
def test_a_crop_of_a_full_decode_is_near_pillow(side: int) -> None:
    data = jpeg(picture(8, height=256, width=256))
    box = Box(top=17, left=30, height=side, width=side + 5)
    found = crop_resize(open_image(data), box=box, size=96).astype(int)
    assert np.abs(found - pillow_crop(data, box, 96)).mean() < 1.5


@pytest.mark.parametrize('side', [192, 200, 239])
def test_a_crop_of_a_reduced_decode_is_near_pillow(side: int) -> None:
    data = jpeg(picture(8, height=256, width=256))
    box = Box(top=16, left=11, height=side, width=side + 3)
    assert open_image(data).reduction_for(height=box.height, width=box.width, size=96) == 2
    found = crop_resize(open_image(data), box=box, size=96).astype(int)
    # The corners are rounded to two pixels, so the fine noise of this picture stands up to half a pixel away; 0.7 on photographs.
    assert np.abs(found - pillow_crop(data, box, 96)).mean() < 6


def test_no_fine_pattern_survives_strong_shrinking() -> None:
    stripes = np.zeros((192, 192, 3), np.uint8)
    stripes[:, ::2] = 255  # one pixel wide: anything but grey would be a pattern that is not there
    small = resize(stripes, size=64)
    assert small.std() < 45 and abs(small.mean() - 127.5) < 2


@pytest.mark.parametrize(('size', 'share'), [(96, 1.0), (224, 0.875), (64, 0.9)])
@pytest.mark.parametrize('shape', [(256, 256), (200, 256), (333, 211), (60, 80)])
def test_evaluation_pixels_are_those_of_pillow(size: int, share: float, shape: tuple[int, int]) -> None:
    data = jpeg(picture(2, height=shape[0], width=shape[1]))
    image = Image.open(io.BytesIO(data))
    short = int(size / share)
    width = short if image.width <= image.height else int(short * image.width / image.height)
    height = short if image.height <= image.width else int(short * image.height / image.width)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    expected = np.asarray(image.crop((left, top, left + size, top + size)))
    assert (eval_image(data, size=size, share=share) == expected).all()


def test_the_same_random_numbers_give_the_same_image() -> None:
    data = jpeg(picture(1, height=128, width=128))
    config = DataConfig(phantom=None, image_size=48, randaugment=9.0)
    first = train_image(data, rng=example_rng(0, 1, 2), config=config)
    assert (first == train_image(data, rng=example_rng(0, 1, 2), config=config)).all()
    assert (first != train_image(data, rng=example_rng(0, 1, 3), config=config)).any()
    assert first.shape == (48, 48, 3) and first.dtype == np.uint8


def test_the_flip_comes_before_randaugment_and_otherwise_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transforms, 'rand_augment', lambda image, **_: image)
    monkeypatch.setattr(transforms, 'random_box', lambda rng, height, width, scale: Box(top=0, left=0, height=height, width=width))
    image = picture(1, height=48, width=48)

    def flipped(**options: object) -> np.ndarray:
        config = DataConfig(image_size=48, **options)
        found = [train_image(image, rng=example_rng(0, 0, index), config=config) for index in range(400)]
        assert all((one == image).all() or (one == image[:, ::-1]).all() for one in found)
        return np.array([(one != image).any() for one in found])

    assert 160 < flipped(randaugment=9.0).sum() < 240
    assert not flipped().any() and not flipped(randaugment=9.0, augment='none').any()


def test_without_augmentation_training_sees_the_evaluation_image() -> None:
    data = jpeg(picture(1, height=128, width=128))
    found = train_image(data, rng=example_rng(0, 0, 0), config=DataConfig(image_size=48, augment='none'))
    assert (found == eval_image(data, size=48, share=1.0)).all()


def test_the_central_crop_follows_retfound_at_224_px_only() -> None:
    shares = [DataConfig(image_size=size).central_share for size in (96, 224, 256)]
    assert shares == [1.0, 0.875, 1.0]
    assert DataConfig(image_size=224, eval_crop=0.9).central_share == 0.9
