"""Batches. Which images stand in the batch of a step, in which order and how augmented, is a pure function of (seed, step).

Grain runs the decoding: in threads, or in worker processes. Its elements are chunks of a batch, numbered from 0, and every chunk is
computed from its number alone; so the stream is the same for any number of workers, it resumes anywhere, and the hosts' parts of a
batch join to the same global batch whatever their number. About a batch is made ahead, so memory holds two or three.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import grain
import numpy as np

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.core.random import ExampleRng
from retfound_jax.data.config import DataConfig
from retfound_jax.data.decode import DecodeFailure
from retfound_jax.data.order import rows_at
from retfound_jax.data.sources import Reader, Source
from retfound_jax.data.transforms import eval_image, train_image

Batch = dict[str, np.ndarray]

_CHUNK = 64  # [images] at most in what one thread or process makes at a time
_MOST_THREADS = 16
_MOST_BLOCKS = 6  # [batches] kept: those in the making, one in use, one on its way to the device
_SHARED_MEMORY = Path('/dev/shm')
_STREAM = 0xDA7A  # keeps these random numbers apart from others drawn from the same seed
_FAILED, _REASON = 'failed_row', 'reason'


class Loader:
    """Endless batches for training. Iterate it, or save `state()` and go on from it with `restore`.

    A batch is a dict of `image` uint8 [b, S, S, 3], `index` int64 [b] (row of the source) and `labels` float32 [b, Y] (NaN missing), S
    being the size of its step (`config.size_at`) and b this host's part of the `config.decoded` images: host h has rows h*b to (h+1)*b.
    Epochs follow each other without a gap, so that a batch may hold the end of one and the start of the next, and a source smaller than
    a batch works.
    """

    def __init__(self, config: DataConfig, source: Source, *, seed: int, process_index: int = 0, process_count: int = 1) -> None:
        """Opens nothing yet; the first `next` starts the workers.

        Raises:
          UserError: the source is empty.
          UsageError: the hosts cannot share the batch equally.
        """
        if len(source) == 0:
            raise UserError(f'the split "{config.split}" has no image to train on')
        self._config, self._source, self._seed = config, source, seed
        self._host = _Host.of(dataclasses.replace(config, batch_size=config.decoded, repeat=1), index=process_index, count=process_count)
        self._chunks = _TrainChunks(config=config, reader=source.reader, labels=source.labels, host=self._host, seed=seed)
        self._step = 0
        self._stream: _Stream | None = None

    @property
    def step(self) -> int:
        """Batches given so far; the next batch is that of this step, counted from 0."""
        return self._step

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
          UserError: an image cannot be decoded; its key is named.
        """
        if self._stream is None:
            self._stream = _Stream(self._chunks, source=self._source, first=self._step, end=None)
        batch = self._stream.next()
        self._step += 1
        return batch

    def state(self) -> dict[str, Any]:
        """Where the stream stands and which stream it is, as JSON values."""
        return {'step': self._step, 'seed': self._seed, 'fingerprint': self._source.fingerprint, 'batch_size': self._host.batch_size}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a saved state.

        Raises:
          UserError: the state belongs to another seed, other data or another batch size.
        """
        here = self.state()
        for name, what in (('fingerprint', 'other data'), ('seed', 'another seed'), ('batch_size', 'another batch size')):
            if state.get(name) != here[name]:
                raise UserError(
                    f'the saved position in the data belongs to {what} ({name} {state.get(name)}, here {here[name]}); '
                    'go on with the same configuration or start a new run'
                )
        self.close()
        self._step = int(state['step'])

    def close(self) -> None:
        """Stops threads and workers; a later `next` starts them again."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def eval_batches(config: DataConfig, source: Source, *, process_index: int = 0, process_count: int = 1) -> Iterator[Batch]:
    """Every row once, in order, by the evaluation transform, plus `mask` bool [b]: False for the rows that fill up the last batch.

    Filling rows have `index` -1, black pixels and NaN labels. All hosts get the same number of batches.

    Raises:
      UserError: an image cannot be decoded; its key is named.
      UsageError: the hosts cannot share the batch equally.
    """
    host = _Host.of(config, index=process_index, count=process_count)
    chunks = _EvalChunks(config=config, reader=source.reader, labels=source.labels, host=host)
    batches = -(-len(source) // config.batch_size)
    stream = _Stream(chunks, source=source, first=0, end=batches)
    try:
        for _ in range(batches):
            yield stream.next()
    finally:
        stream.close()


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Host:
    """This host's part of each batch, and the chunks it is made in."""

    batch_size: int  # of all hosts
    first: int  # place of this host's first row in the batch
    rows: int
    chunks: int

    @classmethod
    def of(cls, config: DataConfig, *, index: int, count: int) -> _Host:
        rows, rest = divmod(config.batch_size, count)
        if rest or not 0 <= index < count:
            raise UsageError(f'data.batch_size is {config.batch_size} and {count} hosts cannot share it equally; use a multiple of it')
        return cls(batch_size=config.batch_size, first=index * rows, rows=rows, chunks=-(-rows // _CHUNK))

    def positions(self, number: int) -> np.ndarray:
        """Places in the endless stream of the rows of a chunk."""
        step, chunk = divmod(number, self.chunks)
        here = self.span(chunk)
        return step * self.batch_size + self.first + np.arange(here.start, here.stop, dtype=np.int64)

    def span(self, chunk: int) -> slice:
        """Rows of the host's part of a batch that its chunk of that place holds."""
        return slice(self.rows * chunk // self.chunks, self.rows * (chunk + 1) // self.chunks)


class _Chunks(Protocol):
    """Chunks by number. They travel to worker processes."""

    config: DataConfig
    host: _Host

    def size(self, number: int) -> int:
        """Side of the images of the chunk of that number [px]."""
        ...

    def __call__(self, number: int, image: np.ndarray | None = None) -> dict[str, Any]:
        """The chunk of that number, its images written into `image` if given, or what went wrong under `failed_row` and `reason`."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class _TrainChunks:
    config: DataConfig
    reader: Reader
    labels: np.ndarray
    host: _Host
    seed: int

    def size(self, number: int) -> int:
        return self.config.size_at(number // self.host.chunks)

    def __call__(self, number: int, image: np.ndarray | None = None) -> dict[str, Any]:
        epochs, rows = rows_at(self.host.positions(number), rows=len(self.labels), seed=self.seed)
        size, config, rngs = self.size(number), self.config, ExampleRng(self.seed ^ _STREAM << 40)
        if config.resolution:
            config = dataclasses.replace(config, image_size=size, resolution=())
        image = np.empty((len(rows), size, size, 3), np.uint8) if image is None else image
        for out, data, epoch, row in zip(image, self.reader.read(rows), epochs.tolist(), rows.tolist(), strict=True):
            try:
                train_image(data, rng=rngs.at(epoch, row), config=config, out=out)
            except DecodeFailure as error:
                return {_FAILED: row, _REASON: str(error)}
        return {'image': image, 'index': rows, 'labels': self.labels[rows]}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _EvalChunks:
    config: DataConfig
    reader: Reader
    labels: np.ndarray
    host: _Host

    def size(self, number: int) -> int:
        return self.config.image_size

    def __call__(self, number: int, image: np.ndarray | None = None) -> dict[str, Any]:
        places = self.host.positions(number)
        mask = places < len(self.labels)
        rows = places[mask]
        size = self.config.image_size
        image = np.empty((len(places), size, size, 3), np.uint8) if image is None else image
        image[~mask] = 0
        labels = np.full((len(places), self.labels.shape[1]), np.nan, np.float32)
        labels[mask] = self.labels[rows]
        for place, (data, row) in enumerate(zip(self.reader.read(rows), rows.tolist(), strict=True)):
            try:
                image[place] = eval_image(data, size=size, share=self.config.central_share)
            except DecodeFailure as error:
                return {_FAILED: row, _REASON: str(error)}
        return {'image': image, 'index': np.where(mask, places, -1), 'labels': labels, 'mask': mask}


class _InPlace:
    """Chunks for threads: those of one batch write side by side into its images, so that nothing is copied to put it together."""

    def __init__(self, chunks: _Chunks) -> None:
        self._chunks, self._lock = chunks, threading.Lock()
        self._images: dict[int, np.ndarray] = {}
        self._memory = _Memory()

    def __call__(self, number: int) -> dict[str, Any]:
        """The chunk of that number, its `image` a part of the batch's."""
        host, size = self._chunks.host, self._chunks.size(number)
        step, chunk = divmod(number, host.chunks)
        with self._lock:
            if step not in self._images:
                self._images[step] = self._memory.take((host.rows, size, size, 3))
            images = self._images[step]
        return self._chunks(number, images[host.span(chunk)])

    def take(self, step: int) -> np.ndarray:
        """The images of a batch whose chunks are all there."""
        with self._lock:
            return self._images.pop(step)


def _references(blocks: list[np.ndarray]) -> list[int]:
    return [sys.getrefcount(block) for block in blocks]


_UNHELD = _references([np.empty(0, np.uint8)])[0]  # of what only its list holds: versions of Python count the asking differently


class _Memory:
    """Images of batches that nobody holds any more are written anew: fresh pages, which the system clears first, cost a tenth of a batch.

    Whoever uses the memory holds a reference to the array or to a view of it, as with memory that is freed with its last reference.
    """

    def __init__(self) -> None:
        self._blocks: list[np.ndarray] = []

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        """An array of uint8 whose values are anything."""
        self._blocks = [block for block in self._blocks if block.shape == shape]
        for block, references in zip(self._blocks, _references(self._blocks), strict=True):
            if references == _UNHELD:
                return block.view()
        block = np.empty(shape, np.uint8)
        if len(self._blocks) < _MOST_BLOCKS:
            self._blocks.append(block)
        return block.view()


class _Stream:
    """Batches `first` to `end` - 1 in order, their chunks made ahead by Grain in threads or processes."""

    def __init__(self, chunks: _Chunks, *, source: Source, first: int, end: int | None) -> None:
        self._source, self._count, self._step = source, chunks.host.chunks, first
        numbers = grain.MapDataset.range(first * self._count, sys.maxsize if end is None else end * self._count)
        self._in_place = None if chunks.config.workers else _InPlace(chunks)
        shared = self._in_place is None
        self._iterator = iter(_in_processes(numbers.map(chunks), chunks) if shared else _in_threads(numbers.map(self._in_place), chunks))

    def next(self) -> Batch:
        """The next batch.

        Raises:
          UserError: an image cannot be decoded.
        """
        chunks = [self._checked(next(self._iterator)) for _ in range(self._count)]
        whole = {'image': self._in_place.take(self._step)} if self._in_place is not None else {}
        self._step += 1
        # What workers send lies in shared memory that lives as long as the array; copied out, it is freed now and not at some later time.
        return {name: whole[name] if name in whole else np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}

    def _checked(self, chunk: dict[str, Any]) -> Batch:
        # The failure travels as data: workers know rows, and only this process has the table with their keys.
        if _FAILED in chunk:
            key, reason = self._source.table['key'][chunk[_FAILED]], chunk[_REASON]
            raise UserError(f'the image "{key}" cannot be decoded ({reason}); the dataset is damaged: ingest again or remove the image')
        return chunk

    def close(self) -> None:
        """Stops what was started."""
        self._iterator.close()


def _in_threads(dataset: grain.MapDataset, chunks: _Chunks) -> grain.IterDataset:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    threads = min(_MOST_THREADS, cores)
    return dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + chunks.host.chunks))


def _in_processes(dataset: grain.MapDataset, chunks: _Chunks) -> grain.IterDataset:
    workers = chunks.config.workers
    ahead = -(-chunks.host.chunks // workers)
    _check_shared_memory(chunks, held=workers * (2 * ahead + 2))
    _parse_flags()
    made = dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1))
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=ahead)
    return made.mp_prefetch(options, worker_init_fn=_start_worker)


def _check_shared_memory(chunks: _Chunks, *, held: int) -> None:
    """Workers hand over through shared memory; where a container gives too little of it, they die without a word."""
    if not _SHARED_MEMORY.is_dir():
        return
    images = held * min(_CHUNK, chunks.host.rows)
    need, free = images * 3 * chunks.config.image_size**2 >> 20, shutil.disk_usage(_SHARED_MEMORY).free >> 20
    if need > free:
        raise UserError(
            f'{chunks.config.workers} workers need {need} MiB of shared memory and {_SHARED_MEMORY} has {free} MiB; '
            'set data.workers lower, or give the container more (docker run --shm-size)'
        )


def _start_worker(index: int, count: int) -> None:
    """One thread for OpenCV: the workers already fill the cores."""
    import cv2

    cv2.setNumThreads(1)


def _parse_flags() -> None:
    # Grain hands its debug flags to its workers through absl, which refuses to read flags that no main function has parsed.
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
