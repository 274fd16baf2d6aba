"""PNG, JPEG and TIFF to upright 8-bit RGB.

Large JPEG files are decoded at a reduced scale inside the inverse DCT (libjpeg-turbo), which is where the time of an ingest
goes otherwise. A damaged file is refused whole: half a picture over a grey lower half is no picture.
"""
from __future__ import annotations

import io
import warnings

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from retfound_jax.ingest.frame import DECODER_ERRORS, Frame, ReadError, as_rgb, check_size, one_line, to_eight_bits

SCALE_MARGIN = 2  # `fov.find` takes no circle under half of the shorter side, so what is cut out is never too small
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap height and width
_TIFF_SUBFILE, _TIFF_BITS, _TIFF_PHOTOMETRIC = 254, 258, 262


def read_jpeg(data: bytes, *, shorter_side: int | None) -> list[Frame]:
    """One frame. With `shorter_side` [px] the decoded shorter side is at least SCALE_MARGIN times that, not the full size."""
    height, width, space = jpeg_header(data)
    check_size(height, width)
    orientation, camera = _exif(data)
    pixels = decode_jpeg(data, shorter_side=shorter_side) if space != 'CMYK' else _decode_cmyk(data, shorter_side=shorter_side)
    pixels = upright(as_rgb(pixels), orientation=orientation)
    if orientation in _TURNED:
        height, width = width, height
    return [Frame(pixels=pixels, source_height=height, source_width=width, camera=camera)]


def jpeg_header(data: bytes) -> tuple[int, int, str]:
    """Height [px], width [px] and colour space ('Gray', 'YCbCr', 'RGB', 'CMYK') without decoding."""
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except DECODER_ERRORS as error:
        raise ReadError(_jpeg_reason(error)) from error
    return height, width, 'CMYK' if space in ('CMYK', 'YCCK') else space


def decode_jpeg(data: bytes, *, shorter_side: int | None, grey: bool = False) -> np.ndarray:
    """uint8 [height, width, 3] RGB, or [height, width] with `grey`; scaled as in `read_jpeg`. Damage of any kind is refused."""
    least = shorter_side * SCALE_MARGIN if shorter_side else 0
    try:
        pixels = simplejpeg.decode_jpeg(data, 'GRAY' if grey else 'RGB', min_height=least, min_width=least, strict=True)
    except DECODER_ERRORS as error:
        raise ReadError(_jpeg_reason(error)) from error
    return pixels[:, :, 0] if grey else pixels


def _decode_cmyk(data: bytes, *, shorter_side: int | None) -> np.ndarray:
    """CMYK and YCCK, which libjpeg-turbo leaves as four inks."""
    try:
        with Image.open(io.BytesIO(data), formats=['JPEG']) as image:
            if shorter_side:
                image.draft(None, (shorter_side * SCALE_MARGIN,) * 2)
            return np.asarray(image.convert('RGB'))
    except (*DECODER_ERRORS, Image.DecompressionBombError) as error:
        raise ReadError(_jpeg_reason(error)) from error


def _jpeg_reason(error: BaseException) -> str:
    text = str(error).lower()
    if 'premature end' in text or 'truncated' in text or 'file ended' in text:
        return 'is cut short: its JPEG data ends too early'
    return f'holds damaged or unsupported JPEG data ({one_line(error, limit=100)})'


def _exif(data: bytes) -> tuple[int, str]:
    """Orientation (1-8) and camera. An unreadable EXIF block counts as none, as in every viewer: the picture itself is sound."""
    try:
        with _quiet(), Image.open(io.BytesIO(data), formats=['JPEG']) as image:
            tags = image.getexif()
            orientation = int(tags.get(ExifTags.Base.Orientation, 1))
            return orientation if orientation in range(1, 9) else 1, camera_name(tags)
    except (*DECODER_ERRORS, Image.DecompressionBombError):
        return 1, ''


def camera_name(tags: Image.Exif) -> str:
    """Manufacturer and model, as one string."""
    make, model = (one_line(tags.get(tag)) for tag in (ExifTags.Base.Make, ExifTags.Base.Model))
    return model if model.lower().startswith(make.lower()) else f'{make} {model}'.strip()


def upright(pixels: np.ndarray, *, orientation: int) -> np.ndarray:
    """Undoes an EXIF orientation (TIFF 6.0, tag 274)."""
    if orientation in _TURNED:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def read_image(data: bytes, *, kind: str) -> list[Frame]:
    """The pictures of a PNG or TIFF (`kind`); reduced-size copies and masks inside a TIFF are no pictures."""
    try:
        with _quiet(), Image.open(io.BytesIO(data), formats=[kind]) as image:
            return [_picture(image, frame=i, kind=kind, data=data) for i in _pages(image)]
    except Image.DecompressionBombError as error:
        raise ReadError('is too large: its header claims hundreds of millions of pixels') from error
    except DECODER_ERRORS as error:
        raise ReadError(_image_reason(error, kind=kind)) from error


def _image_reason(error: BaseException, *, kind: str) -> str:
    text = str(error).lower()
    if 'truncated' in text or 'end of file' in text or isinstance(error, EOFError):
        return f'is cut short: its {kind} data ends too early'
    if isinstance(error, UnidentifiedImageError):  # its text holds a memory address
        return f'holds damaged or unsupported {kind} data'
    return f'holds damaged or unsupported {kind} data ({one_line(error, limit=100)})'


def _quiet() -> warnings.catch_warnings:
    """Pillow warns of sizes below the limit that `check_size` enforces, and of every oddity in an EXIF block."""
    return warnings.catch_warnings(action='ignore')


def _pages(image: Image.Image) -> list[int]:
    """Positions of the full-size pictures, all sizes checked from the headers before the first is decoded."""
    count = getattr(image, 'n_frames', 1) if image.format == 'TIFF' else 1
    pages = []
    for page in range(count):
        image.seek(page)
        check_size(image.height, image.width, frames=count)
        if image.format != 'TIFF' or not int(image.tag_v2.get(_TIFF_SUBFILE, 0)) & 0b101:
            pages.append(page)
    if not pages:
        raise ReadError('holds only reduced-size copies and masks')
    return pages


def _picture(image: Image.Image, *, frame: int, kind: str, data: bytes) -> Frame:
    image.seek(frame)
    bits = _bits(image, kind=kind, data=data)
    inverted = kind == 'TIFF' and image.mode.startswith('I;16') and image.tag_v2.get(_TIFF_PHOTOMETRIC) == 0
    tags = image.getexif()
    camera = camera_name(tags)
    pixels = _to_rgb(ImageOps.exif_transpose(image), bits=bits)
    if inverted:  # Pillow inverts 8-bit white-is-zero pictures, not 16-bit ones
        pixels = 255 - pixels
    height, width = pixels.shape[:2]
    return Frame(pixels=pixels, source_height=height, source_width=width, frame=frame, camera=camera, bit_depth=bits)


def _bits(image: Image.Image, *, kind: str, data: bytes) -> int:
    """Bits of a sample; Pillow's mode does not tell 16-bit colour from 8-bit."""
    if image.mode in ('P', 'PA'):
        return 8
    if kind == 'PNG':
        return data[24]  # IHDR: signature 8, length 4, name 4, width 4, height 4, then the depth
    return int(max(image.tag_v2.get(_TIFF_BITS, (1,))))


def _to_rgb(image: Image.Image, *, bits: int) -> np.ndarray:
    """uint8 RGB on a black ground; colour with 16 bits is cut to its high byte by Pillow, which is the fixed scale of `to_eight_bits`."""
    if image.mode.startswith('I;16'):
        return as_rgb(to_eight_bits(np.asarray(image).astype(np.uint16), bits=max(bits, 8)))
    if image.mode in ('RGBA', 'LA', 'PA', 'RGBa', 'La') or 'transparency' in image.info:
        layers = np.asarray(image.convert('RGBA')).astype(np.uint16)
        return as_rgb(((layers[:, :, :3] * layers[:, :, 3:] + 127) // 255).astype(np.uint8))
    if image.mode in ('1', 'L', 'P', 'RGB', 'RGBX', 'CMYK', 'YCbCr'):
        return as_rgb(np.asarray(image.convert('RGB')))
    raise ReadError(f'stores pixels of a kind that is no photograph ({image.mode})')
