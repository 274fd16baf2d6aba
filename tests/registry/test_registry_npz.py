"""Archives of arrays: read as numpy wrote them, image by image, and refused in one sentence when they are hostile or damaged."""

from __future__ import annotations

import io
import pickle
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from retfound_jax.core.errors import UserError
from retfound_jax.registry import npz

GREY = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)


def archive(path: Path, **arrays: np.ndarray) -> Path:
    with open(path, 'wb') as file:
        np.savez_compressed(file, **arrays)
    return path


def raw(path: Path, array: str, data: bytes, *, method: int = zipfile.ZIP_DEFLATED) -> Path:
    """An archive whose array has these very bytes."""
    with zipfile.ZipFile(path, 'w', method) as file:
        file.writestr(f'{array}.npy', data)
    return path


def header(text: str, *, version: bytes = b'\x01\x00') -> bytes:
    """What stands before the data of an array, by the format's own description."""
    body = text.encode() + b'\n'
    return b'\x93NUMPY' + version + len(body).to_bytes(2, 'little') + body


def refused(path: Path, *, array: str = 'x') -> str:
    with pytest.raises(UserError) as caught:
        list(npz.images(path, array))
    sentence = str(caught.value)
    assert str(path) in sentence and 'download' in sentence and '\n' not in sentence
    return sentence


def test_images_and_labels_come_as_numpy_wrote_them(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (2, 6, 7, 3), np.uint8)
    path = archive(tmp_path / 'a.npz', grey=GREY, colour=colour, column=np.array([[3], [0]], np.uint8), row=np.array([5, 6, 7], np.int64),
                   big=np.array([1, 500], '>i2'))
    assert np.array_equal(np.stack(list(npz.images(path, 'grey'))), GREY)
    assert np.array_equal(np.stack(list(npz.images(path, 'colour'))), colour)
    assert [npz.count(path, name) for name in ('grey', 'colour')] == [3, 2]
    assert npz.labels(path, 'column').tolist() == [3, 0] and npz.labels(path, 'row').tolist() == [5, 6, 7]
    assert npz.labels(path, 'big').tolist() == [1, 500]
    assert npz.arrays(path) == ['big', 'colour', 'column', 'grey', 'row']


@pytest.mark.parametrize(('file', 'parts'), [
    ('a.npz#train_images/12', ('a.npz', 'train_images', 12)), ('b/a.npz#x/0', ('b/a.npz', 'x', 0)), ('a.npz', None), ('a.png', None),
    ('a.npz#x', None), ('a.npz#x/-1', None), ('a.npz#x/1e3', None), ('a.npz#../x/1', None), ('a.npz#x/9999999999', None),
    ('a.npz#x/١', None),
])
def test_a_place_in_an_archive_is_told_from_a_file(file: str, parts: tuple[str, str, int] | None) -> None:
    assert npz.split_member(file) == parts
    assert parts is None or npz.member(*parts) == file


class Bomb:
    """Says so when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (pytest.fail, ('unpickled',))


def test_nothing_is_ever_unpickled(tmp_path: Path) -> None:
    path = archive(tmp_path / 'a.npz', x=np.array([Bomb()], object))
    assert 'object' in refused(path)
    with pytest.raises(UserError, match='object'):
        npz.labels(path, 'x')
    data = header("{'descr': '|O', 'fortran_order': False, 'shape': (1, 4, 4)}") + pickle.dumps(Bomb())
    assert 'object' in refused(raw(tmp_path / 'b.npz', 'x', data))


@pytest.mark.parametrize(('text', 'said'), [
    ("{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1000, 1000, 1000)}", 'no images'),
    ("{'descr': '|u1', 'fortran_order': False, 'shape': (4, 100000, 100000)}", 'no images'),
    ("{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999, 4, 4)}", 'cannot be read'),
    ("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 4, 4)}", 'cannot be read'),
    ("{'descr': '|u1', 'fortran_order': True, 'shape': (2, 4, 4)}", 'by column'),
    ("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 4, 4)}", 'float32'),
    ("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 4)}", 'no images'),
    ("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 4, 4, 4)}", 'no images'),
    ("{'descr': '|u1', 'fortran_order': False, 'shape': (0, 4, 4)}", 'no images'),
    ("{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (2, 4, 4)}", 'cannot be read'),
    ("{'descr': __import__('os'), 'fortran_order': False, 'shape': (2, 4, 4)}", 'cannot be read'),
    ('{' * 300, 'cannot be read'),
    ("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 4, 4)}", 'ends too early'),
    (' ' * 60_000, 'cannot be read'),
    ("{'descr': '<y9', 'fortran_order': False, 'shape': (2, 4, 4)}", 'cannot be read'),
])
def test_a_header_is_not_believed(text: str, said: str, tmp_path: Path) -> None:
    path = raw(tmp_path / 'a.npz', 'x', header(text))
    assert said in refused(path)
    with pytest.raises(UserError, match='a.npz'):
        npz.labels(path, 'x')


def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    data = header("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 8, 8)}") + bytes(128) + bytes(64 << 20)
    path = raw(tmp_path / 'a.npz', 'x', data)
    del data
    assert path.stat().st_size < 1 << 18
    tracemalloc.start()
    assert len(list(npz.images(path, 'x'))) == 2  # what follows is not looked at
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_a_download_cut_short_or_changed(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (40, 32, 32), np.uint8)
    whole = archive(tmp_path / 'whole.npz', x=noise).read_bytes()
    for name, data in {'half': whole[:len(whole) // 2], 'empty': b'', 'page': b'<html>Too many requests</html>',
                       'changed': whole[:9000] + bytes(byte ^ 255 for byte in whole[9000:9400]) + whole[9400:]}.items():
        (tmp_path / f'{name}.npz').write_bytes(data)
        refused(tmp_path / f'{name}.npz')
        if name != 'changed':
            with pytest.raises(UserError, match='no archive|cannot be read as an archive'):
                npz.arrays(tmp_path / f'{name}.npz')
    assert 'has no array y' in refused(tmp_path / 'whole.npz', array='y')
    refused(tmp_path / 'none.npz')


def test_what_numpy_does_not_write(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, GREY)
    assert 'version' in refused(raw(tmp_path / 'a.npz', 'x', header('', version=b'\x09\x00')))
    path = raw(tmp_path / 'b.npz', 'x', buffer.getvalue(), method=zipfile.ZIP_STORED)
    assert len(list(npz.images(path, 'x'))) == 3
    data = bytearray(path.read_bytes())
    data[6] |= 1  # said to be encrypted, in the entry and in the directory
    data[data.index(b'PK\x01\x02') + 8] |= 1
    path.write_bytes(data)
    assert 'encrypted' in refused(path)
