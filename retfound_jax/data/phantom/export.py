"""A phantom population as a folder of files, in the shape in which people keep their own photographs."""

from __future__ import annotations

import csv
import io
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from retfound_jax.core.config import to_json
from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.core.files import atomic_write
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.data.phantom.patient import table
from retfound_jax.data.phantom.render import draw_eye

Format = Literal['jpg', 'png']
_CHUNK = 8  # [images] handed to a worker at once


def export(
    config: PhantomConfig,
    out: Path | str,
    *,
    kind: Format = 'jpg',
    masks: bool = False,
    workers: int = 1,
    tell: Callable[[int], None] = lambda n: None,
) -> Path:
    """Writes images/, phantom.json, with `masks` also masks/NAME_STRUCTURE.png, and last of all labels.csv; returns the path of that.

    The same configuration gives the same bytes with any number of workers. `tell` hears how many images have been added.

    Raises:
      UsageError: the folder already holds something.
      UserError: a file could not be written.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f'{out} is not an empty folder; choose another --out, or remove it first')
    columns = table(config)
    columns['image'] = np.char.replace(columns['image'], '.jpg', f'.{kind}')
    for folder in ('images', 'masks') if masks else ('images',):
        (out / folder).mkdir(parents=True, exist_ok=True)
    atomic_write(out / 'phantom.json', to_json(config))
    write = partial(_write_photograph, config, out, columns['image'].tolist(), masks=masks)
    for done in _spread(write, len(columns['image']), workers=workers):
        tell(done)
    atomic_write(out / 'labels.csv', _csv(columns))
    return out / 'labels.csv'


def _spread(write: Callable[[int], int], count: int, *, workers: int) -> Iterator[int]:
    if workers <= 1:
        yield from map(write, range(count))
        return
    # Spawned, not forked: a program that has started JAX has threads, and a fork of it may hang.
    spawn = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        yield from pool.map(write, range(count), chunksize=_CHUNK)


def _write_photograph(config: PhantomConfig, out: Path, names: list[str], index: int, *, masks: bool) -> int:
    photograph, path = draw_eye(config, index), out / 'images' / names[index]
    _write_image(path, photograph.image[..., ::-1])
    if masks:
        for name, mask in photograph.masks.items():
            _write_image(out / 'masks' / f'{path.stem}_{name}.png', mask.astype(np.uint8) * 255)
    return 1


def _write_image(path: Path, pixels: np.ndarray) -> None:
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if path.suffix == '.jpg' else []
    _, data = cv2.imencode(path.suffix, pixels, options)
    try:
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise UserError(f'{path} could not be written ({error.strerror}); free some space or choose another --out') from error


def _csv(columns: dict[str, np.ndarray]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        writer.writerow([_cell(value) for value in row])
    return text.getvalue()


def _cell(value: object) -> str:
    if isinstance(value, float):
        return '' if np.isnan(value) else f'{value:g}'
    return str(value)
