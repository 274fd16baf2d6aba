"""Photographs that are not there: facts from a hash of the file's name, to see what an ingest costs beside reading photographs."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import simplejpeg

from retfound_jax.ingest.process import Processed
from retfound_jax.ingest.source import Listing, SourceFile

SIDE = 8  # [px]
_EVERY = 100  # of so many photographs, one is a copy of the one before, and one looks like it


def listing(count: int) -> Listing:
    """The files `0000000.jpg` and so on."""
    return Listing(files=tuple(SourceFile(path=f'{n:09d}.jpg', size=1, modified=1) for n in range(count)), refused={}, ignored=0)


def process(path: Path, **options: int) -> list[Processed]:
    """As `process.process`, of a file of `listing`: two photographs a patient; of a hundred, one is a copy and one a near copy."""
    number = int(path.stem)
    copied = number % _EVERY == 2
    near = number % _EVERY == 52
    digest = hashlib.sha256(f'{number - (copied or near)}'.encode()).digest()
    look = bytearray(digest)
    look[number // _EVERY % 32] ^= 0b101 * near
    pixels = np.frombuffer(digest * 6, np.uint8).reshape(SIDE, SIDE, 3)
    jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=options['jpeg_quality'], colorspace='RGB', colorsubsampling='420')
    return [Processed(
        jpeg=jpeg,
        side=SIDE, source_height=SIDE, source_width=SIDE, frame=0, modality='CFP', laterality='LR'[number % 2], patient=f'p{number // 2}',
        age=20.0 + number // 2 % 70, sex='FM'[number // 2 % 2], camera='synthetic', site=f'site {number // 2 % 20}', bit_depth=8,
        fov=(math.nan,) * 3, pixel_sha256=hashlib.sha256(digest + b'near' * near).hexdigest(), phash=bytes(look).hex(),
        quality={'sharpness': digest[0] / 256, 'brightness': digest[1] / 256},
    )]
