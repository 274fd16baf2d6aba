"""Tiny photographs for the fixtures of the registry, drawn by the phantom: each seed is another eye of another patient."""

from __future__ import annotations

import zlib
from pathlib import Path

import cv2
import numpy as np

from retfound_jax.core.errors import UsageError
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.data.phantom.render import Photograph, draw_eye

_FEW = 0.02  # share of a disease that is not asked for
_A_SET = 1000  # seeds


def seed_of(name: str, index: int) -> int:
    """The seed of picture `index` (below 1000) of a dataset's fixture: no two datasets have a picture in common."""
    return zlib.crc32(name.encode()) * _A_SET + index


def photograph(seed: int, *, size: int = 64, grade: int = 0, glaucoma: bool = False, amd: bool = False) -> Photograph:
    """An eye with the truth about it, masks included. size [px]; grade: of diabetic retinopathy, ICDR 0 to 4.

    Raises:
      UsageError: there is no such grade, or the phantom cannot draw that size.
    """
    if not 0 <= grade <= 4:
        raise UsageError(f'there is no grade {grade} of diabetic retinopathy: ICDR has 0 to 4')
    shares = tuple(float(grade == place) for place in range(5))
    config = PhantomConfig(seed=seed, patients=1, image_size=size, dr_grades=shares, glaucoma=1.0 if glaucoma else _FEW,
                           amd=1.0 if amd else _FEW, missing_fraction=0.0)
    return draw_eye(config, 0)


def draw_fundus(seed: int, *, size: int = 64, grade: int = 0, glaucoma: bool = False, amd: bool = False) -> np.ndarray:
    """The picture of `photograph` alone: uint8 RGB [size, size, 3]; another seed gives another picture."""
    return photograph(seed, size=size, grade=grade, glaucoma=glaucoma, amd=amd).image


def write_image(path: Path, pixels: np.ndarray) -> None:
    """Writes uint8 [H, W] or RGB [H, W, 3] in the format that the suffix names (.jpg, .png, .tif, .bmp), making the folders above."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if path.suffix.lower() in ('.jpg', '.jpeg') else []
    done, data = cv2.imencode(path.suffix, pixels[..., ::-1] if pixels.ndim == 3 else pixels, options)
    if not done:
        raise ValueError(f'{path.name}: no picture can be written in this format')
    path.write_bytes(data.tobytes())
