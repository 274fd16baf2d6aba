"""PNG, JPEG and TIFF: what is read is what was drawn, and what is damaged is refused with one plain sentence."""
from __future__ import annotations

import io
import pickle
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from retfound_jax.ingest import raster, readers

STARTS = [b'', b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n', b'II*\x00', b'MM\x00*', b'II+\x00']
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def picture(height: int = 60, width: int = 80) -> np.ndarray:
    """Smooth, so that JPEG keeps it, and without any symmetry, so that a turn shows."""
    yy, xx = np.mgrid[:height, :width]
    return np.stack([255 * yy // height, 255 * xx // width, 255 * (xx * yy) // (height * width)], axis=2).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def saved(folder: Path, data: bytes, name: str = 'eye.jpg') -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def one(folder: Path, data: bytes, **options: object) -> readers.Frame:
    (frame,) = readers.read(saved(folder, data), **options)
    return frame


def refusal(folder: Path, data: bytes, name: str = 'eye.jpg') -> str:
    path = saved(folder, data, name)
    with pytest.raises(readers.ReadError) as caught:
        readers.read(path)
    text = str(caught.value)
    assert text.startswith(name) and str(folder) not in text and '\n' not in text and ' at 0x' not in text and text.endswith('.')
    return text


@pytest.mark.parametrize('kind', ['PNG', 'TIFF'])
@pytest.mark.parametrize('name', ['eye.png', 'eye.jpg', 'eye'])
def test_lossless_by_content_not_by_extension(tmp_path: Path, kind: str, name: str) -> None:
    (frame,) = readers.read(saved(tmp_path, encoded(Image.fromarray(picture()), kind), name))
    np.testing.assert_array_equal(frame.pixels, picture())
    assert (frame.source_height, frame.source_width, frame.bit_depth, frame.modality) == (60, 80, 8, '')


def test_jpeg_equals_another_decoder(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(picture()), 'JPEG', quality=92)
    frame = one(tmp_path, data)
    np.testing.assert_array_equal(frame.pixels, np.asarray(Image.open(io.BytesIO(data))))
    assert frame.pixels.flags.c_contiguous and frame.pixels.dtype == np.uint8


@pytest.mark.parametrize('mode', ['L', '1', 'P'])
def test_grey_bilevel_and_palette_become_colour(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(picture()).convert(mode)
    np.testing.assert_array_equal(one(tmp_path, encoded(image, 'PNG')).pixels, np.asarray(image.convert('RGB')))


def test_grey_jpeg(tmp_path: Path) -> None:
    pixels = one(tmp_path, encoded(Image.fromarray(picture()).convert('L'), 'JPEG')).pixels
    assert pixels.shape == (60, 80, 3) and np.ptp(pixels, axis=2).max() == 0


@pytest.mark.parametrize('progressive', [False, True])
def test_large_jpeg_is_decoded_scaled(tmp_path: Path, progressive: bool) -> None:
    big = cv2.resize(picture(), (1600, 1200))
    frame = one(tmp_path, encoded(Image.fromarray(big), 'JPEG', quality=95, progressive=progressive), shorter_side=128)
    assert (frame.source_height, frame.source_width) == (1200, 1600)
    assert 256 <= frame.pixels.shape[0] < 400
    expected = cv2.resize(big, frame.pixels.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(frame.pixels.astype(int) - expected).mean() < 2


@pytest.mark.parametrize('kind', ['JPEG', 'TIFF'])
@pytest.mark.parametrize('scaled', [None, 40])
def test_four_inks_are_converted(tmp_path: Path, kind: str, scaled: int | None) -> None:
    image = Image.fromarray(picture(400, 480)).convert('CMYK')
    frame = one(tmp_path, encoded(image, kind), shorter_side=scaled)
    expected = cv2.resize(picture(400, 480), frame.pixels.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(frame.pixels.astype(int) - expected).mean() < 4
    assert (frame.source_height, frame.source_width) == (400, 480)
    assert (frame.pixels.shape[0] < 400) == (kind == 'JPEG' and scaled is not None)


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'TIFF'])
def test_exif_orientation_is_undone(tmp_path: Path, orientation: int, kind: str) -> None:
    turn = Image.Transpose
    turned = {2: turn.FLIP_LEFT_RIGHT, 3: turn.ROTATE_180, 4: turn.FLIP_TOP_BOTTOM, 5: turn.TRANSPOSE, 6: turn.ROTATE_90,
              7: turn.TRANSVERSE, 8: turn.ROTATE_270}
    image = Image.fromarray(picture())
    if orientation > 1:
        image = image.transpose(turned[orientation])
    exif = Image.Exif()
    exif[274] = orientation
    options = {'quality': 95} if kind == 'JPEG' else {}
    frame = one(tmp_path, encoded(image, kind, exif=exif, **options))
    assert frame.pixels.shape == (60, 80, 3) and (frame.source_height, frame.source_width) == (60, 80)
    assert np.abs(frame.pixels.astype(int) - picture()).mean() < 3


def test_camera_from_exif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[271], exif[272] = 'Canon\x00', 'Canon CR-2'
    assert one(tmp_path, encoded(Image.fromarray(picture()), 'JPEG', exif=exif)).camera == 'Canon CR-2'
    exif[271], exif[272] = 'Topcon', 'NW400'
    assert one(tmp_path, encoded(Image.fromarray(picture()), 'JPEG', exif=exif)).camera == 'Topcon NW400'


@pytest.mark.parametrize('kind', ['PNG', 'TIFF'])
def test_alpha_lies_on_black(tmp_path: Path, kind: str) -> None:
    alpha = np.tile(np.linspace(0, 255, 80).astype(np.uint8), (60, 1))
    frame = one(tmp_path, encoded(Image.fromarray(np.dstack([picture(), alpha])), kind))
    np.testing.assert_array_equal(frame.pixels, np.rint(picture() * (alpha[:, :, None] / 255)).astype(np.uint8))


def test_grey_alpha_and_transparent_palette(tmp_path: Path) -> None:
    grey = Image.merge('LA', (Image.new('L', (40, 40), 200), Image.new('L', (40, 40), 0)))
    assert one(tmp_path, encoded(grey, 'PNG')).pixels.max() == 0
    palette = Image.fromarray(np.tile(np.arange(40, dtype=np.uint8) % 2, (40, 1)), mode='P')
    palette.putpalette([255, 0, 0, 0, 255, 0])
    pixels = one(tmp_path, encoded(palette, 'PNG', transparency=0)).pixels
    assert pixels[0, 0].tolist() == [0, 0, 0] and pixels[0, 1].tolist() == [0, 255, 0]


@pytest.mark.parametrize('extension', ['.png', '.tiff'])
@pytest.mark.parametrize('channels', [1, 3, 4])
def test_sixteen_bits_are_cut_by_a_fixed_scale(tmp_path: Path, extension: str, channels: int) -> None:
    deep = picture().astype(np.uint16) * 256 + 77
    deep = {1: deep[:, :, 1], 3: deep, 4: np.dstack([deep, np.full((60, 80), 65535, np.uint16)])}[channels]
    data = cv2.imencode(extension, deep if channels == 1 else deep[:, :, [2, 1, 0, 3][:channels]])[1].tobytes()
    frame = one(tmp_path, data)
    np.testing.assert_array_equal(frame.pixels, picture()[:, :, [1, 1, 1]] if channels == 1 else picture())
    assert frame.bit_depth == 16


def test_sixteen_bit_white_is_zero(tmp_path: Path) -> None:
    deep = Image.fromarray(picture()[:, :, 1].astype(np.uint16) * 256)
    pixels = one(tmp_path, encoded(deep, 'TIFF', tiffinfo={262: 0})).pixels
    np.testing.assert_array_equal(pixels[:, :, 0], 255 - picture()[:, :, 1])


@pytest.mark.parametrize('compression', ['raw', 'tiff_lzw', 'tiff_deflate', 'jpeg'])
def test_tiff_pages_are_frames_and_thumbnails_are_not(tmp_path: Path, compression: str) -> None:
    pages = [Image.fromarray(np.roll(picture(), 20 * i, axis=1)) for i in range(3)]
    data = encoded(pages[0], 'TIFF', save_all=True, append_images=pages[1:], compression=compression)
    frames = readers.read(saved(tmp_path, data))
    assert [frame.frame for frame in frames] == [0, 1, 2]
    for frame, page in zip(frames, pages, strict=True):
        assert np.abs(frame.pixels.astype(int) - np.asarray(page)).mean() < (6 if compression == 'jpeg' else 0.01)
    thumb = encoded(pages[0], 'TIFF', tiffinfo={254: 1})
    assert 'reduced-size copies' in refusal(tmp_path, thumb)


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'TIFF'])
@pytest.mark.parametrize('share', [0.3, 0.6, 0.95])
def test_truncated_is_refused(tmp_path: Path, kind: str, share: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 240, 3), np.uint8))
    data = encoded(noise, kind)
    text = refusal(tmp_path, data[:int(len(data) * share)])
    assert 'cut short' in text or 'damaged' in text


def test_truncated_jpeg_of_four_inks_is_refused(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(picture(200, 240)).convert('CMYK'), 'JPEG')
    assert 'cut short' in refusal(tmp_path, data[:len(data) // 2])


def test_damage_in_the_middle_is_refused(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 240, 3), np.uint8))
    for kind in ('JPEG', 'PNG'):
        data = bytearray(encoded(noise, kind))
        middle = len(data) // 2
        data[middle:middle + 40] = b'\xff\xd9' * 20
        assert 'damaged' in refusal(tmp_path, bytes(data)) or 'cut short' in refusal(tmp_path, bytes(data))


def png_header(height: int, width: int) -> bytes:
    """A PNG that claims a size and holds one row's worth of zeros."""
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack('>I', len(body)) + name + body + struct.pack('>I', zlib.crc32(name + body))

    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(bytes(width))) + chunk(b'IEND', b'')


def test_bombs_are_refused_from_the_header(tmp_path: Path) -> None:
    jpeg = bytearray(encoded(Image.fromarray(picture()), 'JPEG'))
    at = jpeg.index(b'\xff\xc0')
    jpeg[at + 5:at + 9] = struct.pack('>HH', 20000, 20000)
    assert 'is too large: 20000 x 20000 px' in refusal(tmp_path, bytes(jpeg))
    assert 'is too large' in refusal(tmp_path, png_header(20000, 20000))
    assert 'is too large: 11000 x 10000 px' in refusal(tmp_path, png_header(10000, 11000))
    assert 'is too large: 20000 x 100 px' in refusal(tmp_path, png_header(100, 20000))
    assert 'too long and narrow' in refusal(tmp_path, png_header(1000, 33))
    many = [Image.new('1', (9000, 9000))] * 4
    data = encoded(many[0], 'TIFF', save_all=True, append_images=many[1:], compression='group4')
    assert 'is too large: 4 pictures' in refusal(tmp_path, data)


def test_tiny_and_empty_are_refused(tmp_path: Path) -> None:
    for kind in ('PNG', 'JPEG', 'TIFF'):
        assert 'is too small: 1 x 1 px' in refusal(tmp_path, encoded(Image.new('RGB', (1, 1)), kind))
    assert 'zero bytes' in refusal(tmp_path, b'')


@pytest.mark.parametrize(('data', 'word'), [
    (b'GIF89a' + bytes(50), 'GIF'), (b'hello, this is no picture', 'text file'), (b'\x00\x01\x02' * 100, 'unknown kind'),
    (b'PK\x03\x04' + bytes(40), 'ZIP'), (b'<!DOCTYPE html>', 'web'),
])
def test_other_content_is_named(tmp_path: Path, data: bytes, word: str) -> None:
    assert word in refusal(tmp_path, data)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / 'absent.png', tmp_path):
        with pytest.raises(readers.ReadError, match='cannot be opened'):
            readers.read(path)


def test_floating_point_tiff_is_refused(tmp_path: Path) -> None:
    assert 'no photograph' in refusal(tmp_path, encoded(Image.fromarray(np.zeros((40, 40), np.float32)), 'TIFF'))


def test_reason_survives_a_process_boundary() -> None:
    error = pickle.loads(pickle.dumps(readers.ReadError('is empty', name='a.png')))
    assert (str(error), error.reason, error.name) == ('a.png is empty.', 'is empty', 'a.png')


def test_adobe_colour_without_conversion(tmp_path: Path) -> None:
    """An RGB JPEG (Adobe marker, no YCbCr) keeps its colours."""
    data = encoded(Image.fromarray(picture()), 'JPEG', quality=95, keep_rgb=True)
    assert raster.jpeg_header(data)[2] == 'RGB'
    assert np.abs(one(tmp_path, data).pixels.astype(int) - picture()).mean() < 2


def seeds() -> list[bytes]:
    small = Image.fromarray(picture(40, 48))
    kinds = [encoded(small, 'PNG'), encoded(small, 'JPEG'), encoded(small.convert('CMYK'), 'JPEG'), encoded(small, 'TIFF')]
    return [*kinds, encoded(small, 'TIFF', compression='tiff_lzw'), encoded(small.convert('P'), 'PNG'),
            encoded(small, 'JPEG', progressive=True), simplejpeg.encode_jpeg(picture(40, 48))]


@FUZZ
@given(data=st.binary(max_size=400), start=st.sampled_from(STARTS))
def test_random_bytes_raise_nothing_but_a_reason(tmp_path: Path, data: bytes, start: bytes) -> None:
    path = saved(tmp_path, start + data)
    with pytest.raises(readers.ReadError):
        readers.read(path)


@settings(parent=FUZZ, max_examples=300)
@given(seed=st.sampled_from(seeds()), edits=st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), min_size=1, max_size=6),
       cut=st.integers(0, 40), scaled=st.sampled_from([None, 8]))
def test_mutated_files_give_a_picture_or_a_reason(tmp_path: Path, seed: bytes, edits: list, cut: int, scaled: int | None) -> None:
    data = bytearray(seed)
    for at, value in edits:
        data[at % len(data)] = value
    try:
        frames = readers.read(saved(tmp_path, bytes(data[:len(data) - cut])), shorter_side=scaled)
    except readers.ReadError as error:
        assert error.reason and '\n' not in str(error) and ' at 0x' not in str(error)
        return
    assert all(frame.pixels.dtype == np.uint8 and frame.pixels.ndim == 3 and frame.pixels.shape[2] == 3 for frame in frames)
