"""What a caller hands over (arrays, paths) to encoded pictures or pixels; refused in one sentence where it is something else.

B batch, H W image height and width [px].
"""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.ingest.frame import ReadError, check_size
from retfound_jax.ingest.process import process, read_frames

Crop = Literal['fov', 'none']
Image = np.ndarray | Path
CROPS: tuple[Crop, ...] = ('fov', 'none')
_MOST_THREADS = 8
_T = TypeVar('_T')


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture of a file."""

    data: bytes | np.ndarray  # as a dataset of ours would hold it, or the pixels as they are
    frame: int  # place in the file, from 0
    patient: str  # as the file's header names it, '' where it does not


def read_pictures(path: Path, *, crop: Crop, size: int) -> list[Picture]:
    """All pictures of a PNG, JPEG, TIFF or DICOM file.

    Args:
      crop: 'fov' does what `retfound ingest` does: the field of view cut out, the square shrunk to `size` and encoded, so the result
        equals that of a dataset. 'none' leaves the picture as it is, for photographs that another tool has cut.
      size: shorter side that is kept [px], as ingest's --size.

    Raises:
      ReadError: the file gives no picture.
    """
    if crop == 'fov':
        return [Picture(data=made.jpeg, frame=made.frame, patient=made.patient) for made in process(path, shorter_side=size)]
    return [Picture(data=frame.pixels, frame=frame.frame, patient=frame.patient) for frame in read_frames(path)]


def read_one(path: Path, *, place: int, crop: Crop, size: int) -> bytes | np.ndarray:
    """The picture of a file that holds one. Errors name the image by its place: a file's name may be a person's.

    Raises:
      UserError: the file gives no picture, or several.
    """
    try:
        pictures = read_pictures(path, crop=crop, size=size)
    except ReadError as error:
        raise UserError(f'images[{place}] {error.reason}; leave it out or give another file') from error
    if len(pictures) > 1:
        raise UserError(f'images[{place}] holds {len(pictures)} pictures; give one as an array, or use `retfound predict` for all of them')
    return pictures[0].data


def as_images(images: Any) -> list[Image]:
    """One image or several as a list of uint8 [H, W, 3] and paths, each looked at before any work.

    Raises:
      UsageError: naming the first that is no image, and what to do.
    """
    if isinstance(images, (str, os.PathLike)):
        images = [images]
    elif _is_array(images):
        images = np.asarray(images)
        _check_dtype(images, name='images')
        images = [images] if images.ndim == 3 else list(images) if images.ndim == 4 else [images]
    elif not isinstance(images, Sequence):
        raise UsageError(f'images is a {type(images).__name__}; give one uint8 array, or a list of arrays or of paths')
    if not len(images):
        raise UsageError('there is no image in images; give at least one')
    return [_one(image, name=f'images[{place}]') for place, image in enumerate(images)]


def in_order(tasks: Iterable[Callable[[], _T]], *, ahead: int = 0) -> Iterator[_T]:
    """Results of the tasks, in order, worked out by threads that run at most `ahead` tasks before the reader."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    threads = min(_MOST_THREADS, cores)
    waiting: collections.deque[Future[_T]] = collections.deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix='photographs')
    try:
        for task in tasks:
            waiting.append(pool.submit(task))
            if len(waiting) > max(ahead, threads):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _one(image: Any, *, name: str) -> Image:
    if isinstance(image, (str, os.PathLike)):
        path = Path(image).expanduser()
        if path.is_dir():
            raise UsageError(f'{name} is a folder; give its files, or call `retfound predict --source` on it')
        if not path.is_file():
            raise UsageError(f'{name} names a file that does not exist; correct the path')
        return path
    if not _is_array(image):
        raise UsageError(f'{name} is a {type(image).__name__}; give a uint8 array [height, width, 3] or the path of a photograph')
    pixels = np.asarray(image)
    _check_dtype(pixels, name=name)
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise UsageError(f'{name} has the shape {list(pixels.shape)}; give [height, width, 3], red green blue{_hint(pixels)}')
    try:
        check_size(*pixels.shape[:2])
    except ReadError as error:
        raise UsageError(f'{name} {error.reason}; give a whole photograph') from error
    return pixels


def _is_array(value: Any) -> bool:
    return hasattr(value, '__array__') or hasattr(value, '__array_interface__')


def _check_dtype(pixels: np.ndarray, *, name: str) -> None:
    if pixels.dtype == np.uint8:
        return
    hint = ''
    if pixels.dtype.kind == 'f':
        hint = ', such as (255 * images).round().astype(np.uint8) where they run from 0 to 1'
    raise UsageError(f'{name} is of {pixels.dtype}; give uint8 from 0 to 255, not normalised{hint}')


def _hint(pixels: np.ndarray) -> str:
    if pixels.ndim == 2:
        return ': a grey picture as np.stack([x] * 3, axis=-1)'
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        return ': drop the fourth channel with x[..., :3]'
    if pixels.ndim == 3 and pixels.shape[0] == 3:
        return ': channels go last, np.moveaxis(x, 0, -1)'
    return ''
