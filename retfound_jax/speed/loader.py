"""What the loader costs, stage by stage, beside limits and a peer measured on the same records in the same run.

Limits are of one thread and of libjpeg-turbo through simplejpeg, with no draw, no record, no batch and no fresh memory around it:
`limit: read` is the bare bytes of one file, `limit: copy` a batch copied in the host's memory;
`limit: decode` the full decode; `limit: decode+resize` that and OpenCV's resize of the very boxes, by the interpolation and to the size
of ours: what the loader is held to. `limit: window` decodes a JPEG that holds nothing but the box, and resizes: no decoder that skips
what is outside the box can be faster, since it must still walk the entropy-coded rows above; the libraries at hand cannot skip.
"""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
import simplejpeg

from retfound_jax.core.errors import UserError
from retfound_jax.core.random import ExampleRng, example_rng
from retfound_jax.data.config import DataConfig
from retfound_jax.data.decode import DecodeFailure, open_image
from retfound_jax.data.loader import Loader
from retfound_jax.data.sources import Source
from retfound_jax.data.transforms import Box, interpolation, random_box, train_image
from retfound_jax.speed import pil_loader
from retfound_jax.speed.measure import Spread, alternate
from retfound_jax.speed.tables import aligned

Record = dict[str, Any]

LIMIT, PEER, ORIGINALS, OURS = 'limit: decode+resize', 'peer: Pillow', 'peer: Pillow, originals', 'batch'
# Each stage to what it is held against; of a stage that contains others, to the whole.
AGAINST = {'read': 'limit: read', 'host to device': 'limit: copy', 'decode': 'limit: decode', 'crop': LIMIT, OURS: LIMIT}
TARGETS = {LIMIT: 0.85, PEER: 4.0, ORIGINALS: 50.0}
_SAMPLE = 512  # [images] of the dataset that a turn of a stage goes through
_FEW = 64  # [images] of it for what is many times slower
_CHUNK = 64  # [images] read at once, as the loader does
_AHEAD = 4  # batches drawn before a turn of the loader, so that none that is counted was made before it
_WINDOW_QUALITY = 90
_SCALING_TURNS = 3  # workers take seconds to start
_STREAM = 0xBE7C


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rate:
    """What one turn took of an image."""

    cpu: float  # [s] of all threads and processes of ours
    wall: float  # [s]


class Sample:
    """Records of a dataset, the boxes that training could cut of them, and each stage as a turn over them."""

    def __init__(self, config: DataConfig, source: Source) -> None:
        """Reads the records.

        Raises:
          UserError: there is no record, or one that is no JPEG or is damaged.
        """
        if len(source) == 0:
            raise UserError(f'the split "{config.split}" has no image to load; name another dataset')
        self.config, self.reader = config, source.reader
        self.rows = np.random.default_rng(0).permutation(len(source))[:_SAMPLE]
        self.datas = self.reader.read(self.rows)
        if not all(isinstance(data, bytes) and simplejpeg.is_jpeg(data) for data in self.datas):
            raise UserError('the limit is that of decoding JPEG, and the data hold other images; ingest them first')
        try:
            images = [open_image(data) for data in self.datas]
            pixels = [image.pixels() for image in images]
        except DecodeFailure as error:
            raise UserError(f'a record cannot be decoded ({error}); the dataset is damaged: ingest again') from error
        self.boxes = [
            random_box(example_rng(_STREAM, 0, row), height=image.height, width=image.width, scale=config.crop_scale)
            for row, image in enumerate(images)
        ]
        self.reductions = [
            image.reduction_for(height=box.height, width=box.width, size=config.image_size)
            for image, box in zip(images, self.boxes, strict=True)
        ]
        windows = [np.ascontiguousarray(_cut(whole, box, 1)) for whole, box in zip(pixels, self.boxes, strict=True)]
        self.windows = [simplejpeg.encode_jpeg(one, quality=_WINDOW_QUALITY, colorspace='RGB', colorsubsampling='420') for one in windows]
        self.shapes = [(image.height, image.width) for image in images]
        self.memory = np.empty(3 * max(height * width for height, width in self.shapes), np.uint8)
        self.out = np.empty((_CHUNK, config.image_size, config.image_size, 3), np.uint8)
        self.kept = np.zeros_like(self.out)
        self.epochs = itertools.count()
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 (it goes with this object)
        self.file.write(b''.join(self.datas))
        self.file.flush()

    def sides(self) -> dict[str, Callable[[], Rate]]:
        """Stages, limits and the peer, by name."""
        return {
            'read': self._timed(self._read),
            'decode': self._timed(self._decode),
            'crop': self._timed(self._crop),
            'host to device': self._timed(self._transfer, count=_CHUNK),
            'limit: read': self._timed(self._limit_read),
            'limit: copy': self._timed(self._limit_copy, count=_CHUNK),
            'limit: decode': self._timed(self._limit_decode),
            LIMIT: self._timed(self._limit),
            'limit: window': self._timed(self._limit_window),
            PEER: self._timed(self._peer, count=min(_FEW, len(self.datas))),
        }

    def _timed(self, work: Callable[[], None], *, count: int | None = None) -> Callable[[], Rate]:
        def turn() -> Rate:
            with _clock(len(self.datas) if count is None else count) as rate:
                work()
            return rate()

        return turn

    def _read(self) -> None:
        for start in range(0, len(self.rows), _CHUNK):
            self.reader.read(self.rows[start : start + _CHUNK])

    def _transfer(self) -> None:
        # A CPU device would take the memory as it is, and the next batch would be written under it.
        jax.block_until_ready(jax.device_put(self.out, may_alias=False))

    def _limit_read(self) -> None:
        start = 0
        for data in self.datas:
            os.pread(self.file.fileno(), len(data), start)
            start += len(data)

    def _limit_copy(self) -> None:
        np.copyto(self.kept, self.out)

    def _decode(self) -> None:
        for data in self.datas:
            open_image(data).pixels(borrow=True)

    def _crop(self) -> None:
        rngs, epoch = ExampleRng(_STREAM), next(self.epochs)
        for place, data in enumerate(self.datas):
            train_image(data, rng=rngs.at(epoch, place), config=self.config, out=self.out[place % _CHUNK])

    def _limit_decode(self) -> None:
        for data in self.datas:
            simplejpeg.decode_jpeg(data, colorspace='RGB', buffer=self.memory)

    def _limit(self) -> None:
        for place, (data, box, shape, by) in enumerate(zip(self.datas, self.boxes, self.shapes, self.reductions, strict=True)):
            smaller = {'min_height': -(-shape[0] // by), 'min_width': -(-shape[1] // by)} if by > 1 else {}
            whole = simplejpeg.decode_jpeg(data, colorspace='RGB', buffer=self.memory, **smaller)
            self._resize(_cut(whole, box, by), place)

    def _limit_window(self) -> None:
        for place, (data, box, by) in enumerate(zip(self.windows, self.boxes, self.reductions, strict=True)):
            smaller = {'min_height': -(-box.height // by), 'min_width': -(-box.width // by)} if by > 1 else {}
            self._resize(simplejpeg.decode_jpeg(data, colorspace='RGB', buffer=self.memory, **smaller), place)

    def _resize(self, pixels: np.ndarray, place: int) -> None:
        size = self.config.image_size
        cv2.resize(pixels, (size, size), dst=self.out[place % _CHUNK], interpolation=interpolation(max(pixels.shape[:2]) / size))

    def _peer(self) -> None:
        pil_loader.batch(self.datas[:_FEW], rng=np.random.default_rng(next(self.epochs)), config=self.config)


def _cut(pixels_HWC: np.ndarray, box: Box, by: int) -> np.ndarray:
    top, left = round(box.top / by), round(box.left / by)
    return pixels_HWC[top : round((box.top + box.height) / by), left : round((box.left + box.width) / by)]


def originals_side(paths: Sequence[Path], *, config: DataConfig, at_once: int = 2) -> Callable[[], Rate]:
    """The peer on photographs as they came: a turn loads `at_once` of them, the next turn the next ones."""
    order = itertools.cycle(paths)

    def turn() -> Rate:
        with _clock(at_once) as rate:
            for path in itertools.islice(order, at_once):
                pil_loader.load_file(path, rng=np.random.default_rng(0), config=config)
        return rate()

    return turn


def stream_side(config: DataConfig, source: Source, *, seconds: float) -> Callable[[], Rate]:
    """The loader: a turn draws batches for `seconds`, one at the least.

    It is opened for the turn and closed after it, since a loader makes batches ahead: those would be made while others are timed.
    """

    def turn() -> Rate:
        loader = Loader(config, source, seed=0)
        try:
            for _ in range(_AHEAD):
                next(loader)
            cpu, wall, count = cpu_seconds(), time.perf_counter(), 0
            while count == 0 or time.perf_counter() - wall < seconds:
                count += len(next(loader)['image'])
            return Rate(cpu=(cpu_seconds() - cpu) / count, wall=(time.perf_counter() - wall) / count)
        finally:
            loader.close()

    return turn


def bench(
    config: DataConfig, source: Source, *, turns: int, seconds: float, workers: Sequence[int], originals: Sequence[Path] = ()
) -> list[Record]:
    """Measures stages, limits and peer in turns, then the loader with each number of workers in turns.

    Args:
      config: with the path of the dataset; its `workers` are not used.
      seconds: of the loader, over all its turns.
      originals: photographs as they came, for the peer.

    Returns:
      A record a stage, limit or peer (images/s of one core and of the clock, ratio to its limit), one a number of workers.

    Raises:
      UserError: the data are missing or damaged.
    """
    alone = dataclasses.replace(config, workers=0)
    sample = Sample(alone, source)
    sides = sample.sides()
    if originals:
        sides[ORIGINALS] = originals_side(originals, config=alone)
    sides[OURS] = stream_side(alone, source, seconds=seconds / turns)
    taken = alternate(turns, sides)
    records = [_stage(name, rates, taken) for name, rates in taken.items()]
    size = statistics.mean(len(data) for data in sample.datas)
    about = {'image_size': config.image_size, 'batch_size': config.batch_size, 'record_bytes': round(size), 'turns': turns}
    return [record | about for record in records + list(_scaling(alone, source, turns=turns, seconds=seconds, workers=workers))]


def _stage(name: str, rates: Sequence[Rate], taken: dict[str, list[Rate]]) -> Record:
    cpu, wall = (Spread.of([1 / max(getattr(rate, clock), 1e-9) for rate in rates]) for clock in ('cpu', 'wall'))
    record: Record = {'kind': 'stage', 'name': name, 'per_core_second': dataclasses.asdict(cpu), 'per_second': dataclasses.asdict(wall)}
    if name in AGAINST:
        record |= {'against': AGAINST[name], 'ratio': ratio(taken[AGAINST[name]], rates)}
    if name == OURS:
        against = [other for other in TARGETS if other in taken]
        record['ratios'] = {other: {'ratio': ratio(taken[other], rates), 'target': TARGETS[other]} for other in against}
    return record


def ratio(others: Sequence[Rate], ours: Sequence[Rate]) -> float:
    """How many times as fast as the others we are a core: the median over the turns, each with the other's turn beside it."""
    return statistics.median(other.cpu / max(our.cpu, 1e-9) for other, our in zip(others, ours, strict=True))


def _scaling(config: DataConfig, source: Source, *, turns: int, seconds: float, workers: Sequence[int]) -> Iterator[Record]:
    turns = min(turns, _SCALING_TURNS)
    sides = {str(count): stream_side(dataclasses.replace(config, workers=count), source, seconds=seconds / turns) for count in workers}
    taken = alternate(turns, sides)
    for name, rates in taken.items():
        cpu, wall = (Spread.of([1 / max(getattr(rate, clock), 1e-9) for rate in rates]) for clock in ('cpu', 'wall'))
        busy = statistics.median(rate.cpu / rate.wall for rate in rates)
        about = {'per_core_second': dataclasses.asdict(cpu), 'per_second': dataclasses.asdict(wall), 'cores_busy': busy}
        yield {'kind': 'workers', 'workers': int(name), **about}


@contextmanager
def _clock(images: int) -> Iterator[Callable[[], Rate]]:
    """Processor and wall time of what is done inside, an image."""
    cpu, wall = cpu_seconds(), time.perf_counter()
    ends: list[float] = []
    yield lambda: Rate(cpu=ends[0] / images, wall=ends[1] / images)
    ends += [cpu_seconds() - cpu, time.perf_counter() - wall]


def cpu_seconds() -> float:
    """[s] of processor time of this process and of the workers it has now; Linux tells of the workers, in hundredths."""
    spent = time.process_time()
    for child in multiprocessing.active_children():
        try:
            fields = Path(f'/proc/{child.pid}/stat').read_text().rpartition(')')[2].split()
        except FileNotFoundError:  # another system, or a worker that has just ended
            continue
        spent += (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')
    return spent


def table(records: Sequence[Record]) -> str:
    """The records for people."""
    rows = [['stage', 'images/s a core', 'quartiles', 'images/s', 'ratio', 'against']]
    for record in (one for one in records if one['kind'] == 'stage'):
        core, wall = record['per_core_second'], record['per_second']
        shown = f'{core["low"]:,.0f}-{core["high"]:,.0f}'
        held = [f'{record["ratio"]:.2f}', record['against']] if 'ratio' in record else ['', '']
        rows.append([record['name'], f'{core["median"]:,.0f}', shown, f'{wall["median"]:,.0f}', *held])
    lines = aligned(rows)
    for record in (one for one in records if one.get('ratios')):
        for other, found in record['ratios'].items():
            lines.append(f'our loader over "{other}", a core: {found["ratio"]:.2f} (target {found["target"]:g})')
    scaling = [one for one in records if one['kind'] == 'workers']
    if scaling:
        rows = [['workers', 'images/s', 'images/s a core', 'cores busy']]
        for one in scaling:
            name = f'{one["workers"]}' if one['workers'] else '0 (threads)'
            wall, core = (f'{one[clock]["median"]:,.0f}' for clock in ('per_second', 'per_core_second'))
            rows.append([name, wall, core, f'{one["cores_busy"]:.2f}'])
        lines += ['', *aligned(rows)]
    for one in (one for one in records if one['kind'] == 'end to end'):
        rates = f'{one["loader"]["median"]:,.1f} images/s from the loader, {one["synthetic"]["median"]:,.1f} synthetic'
        lines += ['', f'training {one["experiment"]}: {rates}: ratio {one["ratio"]:.3f}']
    return '\n'.join(lines)
