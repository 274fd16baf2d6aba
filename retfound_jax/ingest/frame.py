"""One decoded picture, the reason why a file gives none, and the limits that hold before anything is allocated."""
from __future__ import annotations

import dataclasses
import math
import struct
import zlib

import numpy as np

from retfound_jax.core.errors import UserError

MAX_FILE_BYTES = 2 << 30  # [bytes]
MAX_PIXELS = 100_000_000  # [px] of one picture; the largest fundus cameras give about 50 million
MAX_TOTAL_PIXELS = 300_000_000  # [px] of all pictures of one file, they are held in memory together
MAX_FRAMES = 4096  # pictures in one file
MAX_SIDE = 16_384  # [px]; a picture is padded to a square of its longer side
MIN_SIDE = 32  # [px]
MAX_ASPECT = 8  # longer side over shorter

# What third-party decoders raise on damaged bytes, as found by feeding them mutated files. Caught only around their calls.
DECODER_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError, SyntaxError,
    TypeError, ValueError, struct.error, zlib.error,
)


class ReadError(UserError):
    """A file that gives no picture. `reason` is one plain clause to be read after the file's name; no path is in it."""

    def __init__(self, reason: str, *, name: str = '') -> None:
        super().__init__(f'{name or "The file"} {reason}.')
        self.reason = reason
        self.name = name

    def __reduce__(self) -> tuple:
        return _rebuild, (self.reason, self.name)


def _rebuild(reason: str, name: str) -> ReadError:
    return ReadError(reason, name=name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
    """One picture of a file, and what the file itself says about it ('' or NaN where it says nothing)."""

    pixels: np.ndarray  # uint8 [height, width, 3], RGB, upright; may be smaller than the source where decoding was scaled
    source_height: int  # [px] of the original, upright
    source_width: int  # [px]
    frame: int = 0  # 0-based position in the file
    modality: str = ''  # 'CFP', 'OCT', 'UWF', 'ENFACE', '' unknown
    laterality: str = ''  # 'L', 'R', ''
    patient: str = ''  # the header's patient id
    age: float = math.nan  # [years]
    sex: str = ''  # 'F', 'M', ''; other codes as the header has them
    camera: str = ''  # manufacturer and model
    site: str = ''  # no format read here names one without naming an institution; filled from the table
    bit_depth: int = 8  # [bits] of a sample in the original


def check_size(height: int, width: int, *, frames: int = 1) -> None:
    """Refuses what is too large to be a photograph or too small to show one; call it with the header's numbers, before decoding."""
    if height < 1 or width < 1 or frames < 1:
        raise ReadError(f'has a header without a size ({width} x {height} px, {frames} pictures)')
    if frames > MAX_FRAMES:
        raise ReadError(f'claims {frames} pictures, more than the {MAX_FRAMES} allowed')
    if max(height, width) > MAX_SIDE or height * width > MAX_PIXELS or height * width * frames > MAX_TOTAL_PIXELS:
        count = f'{frames} pictures of ' if frames > 1 else ''
        raise ReadError(f'is too large: {count}{width} x {height} px')
    if min(height, width) < MIN_SIDE:
        raise ReadError(f'is too small: {width} x {height} px, and at least {MIN_SIDE} px a side are needed')
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise ReadError(f'is too long and narrow for a picture of an eye: {width} x {height} px')


def to_eight_bits(values: np.ndarray, *, bits: int) -> np.ndarray:
    """The top eight of `bits` bits: a fixed scale, so equal numbers stay equal in every picture (no min-max)."""
    if bits == 8:
        return values.astype(np.uint8)
    return (values >> (bits - 8) if bits > 8 else values.astype(np.uint16) * 255 // ((1 << bits) - 1)).astype(np.uint8)


def as_rgb(pixels: np.ndarray) -> np.ndarray:
    """uint8 [height, width] or [height, width, 3] to contiguous [height, width, 3]."""
    return np.ascontiguousarray(np.repeat(pixels[:, :, None], 3, axis=2) if pixels.ndim == 2 else pixels)


def one_line(text: object, *, limit: int = 64) -> str:
    """A header's string without control characters, NULs and outer blanks, cut at `limit` characters."""
    return ' '.join(''.join(c if c.isprintable() else ' ' for c in str(text or '')).split())[:limit]
