"""Many files through `process` on all cores, in chunks that survive an interruption, with no file able to stop the rest.

A chunk is one file of the partial folder: the length of a header (8 bytes), the header as JSON (what became of each source
file), then the encoded pictures one after another. It is written whole or not at all.
"""

from __future__ import annotations

import collections
import concurrent.futures as futures
import dataclasses
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.core.files import atomic_write
from retfound_jax.core.processes import end_with_parent
from retfound_jax.ingest.process import Processed, process
from retfound_jax.ingest.readers import ReadError

CHUNK_FILES = 32
_KILLED = 'stopped the program that read it, for want of memory or by a fault of a decoder'
Process = Callable[..., list[Processed]]
Outcome = tuple[str, list[Processed], str | None]  # the file, its pictures, why there are none


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkOptions:
    """What shapes a picture; chunks made with other options are of no use."""

    shorter_side: int = 256  # [px]
    jpeg_quality: int = 90  # 1 to 100

    def __post_init__(self) -> None:
        """Raises UsageError for what no picture can be made with."""
        if not 1 <= self.jpeg_quality <= 100:
            raise UsageError(f'--jpeg_quality {self.jpeg_quality} is not between 1 and 100')
        if self.shorter_side < 32:
            raise UsageError(f'--size {self.shorter_side} is below 32 px')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chunk:
    """Some files of the source and where their outcome goes."""

    root: str
    files: tuple[str, ...]
    path: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """One processed picture whose bytes are still in a chunk."""

    file: str  # of the source
    info: Processed  # with empty jpeg
    chunk: str
    offset: int
    size: int  # [bytes]

    def jpeg(self) -> bytes:
        """Reads the encoded picture."""
        with open(self.chunk, 'rb') as file:
            file.seek(self.offset)
            return file.read(self.size)


def chunks(root: Path, files: Sequence[str], *, folder: Path) -> list[Chunk]:
    """Cuts the list of files; the cut does not depend on the number of workers."""
    cuts = [tuple(files[start : start + CHUNK_FILES]) for start in range(0, len(files), CHUNK_FILES)]
    return [Chunk(root=str(root), files=cut, path=str(folder / f'{number:07d}.chunk')) for number, cut in enumerate(cuts)]


def run(todo: Sequence[Chunk], *, options: WorkOptions, workers: int, done: Callable[[int], None], process: Process = process) -> None:
    """Makes every chunk that is not there. workers: processes; 0 works in this one. done: told the number of files, now and then.

    Raises:
      UserError: the disk is full.
    """
    left = collections.deque(chunk for chunk in todo if not Path(chunk.path).exists())
    done(sum(len(chunk.files) for chunk in todo) - sum(len(chunk.files) for chunk in left))
    while left and workers == 0:
        chunk = left.popleft()
        _make(chunk, options, process)
        done(len(chunk.files))
    while left:
        for chunk in _parallel(left, options=options, workers=workers, done=done, process=process):
            _one_by_one(chunk, options=options, process=process)
            done(len(chunk.files))


def ensure(chunk: Chunk, *, options: WorkOptions, process: Process = process) -> None:
    """Makes one chunk unless it is there, for a program that others start again where it dies.

    A chunk that was begun and never finished is gone through with care: each file alone in a process, since one of them may be why.
    """
    if Path(chunk.path).exists():
        return
    begun = Path(chunk.path).with_suffix('.begun')
    if begun.exists():
        _one_by_one(chunk, options=options, process=process)
    else:
        begun.touch()
        _make(chunk, options, process)
    begun.unlink(missing_ok=True)


def load(made: Sequence[Chunk]) -> tuple[list[Picture], dict[str, str]]:
    """All pictures, without their bytes, and the reason for each file that gave none."""
    pictures, rejects = [], {}
    for chunk in made:
        with open(chunk.path, 'rb') as file:
            length = int.from_bytes(file.read(8), 'little')
            header = json.loads(file.read(length))
        offset = 8 + length
        for entry in header:
            if entry['reject'] is not None:
                rejects[entry['file']] = entry['reject']
            for size, fields in entry['pictures']:
                info = Processed(**{**fields, 'fov': tuple(fields['fov']), 'jpeg': b''})
                pictures.append(Picture(file=entry['file'], info=info, chunk=chunk.path, offset=offset, size=size))
                offset += size
    return pictures, rejects


def _parallel(left: collections.deque[Chunk], *, options: WorkOptions, workers: int, done: Callable[[int], None],
              process: Process) -> list[Chunk]:
    """Works `left` off; returns early with the chunks in flight where a worker was killed, as one of them holds the culprit."""
    running: dict[futures.Future, Chunk] = {}
    broken: list[Chunk] = []
    pool = _pool(workers)
    try:
        while (left or running) and not broken:
            while left and len(running) < 2 * workers:
                chunk = left.popleft()
                running[pool.submit(_make, chunk, options, process)] = chunk
            for future in futures.wait(running, return_when=futures.FIRST_COMPLETED).done:
                chunk = running.pop(future)
                if isinstance(future.exception(), BrokenProcessPool):
                    broken.append(chunk)
                else:
                    future.result()
                    done(len(chunk.files))
    except BrokenProcessPool:  # the pool broke before this submit, whose chunk was taken from `left`
        broken.append(chunk)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return [chunk for chunk in (*broken, *running.values()) if not Path(chunk.path).exists()]


def _one_by_one(chunk: Chunk, *, options: WorkOptions, process: Process) -> None:
    """A chunk that a worker died on: each file alone in a process, so that only the deadly one is lost."""
    outcomes: list[Outcome] = []
    left, tries = collections.deque(chunk.files), 0
    while left:
        with _pool(1) as pool:
            _check_alive(pool)
            try:
                while left:
                    outcomes.append(pool.submit(outcome, chunk.root, left[0], options, process).result())
                    left.popleft()
                    tries = 0
            except BrokenProcessPool:
                tries += 1
        # Twice, since a process may also be killed for what its neighbour used up.
        if tries == 2:
            outcomes.append((left.popleft(), [], _KILLED))
            tries = 0
    _write(chunk, outcomes)


def _check_alive(pool: futures.ProcessPoolExecutor) -> None:
    try:
        pool.submit(os.getpid).result()
    except BrokenProcessPool as error:
        advice = 'free some memory, or call from a script that has an `if __name__ == "__main__":`'
        raise UserError(f'the processes that read the photographs cannot start on this machine; {advice}') from error


def _make(chunk: Chunk, options: WorkOptions, process: Process) -> None:
    _write(chunk, [outcome(chunk.root, file, options, process) for file in chunk.files])


def outcome(root: str, file: str, options: WorkOptions, process: Process) -> Outcome:
    """What became of one file: its pictures, or the reason why there are none; no file can stop the others."""
    try:
        return file, process(Path(root, file), **dataclasses.asdict(options)), None
    except ReadError as error:
        return file, [], error.reason
    except Exception as error:  # noqa: BLE001 - the one place where a fault, ours or a library's, must not take other people's files along
        return file, [], f'could not be read, for a reason not foreseen ({type(error).__name__}: {error})'


def _write(chunk: Chunk, outcomes: Sequence[Outcome]) -> None:
    header = [{'file': file, 'reject': reject, 'pictures': list(map(_entry, pictures))} for file, pictures, reject in outcomes]
    text = json.dumps(header).encode()
    blobs = (picture.jpeg for _, pictures, _ in outcomes for picture in pictures)
    atomic_write(chunk.path, b''.join([len(text).to_bytes(8, 'little'), text, *blobs]))


def _entry(picture: Processed) -> tuple[int, dict]:
    fields = {field.name: getattr(picture, field.name) for field in dataclasses.fields(picture) if field.name != 'jpeg'}
    return len(picture.jpeg), fields


def _pool(workers: int) -> futures.ProcessPoolExecutor:
    # Spawned, not forked: the caller may hold threads (JAX, a progress bar), and a fork of those can hang.
    return futures.ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context('spawn'), initializer=_begin_worker)


def _begin_worker() -> None:
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    cv2.setNumThreads(1)  # the processes fill the cores
    end_with_parent()

