"""One file to one record's worth: size, circle in source pixels, same bytes each time, copies recognised across containers."""
from __future__ import annotations

import io
import math
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image
from test_ingest_fov import disc

from retfound_jax.ingest import hashes, process, readers

DATA = Path(__file__).parents[3] / 'shared/data'
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason='no real photographs beside the project')


def saved(folder: Path, pixels: np.ndarray, name: str, **options: object) -> Path:
    path = folder / name
    Image.fromarray(pixels).save(path, **options)
    return path


def eye(**options: float) -> np.ndarray:
    return disc(**{'height': 600, 'width': 800, 'cx': 410.0, 'cy': 295.0, 'radius': 270.0, **options})


@pytest.mark.parametrize('name', ['eye.png', 'eye.jpg'])
def test_circle_in_source_pixels_and_size(tmp_path: Path, name: str) -> None:
    (done,) = process.process(saved(tmp_path, eye(), name))
    assert np.abs(np.array(done.fov) - [410, 295, 270]).max() < 6
    image = simplejpeg.decode_jpeg(done.jpeg)
    assert image.shape == (256, 256, 3) and done.side == 256 and (done.source_height, done.source_width) == (600, 800)
    assert simplejpeg.decode_jpeg_header(done.jpeg)[2:] == ('YCbCr', '420')
    assert image[:20, :20].max() < 20 and image[118:138, 118:138].mean() > 60


def test_sides_and_quality_are_asked_for_and_nothing_is_enlarged(tmp_path: Path) -> None:
    path = saved(tmp_path, eye(), 'eye.png')
    large, small = (process.process(path, shorter_side=side)[0] for side in (512, 100))
    assert (large.side, small.side) == (512, 100)
    assert len(process.process(path, jpeg_quality=50)[0].jpeg) < len(process.process(path, jpeg_quality=95)[0].jpeg)
    assert abs(process.process(path, shorter_side=4000)[0].side - 540) <= 12


def test_the_smallest_field_of_view_survives_scaled_decoding(tmp_path: Path) -> None:
    path = saved(tmp_path, eye(height=1100, width=1200, cx=600.0, cy=550.0, radius=290.0), 'eye.jpg', quality=92)
    assert readers.read(path, shorter_side=256)[0].pixels.shape[0] < 700
    (done,) = process.process(path)
    assert done.side == 256 and abs(done.fov[2] - 290) < 8


def test_blank_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(readers.ReadError, match=r'^black.png is blank: all its pixels are alike\.$'):
        process.process(saved(tmp_path, np.zeros((64, 64, 3), np.uint8), 'black.png'))
    stack = [Image.fromarray(eye()), Image.new('RGB', (64, 64))]
    stack[0].save(tmp_path / 'stack.tif', save_all=True, append_images=stack[1:])
    with pytest.raises(readers.ReadError, match=r'blank \(picture 2 of 2\)'):
        process.process(tmp_path / 'stack.tif')


def test_copies_across_containers(tmp_path: Path) -> None:
    png, tiff = (process.process(saved(tmp_path, eye(), name))[0] for name in ('eye.png', 'eye.tif'))
    jpeg = process.process(saved(tmp_path, eye(), 'eye.jpg', quality=95))[0]
    assert png.pixel_sha256 == tiff.pixel_sha256 != jpeg.pixel_sha256
    assert png.jpeg == tiff.jpeg and png.phash == tiff.phash
    assert hashes.hamming(png.phash, jpeg.phash) <= 10


def test_a_jpeg_and_the_lossless_copy_of_its_pixels_are_near_not_equal(tmp_path: Path) -> None:
    jpeg = saved(tmp_path, eye(height=1100, width=1300, cx=650.0, cy=550.0, radius=500.0), 'eye.jpg', quality=95)
    copy = saved(tmp_path, readers.read(jpeg)[0].pixels, 'copy.png')
    a, b = process.process(jpeg)[0], process.process(copy)[0]
    assert a.pixel_sha256 != b.pixel_sha256 and hashes.hamming(a.phash, b.phash) <= 10
    renamed = tmp_path / 'other.jpeg'
    renamed.write_bytes(jpeg.read_bytes())
    assert process.process(renamed)[0].pixel_sha256 == a.pixel_sha256


def test_same_bytes_in_another_process(tmp_path: Path) -> None:
    path = saved(tmp_path, eye(), 'eye.jpg', quality=92)
    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
        (there,) = pool.submit(process.process, path).result()
    (here,) = process.process(path)
    assert repr(there) == repr(here) == repr(pickle.loads(pickle.dumps(here)))  # as text, since no NaN equals another


def test_no_circle_is_nan(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (100, 140, 3), np.uint8)
    (done,) = process.process(saved(tmp_path, noise, 'noise.png'))
    assert all(math.isnan(value) for value in done.fov) and done.side == 140


def test_file_reasons_pass_through(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(eye()).save(stream, 'JPEG')
    (tmp_path / 'half.jpg').write_bytes(stream.getvalue()[:4000])
    with pytest.raises(readers.ReadError, match=r'^half.jpg is cut short'):
        process.process(tmp_path / 'half.jpg')


@needs_data
def test_a_photograph_under_two_patient_ids_is_found() -> None:
    folder = DATA / 'odir5k/images'
    for pair in (('2487_left', '3185_left'), ('2487_right', '3185_right'), ('352_left', '973_left')):
        a, b = (process.process(folder / f'{name}.jpg')[0] for name in pair)
        assert hashes.hamming(a.phash, b.phash) <= 2


@needs_data
def test_ophthalmic_dicom_files_become_squares() -> None:
    for path in sorted((DATA / 'dicom_ophthalmic').glob('*.dcm'))[::3]:
        for done in process.process(path):
            assert done.side == 256 and (done.modality != 'OCT' or math.isnan(done.fov[0]))
