"""What a run tells while it goes on: numbers, progress, and where its time goes. The first process tells; the others keep quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from retfound_jax.core import goodput, progress
from retfound_jax.core.errors import UserError
from retfound_jax.core.files import append_line
from retfound_jax.core.runlog import RunLog, truncate_metrics

EVENTS = 'events.jsonl'
BAD_RECORDS = 'bad_records'  # a file for each process


class Journal:
    """The run log, the account of time and the progress bar of one call of `train`."""

    def __init__(self, workdir: Path, *, name: str, images: int, steps: int, writes: bool, began: float | None = None) -> None:
        """Begins the account in the phase `start`.

        Args:
          images: of a step.
          writes: whether this process is the one that writes.
          began: when the process began, by the monotonic clock.
        """
        self._workdir, self._name, self._images, self._steps, self._writes = workdir, name, images, steps, writes
        self.time = goodput.Ledger(workdir if writes else None, began=began)
        self._log: RunLog | None = None
        self._bar: progress.Bar | None = None
        self._clock = _Clock(images)
        self._step: int | None = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.__exit__(kind, error, trace)
        if self._log is not None:
            self._log.close()
        try:
            self.time.close()
        except UserError:
            if error is None:  # else what went wrong first is what is told
                raise

    def go_on(self, step: int) -> None:
        """The run begins, or begins again, after `step`: what was written of later steps is dropped, as they are measured again."""
        if self._step is not None:
            self.time.begin_again()
        self.time.at(step)
        before, self._step = self._step, step
        if not self._writes:
            return
        if self._log is not None:
            self._log.close()
        truncate_metrics(self._workdir, after_step=step)
        self._log = RunLog(self._workdir)
        if self._bar is None:
            self._bar = progress.bar(self._steps * self._images, desc=self._name, initial=step * self._images)
        else:
            self._bar.update((step - before) * self._images)

    def numbers(self, step: int, **scalars: float) -> None:
        """Writes named scalars of a step."""
        if self._log is not None:
            self._log.write(step, **scalars)

    def event(self, event: Mapping[str, Any]) -> None:
        """Writes what happened, and what was done about it, to `WORKDIR/events.jsonl`."""
        if self._writes:
            append_line(self._workdir / EVENTS, {'wall_time': round(time.time(), 3), **event})

    def say(self, sentence: str, event: Mapping[str, Any]) -> None:
        """Tells the user what happened, and keeps it."""
        if self._writes:
            print(f'{self._name}: {sentence}', file=sys.stderr, flush=True)
        self.event(event)

    def stepped(self, step: int, *, steady: bool) -> None:
        """A step was dispatched. steady: nothing but steps since the one before, so that it counts for the speed."""
        self._step = step
        self.time.at(step)
        self._clock.tick(counts=steady)
        if self._bar is not None:
            self._bar.update(self._images)

    def note(self, text: str) -> None:
        """A few words behind the bar."""
        if self._bar is not None:
            self._bar.note(text)

    def saved(self, step: int) -> None:
        """What was written of steps until `step` is on the disk before the checkpoint that relies on it."""
        if self._log is not None:
            self._log.sync()
        self.time.saved(step)

    @property
    def images_per_second(self) -> float:
        """Over the steady steps; 0 where there was none."""
        return self._clock.rate()


class _Clock:
    """Images a second over steady steps: steps that are compiled and pauses for checkpoints are left out."""

    def __init__(self, images: int) -> None:
        self._images, self._steps, self._spent, self._last = images, 0, 0.0, None

    def tick(self, *, counts: bool) -> None:
        now = time.monotonic()
        if self._last is not None and counts:
            self._spent += now - self._last
            self._steps += 1
        self._last = now

    def rate(self) -> float:
        return self._steps * self._images / self._spent if self._spent else 0.0


def ready(arrays: Any) -> bool:
    """Whether the devices are done with these metrics."""
    return all(array.is_ready() for array in arrays.values())
