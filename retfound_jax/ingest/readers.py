"""One door for every file: what it is, is decided by its content and never by its extension."""
from __future__ import annotations

from pathlib import Path

from retfound_jax.ingest import dicom, raster
from retfound_jax.ingest.frame import MAX_FILE_BYTES, Frame, ReadError

_KNOWN = {  # first bytes of what people also put into such folders, so that the refusal can name it
    b'GIF8': 'a GIF picture', b'BM': 'a BMP picture', b'RIFF': 'a WebP picture or a sound file', b'%PDF': 'a PDF document',
    b'PK\x03\x04': 'a ZIP archive', b'\x1f\x8b': 'a gzip archive', b'\x00\x00\x00\x0cjP': 'a JPEG 2000 picture',
    b'<': 'a web or XML page', b'\x89HDF': 'an HDF5 file', b'8BPS': 'a Photoshop file', b'E2E': 'a Heidelberg E2E file',
    b'CMDb': 'a Heidelberg E2E file', b'FOCT': 'a Topcon FDA file', b'\x5c\x01\x00\x00': 'a NIfTI volume',
}


def read(path: Path, *, shorter_side: int | None = None) -> list[Frame]:
    """All pictures of a PNG, JPEG, TIFF or DICOM file.

    shorter_side [px]: the shorter side that will be kept of the field of view. Where it is given, JPEG data is decoded at a
    scale that still leaves twice that; None decodes everything at full size.

    Raises ReadError, with the reason, for a file that gives no picture.
    """
    path = Path(path)
    try:
        return _decode(_load(path), shorter_side=shorter_side)
    except ReadError as error:
        raise ReadError(error.reason, name=path.name) from error


def _load(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ReadError(f'is too large: {size / 2**30:.1f} GiB')
        data = path.read_bytes()
    except OSError as error:
        raise ReadError(f'cannot be opened ({error.strerror or "unknown reason"})') from error
    if not data:
        raise ReadError('is empty: zero bytes')
    return data


def _decode(data: bytes, *, shorter_side: int | None) -> list[Frame]:
    if data[128:132] == b'DICM':  # first, as its preamble may make the file a TIFF as well
        return dicom.read_dicom(data, shorter_side=shorter_side)
    if data[:3] == b'\xff\xd8\xff':
        return raster.read_jpeg(data, shorter_side=shorter_side)
    if data[:8] == b'\x89PNG\r\n\x1a\n':
        return raster.read_image(data, kind='PNG')
    if data[:4] in (b'II*\x00', b'MM\x00*', b'II+\x00', b'MM\x00+'):
        return raster.read_image(data, kind='TIFF')
    raise ReadError(f'is {_guess(data)}, not a PNG, JPEG, TIFF or DICOM picture')


def _guess(data: bytes) -> str:
    for start, kind in _KNOWN.items():
        if data.startswith(start):
            return kind
    return 'a text file' if all(byte in b'\t\n\r' or byte >= 32 for byte in data[:512]) else 'of an unknown kind'
