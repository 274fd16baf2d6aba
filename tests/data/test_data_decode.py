"""Decoding: the pixels of Pillow, and one plain reason for every damaged file."""

from __future__ import annotations

import io

import numpy as np
import pytest
from data_sets import jpeg, picture
from PIL import Image

from retfound_jax.data.decode import DecodeFailure, open_image


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """An image file in memory."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize('subsampling', ['4:4:4', '4:2:2', '4:2:0'])
@pytest.mark.parametrize('shape', [(64, 64), (1, 1), (37, 91)])
def test_full_decode_equals_pillow(subsampling: str, shape: tuple[int, int]) -> None:
    data = jpeg(picture(3, height=max(3, shape[0]), width=max(3, shape[1]))[: shape[0], : shape[1]], subsampling=subsampling)
    image = open_image(data)
    assert (image.height, image.width) == shape
    assert (image.pixels() == np.asarray(Image.open(io.BytesIO(data)))).all()


@pytest.mark.parametrize('reduction', [2, 4, 8])
def test_reduced_decode_is_near_the_area_average(reduction: int) -> None:
    pixels = picture(5, height=96, width=80)
    small = open_image(jpeg(pixels)).pixels(reduction=reduction)
    mean = pixels.reshape(96 // reduction, reduction, 80 // reduction, reduction, 3).mean((1, 3))
    assert small.shape == (96 // reduction, 80 // reduction, 3)
    assert np.abs(small - mean).mean() < 4


@pytest.mark.parametrize(('side', 'reduction'), [(95, 1), (191, 1), (192, 2), (383, 2), (384, 4), (768, 8), (5000, 8)])
def test_the_reduction_never_leaves_less_than_the_target(side: int, reduction: int) -> None:
    image = open_image(jpeg(picture(0)))
    assert image.reduction_for(height=side, width=side + 7, size=96) == reduction


def test_other_formats_become_three_colours() -> None:
    grey = Image.fromarray(picture(1)[..., 0])
    deep = Image.fromarray(np.full((8, 8), 0x8000, np.uint16))
    alpha = Image.fromarray(np.concatenate([picture(2), np.full((64, 64, 1), 9, np.uint8)], -1))
    assert (open_image(encoded(grey, 'PNG')).pixels() == np.asarray(grey)[..., None]).all()
    assert np.abs(open_image(encoded(grey, 'JPEG', quality=95)).pixels().astype(int) - np.asarray(grey)[..., None]).mean() < 3
    assert (open_image(encoded(deep, 'PNG')).pixels() == 0x80).all()
    assert (open_image(encoded(alpha, 'PNG')).pixels() == picture(2)).all()


def test_rotation_in_exif_is_left_alone() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = jpeg(picture(4, height=40, width=64), exif=exif)
    assert open_image(data).pixels().shape == (40, 64, 3)


@pytest.mark.parametrize('data', [b'', b'GIF', b'\xff\xd8\xff', jpeg(picture(1))[:30], b'\xff\xd8\xff' + b'\0' * 200])
def test_what_is_no_image_fails_with_a_reason(data: bytes) -> None:
    with pytest.raises(DecodeFailure, match='.'):
        open_image(data).pixels()


@pytest.mark.parametrize('reduction', [1, 2])
def test_a_truncated_jpeg_fails(reduction: int) -> None:
    data = jpeg(picture(1))
    with pytest.raises(DecodeFailure, match='.'):
        open_image(data[: len(data) // 2]).pixels(reduction=reduction)


def test_cmyk_is_refused_in_words() -> None:
    with pytest.raises(DecodeFailure, match='CMYK|YCCK'):
        open_image(encoded(Image.fromarray(picture(1)).convert('CMYK'), 'JPEG'))
