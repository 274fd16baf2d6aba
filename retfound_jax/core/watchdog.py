"""Ends a process that is stuck, with the stacks of its threads and the name of the host it waits for.

A step in which one host is missing waits for ever inside a collective, where no exception can reach it and no timeout of the runtime holds.
So a thread of its own watches the time, and ends the process with RESTART: the launcher then starts all of them again.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from retfound_jax.core.errors import RESTART

TICK = 0.5  # [s] between looks at the clock
ASKING = 5.0  # [s] that finding out who is behind may take


def nobody() -> str:
    """Who is behind, where nobody can say."""
    return ''


class Watchdog:
    """Watches what the process is doing; one for a process.

    A process that was itself stopped (SIGSTOP, a suspended laptop, a live migration) finds its limit over when it wakes, though nothing is
    stuck: where the thread itself woke far too late, the limit begins anew.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        index: int = 0,
        who: Callable[[], str] = nobody,
        end: Callable[[str], None] | None = None,
        tick: float = TICK,
    ) -> None:
        """Starts the thread.

        Args:
          folder: where `stacks-host-00000.txt` is written; None for the error stream only.
          index: the process' number.
          who: says which host is behind, '' where that is not known; may hang, and is then not waited for.
          end: told the sentence before the process ends; given ASKING [s] as well.
        """
        self._folder, self._index, self._who, self._end, self._tick = folder, index, who, end, tick
        self._lock = threading.Lock()
        self._phases: list[_Phase] = []
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name='watchdog', daemon=True)
        self._thread.start()

    def __enter__(self) -> Watchdog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the watch."""
        self._closed.set()
        self._thread.join()

    @contextlib.contextmanager
    def watch(self, phase: str, *, limit: float) -> Iterator[None]:
        """The process ends if what is inside takes longer than `limit` [s]; 0 is no limit. An outer watch rests meanwhile."""
        mine = _Phase(phase, limit)
        with self._lock:
            self._phases.append(mine)
        try:
            yield
        finally:
            with self._lock:
                self._phases.remove(mine)
                if self._phases:
                    self._phases[-1].begin = time.monotonic()

    def beat(self, step: int) -> None:
        """Something was done: the innermost limit begins anew."""
        with self._lock:
            if self._phases:
                self._phases[-1].begin, self._phases[-1].step = time.monotonic(), step

    @property
    def doing(self) -> str:
        """What the process is at, such as `restore` or `train, step 12`; '' before the first watch."""
        with self._lock:
            return str(self._phases[-1]) if self._phases else ''

    def _run(self) -> None:
        last = time.monotonic()
        while not self._closed.wait(self._tick):
            now = time.monotonic()
            asleep, last = now - last > 4 * self._tick + 2, now
            with self._lock:
                phase = self._phases[-1] if self._phases else None
                if phase and asleep:
                    phase.begin = now
                over = phase is not None and phase.limit > 0 and now - phase.begin > phase.limit
            if phase and over:
                self._expire(phase)

    def _expire(self, phase: _Phase) -> None:
        """Never returns. Each part may fail or hang; the process ends whatever happens."""
        try:
            self._dump(phase)
            behind = _within(self._who, ASKING)
            sentence = f'{phase}: nothing happened for {phase.limit:g} s'
            sentence += f'; {behind}' if behind else ''
            sentence += '; the process ends, to be started again'
            print(sentence, file=sys.stderr, flush=True)
            if self._end is not None:
                _within(lambda: self._end(sentence), ASKING)
            kill_children()
        finally:
            os._exit(RESTART)

    def _dump(self, phase: _Phase) -> None:
        faulthandler.dump_traceback(file=sys.__stderr__, all_threads=True)
        if self._folder is None:
            return
        path = self._folder / f'stacks-host-{self._index:05d}.txt'
        try:
            with open(path, 'a', encoding='utf-8') as file:
                file.write(f'{time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())} {phase}: no progress for {phase.limit:g} s\n')
                file.flush()
                faulthandler.dump_traceback(file=file, all_threads=True)
        except OSError as error:
            print(f'the stacks could not be written to {path} ({error})', file=sys.stderr, flush=True)


class _Phase:
    """What is being done, since when, and for how long at most."""

    def __init__(self, name: str, limit: float) -> None:
        self.name, self.limit, self.begin, self.step = name, limit, time.monotonic(), None

    def __str__(self) -> str:
        return self.name if self.step is None else f'{self.name}, step {self.step}'


def kill_children() -> None:
    """Kills the processes that this one started and that still run, such as data workers."""
    for pid in children():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def children() -> list[int]:
    """Numbers of the processes that this one started; empty where the system has no /proc."""
    found: set[int] = set()
    for path in Path('/proc/self/task').glob('*/children'):
        with contextlib.suppress(OSError):  # a thread that ended meanwhile
            found.update(int(word) for word in path.read_text().split())
    return sorted(found)


def _within(call: Callable[[], str | None], seconds: float) -> str:
    """What `call` says within `seconds`, or ''; it runs in a thread, so that its hanging or failing holds up nothing."""
    said: list[str | None] = []
    thread = threading.Thread(target=lambda: said.append(call()), name='last question', daemon=True)
    thread.start()
    thread.join(seconds)
    return (said[0] or '') if said else ''
