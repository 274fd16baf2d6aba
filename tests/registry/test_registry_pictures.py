"""Pictures on their way through the registry: the bytes TFDS keeps, and the drawings of the fixtures."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.ingest.hashes import hamming, phash256
from retfound_jax.registry.draw import draw_fundus, photograph, seed_of
from retfound_jax.registry.draw_oct import LABELS, draw_oct
from retfound_jax.registry.tfds.encode import file_bytes

COLOUR = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)


def _read(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize(('suffix', 'modality', 'pixels'), [
    ('.jpg', 'CFP', COLOUR), ('.png', 'CFP', COLOUR), ('.jpeg', 'OCT', COLOUR[..., 0]), ('.png', 'OCT', COLOUR[..., 0]),
])
def test_a_file_that_every_reader_understands_keeps_its_bytes(suffix: str, modality: str, pixels: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / f'a{suffix}'
    Image.fromarray(pixels).save(path)
    assert file_bytes(path, modality=modality) == path.read_bytes()


def test_any_other_becomes_png_with_the_pixels_it_had(tmp_path: Path) -> None:
    palette = Image.fromarray(COLOUR).quantize(64)
    cases = {'a.tif': (Image.fromarray(COLOUR), COLOUR), 'palette.png': (palette, np.asarray(palette.convert('RGB'))),
             'grey.png': (Image.fromarray(COLOUR[..., 1]), np.repeat(COLOUR[..., 1:2], 3, axis=2))}
    for name, (image, pixels) in cases.items():
        image.save(tmp_path / name)
        data = file_bytes(tmp_path / name, modality='CFP')
        assert data.startswith(b'\x89PNG') and (_read(data) == pixels).all()
    Image.fromarray(np.repeat(COLOUR[..., :1], 3, axis=2)).save(tmp_path / 'oct.png')
    assert (_read(file_bytes(tmp_path / 'oct.png', modality='OCT')) == COLOUR[..., 0]).all()
    (tmp_path / 'no.png').write_bytes(b'\x89PNG\r\n\x1a\nbroken')
    for name in ('no.png', 'none.png'):
        with pytest.raises(UserError, match=f'{name} cannot be read .*copy it again, or remove it and its label'):
            file_bytes(tmp_path / name, modality='CFP')


def test_each_drawing_is_another_picture_and_the_same_again() -> None:
    scans = [draw_oct(seed, label=label) for seed in range(4) for label in LABELS]
    assert all(scan.shape == (64, 96) and scan.dtype == np.uint8 for scan in scans)
    assert (draw_oct(2, label='dme', size=(80, 60)) == draw_oct(2, label='dme', size=(80, 60))).all()
    eyes = [draw_fundus(seed_of('x', number), grade=number % 5) for number in range(6)]
    for pictures in ([np.repeat(scan[..., None], 3, axis=2) for scan in scans], eyes):
        hashes = [phash256(picture) for picture in pictures]
        assert min(hamming(a, b) for place, a in enumerate(hashes) for b in hashes[:place]) > 10  # the threshold of near duplicates
    assert seed_of('x', 999) != seed_of('y', 999)


def test_what_is_asked_for_is_drawn_or_refused() -> None:
    assert photograph(5, grade=3, glaucoma=True).labels['dr_grade'] == 3 and photograph(5, glaucoma=True).labels['glaucoma'] == 1
    with pytest.raises(UsageError, match='there is no grade 5'):
        draw_fundus(0, grade=5)
    with pytest.raises(UsageError, match='no OCT picture of "drusn", did you mean "drusen"'):
        draw_oct(0, label='drusn')
    with pytest.raises(UsageError, match='too small to show layers'):
        draw_oct(0, label='normal', size=(16, 96))


def test_a_scan_shows_its_disease() -> None:
    """Fluid is dark inside the retina: a scan with cysts or a dome of it has more of that than a normal one, on the mean of ten."""
    def dark(label: str) -> float:
        shares = []
        for seed in range(10):
            scan = draw_oct(seed, label=label).astype(float)
            first, last = (scan > 60).argmax(axis=0), 63 - (scan[::-1] > 60).argmax(axis=0)  # of each column
            inside = [scan[top:bottom, column] for column, (top, bottom) in enumerate(zip(first, last, strict=True))]
            shares.append(np.mean(np.concatenate(inside) < 35))
        return float(np.mean(shares))

    assert dark('csr') > dark('dme') > dark('normal')
