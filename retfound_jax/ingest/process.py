"""One file to what a record holds: read, find the field of view, cut, shrink, encode, fingerprint. A pure function of the file's bytes."""
from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from retfound_jax.ingest import fov as fovs
from retfound_jax.ingest import hashes, quality, readers
from retfound_jax.ingest.frame import Frame, ReadError

_LEAST_SPREAD = 4  # [grey levels] between darkest and brightest pixel; less is noise on an empty picture


@dataclasses.dataclass(frozen=True, kw_only=True)
class Processed:
    """One picture, ready for a record, and what its file says about it ('' or NaN where it says nothing)."""

    jpeg: bytes  # square, RGB, 4:2:0
    side: int  # [px] of the encoded square
    source_height: int  # [px] of the original, upright
    source_width: int  # [px]
    frame: int
    modality: str
    laterality: str
    patient: str
    age: float  # [years]
    sex: str
    camera: str
    site: str
    bit_depth: int
    fov: tuple[float, float, float]  # cx, cy, radius in source px; NaN where no circle shows
    pixel_sha256: str
    phash: str
    quality: dict[str, float]


def process(path: Path, *, shorter_side: int = 256, jpeg_quality: int = 90) -> list[Processed]:
    """All pictures of a file. shorter_side [px]: of the result; smaller pictures keep their size. Raises readers.ReadError."""
    frames = read_frames(path, shorter_side=shorter_side)
    return [_process(frame, shorter_side=shorter_side, jpeg_quality=jpeg_quality) for frame in frames]


def read_frames(path: Path, *, shorter_side: int | None = None) -> list[Frame]:
    """As `readers.read`, and a picture whose pixels are all alike is none. Raises readers.ReadError."""
    path = Path(path)
    frames = readers.read(path, shorter_side=shorter_side)
    for frame in frames:
        if int(np.ptp(frame.pixels)) < _LEAST_SPREAD:
            place = f' (picture {frame.frame + 1} of {len(frames)})' if len(frames) > 1 else ''
            raise ReadError(f'is blank{place}: all its pixels are alike', name=path.name)
    return frames


def _process(frame: Frame, *, shorter_side: int, jpeg_quality: int) -> Processed:
    circle, square = _cut(frame)
    small = _shrink(square, shorter_side=shorter_side)
    source = circle and circle.scaled(frame.source_height / frame.pixels.shape[0])
    fields = {field.name: getattr(frame, field.name) for field in dataclasses.fields(frame) if field.name != 'pixels'}
    return Processed(
        jpeg=simplejpeg.encode_jpeg(small, quality=jpeg_quality, colorspace='RGB', colorsubsampling='420'),
        side=small.shape[0],
        fov=(source.cx, source.cy, source.radius) if source else (math.nan,) * 3,
        pixel_sha256=hashes.pixel_sha256(frame.pixels),
        phash=hashes.phash256(frame.pixels, fov=circle),
        quality=quality.measure(frame.pixels, circle),
        **fields,
    )


def _cut(frame: Frame) -> tuple[fovs.Fov | None, np.ndarray]:
    circle = None if frame.modality in ('OCT', 'ENFACE', 'UWF') else fovs.find(frame.pixels)
    return circle, fovs.crop_square(frame.pixels, circle, modality=frame.modality)


def _shrink(square: np.ndarray, *, shorter_side: int) -> np.ndarray:
    if square.shape[0] <= shorter_side:
        return square
    return cv2.resize(square, (shorter_side, shorter_side), interpolation=cv2.INTER_AREA)
