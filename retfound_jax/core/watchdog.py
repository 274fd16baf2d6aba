"""Ends a process that is stuck, with the stacks of its threads and the name of the host it waits for.

A step in which one host is missing waits for ever inside a collective, where no exception can reach it and no timeout of the runtime holds.
So a thread of its own watches the time, and ends the process with RESTART: the launcher then starts all of them again.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from retfound_jax.core.errors import RESTART

TICK = 0.5  # [s] between looks at the clock
ASKING = 15.0  # [s] that finding out who is behind may take, and as much for telling the others; it is a few where all is well there


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
        who: Callable[[], str] | None = None,
        note: Callable[[str, int], None] | None = None,
        end: Callable[[str], None] | None = None,
        tick: float = TICK,
    ) -> None:
        """Starts the thread.

        Args:
          folder: where `stacks-host-00000.txt` is written; None for the error stream only.
          index: the process' number.
          who: says which host is behind, '' where that is not known (hosts.behind); may hang, and is left after ASKING [s].
          note: told what the process is at, whenever that changes (hosts.note).
          end: told the sentence before the process ends (hosts.farewell); left after ASKING [s] as well.
        """
        self.folder, self._index, self._tick = folder, index, tick
        self._who, self._note, self._end = who or (lambda: ''), note or (lambda doing, step: None), end or (lambda sentence: None)
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
        self._note(mine.name, mine.step)
        try:
            yield
        finally:
            with self._lock:
                self._phases.remove(mine)
                outer = self._phases[-1] if self._phases else None
                if outer:
                    outer.begin = time.monotonic()
            if outer:
                self._note(outer.name, outer.step)

    def beat(self, step: int) -> None:
        """A step was done: the innermost limit begins anew."""
        with self._lock:
            phase = self._phases[-1] if self._phases else None
            if phase:
                phase.begin, phase.step = time.monotonic(), step
        if phase:
            self._note(phase.name, step)

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
        """Never returns: whatever fails or hangs here, the process ends."""
        try:
            self._dump(phase)
            behind = _within(self._who, ASKING)
            sentence = f'{phase}: no progress for {phase.limit:g} s{"; " + behind if behind else ""}; the process ends, to be started again'
            with contextlib.suppress(OSError, ValueError):  # nobody may be left to read it
                print(sentence, file=sys.stderr, flush=True)
            _within(lambda: self._end(sentence), ASKING)
            kill_children()
        finally:
            os._exit(RESTART)

    def _dump(self, phase: _Phase) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):  # an error stream that is closed, or is none
            faulthandler.dump_traceback(file=sys.__stderr__, all_threads=True)
        if self.folder is None:
            return
        path = self.folder / f'stacks-host-{self._index:05d}.txt'
        try:
            with open(path, 'a', encoding='utf-8') as file:
                file.write(f'{time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())} {phase}: no progress for {phase.limit:g} s\n')
                file.flush()
                faulthandler.dump_traceback(file=file, all_threads=True)
        except OSError as error:
            print(f'the stacks could not be written to {path} ({error.strerror})', file=sys.stderr, flush=True)


class _Phase:
    """What is being done, since when, and for how long at most."""

    def __init__(self, name: str, limit: float) -> None:
        self.name, self.limit, self.begin, self.step = name, limit, time.monotonic(), -1

    def __str__(self) -> str:
        return self.name if self.step < 0 else f'{self.name}, after step {self.step}'


def kill_children() -> None:
    """Ends the processes that this one started, such as data workers.

    Workers are killed; others are asked to end, since one of them is the interpreter's own resource tracker, which removes shared memory
    that was left behind, ignores the signal, and ends once all users of it have.
    """
    workers = {process.pid for process in multiprocessing.active_children()}
    for pid in workers | set(children()):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL if pid in workers else signal.SIGTERM)


def children() -> list[int]:
    """The numbers of the processes that this one started; empty where the system has no /proc."""
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
