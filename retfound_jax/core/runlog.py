"""What a run measured: one JSON object a line, and the same numbers for TensorBoard."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from retfound_jax.core.errors import UserError
from retfound_jax.core.files import atomic_write, cut_half_line, unwritable

METRICS = 'metrics.jsonl'
_EVERY = 30.0  # [s] between flushes of what TensorBoard reads


class RunLog:
    """Appends scalars to `WORKDIR/metrics.jsonl` and to a TensorBoard event file under `WORKDIR/tensorboard`.

    `wall_time` is what the clock of the machine said: it may go back, and nothing is computed from it.
    """

    def __init__(self, workdir: Path | str, *, tensorboard: bool = True) -> None:
        """Opens the files; a line that a crash cut is removed, lest the next one be joined to it.

        Raises:
          UserError: they cannot be written.
        """
        self._path = Path(workdir) / METRICS
        self._events: Any = None
        self._flushed = time.monotonic()
        with self._writing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, 'a+b')
        try:
            with self._writing(self._path):
                cut_half_line(self._file)
            if tensorboard:
                folder = self._path.parent / 'tensorboard'
                with self._writing(folder):
                    self._events = _open_events(folder)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Closes; where another error is on its way, that one is told."""
        try:
            self.close()
        except UserError:
            if error is None:
                raise

    def write(self, step: int, **scalars: float) -> None:
        """Writes named scalars of a step; a value that is not finite is written as null (JSON has no NaN).

        Raises:
          UserError: the disk is full, or the file cannot be written any more.
        """
        now = time.time()
        numbers = {name: float(value) for name, value in scalars.items()}
        rows = [
            {'step': int(step), 'wall_time': round(now, 3), 'name': name, 'value': number if math.isfinite(number) else None}
            for name, number in numbers.items()
        ]
        with self._writing(self._path):
            self._file.write(''.join(json.dumps(row) + '\n' for row in rows).encode())
            self._file.flush()
        if self._events is not None:
            with self._writing(self._path.parent / 'tensorboard'):
                for name, number in numbers.items():
                    self._events.write_event(_event(name, number, step=int(step), wall_time=now))
                if time.monotonic() - self._flushed > _EVERY:
                    self._events.flush()
                    self._flushed = time.monotonic()

    def sync(self) -> None:
        """Returns once all lines are on the disk: called before a checkpoint is committed, so that no step of it is missing in the log.

        Raises:
          UserError: they cannot be, or somebody removed the file.
        """
        with self._writing(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
            if not os.path.samestat(os.stat(self._path), os.fstat(self._file.fileno())):
                raise UserError(f'{self._path} was replaced while the run was going on; leave it in place, and go on with --resume')
            if self._events is not None:
                self._events.flush()

    def close(self) -> None:
        """Flushes and closes both files; a second time does nothing.

        Raises:
          UserError: what was left could not be written.
        """
        events, self._events = self._events, None
        try:
            if events is not None:
                with self._writing(self._path.parent / 'tensorboard'):
                    events.close()
        finally:
            with self._writing(self._path):
                self._file.close()

    @contextlib.contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise unwritable(path, error) from error


def _open_events(folder: Path) -> Any:
    """The writer of one event file. tensorboardX's usual one writes in a thread, and waits for ever where that has failed."""
    from tensorboardX.event_file_writer import EventsWriter

    folder.mkdir(parents=True, exist_ok=True)
    return EventsWriter(str(folder / 'events'), filename_suffix=f'.{os.getpid()}')


def _event(name: str, value: float, *, step: int, wall_time: float) -> Any:
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.summary import scalar

    return Event(summary=scalar(name, value), step=step, wall_time=wall_time)


def truncate_metrics(workdir: Path | str, *, after_step: int) -> None:
    """Drops lines of steps later than `after_step`: a resumed run measures those again and each step stays written once."""
    path = Path(workdir) / METRICS
    if path.exists():
        kept = [row for row in read_metrics(workdir) if row['step'] <= after_step]
        atomic_write(path, ''.join(json.dumps(row) + '\n' for row in kept))


def read_metrics(workdir: Path | str) -> list[dict]:
    """Reads `metrics.jsonl`; a last line cut by a crash is left out, a damaged line elsewhere is an error.

    Raises:
      UserError: a line other than the last is not JSON.
    """
    path = Path(workdir) / METRICS
    if not path.exists():
        return []
    lines = path.read_text(encoding='utf-8').splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise UserError(f'{path} line {number} is not JSON; the file is damaged, remove that line') from error
    return rows
