"""Streams of chunks, made ahead by Grain in threads or in worker processes, and put together to batches.

About a batch is made ahead, so memory holds two or three.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import signal
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import grain
import numpy as np

from retfound_jax.core.errors import UserError
from retfound_jax.core.processes import follow_parent
from retfound_jax.data import chunks as chunking
from retfound_jax.data.chunks import REASON, STOPPED, UNREADABLE, Chunks, Unreadable
from retfound_jax.data.sources import Source

Batch = dict[str, np.ndarray]

_MOST_THREADS = 16
_MOST_BLOCKS = 6  # [batches] kept: those in the making, one in use, one on its way to the device
_SHARED_MEMORY = Path('/dev/shm')
_WORKER_ENDED = re.compile(r'terminated unexpectedly with exit code (-?\d+)')  # how Grain tells it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Made:
    """A batch, and what could not be read for it."""

    batch: Batch
    unreadable: tuple[Unreadable, ...]


class Stream:
    """Batches `first` to `end` - 1 in order. One that is dropped closes itself."""

    def __init__(self, chunks: Chunks, *, source: Source, first: int, end: int | None) -> None:
        self._source, self._count, self._step = source, chunks.host.chunks, first
        numbers = grain.MapDataset.range(first * self._count, sys.maxsize if end is None else end * self._count)
        self._in_place = None if chunks.config.workers else _InPlace(chunks)
        shared = self._in_place is None
        self._iterator = iter(_in_processes(numbers.map(chunks), chunks) if shared else _in_threads(numbers.map(self._in_place), chunks))
        self._close = weakref.finalize(self, self._iterator.close)

    def next(self) -> Made:
        """The next batch.

        Raises:
          UserError: an image cannot be decoded and nothing can stand in for it, or a worker ended.
        """
        chunks = [self._checked(self._chunk()) for _ in range(self._count)]
        unreadable = tuple(one for chunk in chunks for one in chunk.pop(UNREADABLE, ()))
        whole = {'image': self._in_place.take(self._step)} if self._in_place is not None else {}
        self._step += 1
        # What workers send lies in shared memory that lives as long as the array; copied out, it is freed now and not at some later time.
        batch = {name: whole[name] if name in whole else np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
        return Made(batch=batch, unreadable=unreadable)

    def _chunk(self) -> dict[str, Any]:
        try:
            return next(self._iterator)
        except RuntimeError as error:
            ended = _WORKER_ENDED.search(str(error))
            if ended is None:
                raise
            raise UserError(
                f'a process that decodes images ended by itself ({_exit(int(ended[1]))}), most often for want of memory; '
                'set data.workers or data.batch_size lower, or give the machine more memory, and go on with --resume'
            ) from error

    def _checked(self, chunk: dict[str, Any]) -> dict[str, Any]:
        # The failure travels as data: workers know rows, and only this process has the table with their keys.
        if STOPPED in chunk:
            key, reason = self._source.table['key'][chunk[STOPPED]], chunk[REASON]
            raise UserError(f'the image "{key}" cannot be decoded ({reason}); the dataset is damaged: ingest again or remove the image')
        return chunk

    def close(self) -> None:
        """Stops what was started."""
        self._close()


def _exit(code: int) -> str:
    try:
        return signal.Signals(-code).name if code < 0 else f'exit code {code}'
    except ValueError:
        return f'signal {-code}'


class _InPlace:
    """Chunks for threads: those of one batch write side by side into its images, so that nothing is copied to put it together."""

    def __init__(self, chunks: Chunks) -> None:
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


def _in_threads(dataset: grain.MapDataset, chunks: Chunks) -> grain.IterDataset:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    threads = min(_MOST_THREADS, cores)
    return dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + chunks.host.chunks))


def _in_processes(dataset: grain.MapDataset, chunks: Chunks) -> grain.IterDataset:
    workers = chunks.config.workers
    ahead = -(-chunks.host.chunks // workers)
    _check_shared_memory(chunks, held=workers * (2 * ahead + 2))
    _parse_flags()
    made = dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1))
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=ahead)
    return made.mp_prefetch(options, worker_init_fn=_start_worker)


def _check_shared_memory(chunks: Chunks, *, held: int) -> None:
    """Workers hand over through shared memory; where a container gives too little of it, they die without a word."""
    if not _SHARED_MEMORY.is_dir():
        return
    images = held * min(chunking.LARGEST, chunks.host.rows)
    need, free = images * 3 * max(chunks.config.sizes)**2 >> 20, shutil.disk_usage(_SHARED_MEMORY).free >> 20
    if need > free:
        raise UserError(
            f'{chunks.config.workers} workers need {need} MiB of shared memory and {_SHARED_MEMORY} has {free} MiB; '
            'set data.workers lower, or give the container more (docker run --shm-size)'
        )


def _start_worker(index: int, count: int) -> None:
    import cv2

    follow_parent()
    cv2.setNumThreads(1)  # the workers already fill the cores


def _parse_flags() -> None:
    # Grain hands its debug flags to its workers through absl, which refuses to read flags that no main function has parsed.
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
