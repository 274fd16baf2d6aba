"""An image of a registry dataset as the bytes that TFDS keeps: those of the file wherever every reader understands them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from retfound_jax.core.errors import UserError
from retfound_jax.ingest import readers
from retfound_jax.registry.base import Modality

_JPEG, _PNG = b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n'
_CHANNELS = {'CFP': 3, 'OCT': 1}


def channels(modality: Modality) -> int:
    """How many channels the pictures of a modality have: a B-scan is grey."""
    return _CHANNELS[modality]


def file_bytes(path: Path, *, modality: Modality) -> bytes:
    """The bytes of a JPEG or PNG file of the modality's channels; of any other, its pixels as PNG.

    Raises:
      UserError: the file is no picture.
    """
    try:
        data = path.read_bytes()
        if data.startswith((_JPEG, _PNG)) and _channels(data) == channels(modality):
            return data
        return array_bytes(readers.read(path)[0].pixels, modality=modality)
    except (OSError, readers.ReadError) as error:
        raise UserError(f'{path} cannot be read ({error}); copy it again, or remove it and its label') from error


def array_bytes(pixels: np.ndarray, *, modality: Modality) -> bytes:
    """uint8 [H, W] or RGB [H, W, 3] as PNG, with the channels of the modality."""
    if pixels.ndim == 3 and channels(modality) == 1:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    elif pixels.ndim == 2 and channels(modality) == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    _, data = cv2.imencode('.png', pixels[..., ::-1] if pixels.ndim == 3 else pixels)
    return data.tobytes()


def _channels(data: bytes) -> int:
    """Of a JPEG or PNG, 0 where its header is not understood."""
    if data.startswith(_PNG):
        # Bit depth and colour type stand behind the size in the first chunk; a palette or 16 bits are not passed on.
        return {(8, 0): 1, (8, 2): 3}.get((data[24], data[25]), 0) if len(data) > 25 else 0
    place = 2
    while place + 9 < len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame header: its number of components
            return data[place + 9]
        place += 2 + int.from_bytes(data[place + 2 : place + 4])
    return 0
