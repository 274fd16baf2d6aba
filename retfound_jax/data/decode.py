"""Encoded images to pixels. JPEG goes through libjpeg-turbo, which can leave out detail that nobody will look at."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg

_JPEG = b'\xff\xd8\xff'
# Inverse DCTs of 4, 2 and 1 points have vector code in libjpeg-turbo; those of 3, 5, 6 and 7 have none and are slower than a full decode.
_REDUCTIONS = (8, 4, 2)
_PNG = b'\x89PNG\r\n\x1a\n'
# A header that is damaged may ask for gigabytes, and decoders take the memory before they look at the data.
_MOST_PIXELS = 1 << 27
_LONGEST = 32  # times the shorter side: with the shorter side resized to that of a model, the other takes its share of memory

_MOST_BORROWED = 1 << 23  # [bytes] that a thread keeps
_thread = threading.local()


class DecodeFailure(ValueError):
    """The bytes are not a whole image; the message says why in a few words."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """An image whose size is known and whose pixels are not yet decoded."""

    data: bytes | np.ndarray
    height: int  # [px]
    width: int  # [px]

    def pixels(self, *, reduction: int = 1, borrow: bool = False) -> np.ndarray:
        """uint8 [H, W, 3], red green blue, both sides divided by `reduction` (1, 2, 4 or 8) and rounded up.

        Args:
          borrow: the pixels may lie in memory that the next borrowing of this thread writes over: fresh pages cost a third of a decode.

        Raises:
          DecodeFailure: the image is truncated or damaged.
        """
        if isinstance(self.data, np.ndarray):
            return self.data
        height, width = -(-self.height // reduction), -(-self.width // reduction)
        options = {'min_height': height, 'min_width': width} if reduction > 1 else {}
        if borrow and 3 * height * width <= _MOST_BORROWED:
            options['buffer'] = _scratch(3 * height * width)
        try:
            return simplejpeg.decode_jpeg(self.data, colorspace='RGB', **options)
        except ValueError as error:
            raise DecodeFailure(str(error)) from error

    def reduction_for(self, *, height: int, width: int, size: int) -> int:
        """The largest reduction that leaves a region of height x width at least `size` px on both sides."""
        if isinstance(self.data, np.ndarray):
            return 1
        return next((r for r in _REDUCTIONS if min(height, width) >= r * size), 1)


def open_image(data: bytes | np.ndarray) -> Encoded:
    """Reads the size of an encoded image; formats other than JPEG are decoded at once. EXIF rotation is ignored: ingest has applied it.

    Raises:
      DecodeFailure: the bytes are no image, or one of a size that no photograph has.
    """
    if isinstance(data, np.ndarray):
        return Encoded(data=data, height=data.shape[0], width=data.shape[1])
    if not data.startswith(_JPEG):
        pixels = _decode_other(data)
        _check_size(*pixels.shape[:2])
        return Encoded(data=pixels, height=pixels.shape[0], width=pixels.shape[1])
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise DecodeFailure(str(error)) from error
    if colours in ('CMYK', 'YCCK'):
        raise DecodeFailure(f'it is a {colours} JPEG, and three colours are needed')
    _check_size(height, width)
    return Encoded(data=data, height=height, width=width)


def _scratch(size: int) -> np.ndarray:
    """Memory of this thread, at least `size` bytes."""
    kept = getattr(_thread, 'memory', None)
    if kept is None or len(kept) < size:
        kept = _thread.memory = np.empty(size, np.uint8)
    return kept


def _check_size(height: int, width: int) -> None:
    short, long = sorted((height, width))
    if short < 1 or long > _LONGEST * short or height * width > _MOST_PIXELS:
        raise DecodeFailure(f'it says that it is {width} x {height} px')


def _decode_other(data: bytes) -> np.ndarray:
    if data.startswith(_PNG):
        _check_size(int.from_bytes(data[20:24]), int.from_bytes(data[16:20]))
    raw = np.frombuffer(data, np.uint8)
    try:
        pixels = cv2.imdecode(raw, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION) if raw.size else None
    except cv2.error as error:  # of a header that asks for more than OpenCV gives
        raise DecodeFailure(f'OpenCV refuses it ({error.err or error.func})') from error
    if pixels is None:
        raise DecodeFailure('the bytes are not an image' if raw.size else 'there are no bytes')
    return pixels
